"""Affine pipeline steps, each as the map that it applies.

Only affine steps fold into weights and an intercept.
To add a step, write its rule and enter it in `AFFINE_STEPS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

STANDARD_DEVIATIONS = 6.0
"""A StandardScaler knows no extremes: its range is the mean -/+ this many of its scales."""


@dataclass(frozen=True, eq=False)
class Affine:
    """The map `x -> factor x + offset`.

    Attributes:
        factor: shape (outputs, features); of a scaler only the diagonal (features,): the square of
            20,000 features would be 3.2 GB.
        offset: shape (outputs,).
        input_range: minimum and maximum of each feature, where the step knows them.

    Raises:
        ValueError: a number is not finite.
    """

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]
    input_range: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.factor).all() and np.isfinite(self.offset).all()):
            raise ValueError("it holds NaN or infinity")

    def fold_into(
        self, weights: NDArray[np.float64], intercept: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights and intercept for x that equal the given ones for `factor x + offset`."""
        if weights.shape[1] != len(self.offset):
            raise ValueError(f"{len(self.offset)} values come out of a step, {weights.shape[1]} go into the next")
        folded = weights * self.factor if self.factor.ndim == 1 else weights @ self.factor
        return folded, intercept + weights @ self.offset


def _standard_scaler(scaler: StandardScaler) -> Affine:
    # With with_mean=False there is a mean_ too (unless with_std=False as well), but it is not
    # subtracted.
    factor = 1.0 / _floats(scaler.scale_) if scaler.with_std else np.ones(scaler.n_features_in_)
    offset = -_floats(scaler.mean_) * factor if scaler.with_mean else np.zeros_like(factor)
    return Affine(factor, offset, _standard_range(scaler))


def _standard_range(scaler: StandardScaler) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if scaler.mean_ is None or scaler.scale_ is None:
        return None
    reach = STANDARD_DEVIATIONS * _floats(scaler.scale_)
    return _floats(scaler.mean_) - reach, _floats(scaler.mean_) + reach


def _min_max_scaler(scaler: MinMaxScaler) -> Affine:
    _refuse_clipping(scaler)
    seen = _floats(scaler.data_min_), _floats(scaler.data_max_)
    return Affine(_floats(scaler.scale_), _floats(scaler.min_), seen)


def _max_abs_scaler(scaler: MaxAbsScaler) -> Affine:
    _refuse_clipping(scaler)
    reach = _floats(scaler.max_abs_)
    factor = 1.0 / _floats(scaler.scale_)
    return Affine(factor, np.zeros_like(factor), (-reach, reach))


def _pca(pca: PCA) -> Affine:
    factor = _floats(pca.components_)
    if pca.whiten:
        # The floor is scikit-learn's own: a component without variance must not become infinite.
        deviations = np.sqrt(pca.explained_variance_)
        floor = np.finfo(deviations.dtype).eps
        factor = factor / np.maximum(_floats(deviations), floor)[:, np.newaxis]
    return Affine(factor, -factor @ _floats(pca.mean_))


def _truncated_svd(svd: TruncatedSVD) -> Affine:
    factor = _floats(svd.components_)
    return Affine(factor, np.zeros(len(factor)))


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)


def _refuse_clipping(scaler: Any) -> None:
    if getattr(scaler, "clip", False):  # older scikit-learns have no such attribute
        raise ValueError("it clips, which is not affine; fit it with clip=False")


AFFINE_STEPS: dict[type, Callable[[Any], Affine]] = {
    StandardScaler: _standard_scaler,
    MinMaxScaler: _min_max_scaler,
    MaxAbsScaler: _max_abs_scaler,
    PCA: _pca,
    TruncatedSVD: _truncated_svd,
}
