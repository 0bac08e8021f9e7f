"""PredictionsFile: a file of predictions that appears only when it is complete.

An interrupted run can be continued.
"""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.cli.predictions_table import is_table_of, write_table
from sealserve.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAVE_SECONDS = 1.0


class PredictionsFile:
    """Predictions of a run that will become a file, in the format that its suffix says.

    Until all are written, they and their number are kept in hidden files beside that file.

    Args:
        path: the file.
        example: one prediction, in an array (1, ...).
        row_count: how many predictions there will be.
        origin: what the predictions depend on. Only a run with an equal origin is continued.
        resume: continue an interrupted run, if there is one.
        header: names of the columns; empty for none. A .npy file has no room for them.

    Attributes:
        first: the index of the first missing row. Later rows may be written already, and may be
            written again.

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
        self._is_written = np.zeros(row_count, np.bool_)
        self._saved = time.monotonic()
        self.first = self._read_progress(row_count) if resume else 0
        self._is_written[: self.first] = True
        shape = (row_count, *example.shape[1:])
        self._predictions: np.memmap[Any, Any] = np.lib.format.open_memmap(
            self._partial, "r+" if self.first else "w+", example.dtype, shape
        )
        self.save()

    def _read_progress(self, row_count: int) -> int:
        try:
            progress = json.loads(self._progress.read_text())
            origin, first = progress["origin"], int(progress["first"])
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._progress}: cannot be read; start again without --resume") from error
        changed = [name for name, value in self._origin.items() if origin.get(name) != value]
        if changed:
            what = " and the ".join(changed)
            raise InputError(f"{self._path}: cannot be resumed: the {what} changed; start again without --resume")
        return first if self._partial.exists() and 0 <= first <= row_count else 0

    def put(self, index: int, prediction: Any) -> None:
        """Write a row's prediction."""
        put_prediction(self._predictions, index, prediction)
        self._is_written[index] = True
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Record the first missing row, once the rows before it are on the disk."""
        rest = self._is_written[self.first :]
        self.first += len(rest) if rest.all() else int(rest.argmin())
        self._predictions.flush()
        temporary = self._progress.with_name(f"{self._progress.name}.new")
        temporary.write_text(json.dumps({"origin": self._origin, "first": self.first}))
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
        if not self._is_written.all():
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


def put_prediction(predictions: "NDArray[Any]", index: int, prediction: Any) -> None:
    """Write a row's prediction into an array of all.

    Raises:
        InputError: the array has no room for it: the model changed, and NumPy would cut the label.
    """
    import numpy as np

    value = np.asarray(prediction)
    if value.shape != predictions.shape[1:] or not np.can_cast(value.dtype, predictions.dtype, "safe"):
        raise InputError("the model's predictions changed during the run, and nothing was written: start again")
    predictions[index] = value


def is_finished(path: Path, example: "NDArray[Any]", row_count: int, header: Sequence[str], rows_path: Path) -> bool:
    """Return whether a file looks like that of a run that ended, of which nothing else is left.

    The file has a prediction for each row, and is no older than the file of the rows.
    """
    if not path.exists() or path.with_name(f".{path.name}.progress").exists():
        return False
    is_newer = path.stat().st_mtime_ns >= rows_path.stat().st_mtime_ns
    return is_newer and is_table_of(path, example, row_count, header)
