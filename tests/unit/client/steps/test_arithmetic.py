"""Steps that compute with numbers, against scikit-learn's transformers."""

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

from sealserve.steps.arithmetic import Affine, Matrix, Monomials, Norm, Normalize
from sealserve.steps.ranges import GroupKind, Ranges
from tests.support.applied_steps import applied

RNG = np.random.default_rng(4)
ROWS = np.concatenate([RNG.normal(size=(50, 3)) * [1.0, 1e-3, 1e6], np.zeros((1, 3))])
GAPS = np.where(RNG.random(ROWS.shape) < 0.2, np.nan, ROWS)


def test_scalers_are_affine_to_the_last_bit() -> None:
    standard, robust = StandardScaler().fit(GAPS), RobustScaler().fit(GAPS)
    span, largest = MinMaxScaler((-1, 2)).fit(GAPS), MaxAbsScaler().fit(GAPS)
    for scaler, step in (
        (standard, Affine(range(3), standard.mean_, standard.scale_)),
        (robust, Affine(range(3), robust.center_, robust.scale_)),
        (span, Affine(range(3), multiply=span.scale_, add=span.min_)),
        (largest, Affine(range(3), divide=largest.scale_)),
    ):
        np.testing.assert_array_equal(applied(step, GAPS).values, scaler.transform(GAPS))


@pytest.mark.parametrize("arguments", [{}, {"interaction_only": True}, {"include_bias": False, "degree": 3}])
def test_monomials_are_polynomial_features(arguments: dict[str, Any]) -> None:
    polynomial = PolynomialFeatures(**arguments).fit(ROWS)
    powers = polynomial.powers_
    factors = [np.repeat(np.arange(3), row) for row in powers]
    step = Monomials(range(3), powers.sum(axis=1), np.concatenate(factors))
    np.testing.assert_allclose(applied(step, ROWS).values, polynomial.transform(ROWS), rtol=1e-14)


@pytest.mark.parametrize("norm", Norm)
def test_norms_are_those_of_the_normalizer(norm: Norm) -> None:
    expected = Normalizer(norm.value).transform(ROWS)
    np.testing.assert_allclose(applied(Normalize(range(3), norm), ROWS).values, expected, rtol=1e-14)


def test_a_matrix_is_a_projection() -> None:
    pca = PCA(2).fit(ROWS)
    step = Matrix(range(3), pca.components_, -pca.mean_ @ pca.components_.T)
    np.testing.assert_allclose(applied(step, ROWS).values, pca.transform(ROWS), rtol=1e-9, atol=1e-7)


def sampled(step: Any, low: list[float], high: list[float]) -> tuple[Ranges, np.ndarray]:
    """The ranges of a step, and its outputs of many rows within those of its inputs."""
    ends = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(len(low), -1).T
    rows = np.concatenate([ends, RNG.uniform(low, high, (2000, len(low)))])
    return step.ranges(Ranges.of(np.array(low), np.array(high))), applied(step, rows).values


@pytest.mark.parametrize(
    "step",
    [
        Affine([0, 1], np.array([1.0, -1.0]), np.array([-2.0, 3.0]), np.array([1.0, -1.0]), np.array([0.5, 0.0])),
        Monomials([0, 1], np.array([0, 1, 2, 2, 3, 4]), np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1])),
        Normalize([0, 1], Norm.L2),
        Matrix([0, 1], np.array([[1.0, -2.0], [0.0, 3.0]]), np.array([1.0, -1.0])),
    ],
    ids=lambda step: type(step).__name__,
)
def test_ranges_hold_and_are_reached(step: Any) -> None:
    ranges, found = sampled(step, [-1.0, -0.5], [2.0, 3.0])
    assert (found >= ranges.low - 1e-12).all()
    assert (found <= ranges.high + 1e-12).all()
    assert (found.max(axis=0) > ranges.high - 0.2).all()
    assert (found.min(axis=0) < ranges.low + 0.2).all()


def test_the_outputs_of_a_norm_are_a_group() -> None:
    for norm in (Norm.L1, Norm.L2):
        [group] = Normalize(range(3), norm).ranges(Ranges.of(np.zeros(3), np.ones(3))).groups
        assert (group.kind, group.members.tolist()) == (GroupKind.NORM, [0, 1, 2])
    assert not Normalize(range(3), Norm.MAX).ranges(Ranges.of(np.zeros(3), np.ones(3))).groups


def test_products_of_integers_are_integers_and_what_is_missing_stays_missing() -> None:
    inputs = Ranges.of(
        np.zeros(2), np.ones(2), is_integral=np.array([True, False]), may_be_missing=np.array([False, True])
    )
    found = Monomials([0, 1], np.array([0, 2, 2]), np.array([0, 0, 0, 1])).ranges(inputs)
    assert found.is_integral.tolist() == [True, True, False]
    assert found.may_be_missing.tolist() == [False, False, True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Affine([0], divide=np.array([0.0])),
        lambda: Affine([0], subtract=np.array([np.nan])),
        lambda: Affine([0], add=np.zeros(2)),
        lambda: Affine([], add=np.zeros(0)),
        lambda: Affine([-1]),
        lambda: Monomials([0], np.array([1]), np.array([1])),
        lambda: Monomials([0], np.array([2]), np.array([0])),
        lambda: Monomials([0], np.array([33]), np.zeros(33, int)),
        lambda: Monomials([0], np.zeros(0, int), np.zeros(0, int)),
        lambda: Matrix([0], np.ones((1, 2)), np.zeros(1)),
        lambda: Matrix([0], np.ones((2, 1)), np.zeros(1)),
        lambda: Matrix([0], np.full((1, 1), np.inf), np.zeros(1)),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()
