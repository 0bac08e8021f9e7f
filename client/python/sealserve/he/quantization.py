"""Quantization: the grid of the features, and the integer model that is scored on that grid.

x_int = round((x - minimum) / step)        of the client, 0 .. levels
W_int = round(W step s)                    of the server
b_int = round((b + W minimum) s)           of the server
scores = (W_int x_int + b_int) / s         what the client reads
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealserve.errors import FeatureCountError, InputError
from sealserve.he.row_constraints import RowConstraints, Span, Sums

T = TypeVar("T", bound=np.generic)

DEFAULT_LEVELS = 255
# Rows and features to quantize at once: few enough that intermediate results stay in a core's
# cache, and many enough that calls of NumPy do not take most of the time.
_ROWS_A_BLOCK = 32
_FEATURES_A_BLOCK = 1 << 14
_OFF_GRID = 1e-3  # of a step
_FLOAT32 = 2.0**-22  # relative: four times what a number loses as a float32
_LEAST_FLOAT32 = 2.0**-149
MAX_LEVELS = 2**32  # far more than any parameter set has room for, and safe in int64 arithmetic


class Quantized(NamedTuple):
    """Rows on a grid, with a dummy in the place of each row that the grid refuses.

    Attributes:
        integers: int64 (rows, feature_count), each 0 .. levels.
        is_refused: bool (rows,).
    """

    integers: NDArray[np.int64]
    is_refused: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class InputGrid:
    """The declared range of each feature, and the step between neighbours on its grid.

    Attributes:
        minimum, maximum, step: float64, shape (feature_count,), in the features' own units.
        keeps: bool, shape (feature_count,): whether all values of a feature lie on the grid, so
            that rounding adds no error. A value that is off it is refused.
        constraints: what is known of rows besides.
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    step: NDArray[np.float64]
    keeps: NDArray[np.bool_]
    constraints: RowConstraints = field(default_factory=RowConstraints)

    @classmethod
    def of(
        cls,
        feature_count: int,
        minimum: ArrayLike,
        maximum: ArrayLike,
        step: ArrayLike | None = None,
        keeps: ArrayLike = False,
        constraints: RowConstraints | None = None,
    ) -> "InputGrid":
        """Build a grid from one value for all features, or from one value for each feature.

        The default step is 1/255 of the range.

        Raises:
            InputError: a value is not finite, a maximum is below its minimum, a step is not above 0
                or is finer than a 2^32nd of its range, the length of an array is not feature_count,
                a feature of a group does not keep its grid or has one value, or 0 is outside the
                range of a feature with a norm.
        """
        try:
            low, high = (np.broadcast_to(np.asarray(v, np.float64), (feature_count,)) for v in (minimum, maximum))
            # Values that are not finite are refused below.
            with np.errstate(over="ignore", invalid="ignore"):
                width = high - low
            if step is None:
                step = np.where(high > low, width / DEFAULT_LEVELS, 1.0)
            steps = np.broadcast_to(np.asarray(step, np.float64), (feature_count,))
            kept = np.broadcast_to(np.asarray(keeps, np.bool_), (feature_count,))
        except ValueError:
            raise InputError(
                f"minimum, maximum, step and keeps need one value each, or one for each of {feature_count} features"
            ) from None
        if not (np.isfinite(low).all() and np.isfinite(high).all() and np.isfinite(width).all()):
            raise InputError("the input range must be finite, and so must its width")
        if (high < low).any():
            raise InputError("the input range is empty, a maximum is below its minimum: exchange the two")
        if not np.isfinite(steps).all() or (steps <= 0).any():
            raise InputError("the input step must be above 0 and finite: give another")
        with np.errstate(over="ignore"):
            too_fine = width / steps > MAX_LEVELS
        if too_fine.any():
            raise InputError("the input step is finer than a 2^32nd of the range: give a larger step")
        grid = cls(_frozen(low), _frozen(high), _frozen(steps), _frozen(kept), constraints or RowConstraints())
        if not grid.constraints.is_none:
            grid._check_constraints()
        return grid

    @property
    def feature_count(self) -> int:
        """The length of a row."""
        return len(self.minimum)

    @cached_property
    def levels(self) -> NDArray[np.int64]:
        """The greatest x_int of each feature, int64 (feature_count,)."""
        return np.rint((self.maximum - self.minimum) / self.step).astype(np.int64)

    @cached_property
    def least(self) -> NDArray[np.float64]:
        """The least value of each feature that is inside.

        It rounds to the minimum, or is off it by no more than a float32 may be. Of a feature with 0
        levels the step says nothing of how far its values may be from there.
        """
        with np.errstate(under="ignore"):
            tolerance = _FLOAT32 * np.abs(self.minimum) + _LEAST_FLOAT32
            return self.minimum - np.maximum(np.where(self.levels > 0, self.step / 2, 0.0), tolerance)

    @cached_property
    def greatest(self) -> NDArray[np.float64]:
        """The greatest value of each feature that is inside.

        It rounds to the last level, or is off the maximum by no more than a float32 may be. The
        last level may be half a step below the maximum.
        """
        with np.errstate(under="ignore"):
            tolerance = _FLOAT32 * np.abs(self.maximum) + _LEAST_FLOAT32
            last = self.minimum + (self.levels + 0.5) * self.step
            return np.maximum(np.where(self.levels > 0, last, self.maximum), self.maximum + tolerance)

    @cached_property
    def keeps_any(self) -> bool:
        """Whether there is a feature whose values all lie on the grid."""
        return bool(self.keeps.any())

    @cached_property
    def has_groups(self) -> bool:
        """Whether there is a group of features that rows may break."""
        return bool(self.constraints.is_checked.any())

    @cached_property
    def has_indicators_only(self) -> bool:
        """Whether each feature is of a group that published steps compute: it has two values."""
        group, is_checked = self.constraints.group, self.constraints.is_checked
        return len(group) > 0 and bool((group > 0).all() and not is_checked.any())

    @cached_property
    def kept_step(self) -> NDArray[np.float64]:
        """The distance of neighbours among the values that are not off the grid.

        It is the step, but a feature of a group has two values, however many levels are between.
        """
        step = self.step.copy()
        members = self.constraints.checked.members
        step[members] *= self.levels[members]
        return step

    @cached_property
    def dummy(self) -> NDArray[np.float64]:
        """An admissible row (feature_count,), which travels in the place of a refused one.

        All features are at their minimum but the first one of each exactly-one group.
        """
        constraints, dummy = self.constraints, self.minimum.copy()
        first = constraints.members[constraints.starts[constraints.exactly_one]]
        dummy[first] = self.maximum[first]
        return dummy

    @cached_property
    def dummy_integers(self) -> NDArray[np.int64]:
        """The dummy on the grid."""
        return np.where(self.dummy > self.minimum, self.levels, 0)

    def is_off(self, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which features (rows, feature_count) are off a grid that they should be on."""
        return self.keeps & is_off_grid(rows, self.minimum, self.kept_step, grid_tolerance(np.abs(rows), self.step))

    def broken_groups(self, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which groups rows (rows, feature_count) break: bool (rows, checked groups)."""
        return self.constraints.checked.broken(rows - self.minimum > self.kept_step / 2)

    def admissible(
        self, rows: NDArray[np.float64], *, clip: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Replace each row that the grid refuses by the dummy.

        A row is refused if a feature is not finite, is off a grid that it should be on or, unless
        `clip`, is outside its range, or if it breaks a group. The same operations run whatever the
        values are. Therefore neither what a client sends nor when it sends it depends on them. The
        error that says why rows were refused (`protocol.refusal`) is composed later.

        Args:
            rows: float64 (rows, feature_count).
            clip: move features outside the range to its nearest end instead of refusing the row.

        Returns:
            The rows, each of values that round to a level, and which were refused, bool (rows,).
        """
        least, greatest = (self.minimum, self.maximum) if clip else (self.least, self.greatest)
        bounded = np.fmax(rows, least)  # of a NaN and a number, it returns the number
        np.fmin(bounded, greatest, out=bounded)
        is_at_fault = ~np.isfinite(rows) if clip else bounded != rows
        if self.keeps_any:  # it is public; this is `is_off`, without a call for every row
            with np.errstate(under="ignore"):
                nearest = self.minimum + np.rint((bounded - self.minimum) / self.kept_step) * self.kept_step
                tolerance = np.maximum(_OFF_GRID * self.step, _FLOAT32 * np.abs(bounded))
                is_at_fault |= self.keeps & (np.abs(bounded - nearest) > tolerance)
        is_refused: NDArray[np.bool_] = np.logical_or.reduce(is_at_fault, axis=1)
        if self.has_groups:  # it is public too
            is_refused |= np.logical_or.reduce(self.broken_groups(bounded), axis=1)
        return np.where(is_refused[:, None], self.dummy, bounded), is_refused

    def quantize(self, rows: NDArray[np.float64], *, clip: bool = False) -> Quantized:
        """Round features onto the grid. Refused rows become dummies, as in `admissible`.

        Indicators that published steps compute are at their maximum or minimum. They are only told
        apart, and a row is refused if a step has refused it: then all its features are NaN. That
        the grid has no other features is public.

        Raises:
            FeatureCountError: the shape of the rows is not (rows, feature_count).
        """
        if rows.shape[1:] != self.minimum.shape:
            raise FeatureCountError(f"rows of {self.feature_count} features are needed, but the shape is {rows.shape}")
        if self.has_indicators_only:
            indicators, is_missing = (rows > self.minimum) * self.levels, np.isnan(rows[:, 0])
            np.copyto(indicators, self.dummy_integers, where=is_missing[:, None])
            return Quantized(indicators, is_missing)
        integers = np.empty(rows.shape, np.int64)
        is_refused: NDArray[np.bool_] = np.empty(len(rows), np.bool_)
        rows_a_block = max(_ROWS_A_BLOCK, _FEATURES_A_BLOCK // max(1, rows.shape[1]))
        for first in range(0, len(rows), rows_a_block):
            block = slice(first, first + rows_a_block)
            features, refused = self.admissible(rows[block], clip=clip)
            is_refused[block] = refused
            with np.errstate(under="ignore"):  # whatever the caller has set for tiny numbers
                np.rint((features - self.minimum) / self.step, out=integers[block], casting="unsafe")
            np.clip(integers[block], 0, self.levels, out=integers[block])  # half a level above rounds to even
        return Quantized(integers, is_refused)

    def admissible_integers(self, rows: NDArray[np.integer[Any]]) -> Quantized:
        """Replace each row (rows, feature_count) that no row of features becomes by the dummy."""
        is_refused = self.refuses_integers(rows)
        return Quantized(np.where(is_refused[:, None], self.dummy_integers, rows.astype(np.int64)), is_refused)

    def refuses_integers(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Tell which rows of integers (rows, feature_count) no row of features becomes."""
        is_refused: NDArray[np.bool_] = np.any((rows < 0) | (rows > self.levels), axis=1)
        if self.has_groups:
            checked = self.constraints.checked
            set_or_not = (rows == 0) | (rows == self.levels)
            is_refused |= ~set_or_not[:, checked.members].all(axis=1)
            is_refused |= checked.broken(rows > 0).any(axis=1)
        return is_refused

    def extremes(self, coefficients: Sums) -> tuple[Sums, Sums]:
        """Return the least and the greatest sums of coefficients times x_int over all rows.

        Args:
            coefficients: integers or float64, (sums, feature_count).

        Returns:
            Two arrays (sums,). Of integers they are exact, or rounded outwards: see
            `sealserve.he.row_constraints`.
        """
        if self.constraints.is_none:
            return np.minimum(coefficients, 0) @ self.levels, np.maximum(coefficients, 0) @ self.levels
        half_a_level = np.where(self.levels > 0, 0.5 / np.maximum(self.levels, 1), 0.0)
        span = Span(self.minimum, self.maximum, self.levels * self.step, half_a_level)
        return self.constraints.extremes(coefficients * self.levels, span)

    def on_grid(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weights (sums, feature_count) in units of the grid; 0 for constant features."""
        return np.where(self.levels > 0, weights * self.step, 0.0)

    def centered(self, on_grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Take off the features of each exactly-one group what they have in common.

        Args:
            on_grid: weights in units of the grid, (sums, feature_count).

        Returns:
            The weights that are left, and what is added to the sum of every row instead, (sums,).
        """
        if not self.constraints.exactly_one.any():
            return on_grid, np.zeros(len(on_grid))
        taken, common = self.constraints.in_common(on_grid * self.levels)
        return on_grid - taken / np.maximum(self.levels, 1), common

    def _check_constraints(self) -> None:
        constraints = self.constraints
        if len(constraints.group) not in (0, self.feature_count):
            raise InputError(f"groups need one number for each of {self.feature_count} features")
        if not (self.keeps & (self.levels > 0))[constraints.members].all():
            raise InputError("a feature of a group must keep its grid, and have two values at least")
        for norm in constraints.norms:
            if (norm.members >= self.feature_count).any():
                raise InputError("a norm is of a feature that there is not")
            if (self.minimum[norm.members] > 0).any() or (self.maximum[norm.members] < 0).any():
                raise InputError("the range of a feature with a norm must have 0 in it")


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """The integer model that is scored on ciphertexts, and the plaintext arithmetic it must equal.

    Attributes:
        weights: int64 (score_count, feature_count).
        intercept: Python integers, one for each score. Before reduction modulo t they may be far
            larger than 2^63.
        score_scale: s. An integer score divided by s is a score.
    """

    weights: NDArray[np.int64]
    intercept: tuple[int, ...]
    score_scale: float

    @classmethod
    def of(
        cls,
        weights: NDArray[np.float64],
        intercept: NDArray[np.float64],
        grid: InputGrid,
        score_scale: float,
        center: NDArray[np.float64] | None = None,
    ) -> "QuantizedModel":
        """Quantize float weights (score_count, feature_count) and intercepts (score_count,).

        The weight of a feature that has one level is 0: its integer is always 0. What the features
        of an exactly-one group have in common is in the intercept.

        Args:
            weights: in the units of the features.
            intercept: in the units of the scores.
            grid: the grid of the features.
            score_scale: s.
            center: features (feature_count,) where the rounding of weights adds no error: the
                intercept takes it up. The minimum by default.
        """
        on_grid, common = grid.centered(grid.on_grid(weights))
        integers = np.rint(on_grid * score_scale)
        shifted = intercept + weights @ grid.minimum + common
        if center is not None:
            position = np.where(grid.levels > 0, (center - grid.minimum) / grid.step, 0.0)
            shifted += (on_grid - integers / score_scale) @ position
        return cls(
            _frozen(integers.astype(np.int64)),
            tuple(round(score_scale * float(value)) for value in shifted),
            score_scale,
        )

    @cached_property
    def l1_norms(self) -> NDArray[np.int64]:
        """The sum of |W_int| of each class, int64 (score_count,)."""
        norms: NDArray[np.int64] = np.abs(self.weights).sum(axis=1)
        return norms

    def extremes(self, grid: InputGrid) -> list[tuple[int, int]]:
        """Return the least and greatest integer score of each class over all rows on the grid."""
        low, high = grid.extremes(self.weights)
        return [(int(lo) + b, int(hi) + b) for lo, hi, b in zip(low, high, self.intercept, strict=True)]

    def scores(self, quantized_rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Score integer rows (rows, feature_count) in plaintext: float64 (rows, score_count)."""
        integers = (quantized_rows @ self.weights.T).astype(object) + np.array(self.intercept, object)
        scores: NDArray[np.float64] = (integers / self.score_scale).astype(np.float64)
        return scores


def is_off_grid(
    values: NDArray[np.float64],
    origin: NDArray[np.float64],
    step: NDArray[np.float64] | float,
    tolerance: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Tell which values (rows, features) are on none of the points origin + integer * step.

    They may be away from it by their tolerance.
    """
    with np.errstate(under="ignore"):  # whatever the caller has set for tiny numbers
        nearest = origin + np.rint((values - origin) / step) * step
        is_off: NDArray[np.bool_] = np.abs(values - nearest) > tolerance
        return is_off


def grid_tolerance(sizes: NDArray[np.float64], step: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return how far values of these absolute sizes may be from a grid that they should be on.

    It is a 1,000th of a step, or what a value loses as a float32.
    """
    with np.errstate(under="ignore"):
        tolerance: NDArray[np.float64] = np.maximum(_OFF_GRID * step, _FLOAT32 * sizes)
        return tolerance


def _frozen(values: NDArray[T]) -> NDArray[T]:
    # Always a copy: a read-only view may be of an array that its owner changes.
    frozen = np.array(values, order="C")
    frozen.flags.writeable = False
    return frozen
