"""Delimited text: files of lines with commas or tabs, read by Python's csv module.

`#` begins no comment, and no line is passed over: each record is a row, or the file is refused.
"""

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, InputError
from sealserve.row_files.columns import Columns, is_number
from sealserve.row_files.faults import FileFaults

_MISSING = {"", "?", "-", "na", "n/a", "<na>", "none", "null", "nil"}


def read_delimited(lines: Iterable[str], delimiter: str, columns: Columns, header: bool | None) -> NDArray[np.float64]:
    """Read rows, float64 (rows, columns of the model).

    Args:
        lines: of the file, with their ends.
        delimiter: between the fields of a line.
        columns: which columns to use.
        header: whether the first record has the columns' names. None: it does if it equals the
            model's names, has all of them, or has no number.

    Raises:
        NotFiniteError: a field is empty, or says that its value is missing.
        InputError: the file is empty, it is unclear whether there is a header, a line has another
            number of fields than the first, a field is not a number, or the columns do not fit.
    """
    records = _records(lines, delimiter)
    first_number, first = next(records, (0, None))
    if first is None:
        raise InputError("the file is empty")
    _check_delimiter(first, columns)
    names = columns.spelled(first) if _has_header(first, columns, header) else []
    positions = columns.positions(names, len(first))
    take = _taker(positions, len(first))
    values, faults = array("d"), FileFaults("lines")
    try:
        for number, record in records if names else chain([(first_number, first)], records):
            if len(record) != len(first) or record == [""]:
                raise InputError(f"line {number} {_shape_fault(record, len(first))}")
            fields, text = take(record), "".join(record)
            try:
                # float() reads 1_000 and the digits of other scripts. Other readers do not.
                if text.isascii() and "_" not in text:
                    values.extend(map(float, fields))
                else:
                    values.extend(map(_number, fields))
            except ValueError:
                for feature, (field, position) in enumerate(zip(fields, positions, strict=True)):
                    if fault := _fault(field):
                        add = faults.add_missing if _is_missing(field) else faults.add
                        add(number, columns.in_words(feature, position, names), fault)
    except InputError:
        faults.raise_if_any()  # they come before
        raise
    faults.raise_if_any()
    if not values and header is None and not columns.are_named_in(names):
        raise InputError("the file has one line, without a number: if it is a header, it has no rows")
    return np.frombuffer(values, np.float64).reshape(-1, len(positions))


def _records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each record, with the number of its first line, from 1."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    number = 1
    try:
        for record in reader:
            if number == 1 and record in ([], [""]):
                raise InputError("line 1 is blank: remove it")
            yield number, record
            number = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"line {number}: {error}") from error


def _check_delimiter(first: Sequence[str], columns: Columns) -> None:
    if len(first) == 1 < columns.schema.column_count and any(mark in first[0] for mark in ";\t|,"):
        raise FeatureCountError("line 1 is one field: separate fields by commas in a .csv file, by tabs in a .tsv file")


def _has_header(first: Sequence[str], columns: Columns, said: bool | None) -> bool:
    """Return whether the first record has names.

    Raises:
        InputError: it has names and numbers, or neither, and nobody says which it is.
    """
    if said is not None:
        return said
    if columns.are_named_in(columns.spelled(first)):
        return True
    if not (cells := columns.by_number(first)):  # no column is left, which is another error
        return False
    is_row = [_looks_like_number(cell) or _is_missing(cell) for cell in cells]
    has_number = any(map(_looks_like_number, cells))
    # Names that are numbers, in another order or among others, may be a header that does not fit.
    has_names = bool(columns.schema.column_names) and set(columns.schema.column_names) <= set(cells)
    if has_number and all(is_row) and not has_names:
        return False
    if has_number or all(is_row):
        raise InputError(
            f"line 1 has {'names and numbers' if has_number else 'no name and no number'}: is it a header or a "
            "row? Name the columns as the model does, or say --header or --no-header to sealserve predict"
        )
    return True


def _looks_like_number(cell: str) -> bool:
    """Return whether a cell of the first record is a number, perhaps one that is ill written."""
    letters = [character for character in cell if character.isalpha() and character not in "eE"]
    return is_number(cell) or (not letters and any(character.isnumeric() for character in cell))


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _taker(positions: list[int], width: int) -> Callable[[list[str]], Sequence[str]]:
    """Return a function that takes the fields at these positions from a record."""
    if positions == list(range(width)):
        return lambda record: record
    if len(positions) == 1:
        return lambda record: [record[positions[0]]]
    return itemgetter(*positions)


def _number(field: str) -> float:
    if field.isascii() and "_" not in field:
        return float(field)
    raise ValueError(field)


def _fault(field: str) -> str:
    """Say why a field is no number; "" if it is one."""
    if _is_missing(field):
        return "is missing"
    return "" if is_number(field) and field.isascii() and "_" not in field else "is not a number"


def _shape_fault(record: list[str], width: int) -> str:
    if record in ([], [""]):
        return "is blank: remove it"
    return f"has {len(record)} fields, line 1 has {width}"
