"""Quantization: the grid of the features, and the integer model that is scored on that grid.

x_int = round((x - minimum) / step)        of the client, 0 .. levels
W_int = round(W step s)                    of the server
b_int = round((b + W minimum) s)           of the server
scores = (W_int x_int + b_int) / s         what the client reads
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealserve.errors import FeatureCountError, InputError, NotFiniteError, OffGridError, OutOfRangeError

T = TypeVar("T", bound=np.generic)

DEFAULT_LEVELS = 255
_ROWS_A_BLOCK = 32  # small enough that intermediate results stay in a core's cache
_OFF_GRID = 1e-3  # of a step
_FLOAT32 = 2.0**-22  # relative: four times what a number loses as a float32
_LEAST_FLOAT32 = 2.0**-149
MAX_LEVELS = 2**32  # far more than any parameter set has room for, and safe in int64 arithmetic


@dataclass(frozen=True, eq=False)
class InputGrid:
    """The declared range of each feature, and the step between neighbours on its grid.

    Attributes:
        minimum, maximum, step: float64, shape (feature_count,), in the features' own units.
        keeps: bool, shape (feature_count,): whether all values of a feature lie on the grid, so
            that rounding adds no error. A value that is off it is refused.
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    step: NDArray[np.float64]
    keeps: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        feature_count: int,
        minimum: ArrayLike,
        maximum: ArrayLike,
        step: ArrayLike | None = None,
        keeps: ArrayLike = False,
    ) -> "InputGrid":
        """Build a grid from one value for all features, or from one value for each feature.

        The default step is 1/255 of the range.

        Raises:
            InputError: a value is not finite, a maximum is below its minimum, a step is not above 0
                or is finer than a 2^32nd of its range, or the length of an array is not
                feature_count.
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
        return cls(_frozen(low), _frozen(high), _frozen(steps), _frozen(kept))

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
        """The least value of each feature that is inside: it rounds to the minimum.

        A feature of one level has to be within its range, to the precision of float32. Its step
        says nothing of how far its values may be from there.
        """
        tolerance = _FLOAT32 * np.abs(self.minimum) + _LEAST_FLOAT32
        return self.minimum - np.where(self.levels > 0, self.step / 2, tolerance)

    @cached_property
    def greatest(self) -> NDArray[np.float64]:
        """The greatest value of each feature that is inside: it rounds to the last level."""
        last = self.minimum + (self.levels + 0.5) * self.step
        return np.where(self.levels > 0, last, self.maximum + _FLOAT32 * np.abs(self.maximum) + _LEAST_FLOAT32)

    def is_off(self, rows: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell which features (rows, feature_count) are off a grid that they should be on.

        A value may be away from the grid by a 1,000th of a step, or by what it loses as a float32.
        """
        nearest = self.minimum + np.rint((rows - self.minimum) / self.step) * self.step
        tolerance = np.maximum(_OFF_GRID * self.step, _FLOAT32 * np.abs(rows))
        return self.keeps & (np.abs(rows - nearest) > tolerance)

    def accepted(self, rows: NDArray[np.float64], *, clip: bool = False) -> NDArray[np.float64]:
        """Return rows (rows, feature_count) if every feature is within its range, and on its grid.

        Args:
            rows: float64.
            clip: move features outside the range to its nearest end instead of refusing them.

        Raises:
            FeatureCountError, NotFiniteError, OutOfRangeError, OffGridError: the rows are refused.
                The text has the place of the first feature at fault, never its value.
        """
        if rows.shape[1:] != self.minimum.shape:
            raise FeatureCountError(f"rows of {self.feature_count} features are needed, but the shape is {rows.shape}")
        if not np.isfinite(rows).all():
            raise NotFiniteError(f"{_first_place(~np.isfinite(rows))} is NaN or infinite: replace it")
        if clip:
            rows = np.clip(rows, self.minimum, self.maximum)
        elif (outside := (rows < self.least) | (rows > self.greatest)).any():
            feature = np.argwhere(outside)[0, 1]
            raise OutOfRangeError(
                f"{_first_place(outside)} is outside the model's range "
                f"{self.minimum[feature]:g}..{self.maximum[feature]:g}: "
                "scores have no guarantee there; scale the feature, or ask for clipping"
            )
        if self.keeps.any() and (off := self.is_off(rows)).any():
            feature = np.argwhere(off)[0, 1]
            raise OffGridError(
                f"{_first_place(off)} is not on the model's grid, {self.minimum[feature]:g} and multiples of "
                f"{self.step[feature]:g} above it: the model takes no value between; round the feature"
            )
        return rows

    def quantize(self, rows: NDArray[np.float64], *, clip: bool = False) -> NDArray[np.int64]:
        """Round features onto the grid: int64 (rows, feature_count), each 0 .. levels.

        Arguments and errors are those of `accepted`.
        """
        accepted = self.accepted(rows, clip=clip)
        quantized = np.empty(accepted.shape, np.int64)
        for first in range(0, len(accepted), _ROWS_A_BLOCK):
            block = quantized[first : first + _ROWS_A_BLOCK]
            features = accepted[first : first + _ROWS_A_BLOCK]
            np.rint((features - self.minimum) / self.step, out=block, casting="unsafe")
            np.clip(block, 0, self.levels, out=block)  # a half above the last level rounds to even
        return quantized


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

        The weight of a feature that has one level is 0: its integer is always 0.

        Args:
            weights: in the units of the features.
            intercept: in the units of the scores.
            grid: the grid of the features.
            score_scale: s.
            center: features (feature_count,) where the rounding of weights adds no error: the
                intercept takes it up. The minimum by default.
        """
        on_grid = np.where(grid.levels > 0, weights * grid.step, 0.0)
        integers = np.rint(on_grid * score_scale)
        shifted = intercept + weights @ grid.minimum
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
        low = np.minimum(self.weights, 0) @ grid.levels
        high = np.maximum(self.weights, 0) @ grid.levels
        return [(int(lo) + b, int(hi) + b) for lo, hi, b in zip(low, high, self.intercept, strict=True)]

    def scores(self, quantized_rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Score integer rows (rows, feature_count) in plaintext: float64 (rows, score_count)."""
        integers = (quantized_rows @ self.weights.T).astype(object) + np.array(self.intercept, object)
        scores: NDArray[np.float64] = (integers / self.score_scale).astype(np.float64)
        return scores


def _first_place(is_at_fault: NDArray[np.bool_]) -> str:
    """Return the place of the first true value of (rows, feature_count), in words."""
    row, feature = np.argwhere(is_at_fault)[0]
    # A single row may come from a stream, where its number is another.
    return f"feature {feature}" if len(is_at_fault) == 1 else f"row {row}, feature {feature}"


def _frozen(values: NDArray[T]) -> NDArray[T]:
    # Always a copy: a read-only view may be of an array that its owner changes.
    frozen = np.array(values, order="C")
    frozen.flags.writeable = False
    return frozen
