"""PredictionsFile: a file of predictions that appears only when it is complete.

An interrupted run can be continued.
"""

import bisect
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.predictions_table import is_table_of, write_table
from sealserve.errors import InputError, ReplyError, SealserveError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAVE_SECONDS = 1.0
_SHOWN_ERRORS = 5
_ANSWERS = (InputError, ReplyError)  # errors of rows that the service has answered


class FailedRows:
    """How many rows failed, and why the first of them did.

    Attributes:
        count: the number of rows.
        first: (index, reason) of the first rows, at most _SHOWN_ERRORS of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: list[tuple[int, str]] = []

    def add(self, index: int, reason: str) -> None:
        """Add a row."""
        self.count += 1
        bisect.insort(self.first, (index, reason))
        del self.first[_SHOWN_ERRORS:]

    def raise_if_any(self, row_count: int, consequence: str) -> None:
        """Print why the first rows failed, and raise an error with the consequence.

        Raises:
            InputError: at least one of row_count rows failed.
        """
        for index, reason in self.first:
            print(f"row {index}: {reason}", file=sys.stderr)
        if self.count:
            raise InputError(f"{self.count:,} of {row_count:,} rows failed; {consequence}")


class PredictionsFile:
    """Predictions of a run that will become a file, in the format that its suffix says.

    Until all are written, they and their number are kept in hidden files beside that file. These
    also count the rows that have no prediction because they were refused, or because their reply
    failed a check. Such a row is answered: no later run asks for it again, as the service would
    otherwise learn of it.

    Args:
        path: the file.
        example: one prediction, in an array (1, ...).
        row_count: how many predictions there will be.
        origin: what the predictions depend on. Only a run with an equal origin is continued.
        resume: continue an interrupted run, if there is one.
        header: names of the columns; empty for none. A .npy file has no room for them.

    Attributes:
        first: the index of the first row without an answer. Later rows may have one already, and
            may get another.
        failed: the rows that failed, those before `first` in an interrupted run among them.

    Raises:
        InputError: the interrupted run had another origin.
    """

    def __init__(
        self,
        path: Path,
        example: "NDArray[Any]",
        row_count: int,
        origin: dict[str, Any],
        *,
        resume: bool,
        header: Sequence[str] = (),
    ) -> None:
        import numpy as np

        self._path = path
        self._header = header
        self._partial = path.with_name(f".{path.name}.partial")
        self._progress = path.with_name(f".{path.name}.progress")
        self._origin = json.loads(json.dumps(origin))
        self._is_answered, self._is_failed = np.zeros(row_count, np.bool_), np.zeros(row_count, np.bool_)
        self._saved = time.monotonic()
        self.failed = FailedRows()
        self.first = self._read_progress(row_count) if resume else 0
        self._first_here, self._failed_before = self.first, self.failed.count
        self._is_answered[: self.first] = True
        shape = (row_count, *example.shape[1:])
        self._predictions: np.memmap[Any, Any] = np.lib.format.open_memmap(
            self._partial, "r+" if self.first else "w+", example.dtype, shape
        )
        self.save()

    def _read_progress(self, row_count: int) -> int:
        try:
            progress = json.loads(self._progress.read_text())
            origin, first = progress["origin"], int(progress["first"])
            failed_count = int(progress.get("failed", 0))
            failed_first = [(int(index), str(reason)) for index, reason in progress.get("errors", ())]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self._progress}: cannot be read; start again without --resume") from error
        changed = [name for name, value in self._origin.items() if origin.get(name) != value]
        if changed:
            what = " and the ".join(changed)
            raise InputError(f"{self._path}: cannot be resumed: the {what} changed; start again without --resume")
        if not (self._partial.exists() and 0 <= first <= row_count):
            return 0
        self.failed.count, self.failed.first = failed_count, failed_first
        return first

    def put(self, index: int, result: Any) -> None:
        """Write a row's prediction, or count its error.

        An item that the service failed has no answer: a resumed run may ask again. Whether it does
        depends on what the service said, not on a value.
        """
        result = fitting(self._predictions, result)
        if isinstance(result, SealserveError):
            self.failed.add(index, str(result))
            self._is_failed[index] = True
        else:
            self._predictions[index] = result
        self._is_answered[index] = not isinstance(result, SealserveError) or isinstance(result, _ANSWERS)
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Record the first row without an answer, once the rows before it are on the disk."""
        rest = self._is_answered[self.first :]
        self.first += len(rest) if rest.all() else int(rest.argmin())
        self._predictions.flush()
        progress = {
            "origin": self._origin,
            "first": self.first,
            "failed": self._failed_before + int(self._is_failed[self._first_here : self.first].sum()),
            "errors": [(index, reason) for index, reason in self.failed.first if index < self.first],
        }
        temporary = self._progress.with_name(f"{self._progress.name}.new")
        temporary.write_text(json.dumps(progress))
        temporary.replace(self._progress)
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Remove the hidden files."""
        self._partial.unlink(missing_ok=True)
        self._progress.unlink(missing_ok=True)

    def finish(self) -> None:
        """Turn the hidden file, which has all rows, into the file itself.

        Raises:
            InputError: a row has no prediction. The hidden files stay.
        """
        if not self._is_answered.all():
            self.save()
            raise InputError(f"{self._path}: rows from {self.first:,} on have no predictions: continue with --resume")
        self._predictions.flush()
        suffix = self._path.suffix.lower()
        if suffix == ".npy":
            self._partial.replace(self._path)
        else:
            table = self._path.with_name(f".{self._path.name}.table")
            with contextlib.ExitStack() as failing:
                failing.callback(table.unlink, missing_ok=True)
                with table.open("wb") as file:
                    write_table(self._predictions, self._header, file, suffix)
                table.replace(self._path)
        self.discard()


def fitting(predictions: "NDArray[Any]", result: Any) -> Any:
    """Return a row's prediction or error; an error where the array has no room for a prediction.

    It has none if the model changed: NumPy would cut the label. This raises nothing, because the
    stream must not end earlier for one label than for another.
    """
    import numpy as np

    if isinstance(result, SealserveError):
        return result
    value = np.asarray(result)
    if value.shape != predictions.shape[1:] or not np.can_cast(value.dtype, predictions.dtype, "safe"):
        return InputError("the model's predictions changed during the run: start again")
    return value


def is_finished(path: Path, example: "NDArray[Any]", row_count: int, header: Sequence[str], rows_path: Path) -> bool:
    """Return whether a file looks like that of a run that ended, of which nothing else is left.

    The file has a prediction for each row, and is no older than the file of the rows.
    """
    if not path.exists() or path.with_name(f".{path.name}.progress").exists():
        return False
    is_newer = path.stat().st_mtime_ns >= rows_path.stat().st_mtime_ns
    return is_newer and is_table_of(path, example, row_count, header)
