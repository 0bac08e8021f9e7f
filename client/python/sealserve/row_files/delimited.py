"""Delimited text: files of lines with commas or tabs, read by Python's csv module.

`#` begins no comment, and no line is passed over: each record is a row, or the file is refused.
Where columns may have gaps or strings, a field is what pandas.read_csv makes of it.
"""

import csv
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, InputError
from sealserve.protocol.column import ColumnKind
from sealserve.row_files.columns import Columns, is_boolean, is_number
from sealserve.row_files.faults import FileFaults

_MISSING_TEXTS = {
    *("", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "-NaN", "-nan", "None", "NULL", "null", "#N/A", "#N/A N/A", "#NA"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
}  # as pandas.read_csv has them, with which most tables are read for the training
_MISSING = {"?", "-", "nil", *map(str.lower, _MISSING_TEXTS)}
_FLAGS = {"True": 1.0, "TRUE": 1.0, "true": 1.0, "False": 0.0, "FALSE": 0.0, "false": 0.0}


def read_delimited(lines: Iterable[str], delimiter: str, columns: Columns, header: bool | None) -> NDArray[Any]:
    """Read rows (rows, columns of the model): float64, or objects if the model takes strings.

    Where columns say what they take, an empty field is a missing value, or an empty text in a
    column of texts without gaps. True and False are 1 and 0 in a column that has nothing else.

    Args:
        lines: of the file, with their ends.
        delimiter: between the fields of a line.
        columns: which columns to use.
        header: whether the first record has the columns' names. None: it does if it equals the
            model's names, has all of them, or has no number.

    Raises:
        NotFiniteError: a field is empty, or says that its value is missing, and columns do not say
            what they take.
        InputError: the file is empty, it is unclear whether there is a header, a line has another
            number of fields than the first, a field is not a number, or the columns do not fit.
    """
    records = _records(lines, delimiter, skips_space=not columns.texts)
    first_number, first = next(records, (0, None))
    if first is None:
        raise InputError("the file is empty")
    _check_delimiter(first, columns)
    names = columns.spelled(first) if _has_header(first, columns, header) else []
    fields = _Fields(columns, columns.positions(names, len(first)), names, len(first))
    try:
        for number, record in records if names else chain([(first_number, first)], records):
            if len(record) != len(first) or (record == [""] and not columns.takes_gaps):
                raise InputError(f"line {number} {_shape_fault(record, len(first))}")
            fields.add(number, record)
    except InputError:
        fields.check()  # its faults come before
        raise
    fields.check()
    if not fields.count and header is None and not columns.are_named_in(names):
        raise InputError("the file has one line, without a number: if it is a header, it has no rows")
    return fields.rows()


class _Fields:
    """The fields of the model's columns, as they are read, and what is wrong with them.

    Args:
        columns: of the model.
        positions: of these columns in a record.
        names: of the file's columns; empty if it has none.
        width: of a record.
    """

    def __init__(self, columns: Columns, positions: list[int], names: Sequence[str], width: int) -> None:
        self.count = 0
        self._columns, self._positions, self._names = columns, positions, names
        self._features = columns.numbers(positions)
        self._take_numbers = _taker([positions[feature] for feature in self._features], width)
        self._numbers = array("d")
        self._texts: list[list[str | None]] = [[] for _ in columns.texts]
        self._missing_texts = [self._missing_in(feature) for feature in columns.texts]
        self._lines_of_flags: dict[int, array[int]] = {}  # by column
        self._faults = FileFaults("lines")

    def _missing_in(self, feature: int) -> set[str]:
        """Return the fields that say that a string is missing. A text may have any words."""
        column = self._columns.column(feature)
        is_any_text = column is not None and column.kind is ColumnKind.TEXT and not column.allows_missing
        return set() if is_any_text else _MISSING_TEXTS

    def add(self, line: int, record: list[str]) -> None:
        """Add a record, which begins on this line."""
        self.count += 1
        fields = self._take_numbers(record)
        text = "".join(fields)
        try:
            # float() reads 1_000 and the digits of other scripts. Other readers do not.
            if not text.isascii() or "_" in text:
                raise ValueError
            self._numbers.extend(list(map(float, fields)))  # all, or none
        except ValueError:
            self._numbers.extend(
                self._number(line, feature, field) for feature, field in zip(self._features, fields, strict=True)
            )
        for feature, values, missing in zip(self._columns.texts, self._texts, self._missing_texts, strict=True):
            field = record[self._positions[feature]]
            values.append(None if field in missing else field)

    def _number(self, line: int, feature: int, field: str) -> float:
        """Return the number that a field says, or NaN. Note what is wrong with it."""
        try:
            return _number(field)
        except ValueError:
            pass
        if (flag := _FLAGS.get(field.strip())) is not None:
            self._lines_of_flags.setdefault(feature, array("q")).append(line)
            return flag
        if not _is_missing(field):
            self._faults.add(line, self._words(feature), "is not a number")
        elif not self._columns.takes_gaps:
            self._faults.add_missing(line, self._words(feature), "is missing")
        return float("nan")

    def _words(self, feature: int) -> str:
        return self._columns.in_words(feature, self._positions[feature], self._names)

    def check(self) -> None:
        """Raise an error that names the fields that are no numbers, if there are any."""
        numbers = self._array()
        for feature, lines in self._lines_of_flags.items():
            gaps = np.count_nonzero(np.isnan(numbers[:, self._features.index(feature)]))
            if len(lines) + gaps < self.count and not is_boolean(self._columns.column(feature)):
                for line in lines:
                    self._faults.add(line, self._words(feature), "is not a number")
        self._faults.raise_if_any()

    def _array(self) -> NDArray[np.float64]:
        return np.frombuffer(self._numbers, np.float64).reshape(self.count, len(self._features))

    def rows(self) -> NDArray[Any]:
        """Return the rows."""
        return self._columns.rows(self._positions, self._array(), self._texts)


def _records(lines: Iterable[str], delimiter: str, *, skips_space: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each record, with the number of its first line, from 1.

    Space after a delimiter is part of a string: many categories have it, as training has read them.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=skips_space)
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
    cells = columns.by_number(first)
    if not cells and columns.texts:
        raise InputError("line 1 may be a header or a row: say --header or --no-header to sealserve predict")
    if not cells:  # no column is left, which is another error
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
    """Return whether a cell of the first record is a number or a flag, perhaps ill written."""
    if cell.strip() in _FLAGS:
        return True
    letters = [character for character in cell if character.isalpha() and character not in "eE"]
    return is_number(cell) or (not letters and any(character.isnumeric() for character in cell))


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING


def _taker(positions: list[int], width: int) -> Callable[[list[str]], Sequence[str]]:
    """Return a function that takes the fields at these positions from a record."""
    if positions == list(range(width)):
        return lambda record: record
    if len(positions) < 2:
        return lambda record: [record[position] for position in positions]
    return itemgetter(*positions)


def _number(field: str) -> float:
    if field.isascii() and "_" not in field:
        return float(field)
    raise ValueError(field)


def _shape_fault(record: list[str], width: int) -> str:
    if record in ([], [""]):
        return "is blank: remove it"
    return f"has {len(record)} fields, line 1 has {width}"
