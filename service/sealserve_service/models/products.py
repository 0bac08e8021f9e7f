"""Products: the step that computes products of columns, of which some scores are linear."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations_with_replacement
from math import comb

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.arithmetic import Monomials
from sealserve.steps.limits import MAX_FACTORS
from sealserve_service.models.limits import MAX_FEATURES, MAX_WEIGHTS, check_limit
from sealserve_service.models.pipeline_steps import OpenStep

Factors = NDArray[np.intp]
"""Products of the same number of factors: columns (products, factors)."""


def products(name: str, factors: Sequence[Factors]) -> OpenStep:
    """Return the step that computes products, those of the first array first.

    Publishing it tells nothing but that.
    """
    width = sum(map(len, factors))
    check_limit("features", MAX_FEATURES, width)
    degrees = np.concatenate([np.full(len(part), part.shape[1]) for part in factors])
    flat = np.concatenate([part.ravel() for part in factors])
    return OpenStep(
        name,
        width,
        lambda add, inputs: add(Monomials(inputs, degrees, flat)),
        "that it takes products of columns",
        takes_missing=False,
    )


def all_products(column_count: int, degrees: Sequence[int]) -> Iterator[Factors]:
    """Yield all products of so many factors, for each degree; degrees increase.

    Raises:
        ModelTooLargeError: they are too many, or have too many factors.
    """
    check_limit("degrees of a polynomial", MAX_FACTORS, degrees[-1])
    counts = [comb(column_count + degree - 1, degree) for degree in degrees]
    check_limit("features", MAX_FEATURES, sum(counts))
    check_limit("factors of products", MAX_WEIGHTS, sum(map(int.__mul__, counts, degrees)))
    for count, degree in zip(counts, degrees, strict=True):
        factors = chain.from_iterable(combinations_with_replacement(range(column_count), degree))
        yield np.fromiter(factors, np.intp, count * degree).reshape(count, degree)
