"""Kernels: sums over support vectors that are weights of features.

A linear kernel has weights of columns. A polynomial kernel `(gamma <s, x> + c)^d` has weights of
products of columns: by the binomial and the multinomial theorem it is the sum over all products
`x^a` of at most d factors, k of them, of `C(d, k) c^(d - k) gamma^k k! / a! s^a`. Other kernels are
refused: clients would need the support vectors, which are training rows.
"""

from math import comb, factorial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.limits import MAX_FACTORS
from sealserve_service.models.arrays import matrix, vector
from sealserve_service.models.limits import check_limit, check_weights
from sealserve_service.models.pipeline_steps import OpenStep
from sealserve_service.models.products import Factors, all_products, products

Values = NDArray[np.float64]

_CELLS_A_BLOCK = 1 << 20  # products of support vectors that are computed at once


class KernelHead(NamedTuple):
    """What the sums over support vectors are.

    Attributes:
        weights: (scores, features).
        constants: (scores,), to be added to the intercept.
        front: the step that computes the features; without one, they are the columns.
    """

    weights: Values
    constants: Values
    front: tuple[OpenStep, ...] = ()


class Polynomial(NamedTuple):
    """The kernel (gamma <s, x> + constant)^degree."""

    gamma: float
    degree: int
    constant: float


def machine_head(machine: Any, score_count: int) -> KernelHead:
    """Return the head of a support vector machine.

    Raises:
        ModelTooLargeError: it has too many weights.
        ValueError: its kernel is neither linear nor polynomial, or shapes disagree.
    """
    if machine.kernel == "linear":
        check_weights(score_count, machine.support_vectors_.shape[1])
        weights = matrix(machine.coef_)
        if len(weights) != score_count:
            raise ValueError(f"it has {len(weights)} rows of weights for {score_count} scores")
        return KernelHead(weights, np.zeros(score_count))
    if machine.kernel != "poly":
        name = machine.kernel if isinstance(machine.kernel, str) else "of its own"
        raise ValueError(
            f"its kernel {name!r} is neither linear nor polynomial, and clients would need its support vectors, "
            "which are training rows: fit it with kernel='linear' or kernel='poly', or put a RBFSampler with a fixed "
            "seed before a linear model"
        )
    vectors = matrix(machine.support_vectors_)
    duals = _pair_duals(machine, score_count, len(vectors))
    kernel = Polynomial(float(machine._gamma), int(machine.degree), float(machine.coef0))
    return polynomial_head(type(machine).__name__, kernel, duals, vectors)


def _pair_duals(machine: Any, score_count: int, vector_count: int) -> Values:
    """Return the coefficients of the support vectors in each score, (scores, vectors).

    libsvm keeps those of all pairs of classes in one matrix (classes - 1, vectors), in which the
    vectors of a class come together: a vector of class i has that of the pair (i, j) in row j - 1
    if j is above i, else in row j.
    """
    given = matrix(machine.dual_coef_)
    if score_count == 1:
        duals = given
    else:
        stops = np.cumsum(vector(machine.n_support_).astype(np.intp))
        parts = [slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)]
        check_weights(score_count, vector_count)
        duals = np.zeros((score_count, vector_count))
        pairs = ((first, second) for first in range(len(parts)) for second in range(first + 1, len(parts)))
        for score, (first, second) in enumerate(pairs):
            duals[score, parts[first]] = given[second - 1, parts[first]]
            duals[score, parts[second]] = given[first, parts[second]]
    if duals.shape != (score_count, vector_count):
        raise ValueError(f"it has coefficients of {duals.shape} for {score_count} scores and {vector_count} vectors")
    return duals


def polynomial_head(name: str, kernel: Polynomial, duals: Values, vectors: Values) -> KernelHead:
    """Return the head of a sum over support vectors with a polynomial kernel.

    Args:
        name: of the estimator.
        kernel: the kernel.
        duals: the coefficients of the vectors in each score, (scores, vectors).
        vectors: (vectors, columns).

    Raises:
        ModelTooLargeError: it has too many products.
        ValueError: its degree is 0: it is a constant.
    """
    if kernel.degree < 1:
        raise ValueError("the degree of its kernel is 0: it predicts the same of any row")
    check_limit("degrees of a polynomial", MAX_FACTORS, kernel.degree)
    # Without a constant, only products of as many factors as the degree says are not 0.
    degrees = range(1 if kernel.constant else kernel.degree, kernel.degree + 1)
    factors = list(all_products(vectors.shape[1], degrees))
    check_weights(len(duals), sum(map(len, factors)))
    weights = [_scale(kernel, part.shape[1]) * _product_weights(part, duals, vectors) for part in factors]
    constants = kernel.constant**kernel.degree * duals.sum(axis=1)
    front = () if kernel.degree == 1 else (products(name, factors),)
    return KernelHead(np.hstack(weights), constants, front)


def _scale(kernel: Polynomial, count: int) -> float:
    """Return the factor of products of so many factors."""
    return comb(kernel.degree, count) * kernel.constant ** (kernel.degree - count) * kernel.gamma**count


def _product_weights(factors: Factors, duals: Values, vectors: Values) -> Values:
    """Return the weights of products in the sum over duals times <vector, x>^factors."""
    weights = np.empty((len(duals), len(factors)))
    products_a_block = max(1, _CELLS_A_BLOCK // len(vectors))
    for first in range(0, len(factors), products_a_block):
        block = factors[first : first + products_a_block]
        values = np.ones((len(vectors), len(block)))
        for place in range(block.shape[1]):
            values *= vectors[:, block[:, place]]
        weights[:, first : first + len(block)] = duals @ values
    return weights * _arrangements(factors)


def _arrangements(factors: Factors) -> Values:
    """Return in how many orders the factors of each product can be: k! / a!, (products,)."""
    repeats = np.ones(len(factors))
    for place in range(factors.shape[1]):
        repeats *= (factors[:, : place + 1] == factors[:, place : place + 1]).sum(axis=1)
    found: Values = factorial(factors.shape[1]) / repeats
    return found
