"""Declared ranges: what the operator's file says of single features, and of groups of them.

The file is CSV in UTF-8, with a heading: name, min, max, step, at_most_one and exactly_one, in any
order; all but the first three may be left out. Each line is of one feature. A field that is empty
says nothing: give both ends or none.

at_most_one and exactly_one are names of groups that the operator makes up. Of the features with one
name, at most one, or exactly one, is at its maximum, and all others are at their minimum, as the
columns of a category are. A feature of a group has these two values only: 0 and 1 if its line gives
no range. A row that breaks a group is out of range.

Of a model with published steps, lines are of the columns that users hand in. They may say that a
column has integers, by a step of 1, and name no groups.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.step_constraints import step_constraints
from sealserve.protocol.text import feature_in_words, printable_list, quoted
from sealserve.steps.ranges import Ranges
from sealserve_service.models.errors import InputRangeError, ModelFileError, ModelTooLargeError
from sealserve_service.models.files import read_file
from sealserve_service.models.limits import MAX_CALIBRATION_BYTES

_SHOWN = 10  # names that a text lists
_NUMBERS = ("min", "max", "step")
_GROUPS = ("at_most_one", "exactly_one")
_HEADINGS = ("name", *_NUMBERS, *_GROUPS)


@dataclass(frozen=True, eq=False, kw_only=True)
class DeclaredRanges:
    """Ranges and steps of features, float64 (feature_count,); NaN where nothing is declared.

    Attributes:
        minimum, maximum: the ranges. Features of groups have one.
        step: the distance of neighbours on the grids; for features of groups the width.
        constraints: the groups.
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    step: NDArray[np.float64]
    constraints: RowConstraints = field(default_factory=RowConstraints)

    @classmethod
    def none(cls, feature_count: int) -> "DeclaredRanges":
        """Declare nothing."""
        unknown = np.full(feature_count, np.nan)
        return cls(minimum=unknown, maximum=unknown, step=unknown)

    @property
    def has_range(self) -> NDArray[np.bool_]:
        """Whether a feature's range is declared."""
        return ~np.isnan(self.minimum)

    @property
    def has_step(self) -> NDArray[np.bool_]:
        """Whether a feature's step is declared."""
        return ~np.isnan(self.step)


def known_ranges(ranges: Ranges) -> DeclaredRanges:
    """Declare what published steps tell of features: finite ranges, integers, groups and norms."""
    is_known = np.isfinite(ranges.low) & np.isfinite(ranges.high)
    is_integral = ranges.is_integral & (~is_known | (ranges.high > ranges.low))
    return DeclaredRanges(
        minimum=np.where(is_known, ranges.low, np.nan),
        maximum=np.where(is_known, ranges.high, np.nan),
        step=np.where(is_integral, 1.0, np.nan),
        constraints=step_constraints(ranges),
    )


def read_declared_ranges(path: Path, feature_count: int, feature_names: tuple[str, ...]) -> DeclaredRanges:
    """Read the file of --input-ranges.

    Args:
        path: of the file.
        feature_count: of the model.
        feature_names: of the model. A model without names has features 0, 1 and so on.

    Raises:
        InputRangeError: the file cannot be read, names a feature twice or one that there is not, a
            field is not what it should be, or a feature of a group has one value or more than two.
    """
    try:
        text = read_file(path, "", MAX_CALIBRATION_BYTES).decode("utf-8-sig")
        found = np.full((3, feature_count), np.nan)
        groups: dict[tuple[str, str], int] = {}
        group = np.zeros(feature_count, np.int64)
        places = {name: place for place, name in enumerate(feature_names or map(str, range(feature_count)))}
        named = set[str]()
        for number, fields in _lines(text):
            name = fields["name"] if fields["name"] in places else fields["name"].strip()
            if name not in places or name in named:
                fault = "named before" if name in named else "which the model does not have"
                raise ValueError(f"line {number} is of column {quoted(name)}, {fault}{_names_in_words(feature_names)}")
            named.add(name)
            feature = places[name]
            place = f"line {number}, {feature_in_words(feature, name if feature_names else None)}:"
            found[:, feature] = _numbers(place, fields)
            if (of_group := _group(place, fields)) is not None:
                group[feature] = groups.setdefault(of_group, len(groups) + 1)
                found[:, feature] = _two_values(place, *found[:, feature])
    except (ModelFileError, ModelTooLargeError) as error:
        raise InputRangeError(f"the ranges cannot be read: {error}") from error
    except (ValueError, csv.Error) as error:
        raise InputRangeError(f"{path}: {error}") from error
    exactly_one = [heading == "exactly_one" for heading, _ in groups]
    return DeclaredRanges(
        minimum=found[0],
        maximum=found[1],
        step=found[2],
        constraints=RowConstraints.of(feature_count, group, exactly_one),
    )


def declared_columns(
    columns: Sequence[Column],
    path: Path | None = None,
    *,
    input_range: tuple[float, float] | None = None,
    input_step: float | None = None,
) -> tuple[Column, ...]:
    """Return columns that users hand in, with the ranges that are declared of those of numbers.

    Args:
        columns: what published steps tell of them.
        path: the file of --input-ranges; None if there is none.
        input_range: of all columns of which the file gives no range.
        input_step: 1 if all columns are of integers.

    Raises:
        InputRangeError: see `read_declared_ranges`; or the file is of a column of strings, a step
            is not 1, or a range of integers does not begin and end with one.
    """
    count, names = len(columns), tuple(column.name for column in columns)
    declared = DeclaredRanges.none(count)
    if path is not None:
        declared = read_declared_ranges(path, count, names if any(names) else ())
    steps = np.where(declared.has_step | (input_step is None), declared.step, input_step or np.nan)
    where = "" if path is None else f"{path}: "
    found = list[Column]()
    for number, column in enumerate(columns):
        low, high, step = declared.minimum[number], declared.maximum[number], steps[number]
        words = feature_in_words(number, column.name or None)
        if column.kind.is_text or column.kind is ColumnKind.UNUSED:
            if declared.has_range[number] or declared.has_step[number]:
                raise InputRangeError(f"{where}{words} has no range: it is {column.kind.value}")
            found.append(column)
            continue
        if not declared.constraints.is_none and declared.constraints.group[number]:
            raise InputRangeError(f"{where}{words} is in a group, and its model has published steps: leave groups out")
        if np.isnan(low) and input_range is not None:
            low, high = input_range
        found.append(_declared_column(column, float(low), float(high), float(step), f"{where}{words}"))
    return tuple(found)


def undeclared_columns(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return columns without what `declared_columns` has added."""
    declared_kinds = (ColumnKind.INTEGER, ColumnKind.BOOLEAN)
    return tuple(
        replace(
            column,
            kind=ColumnKind.NUMBER if column.kind in declared_kinds else column.kind,
            minimum=None,
            maximum=None,
        )
        for column in columns
    )


def _declared_column(column: Column, low: float, high: float, step: float, words: str) -> Column:
    """Return a column of numbers with its range and step, which are NaN if they are unknown."""
    kind = column.kind
    if not np.isnan(step):
        if step != 1 or (not np.isnan(low) and not (low.is_integer() and high.is_integer())):
            raise InputRangeError(
                f"{words} is a column from which clients compute features: give a step of 1 if its values are integers "
                "and its range begins and ends with one, and no step otherwise"
            )
        kind = ColumnKind.BOOLEAN if (low, high) == (0.0, 1.0) else ColumnKind.INTEGER
    if np.isnan(low):
        return replace(column, kind=kind)
    try:
        return replace(column, kind=kind, minimum=low, maximum=high)
    except ValueError as error:
        raise InputRangeError(f"{words}: {error}") from error


def _lines(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the fields of each line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""))
    headings = [field.strip().lower() for field in next(reader, [])]
    if not {"name", "min", "max"} <= set(headings) <= set(_HEADINGS) or len(set(headings)) < len(headings):
        raise ValueError("its first line is not the heading name,min,max,step,at_most_one,exactly_one")
    for fields in reader:
        if not fields:
            continue
        if len(fields) != len(headings):
            raise ValueError(f"line {reader.line_num} has {len(fields)} fields, and the heading has {len(headings)}")
        yield reader.line_num, dict(zip(headings, fields, strict=True))


def _names_in_words(names: tuple[str, ...]) -> str:
    """Return which names there are, in words."""
    return f": it has {printable_list(names, _SHOWN)}" if names else ": it has no names, so write numbers from 0"


def _numbers(place: str, fields: dict[str, str]) -> tuple[float, float, float]:
    """Return minimum, maximum and step; NaN for what is not given."""
    try:
        low, high, step = (float(text) if (text := fields.get(key, "").strip()) else None for key in _NUMBERS)
    except ValueError:
        raise ValueError(f"{place} a field is no number") from None
    if not all(value is None or np.isfinite(value) for value in (low, high, step)):
        raise ValueError(f"{place} a number is not finite")
    if (low is None) != (high is None):
        raise ValueError(f"{place} one end of a range is there: give both, or none")
    return tuple(np.nan if value is None else value for value in (low, high, step))  # type: ignore[return-value]


def _group(place: str, fields: dict[str, str]) -> tuple[str, str] | None:
    """Return the heading and the name of a feature's group; None if it is in none."""
    named = [(heading, name) for heading in _GROUPS if (name := fields.get(heading, "").strip())]
    if len(named) > 1:
        raise ValueError(f"{place} two groups are named: a feature is in one at most")
    return named[0] if named else None


def _two_values(place: str, low: float, high: float, step: float) -> tuple[float, float, float]:
    """Return minimum, maximum and step of a feature of a group."""
    if np.isnan(low):
        low, high = 0.0, 1.0
    if not high > low or not (np.isnan(step) or step == high - low):
        raise ValueError(f"{place} a feature of a group has two values, min and max: leave step out")
    return low, high, high - low
