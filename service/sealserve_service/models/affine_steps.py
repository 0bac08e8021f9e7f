"""Affine steps of pipelines, each as the map that it applies: one rule a kind.

To add a step, write its rule and enter it in `AFFINE_STEPS`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, FactorAnalysis, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from sealserve_service.models import projections
from sealserve_service.models.affine import Affine
from sealserve_service.models.arrays import vector
from sealserve_service.models.limits import MAX_FEATURES, check_limit

STANDARD_DEVIATIONS = 5.0
"""A StandardScaler knows no extremes: its range is the mean -/+ this many of its scales.

With the default margin the published range is the mean -/+ 10 scales.
"""


def _standard_scaler(scaler: StandardScaler) -> Affine:
    # With with_mean=False there is a mean_ too (unless with_std=False as well), but it is not
    # subtracted.
    factor = 1.0 / vector(scaler.scale_) if scaler.with_std else _ones(scaler)
    offset = -vector(scaler.mean_) * factor if scaler.with_mean else np.zeros_like(factor)
    if not scaler.with_std:
        return Affine(factor, offset, _standard_range(scaler))
    return _scaling(factor, offset, _standard_range(scaler))


def _scaling(
    factor: NDArray[np.float64],
    offset: NDArray[np.float64],
    input_range: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> Affine:
    """Return the map of a scaler whose values all vary by about 1."""
    with np.errstate(divide="ignore"):
        spread = 1.0 / np.abs(factor)
    return Affine(factor, offset, input_range, spread, np.ones_like(factor))


def _standard_range(scaler: StandardScaler) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if scaler.mean_ is None or scaler.scale_ is None:
        return None
    mean, reach = vector(scaler.mean_), STANDARD_DEVIATIONS * vector(scaler.scale_)
    return mean - reach, mean + reach


def _min_max_scaler(scaler: MinMaxScaler) -> Affine:
    _refuse_clipping(scaler)
    seen = vector(scaler.data_min_), vector(scaler.data_max_)
    return _scaling(vector(scaler.scale_), vector(scaler.min_), seen)


def _robust_scaler(scaler: RobustScaler) -> Affine:
    factor = 1.0 / vector(scaler.scale_) if scaler.with_scaling else _ones(scaler)
    offset = -vector(scaler.center_) * factor if scaler.with_centering else np.zeros_like(factor)
    # Quantiles bound no value: outliers are what this scaler is for.
    return _scaling(factor, offset, None) if scaler.with_scaling else Affine(factor, offset)


def _max_abs_scaler(scaler: MaxAbsScaler) -> Affine:
    _refuse_clipping(scaler)
    reach = vector(scaler.max_abs_)
    factor = 1.0 / vector(scaler.scale_)
    return _scaling(factor, np.zeros_like(factor), (-reach, reach))


def _ones(scaler: Any) -> NDArray[np.float64]:
    check_limit("features", MAX_FEATURES, scaler.n_features_in_)
    return np.ones(scaler.n_features_in_)


def _refuse_clipping(scaler: Any) -> None:
    if getattr(scaler, "clip", False):  # older scikit-learns have no such attribute
        raise ValueError("it clips, which is not affine; fit it with clip=False")


AFFINE_STEPS: dict[type, Callable[[Any], Affine]] = {
    StandardScaler: _standard_scaler,
    MinMaxScaler: _min_max_scaler,
    MaxAbsScaler: _max_abs_scaler,
    RobustScaler: _robust_scaler,
    PCA: projections.pca,
    IncrementalPCA: projections.pca,
    TruncatedSVD: projections.truncated_svd,
    FactorAnalysis: projections.factor_analysis,
    FastICA: projections.fast_ica,
    GaussianRandomProjection: projections.random_projection,
    SparseRandomProjection: projections.random_projection,
    NeighborhoodComponentsAnalysis: projections.random_projection,
    LinearDiscriminantAnalysis: projections.discriminants,
}
