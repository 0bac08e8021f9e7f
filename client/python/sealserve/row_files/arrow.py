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


def read_parquet(file: BinaryIO, columns: Columns, max_bytes: float = math.inf) -> NDArray[Any]:
    """Read the rows of a Parquet file (rows, columns of the model).

    They are float64, or objects if the model takes strings.

    Args:
        file: open, with a position that can be changed.
        columns: which columns to use.
        max_bytes: of the rows; a small file may hold very many of one value.

    Raises:
        NotFiniteError: a value is null, and columns do not say what they take.
        InputError: the file is damaged or holds too much, a column is not one of numbers, or not
            one of strings, or the columns do not fit.
    """
    check_pyarrow()
    from pyarrow import parquet

    return _read("Parquet", lambda: _batches_of_parquet(parquet.ParquetFile(file)), columns, max_bytes)


def read_arrow(file: BinaryIO, columns: Columns, max_bytes: float = math.inf) -> NDArray[Any]:
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


def _read(what: str, open_batches: Any, columns: Columns, max_bytes: float) -> NDArray[Any]:
    try:
        schema, batches = open_batches()
        positions = _positions(schema, columns)
        words = partial(_in_words, columns, schema.names, positions)
        features = columns.numbers(positions)
        _check_types([(k, schema.field(positions[k])) for k in features], columns, words)
        _check_types([(k, schema.field(positions[k])) for k in columns.texts], columns, words)
        blocks, texts = list[NDArray[np.float64]](), [list[str | None]() for _ in columns.texts]
        count, byte_count, faults = 0, 0, FileFaults("rows")
        for batch in batches:
            strings = [batch.column(positions[feature]) for feature in columns.texts]
            byte_count += 8 * len(features) * batch.num_rows + sum(map(_text_bytes, strings))
            if byte_count > max_bytes:
                raise InputError(f"the file holds more than {max_bytes:,} bytes of values: give fewer rows")
            chosen = [_decoded(batch.column(positions[feature])) for feature in features]
            if not columns.takes_gaps:
                for row, feature in _nulls(chosen):
                    faults.add_missing(count + row, words(feature), "is missing (null)")
            blocks.append(_block(chosen, batch.num_rows))
            for values, column in zip(texts, strings, strict=True):
                values += _strings(column)
            count += batch.num_rows
    except InputError:
        raise
    except Exception as error:  # pyarrow has its own, and OSError and ValueError too, for a damaged file
        raise InputError(f"the file is not a readable {what} file") from error
    faults.raise_if_any()
    numbers = np.concatenate(blocks) if blocks else np.empty((0, len(features)))
    return columns.rows(positions, numbers, texts)


def _positions(schema: Any, columns: Columns) -> list[int]:
    """Return the positions of the model's columns. An index of pandas is none unless named."""
    indices = {name for name in (schema.pandas_metadata or {}).get("index_columns", ()) if isinstance(name, str)}
    indices -= {*columns.schema.column_names, *columns.chosen, columns.index}
    kept = [position for position, name in enumerate(schema.names) if name not in indices]
    names = [schema.names[position] for position in kept]
    return [kept[position] for position in columns.positions(names, len(names))]


def _in_words(columns: Columns, names: Sequence[str], positions: Sequence[int], feature: int) -> str:
    return columns.in_words(feature, positions[feature], names)


def _check_types(fields: Sequence[tuple[int, Any]], columns: Columns, words: Callable[[int], str]) -> None:
    """Check the types of columns that are all of numbers, or all of strings.

    Args:
        fields: the numbers of the columns in the model, with their types.
        columns: of the model.
        words: returns a feature in words.

    Raises:
        InputError: some are of another type. The text names them.
    """
    wrong = list[str]()
    is_text = bool(fields) and fields[0][0] in columns.texts
    for feature, field in fields:
        if not _fits(field.type, is_text=is_text, takes_gaps=columns.takes_gaps):
            wrong.append(f"{words(feature)} holds {_kind(field.type)}")
    if wrong:
        more = f", and {len(wrong) - _SHOWN:,} more" if len(wrong) > _SHOWN else ""
        advice = "strings: pass strings, as in training" if is_text else "numbers: choose other columns"
        raise InputError(f"{', '.join(wrong[:_SHOWN])}{more}, not {advice}")


def _kind(type_: Any) -> Any:
    """Return the type of a column's values, also where it is a dictionary of them."""
    import pyarrow as pa

    return type_.value_type if pa.types.is_dictionary(type_) else type_


def _fits(type_: Any, *, is_text: bool, takes_gaps: bool) -> bool:
    """Return whether values of a type are numbers, or strings. A column of gaps only is either."""
    from pyarrow import types

    kind = _kind(type_)
    if types.is_null(kind):
        return takes_gaps
    if is_text:
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
    is_number = types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    return bool(is_number or types.is_decimal(kind))


def _decoded(column: Any) -> Any:
    """Return a column as its values: a dictionary may have a null among them."""
    import pyarrow as pa

    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _nulls(columns: Sequence[Any]) -> list[tuple[int, int]]:
    """Return the row and the column of each value that is null."""
    if not any(column.null_count for column in columns):
        return []
    is_null = np.stack([column.is_null().to_numpy(zero_copy_only=False) for column in columns], axis=1)
    return [(row, feature) for row, feature in np.argwhere(is_null).tolist()]


def _block(columns: Sequence[Any], row_count: int) -> NDArray[np.float64]:
    """Return columns of numbers as rows. What is null is NaN."""
    import pyarrow as pa

    block = np.empty((row_count, len(columns)))
    for feature, column in enumerate(columns):
        numbers = column.cast(pa.float64(), safe=False) if column.null_count or _needs_cast(column.type) else column
        block[:, feature] = numbers.to_numpy(zero_copy_only=False)
    return block


def _needs_cast(type_: Any) -> bool:
    """Return whether NumPy would get objects of a type."""
    import pyarrow as pa

    return bool(pa.types.is_decimal(type_) or pa.types.is_null(type_))


def _text_bytes(column: Any) -> int:
    """Return how many bytes the strings of a column take, at most; shared ones once."""
    import pyarrow as pa

    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    return int(values.nbytes + 8 * len(column))


def _strings(column: Any) -> list[str | None]:
    """Return the strings of a column. Those of a dictionary are shared: there may be very many."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        found: list[str | None] = column.to_pylist()
        return found
    known = [*column.dictionary.to_pylist(), None]
    return [known[-1 if index is None else index] for index in column.indices.to_pylist()]
