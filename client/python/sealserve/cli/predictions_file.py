"""PredictionsFile: a file of predictions that appears only when it is complete.

An interrupted run can be continued.
"""

import contextlib
import csv
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealserve.errors import InputError
from sealserve.protocol.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAVE_SECONDS = 1.0
_ROWS_A_BLOCK = 10_000  # of a CSV file


class PredictionsFile:
    """Predictions of a run that will become a .npy or .csv file.

    Until all are written, they and their number are kept in hidden files beside that file.

    Args:
        path: the file.
        example: one prediction, in an array (1, ...).
        row_count: how many predictions there will be.
        origin: what the predictions depend on. Only a run with an equal origin is continued.
        resume: continue an interrupted run, if there is one.

    Attributes:
        first: the index of the first missing row. Later rows may be written already, and may be
            written again.

    Raises:
        InputError: the interrupted run had another origin.
    """

    def __init__(
        self, path: Path, example: "NDArray[Any]", row_count: int, origin: dict[str, Any], *, resume: bool
    ) -> None:
        import numpy as np

        self._path = path
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
        self._predictions[index] = prediction
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
        """Turn the hidden file, which has all rows, into the file itself."""
        self._predictions.flush()
        if self._path.suffix == ".npy":
            self._partial.replace(self._path)
        else:
            table = self._path.with_name(f".{self._path.name}.table")
            with contextlib.ExitStack() as failing:
                failing.callback(table.unlink, missing_ok=True)
                with table.open("w", newline="", encoding="utf-8") as file:
                    for first in range(0, len(self._predictions), _ROWS_A_BLOCK):
                        write_lines(self._predictions[first : first + _ROWS_A_BLOCK], file)
                table.replace(self._path)
        self.discard()


def write_lines(predictions: "NDArray[Any]", file: Any, *, is_shown: bool = False) -> None:
    """Write predictions (rows,) or (rows, columns): a line a row, with commas between columns.

    Labels that are strings are the service's text: they are quoted where CSV needs it.

    Args:
        predictions: labels, scores or probabilities.
        file: an open text file.
        is_shown: whether people may see the file as it is, so that labels must be printable.
    """
    import numpy as np

    table = predictions if predictions.ndim == 2 else predictions[:, None]
    if predictions.dtype.kind != "U":
        np.savetxt(file, table, "%.17g" if predictions.dtype.kind == "f" else "%s", ",")
        return
    shown = (map(printable, row) for row in table.tolist())
    csv.writer(file, lineterminator="\n").writerows(shown if is_shown else table.tolist())
