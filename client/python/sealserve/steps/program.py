"""Program: the steps of a model, checked and ready to be applied to rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.limits import MAX_CATEGORIES, MAX_INPUTS, MAX_OPERATIONS, MAX_STEPS, MAX_VALUES
from sealserve.steps.ranges import Group, Ranges
from sealserve.steps.step import RuledStep, Step, ValueKind, indices

_CELLS_A_BLOCK = 1 << 20  # values of the rows that are computed at once
_MOST_ROWS_A_BLOCK = 1 << 10


class Features(NamedTuple):
    """The features of rows.

    Attributes:
        values: float64 (rows, feature_count). Those of a refused row are NaN.
        is_refused: which rows a step refuses, or lack the memory to be computed, bool (rows,).
    """

    values: NDArray[np.float64]
    is_refused: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Program:
    """Steps that turn the columns of a row into its features.

    The values of a row are numbered: first the columns, then the outputs of each step in turn.

    Attributes:
        columns: the kind of each column.
        steps: the steps. Each reads values of the columns and of steps before it.
        outputs: the numbers of the values that are the features, in order.

    Raises:
        ValueError: a step reads a value that does not exist yet, or is of another kind than it
            needs; a feature is a text; or the program is beyond `limits`.
    """

    columns: Sequence[ValueKind]
    steps: Sequence[Step]
    outputs: Sequence[int] | NDArray[np.intp]
    _starts: NDArray[np.intp] = field(init=False, repr=False)
    _reads: tuple["_Read", ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name, value in (("columns", tuple(self.columns)), ("steps", tuple(self.steps))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "outputs", indices("outputs", self.outputs))
        _check_sizes(self.columns, self.steps)
        starts = np.cumsum([0, len(self.columns), *(step.width for step in self.steps)])
        object.__setattr__(self, "_starts", starts)
        if not len(self.columns) or not len(self.outputs) or len(self.outputs) > MAX_VALUES:
            raise ValueError("steps have no columns, no outputs or too many")
        kinds = np.array([kind is ValueKind.TEXT for kind in self.columns], np.bool_)
        is_text = np.concatenate([kinds, np.zeros(starts[-1] - starts[1], np.bool_)])
        for number, step in enumerate(self.steps):
            inputs = np.asarray(step.inputs)
            if inputs.max() >= starts[number + 1]:
                raise ValueError(f"step {number} reads a value that does not exist yet")
            _check_kinds(number, step, is_text[inputs])
            is_text[starts[number + 1] : starts[number + 2]] = step.output_kind is ValueKind.TEXT
        if np.max(self.outputs) >= starts[-1] or is_text[self.outputs].any():
            raise ValueError("a feature is a value that there is not, or a text")
        reads = [
            _Read.of(np.asarray(step.inputs), starts, is_number=not is_text[step.inputs].any()) for step in self.steps
        ]
        reads.append(_Read.of(np.asarray(self.outputs), starts, is_number=True))
        object.__setattr__(self, "_reads", tuple(reads))

    @property
    def column_count(self) -> int:
        """The length of a row."""
        return len(self.columns)

    @property
    def feature_count(self) -> int:
        """The number of features."""
        return len(self.outputs)

    @property
    def value_count(self) -> int:
        """The number of values of a row."""
        return int(self._starts[-1])

    def features(self, rows: NDArray[Any]) -> Features:
        """Compute the features of rows.

        What happens depends on the steps and on the number of rows, not on values: but text takes
        time by its length. A row that lacks the memory to be computed is refused.

        Args:
            rows: (rows, column_count), float64; or objects, each a number, a text, None or NaN.
        """
        is_refused = np.zeros(len(rows), np.bool_)
        if len(rows) <= self._rows_a_block:
            values = self._features(rows, is_refused)
        else:
            values = np.empty((len(rows), self.feature_count))
            for block in self._blocks(len(rows)):
                values[block] = self._features(rows[block], is_refused[block])
        np.copyto(values, np.nan, where=is_refused[:, None])
        return Features(values, is_refused)

    @cached_property
    def _rows_a_block(self) -> int:
        """How many rows to compute at once. A step may read a value any number of times."""
        cells = max(self.value_count, *(step.input_count for step in self.steps), self.feature_count)
        return max(1, min(_MOST_ROWS_A_BLOCK, _CELLS_A_BLOCK // cells))

    def _blocks(self, row_count: int) -> Iterator[slice]:
        for first in range(0, row_count, self._rows_a_block):
            yield slice(first, first + self._rows_a_block)

    def _features(self, rows: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Compute the features of a block of rows, and set is_refused for rows that are refused."""
        arrays = [rows]
        try:
            with np.errstate(all="ignore"):
                for step, read in zip(self.steps, self._reads[:-1], strict=True):
                    arrays.append(step.apply(read.take(arrays), is_refused))
                values = self._reads[-1].take(arrays)
        except MemoryError:
            is_refused[:] = True
            return np.full((len(rows), self.feature_count), np.nan)
        return values.copy() if np.may_share_memory(values, rows) else values  # it is written into

    def refusing_columns(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which columns are read by a step that refuses a row: bool (rows, column_count)."""
        found = np.empty((len(rows), self.column_count), np.bool_)
        for block in self._blocks(len(rows)):
            found[block] = self._refusing_columns(rows[block])
        return found

    def _refusing_columns(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        found = np.zeros((len(rows), self.column_count), np.bool_)
        arrays = [rows]
        with np.errstate(all="ignore"):
            for step, read in zip(self.steps, self._reads[:-1], strict=True):
                inputs, is_refused = np.asarray(step.inputs), np.zeros(len(rows), np.bool_)
                try:
                    values = read.take(arrays)
                    arrays.append(step.apply(values, is_refused))
                    for positions, refused in _refused_by_inputs(step, values) if is_refused.any() else ():
                        found |= refused[:, None] & self._sources(inputs[positions])
                except MemoryError:
                    return found | self._sources(inputs)
        return found

    def sources_of_feature(self, feature: int) -> list[int]:
        """Return the numbers of the columns that a feature is computed from."""
        found: list[int] = np.flatnonzero(self._sources(np.asarray(self.outputs)[[feature]])).tolist()
        return found

    def _sources(self, values: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Tell from which columns values are computed: bool (column_count,)."""
        is_source = np.zeros(self.value_count, np.bool_)
        is_source[values] = True
        for number in range(len(self.steps) - 1, -1, -1):
            step, inputs = self.steps[number], np.asarray(self.steps[number].inputs)
            is_used = is_source[self._starts[number + 1] : self._starts[number + 2]]
            if is_used.any():
                is_source[inputs[is_used] if step.is_elementwise else inputs] = True
        return is_source[: self.column_count]

    def ranges(self, columns: Ranges) -> Ranges:
        """Derive what the features can be from what the columns can be.

        No step looks at the groups of its inputs. The time is that of the sizes of all steps.
        """
        low, high = np.empty((2, self.value_count))
        is_integral, may_be_missing = np.empty((2, self.value_count), np.bool_)
        groups, found = list[Group](), columns
        with np.errstate(all="ignore"):
            for number in range(len(self.steps) + 1):
                if number:
                    inputs = np.asarray(self.steps[number - 1].inputs)
                    known = Ranges(low[inputs], high[inputs], is_integral[inputs], may_be_missing[inputs])
                    found = self.steps[number - 1].ranges(known)
                values = slice(self._starts[number], self._starts[number + 1])
                low[values], high[values] = found.low, found.high
                is_integral[values], may_be_missing[values] = found.is_integral, found.may_be_missing
                groups += (Group(group.kind, group.members + self._starts[number]) for group in found.groups)
        return Ranges(low, high, is_integral, may_be_missing, tuple(groups)).take(np.asarray(self.outputs))

    def indicators(self) -> Ranges | None:
        """Return the ranges of the features if steps make indicators of all of them; else None.

        It derives nothing from what these steps read: a hostile service chooses the steps, and the
        ranges of some take long to derive.
        """
        arrays = np.searchsorted(self._starts, np.asarray(self.outputs), side="right") - 1
        numbers, places = np.unique(arrays, return_inverse=True)
        makers = [self.steps[number - 1] for number in numbers.tolist() if number]
        if len(makers) < len(numbers) or not all(step.makes_indicators for step in makers):
            return None
        found = Ranges.joined([step.ranges(_unknown(step.input_count)) for step in makers])
        first = np.cumsum([0, *(step.width for step in makers)])[:-1]
        return found.take(np.asarray(self.outputs) - self._starts[arrays] + first[places])


def _refused_by_inputs(step: Step, values: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
    """Yield inputs of a step, by their places, with the rows that it refuses because of them."""
    parts: list[tuple[slice, Step]] = [(slice(None), step)]
    if isinstance(step, RuledStep):
        places = [slice(position, position + 1) for position in range(step.input_count)]
        inputs = np.asarray(step.inputs)
        parts = [(place, replace(step, inputs=inputs[place], columns=step.columns[place])) for place in places]
    for place, part in parts:
        is_refused = np.zeros(len(values), np.bool_)
        part.apply(values[:, place], is_refused)
        yield place, is_refused


class _Part(NamedTuple):
    """Values that are read from one array: the columns, or the outputs of one step.

    Attributes:
        array: the number of the array; 0 is that of the columns.
        places: where the values are in it.
    """

    array: int
    places: slice | NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class _Read:
    """What a step reads, or the features: values of one or several arrays.

    Attributes:
        parts: the values, in pieces.
        is_number: whether all values are numbers.
    """

    parts: tuple[_Part, ...]
    is_number: bool

    @classmethod
    def of(cls, values: NDArray[np.intp], starts: NDArray[np.intp], *, is_number: bool) -> "_Read":
        """Find values in the arrays that begin at `starts`."""
        arrays = np.searchsorted(starts, values, side="right") - 1
        bounds = [0, *(np.flatnonzero(np.diff(arrays)) + 1).tolist(), len(values)]
        parts = []
        for first, stop in pairwise(bounds):
            array = int(arrays[first])
            places = values[first:stop] - starts[array]
            is_run = bool((np.diff(places) == 1).all())
            parts.append(_Part(array, slice(int(places[0]), int(places[-1]) + 1) if is_run else places))
        return cls(tuple(parts), is_number)

    def take(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the values (rows, values): float64 if they are numbers."""
        found = [arrays[part.array][:, part.places] for part in self.parts]
        if self.is_number:
            found = [part.astype(np.float64, copy=False) for part in found]
        return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def _unknown(count: int) -> Ranges:
    """Return the ranges of values of which nothing is known."""
    ends = np.full(count, np.inf)
    return Ranges.of(-ends, ends, may_be_missing=True)


def _check_sizes(columns: Sequence[ValueKind], steps: Sequence[Step]) -> None:
    """Check the sums over all steps.

    Raises:
        ValueError: one is beyond `limits`.
    """
    for what, count, most in (
        ("steps", len(steps), MAX_STEPS),
        ("values", len(columns) + sum(step.width for step in steps), MAX_VALUES),
        ("inputs of steps", sum(step.input_count for step in steps), MAX_INPUTS),
        ("operations on a row", sum(step.operations for step in steps), MAX_OPERATIONS),
        ("categories and terms", sum(step.text_count for step in steps), MAX_CATEGORIES),
    ):
        if count > most:
            raise ValueError(f"there are {count} {what}, more than {most}")


def _check_kinds(number: int, step: Step, is_text: NDArray[np.bool_]) -> None:
    """Check that the inputs of a step are of the kinds that it needs.

    Raises:
        ValueError: they are not.
    """
    if step.input_kind is ValueKind.NUMBER and not is_text.any():
        return
    for position, found in enumerate(is_text.tolist()):
        needed = step.kind_of_input(position)
        if needed is not None and (needed is ValueKind.TEXT) != found:
            raise ValueError(f"step {number} needs a {needed.value} as input {position}")
