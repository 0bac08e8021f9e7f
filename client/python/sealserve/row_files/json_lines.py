"""JSON lines: a row a line, as an array of numbers or as an object with the columns' names."""

import json
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, NotFiniteError
from sealserve.row_files.columns import Columns


def read_json_lines(lines: Iterable[str], columns: Columns) -> NDArray[np.float64]:
    """Read rows, float64 (rows, columns of the model).

    Objects are matched by name, whatever the order of their members. If the model has no names, the
    order is that of the first object.

    Raises:
        NotFiniteError: a value is null.
        InputError: a line is blank or not JSON, a value is not a number, lines have different
            names or lengths, or the columns do not fit.
    """
    values = array("d")
    positions, names, width, count = list[int](), list[str](), 0, 0
    for count, line in enumerate(lines, 1):
        row = _parsed(line, count)
        row_names = list(row) if isinstance(row, dict) else []
        if count == 1:
            names, width = row_names, len(row)
            positions = columns.positions(names, width, any_order=True)
        if len(row) != width or set(row_names) != set(names):
            raise InputError(f"line {count} has other {'names' if row_names or names else 'values'} than line 1")
        fields = [row[name] for name in names] if isinstance(row, dict) else row
        for position in positions:
            values.append(_number(fields[position], count, names[position] if names else position))
    if not count:
        raise InputError("the file is empty")
    return np.frombuffer(values, np.float64).reshape(count, len(positions))


def _parsed(line: str, number: int) -> Any:
    if not line.strip():
        raise InputError(f"line {number} is blank: remove it")
    try:
        row = json.loads(line, object_pairs_hook=_members, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"line {number} is not JSON with one row a line: {_reason(error)}") from error
    if not isinstance(row, dict | list) or not row:
        raise InputError(f"line {number} is neither an array of numbers nor an object of names and numbers")
    return row


def _number(value: Any, number: int, column: str | int) -> float:
    place = f"line {number}, column {column!r}"
    if value is None:
        raise NotFiniteError(f"{place} is missing (null): fill it in, or leave the row out")
    if not isinstance(value, int | float):
        raise InputError(f"{place} is not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise InputError(f"{place} is too large") from error


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
