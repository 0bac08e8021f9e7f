"""Fields: what the parts of a parsed file hold, checked: a file need not be as a library wrote it.

The functions raise ValueError, whose text names the field.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve_service.models.errors import ModelFileError
from sealserve_service.models.limits import MAX_PARSED_VALUES, check_limit

_MOST_LISTED = 10
_MOST_CHARACTERS = 100


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Name the file in errors about what it holds.

    Raises:
        ModelFileError: it does not hold a model that can be served.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} cannot be served as {what}: {error}") from error


def parsed_json(content: bytes) -> Any:
    """Parse JSON.

    Raises:
        ModelTooLargeError: it has too many values: each takes a hundred bytes and more.
        ValueError: it is no JSON, or its values are nested too deeply.
    """
    # Each value but the first follows one of these. Those within strings are counted, too.
    check_limit("values in JSON", MAX_PARSED_VALUES, sum(map(content.count, (b",", b"[", b"{"))))
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


class Unknown:
    """Fields that are not known, of all parts of a file.

    Args:
        writer: what wrote the file, with its version.
    """

    def __init__(self, writer: str) -> None:
        self._writer = writer
        self._names = dict[str, None]()  # in their order

    def members(self, value: Any, what: str, known: Collection[str]) -> dict[str, Any]:
        """Return a part's fields by name, and take down those that are not known."""
        found = members(value, what)
        for name in found:
            if name not in known:
                self.add(f"{what}.{name}")
        return found

    def add(self, name: str) -> None:
        """Take down a field that is not known."""
        self._names[name] = None

    def check(self) -> None:
        """Raise ValueError if there is a field that is not known: it may change predictions."""
        if self._names:
            listed = ", ".join(name[:_MOST_CHARACTERS] for name in list(self._names)[:_MOST_LISTED])
            more = f" and {len(self._names) - _MOST_LISTED} more" if len(self._names) > _MOST_LISTED else ""
            raise ValueError(
                f"these fields are unknown: {listed}{more}. It was written by {self._writer}, and what they change "
                "in predictions is not known here: save it with an older version of the library"
            )


def members(value: Any, what: str) -> dict[str, Any]:
    """Return the fields of a part by their names."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object with fields")
    return value


def field(owner: dict[str, Any], name: str) -> Any:
    """Return a field that has to be there."""
    if name not in owner:
        raise ValueError(f"the field {name} is missing")
    return owner[name]


def listed(owner: dict[str, Any], name: str) -> list[Any]:
    """Return a field that is a list of any values."""
    value = field(owner, name)
    if isinstance(value, np.ndarray):
        return value.tolist()  # type: ignore[no-any-return]
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")
    return value


def text(owner: dict[str, Any], name: str) -> str:
    """Return a field that is a string."""
    value = field(owner, name)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no string")
    return value


def texts(owner: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return a field that is a list of strings."""
    values = listed(owner, name)
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} has values that are no strings")
    return tuple(values)


def whole(value: Any, what: str, least: int = 0, most: int = 2**31 - 1) -> int:
    """Return an integer, which may be written as a string, in its range."""
    try:
        found = int(value) if isinstance(value, str) and len(value) < 20 else value
    except ValueError:
        found = None
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        raise ValueError(f"{what} is no integer of {least} to {most}")
    return found


def number(value: Any, what: str) -> float:
    """Return a finite number, which may be written as a string."""
    return float(vector([value if isinstance(value, int | float) else _float(value, what)], what)[0])


def vector(value: Any, what: str, *, count: int | None = None, is_finite: bool = True) -> NDArray[np.float64]:
    """Return a list of numbers as floats: (count,), or of any length."""
    found = _array(value, what, "biuf").astype(np.float64)
    _check_count(found, what, count)
    if is_finite and not np.isfinite(found).all():
        raise ValueError(f"{what} has a value that is not finite")
    return found


def integers(value: Any, what: str, *, count: int | None = None) -> NDArray[np.intp]:
    """Return a list of integers: (count,), or of any length."""
    found = _array(value, what, "biu")
    _check_count(found, what, count)
    if found.dtype.kind == "u" and found.dtype.itemsize == 8:
        raise ValueError(f"{what} has a value of more than 63 bits")
    return found.astype(np.intp)


def _float(value: Any, what: str) -> float:
    if not isinstance(value, str) or len(value) > _MOST_CHARACTERS:
        raise ValueError(f"{what} is no number")
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{what} is no number") from None


def _array(value: Any, what: str, kinds: str) -> NDArray[Any]:
    if isinstance(value, np.ndarray):  # of a binary file: always of numbers
        found = value
    # NumPy makes an array of any list: of one long string and many short ones, as many long ones.
    elif isinstance(value, list) and set(map(type, value)) <= {bool, int, float}:
        found = np.array(value) if value else np.empty(0, np.intp)
    else:
        raise ValueError(f"{what} is no list of numbers")
    if found.ndim != 1 or (found.size and found.dtype.kind not in kinds):
        raise ValueError(f"{what} is no list of {'integers' if 'f' not in kinds else 'numbers'}")
    return found


def _check_count(found: NDArray[Any], what: str, count: int | None) -> None:
    if count is not None and len(found) != count:
        raise ValueError(f"{what} has {len(found)} values instead of {count}")
