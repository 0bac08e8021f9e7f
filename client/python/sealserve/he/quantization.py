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

from sealserve.errors import FeatureCountError, InputError, NotFiniteError, OutOfRangeError

T = TypeVar("T", bound=np.generic)

DEFAULT_LEVELS = 255
_ROWS_A_BLOCK = 32  # small enough that intermediate results stay in a core's cache
MAX_LEVELS = 2**32  # far more than any parameter set has room for, and safe in int64 arithmetic


@dataclass(frozen=True, eq=False)
class InputGrid:
    """The declared range of each feature, and the step between neighbours on its grid.

    Attributes:
        minimum, maximum, step: float64, shape (feature_count,), in the features' own units.
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    step: NDArray[np.float64]

    @classmethod
    def of(
        cls, feature_count: int, minimum: ArrayLike, maximum: ArrayLike, step: ArrayLike | None = None
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
        except ValueError:
            raise InputError(
                f"minimum, maximum and step need one value each, or one for each of {feature_count} features"
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
        return cls(*(_frozen(values) for values in (low, high, steps)))

    @property
    def feature_count(self) -> int:
        """The length of a row."""
        return len(self.minimum)

    @cached_property
    def levels(self) -> NDArray[np.int64]:
        """The greatest x_int of each feature, int64 (feature_count,)."""
        return np.rint((self.maximum - self.minimum) / self.step).astype(np.int64)

    def accepted(self, rows: NDArray[np.float64], *, clip: bool = False) -> NDArray[np.float64]:
        """Return rows (rows, feature_count) if every feature is within its range.

        Args:
            rows: float64.
            clip: move features outside the range to its nearest end instead of refusing them.

        Raises:
            FeatureCountError, NotFiniteError, OutOfRangeError: the rows are refused. The text has
                the place of the first feature at fault, never its value.
        """
        if rows.shape[1:] != self.minimum.shape:
            raise FeatureCountError(f"rows of {self.feature_count} features are needed, but the shape is {rows.shape}")
        if not np.isfinite(rows).all():
            at_fault = np.isnan(rows) if np.isnan(rows).any() else np.isinf(rows)
            what = "missing (NaN)" if np.isnan(rows).any() else "infinite"
            raise NotFiniteError(f"{_first_place(at_fault)} is {what}: replace it")
        if clip:
            return np.clip(rows, self.minimum, self.maximum)
        if (outside := (rows < self.minimum) | (rows > self.maximum)).any():
            feature = np.argwhere(outside)[0, 1]
            raise OutOfRangeError(
                f"{_first_place(outside)} is outside the model's range "
                f"{self.minimum[feature]:g}..{self.maximum[feature]:g}: "
                "scores have no guarantee there; scale the feature, or ask for clipping"
            )
        return rows

    def quantize(self, rows: NDArray[np.float64], *, clip: bool = False) -> NDArray[np.int64]:
        """Round features onto the grid: int64 (rows, feature_count), each 0 .. levels.

        Arguments and errors are those of `accepted`.
        """
        accepted = self.accepted(rows, clip=clip)
        quantized = np.empty(accepted.shape, np.int64)
        for first in range(0, len(accepted), _ROWS_A_BLOCK):
            block = accepted[first : first + _ROWS_A_BLOCK]
            np.rint((block - self.minimum) / self.step, out=quantized[first : first + len(block)], casting="unsafe")
        return quantized

    def dequantize(self, quantized_rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the features (rows, feature_count) that `quantize` rounds to these integers."""
        features: NDArray[np.float64] = np.minimum(self.minimum + quantized_rows * self.step, self.maximum)
        return features


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
        cls, weights: NDArray[np.float64], intercept: NDArray[np.float64], grid: InputGrid, score_scale: float
    ) -> "QuantizedModel":
        """Quantize float weights (score_count, feature_count) and intercepts (score_count,).

        Args:
            weights: in the units of the features.
            intercept: in the units of the scores.
            grid: the grid of the features.
            score_scale: s.
        """
        shifted = intercept + weights @ grid.minimum
        return cls(
            _frozen(np.rint(weights * grid.step * score_scale).astype(np.int64)),
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
