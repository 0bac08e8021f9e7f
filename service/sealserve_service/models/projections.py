"""Projections: the affine maps of decompositions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve_service.models.affine import Affine
from sealserve_service.models.arrays import matrix, vector
from sealserve_service.models.limits import check_weights


def pca(pca: Any) -> Affine:
    """Return the map of a PCA or IncrementalPCA."""
    components = matrix(pca.components_)
    variances = _variances(pca, components)
    if not pca.whiten:
        return _projection(components, -components @ vector(pca.mean_), variances)
    if variances is None:
        raise AttributeError("it has no attribute 'explained_variance_'")
    # The floor is scikit-learn's own: a component without variance must not become infinite.
    deviations = np.maximum(np.sqrt(variances), np.finfo(pca.explained_variance_.dtype).eps)
    factor = components / deviations[:, np.newaxis]
    return Affine(
        factor,
        -factor @ vector(pca.mean_),
        input_spread=_input_spread(components, variances),
        output_spread=np.ones(len(factor)),
        is_noise=_is_noise(pca, variances),
    )


def _is_noise(pca: Any, variances: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which components have no other variance than the rounding errors of the fit.

    The eigenvalues of a covariance matrix, which are variances, have errors of about eps times the
    largest for each feature; singular values, whose squares are variances, have as much.
    """
    relative = np.finfo(pca.explained_variance_.dtype).eps * max(pca.components_.shape)
    if getattr(pca, "_fit_svd_solver", getattr(pca, "svd_solver", "")) != "covariance_eigh":
        relative **= 2
    is_noise: NDArray[np.bool_] = variances <= relative * variances.max(initial=0.0)
    return is_noise


def _variances(step: Any, components: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the variance of each component in the training rows, None where it is not known."""
    if getattr(step, "explained_variance_", None) is None:
        return None
    variances = vector(step.explained_variance_)
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


def truncated_svd(svd: Any) -> Affine:
    """Return the map of a TruncatedSVD."""
    components = matrix(svd.components_)
    return _projection(components, np.zeros(len(components)), _variances(svd, components))


def random_projection(step: Any) -> Affine:
    """Return the map of a random projection or a NeighborhoodComponentsAnalysis."""
    components = matrix(step.components_)
    return Affine(components, np.zeros(len(components)))


def fast_ica(ica: Any) -> Affine:
    """Return the map of a FastICA. Its values have a variance of 1 if it whitens to that."""
    components = matrix(ica.components_)
    offset = -components @ vector(ica.mean_) if ica.whiten else np.zeros(len(components))
    return Affine(components, offset)


def factor_analysis(analysis: Any) -> Affine:
    """Return the map of a FactorAnalysis. Source: Bishop, Pattern Recognition, equation 12.66."""
    components = matrix(analysis.components_)
    check_weights(len(components), len(components))
    scaled = components / vector(analysis.noise_variance_)
    factor = np.linalg.inv(np.eye(len(components)) + scaled @ components.T).T @ scaled
    return Affine(factor, -factor @ vector(analysis.mean_))


def discriminants(analysis: Any) -> Affine:
    """Return the map of a LinearDiscriminantAnalysis that is a step."""
    count = analysis._max_components
    factor = np.ascontiguousarray(matrix(analysis.scalings_)[:, :count].T)
    offset = -factor @ vector(analysis.xbar_) if analysis.solver == "svd" else np.zeros(len(factor))
    return Affine(factor, offset)
