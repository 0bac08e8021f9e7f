"""Program: the steps of a model, checked and ready to be applied to rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.limits import MAX_CATEGORIES, MAX_INPUTS, MAX_OPERATIONS, MAX_STEPS, MAX_VALUES
from sealserve.steps.ranges import Ranges
from sealserve.steps.step import Step, ValueKind, indices

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
        values = np.full((len(rows), self.feature_count), np.nan)
        is_refused = np.zeros(len(rows), np.bool_)
        rows_a_block = max(1, min(_MOST_ROWS_A_BLOCK, _CELLS_A_BLOCK // self.value_count))
        for first in range(0, len(rows), rows_a_block):
            block = slice(first, first + rows_a_block)
            try:
                with np.errstate(all="ignore"):
                    self._apply(rows[block], values[block], is_refused[block])
            except MemoryError:
                is_refused[block] = True
        np.copyto(values, np.nan, where=is_refused[:, None])
        return Features(values, is_refused)

    def refusing_columns(self, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which columns are read by a step that refuses a row: bool (rows, column_count)."""
        found = np.zeros((len(rows), self.column_count), np.bool_)
        blocks = _Blocks(self._starts)
        blocks.append(rows)
        with np.errstate(all="ignore"):
            for step in self.steps:
                is_refused = np.zeros(len(rows), np.bool_)
                values = blocks.take(np.asarray(step.inputs), is_number=step.input_kind is ValueKind.NUMBER)
                blocks.append(step.apply(values, is_refused))
                if is_refused.any():
                    found |= is_refused[:, None] & self._sources(np.asarray(step.inputs))
        return found

    def _sources(self, values: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Tell from which columns values are computed: bool (column_count,)."""
        is_source = np.zeros(self.value_count, np.bool_)
        is_source[values] = True
        for number in range(len(self.steps) - 1, -1, -1):
            if is_source[self._starts[number + 1] : self._starts[number + 2]].any():
                is_source[np.asarray(self.steps[number].inputs)] = True
        return is_source[: self.column_count]

    def _apply(self, rows: NDArray[Any], features: NDArray[np.float64], is_refused: NDArray[np.bool_]) -> None:
        blocks = _Blocks(self._starts)
        blocks.append(rows)
        for step in self.steps:
            values = blocks.take(np.asarray(step.inputs), is_number=step.input_kind is ValueKind.NUMBER)
            blocks.append(step.apply(values, is_refused))
        features[:] = blocks.take(np.asarray(self.outputs), is_number=True)

    def ranges(self, columns: Ranges) -> Ranges:
        """Derive what the features can be from what the columns can be."""
        known = columns
        with np.errstate(all="ignore"):
            for step in self.steps:
                known = Ranges.joined([known, step.ranges(known.take(np.asarray(step.inputs)))])
        return known.take(np.asarray(self.outputs))


class _Blocks:
    """The values of rows, in one array for the columns and one for each step."""

    def __init__(self, starts: NDArray[np.intp]) -> None:
        self._starts = starts
        self._arrays: list[NDArray[Any]] = []

    def append(self, values: NDArray[Any]) -> None:
        """Add the columns, or the outputs of the next step."""
        self._arrays.append(values)

    def take(self, chosen: NDArray[np.intp], *, is_number: bool) -> NDArray[Any]:
        """Return values (rows, chosen): float64 if they are numbers."""
        parts = list(self._parts(chosen))
        if is_number:
            parts = [part.astype(np.float64, copy=False) for part in parts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _parts(self, chosen: NDArray[np.intp]) -> Iterator[NDArray[Any]]:
        """Yield the values in pieces, each of consecutive choices that are in one array."""
        arrays = np.searchsorted(self._starts, chosen, side="right") - 1
        bounds = [0, *(np.flatnonzero(np.diff(arrays)) + 1).tolist(), len(chosen)]
        for first, stop in pairwise(bounds):
            array = self._arrays[arrays[first]]
            places = chosen[first:stop] - self._starts[arrays[first]]
            low, high = int(places[0]), int(places[-1])
            is_run = high - low == len(places) - 1 and (len(places) == 1 or bool((np.diff(places) == 1).all()))
            yield array[:, low : high + 1] if is_run else array[:, places]


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
