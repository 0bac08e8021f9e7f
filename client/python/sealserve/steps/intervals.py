"""Steps for intervals of a number: Bins, Table and Piecewise."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.limits import MAX_DEGREE, MAX_VALUES
from sealserve.steps.ranges import Group, GroupKind, Ranges
from sealserve.steps.step import RuledStep, increasing, numbers


@dataclass(frozen=True, eq=False)
class BinsColumn:
    """The intervals of one input of `Bins`.

    Attributes:
        edges: the edges between bins, not decreasing: one less than bins. The index of a number's
            bin is the number of edges that are not above it.
        closed_right: whether the index is the number of edges that are below it.
        missing_bin: the bin of a missing number: that of a bin, or one more; None refuses the row.
    """

    edges: NDArray[np.float64]
    closed_right: bool = False
    missing_bin: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", increasing("edges", self.edges))
        if self.missing_bin is not None and not 0 <= self.missing_bin <= len(self.edges) + 1:
            raise ValueError("missing_bin is not that of a bin, nor the number of bins")

    @property
    def bin_count(self) -> int:
        """The number of bins, with that of missing numbers."""
        return max(len(self.edges), -1 if self.missing_bin is None else self.missing_bin) + 1

    def bins(self, values: NDArray[np.float64], is_refused: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Return the bins of numbers (rows,), and set is_refused for rows that are refused."""
        found = np.searchsorted(self.edges, values, side="left" if self.closed_right else "right")
        is_gap = np.isnan(values)
        if self.missing_bin is None:
            is_refused |= is_gap
        return np.where(is_gap, self.missing_bin or 0, found)


@dataclass(frozen=True, eq=False)
class Bins(RuledStep):
    """Tells in which interval a number lies.

    Attributes:
        columns: one for each input.
        one_hot: whether an input has an output for each bin. If false, it has one: the bin's index.
    """

    columns: Sequence[BinsColumn]
    one_hot: bool = False

    @property
    def width(self) -> int:
        return sum(column.bin_count for column in self.columns) if self.one_hot else self.input_count

    @property
    def makes_indicators(self) -> bool:
        return self.one_hot

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        found = np.zeros((len(values), self.width))
        rows, start = np.arange(len(values)), 0
        for position, column in enumerate(self.columns):
            bins = column.bins(values[:, position], is_refused)
            if self.one_hot:
                found[rows, start + bins] = 1.0
                start += column.bin_count
            else:
                found[:, position] = bins
        return found

    def ranges(self, inputs: Ranges) -> Ranges:
        counts = [column.bin_count for column in self.columns]
        if not self.one_hot:
            return Ranges.of(np.zeros(len(counts)), np.array(counts, np.float64) - 1, is_integral=True)
        starts = np.cumsum([0, *counts])
        groups = (Group(GroupKind.EXACTLY_ONE, np.arange(*ends)) for ends in pairwise(starts.tolist()))
        return Ranges.of_flags(self.width, tuple(groups))


@dataclass(frozen=True, eq=False)
class TableColumn:
    """The points of one input of `Table`.

    Attributes:
        xs: not decreasing.
        ys: as many.
        tolerance: how close to an end counts as being there.
    """

    xs: NDArray[np.float64]
    ys: NDArray[np.float64]
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        xs = increasing("xs", self.xs)
        object.__setattr__(self, "xs", xs)
        object.__setattr__(self, "ys", numbers("ys", self.ys, shape=xs.shape))
        if not len(xs) or not (0 <= self.tolerance < np.inf):
            raise ValueError("a point is needed, and a tolerance of 0 or above")

    def interpolate(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Interpolate at numbers (rows,), as TableColumn in steps.proto says."""
        xs, ys = self.xs, self.ys
        found = 0.5 * (np.interp(x, xs, ys) - np.interp(-x, -xs[::-1], -ys[::-1]))
        if self.tolerance:
            is_above, is_below = x + self.tolerance > xs[-1], x - self.tolerance < xs[0]
        else:
            is_above, is_below = x >= xs[-1], x <= xs[0]
        return np.where(is_below, ys[0], np.where(is_above, ys[-1], found))


@dataclass(frozen=True, eq=False)
class Table(RuledStep):
    """Interpolates linearly between points.

    Attributes:
        columns: one for each input.
    """

    columns: Sequence[TableColumn]

    @property
    def is_elementwise(self) -> bool:
        """Each output is computed from one input."""
        return True

    @property
    def width(self) -> int:
        return self.input_count

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        return np.stack([column.interpolate(values[:, k]) for k, column in enumerate(self.columns)], axis=1)

    def ranges(self, inputs: Ranges) -> Ranges:
        return Ranges.of(
            np.array([column.ys.min() for column in self.columns]),
            np.array([column.ys.max() for column in self.columns]),
            may_be_missing=inputs.may_be_missing,
        )


@dataclass(frozen=True, eq=False)
class PiecewiseColumn:
    """The polynomials of one input of `Piecewise`.

    Attributes:
        edges: the edges between pieces, not decreasing. The index of a number's piece is the number
            of edges that are not above it.
        origins: of each piece.
        coefficients: c (pieces, degree + 1, width): output k of piece i is the sum over j of
            c[i, j, k] (x - origins[i])^j.
        period: low and high, if the polynomials repeat.
        domain: low and high, if a row with a number outside is refused.
    """

    edges: NDArray[np.float64]
    origins: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    period: tuple[float, float] | None = None
    domain: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        edges = increasing("edges", self.edges)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "origins", numbers("origins", self.origins, shape=(len(edges) + 1,)))
        shape = np.shape(self.coefficients)
        if len(shape) != 3 or shape[0] != len(edges) + 1:
            raise ValueError("coefficients are needed for each piece, power and output")
        if not (1 <= shape[1] <= MAX_DEGREE + 1 and 1 <= shape[2] <= MAX_VALUES):
            raise ValueError(f"polynomials have a degree of 0 to {MAX_DEGREE}, and an output")
        object.__setattr__(self, "coefficients", numbers("coefficients", self.coefficients, shape=shape))
        for interval in (self.period, self.domain):
            if interval is not None and not (np.isfinite(interval).all() and interval[0] < interval[1]):
                raise ValueError("an interval is empty or not finite")

    @property
    def width(self) -> int:
        """The number of outputs."""
        return int(self.coefficients.shape[2])

    def evaluate(self, x: NDArray[np.float64], is_refused: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Evaluate at numbers (rows,): float64 (rows, width). Set is_refused for refused rows."""
        if self.domain is not None:
            is_refused |= (x < self.domain[0]) | (x > self.domain[1])
        if self.period is not None:
            x = self.period[0] + np.remainder(x - self.period[0], self.period[1] - self.period[0])
        pieces = np.searchsorted(self.edges, x, side="right")
        pieces[np.isnan(x)] = 0
        offset = (x - self.origins[pieces])[:, None]
        found: NDArray[np.float64] = self.coefficients[pieces, -1] + 0.0 * offset  # NaN stays NaN
        for power in range(self.coefficients.shape[1] - 2, -1, -1):
            found = found * offset + self.coefficients[pieces, power]
        return found

    def bounds(self, low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bound the outputs for numbers low..high: by the coefficients in Bernstein's basis.

        A polynomial on an interval lies between the least and the greatest of them.
        """
        if self.domain is not None:
            low, high = max(low, self.domain[0]), min(high, self.domain[1])
        if self.period is not None:
            low, high = self.period
        lows, highs = np.full(self.width, np.inf), np.full(self.width, -np.inf)
        for piece, (start, stop) in enumerate(
            zip([-np.inf, *self.edges.tolist()], [*self.edges.tolist(), np.inf], strict=True)
        ):
            start, stop = max(start, low), min(stop, high)
            if start <= stop:
                with np.errstate(all="ignore"):
                    controls = self._bernstein(piece, start - self.origins[piece], stop - self.origins[piece])
                lows = np.minimum(lows, np.nan_to_num(controls.min(axis=0), nan=-np.inf, posinf=np.inf, neginf=-np.inf))
                highs = np.maximum(
                    highs, np.nan_to_num(controls.max(axis=0), nan=np.inf, posinf=np.inf, neginf=-np.inf)
                )
        is_empty = lows > highs
        return np.where(is_empty, 0.0, lows), np.where(is_empty, 0.0, highs)

    def _bernstein(self, piece: int, start: float, stop: float) -> NDArray[np.float64]:
        """Return the coefficients of a piece in Bernstein's basis over start..stop."""
        powers: NDArray[np.float64] = self.coefficients[piece]
        degree = len(powers) - 1
        if not powers[1:].any():
            return powers[:1]
        # p(start + u t) as powers of t in 0..1, then in Bernstein's basis.
        length = stop - start
        shifted = np.stack(
            [
                sum((comb(j, i) * start ** (j - i) * powers[j] for j in range(i, degree + 1)), np.zeros(self.width))
                * length**i
                for i in range(degree + 1)
            ]
        )
        return np.stack(
            [
                sum((comb(k, i) / comb(degree, i) * shifted[i] for i in range(k + 1)), np.zeros(self.width))
                for k in range(degree + 1)
            ]
        )


@dataclass(frozen=True, eq=False)
class Piecewise(RuledStep):
    """Polynomials on intervals, such as splines. A missing number makes its outputs NaN.

    Attributes:
        columns: one for each input.
    """

    columns: Sequence[PiecewiseColumn]

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    @property
    def operations(self) -> int:
        powers: int = sum(column.width * 2 * column.coefficients.shape[1] for column in self.columns)
        return super().operations + powers

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        return np.concatenate(
            [column.evaluate(values[:, k], is_refused) for k, column in enumerate(self.columns)], axis=1
        )

    def ranges(self, inputs: Ranges) -> Ranges:
        bounds = [
            column.bounds(low, high)
            for column, low, high in zip(self.columns, inputs.low.tolist(), inputs.high.tolist(), strict=True)
        ]
        return Ranges.of(
            np.concatenate([low for low, _ in bounds]),
            np.concatenate([high for _, high in bounds]),
            may_be_missing=np.repeat(inputs.may_be_missing, [column.width for column in self.columns]),
        )
