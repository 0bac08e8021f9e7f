"""Arrow: Parquet files, and files and streams of Arrow's IPC format, read by pyarrow."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, NotFiniteError
from sealserve.row_files.columns import Columns

_MISSING_EXTRA = "Parquet and Arrow files need one more package: pip install 'sealserve[parquet]'"
_FILE_MAGIC = b"ARROW1"


def check_pyarrow() -> None:
    """Raise an InputError that names the extra if pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise InputError(_MISSING_EXTRA) from error


def read_parquet(file: BinaryIO, columns: Columns, max_bytes: float = math.inf) -> NDArray[np.float64]:
    """Read the rows of a Parquet file, float64 (rows, columns of the model).

    Args:
        file: open, with a position that can be changed.
        columns: which columns to use.
        max_bytes: of the rows; a small file may hold very many of one value.

    Raises:
        NotFiniteError: a value is null.
        InputError: the file is damaged or holds too much, a column is not one of numbers, or the
            columns do not fit.
    """
    check_pyarrow()
    from pyarrow import parquet

    return _read("Parquet", lambda: _batches_of_parquet(parquet.ParquetFile(file)), columns, max_bytes)


def read_arrow(file: BinaryIO, columns: Columns, max_bytes: float = math.inf) -> NDArray[np.float64]:
    """Read the rows of an Arrow file or stream: see `read_parquet`."""
    check_pyarrow()
    from pyarrow import ipc

    def batches() -> tuple[Any, Iterable[Any]]:
        is_stream = file.read(len(_FILE_MAGIC)) != _FILE_MAGIC
        file.seek(0)
        if is_stream:
            stream = ipc.open_stream(file)
            return stream.schema, stream
        reader = ipc.open_file(file)
        return reader.schema, map(reader.get_batch, range(reader.num_record_batches))

    return _read("Arrow", batches, columns, max_bytes)


def _batches_of_parquet(file: Any) -> tuple[Any, Iterable[Any]]:
    return file.schema_arrow, file.iter_batches()


def _read(what: str, open_batches: Any, columns: Columns, max_bytes: float) -> NDArray[np.float64]:
    try:
        schema, batches = open_batches()
        positions = _positions(schema, columns)
        blocks, count = list[NDArray[np.float64]](), 0
        for batch in batches:
            if 8 * len(positions) * (count + batch.num_rows) > max_bytes:
                raise InputError(f"the file holds more than {max_bytes:,} bytes of numbers: give fewer rows")
            blocks.append(_block(batch, positions, count))
            count += batch.num_rows
    except InputError:
        raise
    except Exception as error:  # pyarrow has its own, and OSError and ValueError too, for a damaged file
        raise InputError(f"the file is not a readable {what} file") from error
    return np.concatenate(blocks) if blocks else np.empty((0, len(positions)))


def _positions(schema: Any, columns: Columns) -> list[int]:
    """Return the positions of the model's columns. An index of pandas is none unless named."""
    indices = {name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)}
    indices -= {*columns.schema.column_names, *columns.chosen, columns.index}
    kept = [position for position, name in enumerate(schema.names) if name not in indices]
    names = [schema.names[position] for position in kept]
    return [kept[position] for position in columns.positions(names, len(names))]


def _block(batch: Any, positions: Sequence[int], first_row: int) -> NDArray[np.float64]:
    block = np.empty((batch.num_rows, len(positions)))
    for feature, position in enumerate(positions):
        block[:, feature] = _floats(batch.column(position), batch.schema.field(position), first_row)
    return block


def _floats(column: Any, field: Any, first_row: int) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        if not pa.types.is_decimal(kind):
            raise InputError(f"column {field.name!r} holds {kind}, not numbers: choose other columns")
        column = column.cast(pa.float64())
    if column.null_count:
        row = first_row + column.is_null().index(pa.scalar(True)).as_py()
        raise NotFiniteError(f"row {row}, column {field.name!r} is missing (null): fill it in, or leave the row out")
    floats: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return floats
