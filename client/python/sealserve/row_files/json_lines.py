"""JSON lines: a row a line, as an array of values or as an object with the columns' names."""

import json
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError
from sealserve.row_files.columns import Columns
from sealserve.row_files.faults import FileFaults


def read_json_lines(lines: Iterable[str], columns: Columns) -> NDArray[Any]:
    """Read rows (rows, columns of the model): float64, or objects if the model takes strings.

    Objects are matched by name, whatever the order of their members. If the model has no names, the
    order is that of the first object.

    Raises:
        NotFiniteError: a value is null, and columns do not say what they take.
        InputError: a line is blank or not JSON, a value is not a number, or not a string, lines
            have different names or lengths, or the columns do not fit.
    """
    numbers, faults = array("d"), FileFaults("lines")
    texts: list[list[str | None]] = [[] for _ in columns.texts]
    features = list[int]()
    positions, names, width, count = list[int](), list[str](), 0, 0
    try:
        for count, line in enumerate(lines, 1):
            row = _parsed(line, count)
            row_names = list(row) if isinstance(row, dict) else []
            if count == 1:
                names, width = row_names, len(row)
                positions = columns.positions(names, width, any_order=True)
                features = columns.numbers(positions)
            if len(row) != width or set(row_names) != set(names):
                raise InputError(f"line {count} has other {'names' if row_names or names else 'values'} than line 1")
            fields = [row[name] for name in names] if isinstance(row, dict) else row
            for feature in features:
                if fault := _fault(field := fields[positions[feature]], takes_gaps=columns.takes_gaps):
                    add = faults.add_missing if field is None else faults.add
                    add(count, columns.in_words(feature, positions[feature], names), fault)
                else:
                    numbers.append(float("nan") if field is None else float(field))
            for feature, values in zip(columns.texts, texts, strict=True):
                values.append(field := fields[positions[feature]])
                if not (field is None or isinstance(field, str)):
                    words = columns.in_words(feature, positions[feature], names)
                    faults.add_text(count, words, "is not a string")
    except InputError:
        faults.raise_if_any()  # they come before
        raise
    faults.raise_if_any()
    if not count:
        raise InputError("the file is empty")
    found = np.frombuffer(numbers, np.float64).reshape(count, len(features))
    return columns.rows(positions, found, texts)


def _parsed(line: str, number: int) -> Any:
    if not line.strip():
        raise InputError(f"line {number} is blank: remove it")
    try:
        row = json.loads(line, object_pairs_hook=_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"line {number} is not JSON with one row a line: {_reason(error)}") from error
    if not isinstance(row, dict | list) or not row:
        raise InputError(f"line {number} is neither an array of values nor an object of names and values")
    return row


def _fault(value: Any, *, takes_gaps: bool) -> str:
    """Say why a value is no number; "" if it is one."""
    if value is None:
        return "" if takes_gaps else "is missing (null)"
    if not isinstance(value, int | float):
        return "is not a number"
    try:
        float(value)
    except OverflowError:
        return "is too large"
    return ""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return members


def _refuse_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are no JSON")


def _reason(error: Exception) -> str:
    """Return what is wrong with a line, without what the line holds."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
