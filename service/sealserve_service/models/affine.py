"""Affine maps: what folds into weights and an intercept."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealserve_service.models.limits import check_weights


@dataclass(frozen=True, eq=False)
class Affine:
    """The map `x -> factor x + offset`.

    Attributes:
        factor: shape (outputs, features); of a scaler only the diagonal (features,): the square of
            20,000 features would be 3.2 GB.
        offset: shape (outputs,).
        input_range: minimum and maximum of each feature, where the step knows them.
        input_spread: how much each feature varies in the training rows, (features,), where the step
            knows it: a standard deviation, or a width. Features may have quite different units.
        output_spread: how much each value varies in them, (outputs,), in the same measure.
        is_noise: which values hold nothing but the rounding errors of the fit, bool (outputs,).

    Raises:
        ValueError: a number is not finite, or the shapes disagree.
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    input_range: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    input_spread: NDArray[np.float64] | None = None
    output_spread: NDArray[np.float64] | None = None
    is_noise: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.factor.shape[0] != len(self.offset):
            raise ValueError(f"{self.factor.shape[0]} factors for {len(self.offset)} values")
        if not (np.isfinite(self.factor).all() and np.isfinite(self.offset).all()):
            raise ValueError("it holds NaN or infinity")

    def fold_into(
        self, weights: NDArray[np.float64], intercept: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights and intercept for x that equal the given ones for `factor x + offset`.

        Raises:
            ModelTooLargeError: the weights would be too many: two vectors fold into a matrix.
            ValueError: the shapes disagree.
        """
        if weights.shape[1] != len(self.offset):
            raise ValueError(f"{len(self.offset)} values come out of a step, {weights.shape[1]} go into the next")
        check_weights(len(weights), self.factor.shape[-1])
        folded = weights * self.factor if self.factor.ndim == 1 else weights @ self.factor
        return folded, intercept + weights @ self.offset
