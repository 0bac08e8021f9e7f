"""Arrow: Parquet files, and files and streams of Arrow's IPC format, read by pyarrow."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError
from sealserve.row_files.columns import Columns
from sealserve.row_files.faults import FileFaults

_MISSING_EXTRA = "Parquet and Arrow files need one more package: pip install 'sealserve[parquet]'"
_FILE_MAGIC = b"ARROW1"
_SHOWN = 5  # columns that a text names


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
        words = partial(_in_words, columns, schema.names, positions)
        _check_types([schema.field(position) for position in positions], words)
        blocks, count, faults = list[NDArray[np.float64]](), 0, FileFaults("rows")
        for batch in batches:
            if 8 * len(positions) * (count + batch.num_rows) > max_bytes:
                raise InputError(f"the file holds more than {max_bytes:,} bytes of numbers: give fewer rows")
            chosen = [_decoded(batch.column(position)) for position in positions]
            if any(column.null_count for column in chosen):
                is_null = np.stack([column.is_null().to_numpy(zero_copy_only=False) for column in chosen], axis=1)
                for row, feature in np.argwhere(is_null).tolist():
                    faults.add_missing(count + row, words(feature), "is missing (null)")
            else:
                blocks.append(_block(chosen, batch.num_rows))
            count += batch.num_rows
    except InputError:
        raise
    except Exception as error:  # pyarrow has its own, and OSError and ValueError too, for a damaged file
        raise InputError(f"the file is not a readable {what} file") from error
    faults.raise_if_any()
    return np.concatenate(blocks) if blocks else np.empty((0, len(positions)))


def _positions(schema: Any, columns: Columns) -> list[int]:
    """Return the positions of the model's columns. An index of pandas is none unless named."""
    indices = {name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)}
    indices -= {*columns.schema.column_names, *columns.chosen, columns.index}
    kept = [position for position, name in enumerate(schema.names) if name not in indices]
    names = [schema.names[position] for position in kept]
    return [kept[position] for position in columns.positions(names, len(names))]


def _in_words(columns: Columns, names: Sequence[str], positions: Sequence[int], feature: int) -> str:
    return columns.in_words(feature, positions[feature], names)


def _check_types(fields: Sequence[Any], words: Callable[[int], str]) -> None:
    """Check the types of columns.

    Args:
        fields: of the columns of the model, in its order.
        words: returns a feature in words.

    Raises:
        InputError: some are not of numbers. The text names them.
    """
    import pyarrow as pa

    wrong = list[str]()
    for feature, field in enumerate(fields):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        is_number = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if not (is_number or pa.types.is_decimal(kind)):
            wrong.append(f"{words(feature)} holds {kind}")
    if wrong:
        more = f", and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        raise InputError(f"{', '.join(wrong[:_SHOWN])}{more}, not numbers: choose other columns")


def _decoded(column: Any) -> Any:
    """Return a column as its values: a dictionary may have a null among them."""
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _block(columns: Sequence[Any], row_count: int) -> NDArray[np.float64]:
    """Return columns of numbers, without nulls, as rows."""
    import pyarrow as pa

    block = np.empty((row_count, len(columns)))
    for feature, column in enumerate(columns):
        numbers = column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
        block[:, feature] = numbers.to_numpy(zero_copy_only=False)
    return block
