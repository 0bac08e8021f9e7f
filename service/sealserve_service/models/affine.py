"""Affine pipeline steps, each as the map that it applies.

Only affine steps fold into weights and an intercept.
To add a step, write its rule and enter it in `AFFINE_STEPS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

from sealserve_service.models.limits import MAX_FEATURES, check_limit, check_weights

STANDARD_DEVIATIONS = 5.0
"""A StandardScaler knows no extremes: its range is the mean -/+ this many of its scales.

With the default margin the published range is the mean -/+ 10 scales.
"""


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


def _standard_scaler(scaler: StandardScaler) -> Affine:
    # With with_mean=False there is a mean_ too (unless with_std=False as well), but it is not
    # subtracted.
    if scaler.with_std:
        factor = 1.0 / _vector(scaler.scale_)
    else:
        check_limit("features", MAX_FEATURES, scaler.n_features_in_)
        factor = np.ones(scaler.n_features_in_)
    offset = -_vector(scaler.mean_) * factor if scaler.with_mean else np.zeros_like(factor)
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
    mean, reach = _vector(scaler.mean_), STANDARD_DEVIATIONS * _vector(scaler.scale_)
    return mean - reach, mean + reach


def _min_max_scaler(scaler: MinMaxScaler) -> Affine:
    _refuse_clipping(scaler)
    seen = _vector(scaler.data_min_), _vector(scaler.data_max_)
    return _scaling(_vector(scaler.scale_), _vector(scaler.min_), seen)


def _max_abs_scaler(scaler: MaxAbsScaler) -> Affine:
    _refuse_clipping(scaler)
    reach = _vector(scaler.max_abs_)
    factor = 1.0 / _vector(scaler.scale_)
    return _scaling(factor, np.zeros_like(factor), (-reach, reach))


def _pca(pca: PCA) -> Affine:
    components = _matrix(pca.components_)
    variances = _variances(pca, components)
    if not pca.whiten:
        return _projection(components, -components @ _vector(pca.mean_), variances)
    if variances is None:
        raise AttributeError("it has no attribute 'explained_variance_'")
    # The floor is scikit-learn's own: a component without variance must not become infinite.
    deviations = np.maximum(np.sqrt(variances), np.finfo(pca.explained_variance_.dtype).eps)
    factor = components / deviations[:, np.newaxis]
    return Affine(
        factor,
        -factor @ _vector(pca.mean_),
        input_spread=_input_spread(components, variances),
        output_spread=np.ones(len(factor)),
        is_noise=_is_noise(pca, variances),
    )


def _is_noise(pca: PCA, variances: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which components have no other variance than the rounding errors of the fit.

    The eigenvalues of a covariance matrix, which are variances, have errors of about eps times the
    largest for each feature; singular values, whose squares are variances, have as much.
    """
    relative = np.finfo(pca.explained_variance_.dtype).eps * max(pca.components_.shape)
    if getattr(pca, "_fit_svd_solver", pca.svd_solver) != "covariance_eigh":
        relative **= 2
    is_noise: NDArray[np.bool_] = variances <= relative * variances.max(initial=0.0)
    return is_noise


def _variances(step: Any, components: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the variance of each component in the training rows, None where it is not known."""
    if getattr(step, "explained_variance_", None) is None:
        return None
    variances = _vector(step.explained_variance_)
    if len(variances) != len(components):
        raise ValueError(f"{len(variances)} variances for {len(components)} components")
    return np.maximum(variances, 0.0)


def _projection(
    components: NDArray[np.float64], offset: NDArray[np.float64], variances: NDArray[np.float64] | None
) -> Affine:
    if variances is None:
        return Affine(components, offset)
    spread = _input_spread(components, variances)
    return Affine(components, offset, input_spread=spread, output_spread=np.sqrt(variances))


def _input_spread(components: NDArray[np.float64], variances: NDArray[np.float64]) -> NDArray[np.float64]:
    # The components are orthogonal: the variance of a feature is the sum of its shares in theirs.
    spread = np.sqrt(variances @ np.square(components))
    # What is a rounding error of the fit beside the others is no spread. Other rows may vary there.
    greatest = spread.max(initial=0.0)
    usual: NDArray[np.float64] = np.where(spread > np.finfo(np.float64).eps * greatest, spread, greatest)
    return usual


def _truncated_svd(svd: TruncatedSVD) -> Affine:
    components = _matrix(svd.components_)
    return _projection(components, np.zeros(len(components)), _variances(svd, components))


def _vector(values: Any) -> NDArray[np.float64]:
    return _floats(values, 1)


def _matrix(values: Any) -> NDArray[np.float64]:
    return _floats(values, 2)


def _floats(values: Any, dimensions: int) -> NDArray[np.float64]:
    """Return an array of a step as floats.

    A step in a file need not be one that scikit-learn has fitted. With other dimensions, sums of
    two vectors become matrices; and nested lists that refer to each other become arrays of any
    size.

    Raises:
        ModelTooLargeError: it has too many numbers.
        ValueError: it is no array of so many dimensions.
    """
    if not isinstance(values, np.ndarray) or values.ndim != dimensions:
        raise ValueError(f"a {type(values).__name__} is in the place of an array of {dimensions} dimensions")
    check_weights(*((1, *values.shape)[-2:]))
    return values.astype(np.float64)


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
