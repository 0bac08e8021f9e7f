"""UBJSON: the binary form of JSON that XGBoost writes.

A value begins with a byte that tells its type. Numbers are big-endian. A list may give its length
and the one type of its values, which then follow without such bytes: it becomes an array that
shares the file's memory. Source: Draft 12 of the specification, ubjson.org.
"""

from typing import Any

import numpy as np

from sealserve_service.models.limits import MAX_NESTING, MAX_OBJECTS, check_limit

_NUMBERS: dict[bytes, np.dtype[Any]] = {
    b"i": np.dtype(">i1"),
    b"U": np.dtype(">u1"),
    b"I": np.dtype(">i2"),
    b"l": np.dtype(">i4"),
    b"L": np.dtype(">i8"),
    b"d": np.dtype(">f4"),
    b"D": np.dtype(">f8"),
}
_CONSTANTS = {b"Z": None, b"T": True, b"F": False}


def parsed_ubjson(content: bytes) -> Any:
    """Parse a file of one value.

    Raises:
        ModelTooLargeError: it has too many values, arrays counted as one.
        ValueError: it is no UBJSON, or its values are nested too deeply.
    """
    reader = _Reader(content)
    value = reader.value(reader.take(1), MAX_NESTING)
    if reader.at != len(content):
        raise ValueError("there are bytes after its value")
    return value


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0
        self._value_count = 0

    def take(self, count: int) -> bytes:
        """Take the next bytes."""
        if not 0 <= count <= len(self._content) - self.at:
            raise ValueError("it ends in the middle of a value")
        self.at += count
        return self._content[self.at - count : self.at]

    def value(self, marker: bytes, levels: int) -> Any:
        """Read a value after the byte of its type; `levels` may be within each other."""
        self._value_count += 1
        check_limit("values beside arrays", MAX_OBJECTS, self._value_count)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in _NUMBERS:
            return np.frombuffer(self.take(_NUMBERS[marker].itemsize), _NUMBERS[marker])[0].item()
        if marker == b"S":
            return self._text()
        if marker not in (b"[", b"{"):
            raise ValueError(f"{marker!r} is no type of a value")
        if not levels:
            raise ValueError(f"values are nested more than {MAX_NESTING} levels deep")
        return self._list(levels - 1) if marker == b"[" else self._members(levels - 1)

    def _integer(self) -> int:
        marker = self.take(1)
        if marker not in _NUMBERS or _NUMBERS[marker].kind == "f":
            raise ValueError("a length is no integer")
        return int(np.frombuffer(self.take(_NUMBERS[marker].itemsize), _NUMBERS[marker])[0])

    def _text(self) -> str:
        return self.take(self._integer()).decode()

    def _list(self, levels: int) -> Any:
        marker, kind = self.take(1), b""
        if marker == b"$":
            kind, marker = self.take(1), self.take(1)
            if kind not in _NUMBERS or marker != b"#":
                raise ValueError("a list of one type is not of numbers, or has no length")
            count = self._integer()
            return np.frombuffer(self.take(count * _NUMBERS[kind].itemsize if count >= 0 else -1), _NUMBERS[kind])
        if marker == b"#":
            return [self.value(self.take(1), levels) for _ in range(self._checked_count())]
        found = []
        while marker != b"]":
            found.append(self.value(marker, levels))
            marker = self.take(1)
        return found

    def _checked_count(self) -> int:
        count = self._integer()
        if not 0 <= count <= len(self._content) - self.at:  # each value has a byte at least
            raise ValueError("a list is longer than the file")
        return count

    def _members(self, levels: int) -> dict[str, Any]:
        found = dict[str, Any]()
        while (marker := self.take(1)) != b"}":
            self.at -= 1
            if marker in b"#$":
                raise ValueError("an object gives its length, which XGBoost does not write")
            name = self._text()
            if name in found:
                raise ValueError("a field occurs twice")
            found[name] = self.value(self.take(1), levels)
        return found
