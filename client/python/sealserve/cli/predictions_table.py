"""Tables of predictions, as text or Parquet: a record for each row, perhaps under a header."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sealserve.errors import InputError
from sealserve.protocol.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sealserve._codec.batches import PredictionMethod
    from sealserve.protocol.output import Output

SUFFIXES = (".npy", ".csv", ".tsv", ".parquet")
"""Of the files that predictions can be written to."""
_ROWS_A_BLOCK = 10_000


def check_output(path: Path) -> None:
    """Raise an InputError if predictions cannot be written to a file of this name."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: predictions go into a file that ends in {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        from sealserve.row_files.arrow import check_pyarrow

        check_pyarrow()


def header_of(output: "Output", method: "PredictionMethod") -> tuple[str, ...]:
    """Return the names of the columns of text: the classes, for probabilities; else none."""
    return tuple(map(str, output.classes)) if method == "predict_proba" else ()


def write_table(
    predictions: "NDArray[Any]", header: Sequence[str], file: BinaryIO, suffix: str, *, is_shown: bool = False
) -> None:
    """Write predictions (rows,) or (rows, columns) in the format that the suffix says.

    Args:
        predictions: labels, scores or probabilities. Labels that are strings are the service's
            text.
        header: names of the columns; empty for none.
        file: an open binary file.
        suffix: one of SUFFIXES but .npy.
        is_shown: whether people see the file as it is, so that text in it must be printable.
    """
    if suffix == ".parquet":
        _write_parquet(predictions, header, file)
        return
    for records in _text_blocks(predictions, header):
        if is_shown:
            records = [[printable(v) if isinstance(v, str) else v for v in record] for record in records]
        file.write(_lines(records, _delimiter(suffix)).encode())


def is_table_of(path: Path, example: "NDArray[Any]", row_count: int, header: Sequence[str]) -> bool:
    """Return whether a file holds so many predictions like the example (1, ...)."""
    import numpy as np

    suffix, width = path.suffix.lower(), 1 if example.ndim == 1 else example.shape[1]
    try:
        if suffix == ".npy":
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            return bool(found.dtype == example.dtype and found.shape == (row_count, *example.shape[1:]))
        if suffix == ".parquet":
            from pyarrow import parquet

            metadata = parquet.read_metadata(path)
            names = _column_names(header, width)
            return (
                bool((metadata.num_rows, metadata.num_columns) == (row_count, width)) and metadata.schema.names == names
            )
        with path.open(encoding="utf-8", newline="") as file:
            records = csv.reader(file, delimiter=_delimiter(suffix), strict=True)
            if header and tuple(next(records, ())) != tuple(header):
                return False
            return Counter(map(len, records)) == ({width: row_count} if row_count else {})
    except (OSError, ValueError, EOFError, csv.Error):  # it is no such file, or damaged
        return False


def _text_blocks(predictions: "NDArray[Any]", header: Sequence[str]) -> Iterator[Sequence[Sequence[Any]]]:
    """Yield the records, many at once: first the header, if it has names."""
    if header:
        yield [header]
    for table in _blocks(predictions):
        yield table.tolist()


def _lines(records: Sequence[Sequence[Any]], delimiter: str) -> str:
    text = io.StringIO()
    # csv quotes what has the delimiter, a quote or \n, but not a lone \r, which ends a line, too.
    has_return = any("\r" in field for record in records for field in record if isinstance(field, str))
    writer = csv.writer(
        text, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
    )
    writer.writerows(records)
    return text.getvalue()


def _write_parquet(predictions: "NDArray[Any]", header: Sequence[str], file: BinaryIO) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names = _column_names(header, 1 if predictions.ndim == 1 else predictions.shape[1])
    kind = pa.array(predictions[:0].ravel()).type
    schema = pa.schema([(name, kind) for name in names])
    with parquet.ParquetWriter(file, schema) as writer:
        for table in _blocks(predictions):
            # As a list: pyarrow would cut text of NumPy at its first NUL.
            columns = [pa.array(column.tolist(), kind) for column in table.T]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _column_names(header: Sequence[str], width: int) -> list[str]:
    """Return the names of the columns of a Parquet file, which cannot be without."""
    return list(header) or (["prediction"] if width == 1 else [f"score_{number}" for number in range(width)])


def _delimiter(suffix: str) -> str:
    return "\t" if suffix == ".tsv" else ","


def _blocks(predictions: "NDArray[Any]") -> Iterator["NDArray[Any]"]:
    """Yield predictions as (rows, columns), some rows at once: memory may not hold them all."""
    for first in range(0, len(predictions), _ROWS_A_BLOCK):
        block = predictions[first : first + _ROWS_A_BLOCK]
        yield block if block.ndim == 2 else block[:, None]
