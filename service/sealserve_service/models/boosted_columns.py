"""Recodings: steps that make of columns what boosted trees compare.

A column of categories becomes codes: 0 for a negative number, 1 for category 0, and so on; then one
for what is above all categories, and one for what is missing. Splits name the codes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealserve.steps.arithmetic import Monomials
from sealserve.steps.categories import Categories, Lookup, LookupColumn
from sealserve.steps.intervals import Bins, BinsColumn
from sealserve.steps.limits import MAX_CATEGORY

Indices = NDArray[np.intp]
Add = Callable[[Any], Indices]
_MOST = MAX_CATEGORY - 4
"""The greatest category: there are codes for three cases more."""


@dataclass(frozen=True, eq=False)
class Recoding:
    """Steps that make of columns what the trees compare.

    Attributes:
        columns: that are replaced.
        emit: adds the steps: (add, numbers of the columns) -> numbers of what replaces them.
        tells: what publishing the steps tells; "" if nothing.
    """

    columns: Indices
    emit: Callable[[Add, Indices], Indices]
    tells: str = ""


def codes_of(categories: ArrayLike) -> Indices:
    """Return the codes of categories.

    Raises:
        ValueError: they are not integers of 0 to the greatest that steps can tell apart.
    """
    found = np.asarray(categories, np.intp)
    if len(found) and (found.min() < 0 or found.max() > _MOST):
        raise ValueError(f"there are categories outside 0 to {_MOST}: number them from 0, and fit it again")
    return found + 1


def missing_code(greatest: int) -> int:
    """Return the code of what is missing in a column, by its greatest category."""
    return greatest + 3


def integer_categories(greatest: Mapping[int, int], *, rounds_to_float32: bool) -> Recoding:
    """Return the recoding of columns whose values are categories, cut to integers as by C.

    Args:
        greatest: the greatest category that a split names, by column.
        rounds_to_float32: whether numbers are rounded to float32 first, and those from -1 to 0 are
            no category, as in XGBoost; else they are category 0, as in LightGBM.
    """
    bins = []
    for most in greatest.values():
        codes_of([most])
        edges = np.arange(most + 2, dtype=np.float64)
        if rounds_to_float32:  # what is rounded to an integer is that integer
            below = np.nextafter(edges[1:].astype(np.float32), np.float32(0)).astype(np.float64)
            edges[1:] = (below + edges[1:]) / 2
            # Of the numbers below 0, none but -0.0 is rounded to an integer that is 0 or above.
        else:
            edges[0] = np.nextafter(-1.0, 0.0)
        bins.append(BinsColumn(edges, missing_bin=missing_code(most)))
    return Recoding(_columns(greatest), lambda add, inputs: add(Bins(inputs, bins)))


def named_categories(
    categories: Mapping[int, Sequence[Any]], *, refuses_unknown: bool, refuses_missing: bool = False
) -> Recoding:
    """Return the recoding of columns of texts, or of numbers that are names of categories.

    Args:
        categories: names in the order of their categories, by column.
        refuses_unknown: whether rows with an unknown name are refused; else it counts as missing.
        refuses_missing: whether rows without a name are refused.
    """
    found = []
    for names in categories.values():
        codes, missing = codes_of(np.arange(len(names))), missing_code(len(names) - 1)
        if all(isinstance(name, str) for name in names):
            known = Categories(texts=names, refuses_missing=refuses_missing, refuses_unknown=refuses_unknown)
        elif all(isinstance(name, bool | int | float) for name in names):
            numbers = np.array(names, np.float64)
            codes = codes[numbers.argsort()]
            numbers.sort()
            known = Categories(numbers=numbers, refuses_missing=refuses_missing, refuses_unknown=refuses_unknown)
        else:
            raise ValueError("a column has categories of mixed types: make them all texts, or all numbers")
        found.append(LookupColumn(known, np.append(codes, [missing, missing]).astype(np.float64)))
    count = sum(len(names) for names in categories.values())
    tells = f"the names of {count} categories of {len(categories)} columns"
    return Recoding(_columns(categories), lambda add, inputs: add(Lookup(inputs, found)), tells)


def zeros_as_missing(columns: Indices, nearest: float) -> Recoding:
    """Return the recoding of columns in which a zero is missing.

    Args:
        columns: the columns.
        nearest: numbers that are no further from 0 count as zeros.
    """
    # A number times 1 is itself, and times NaN is missing.
    ends = np.array([-nearest, np.nextafter(nearest, 1.0)])
    bins = [BinsColumn(ends, missing_bin=3)] * len(columns)
    places = Categories(numbers=np.arange(4, dtype=np.float64))
    factors = [LookupColumn(places, np.array([1.0, np.nan, 1.0, np.nan, np.nan, np.nan]))] * len(columns)

    def emit(add: Add, inputs: Indices) -> Indices:
        ones = add(Lookup(add(Bins(inputs, bins)), factors))
        pairs = np.arange(2 * len(inputs)).reshape(2, -1).T.ravel()
        return add(Monomials(np.concatenate([inputs, ones]), np.full(len(inputs), 2), pairs))

    return Recoding(columns, emit)


def _columns(by_column: Mapping[int, Any]) -> Indices:
    return np.fromiter(by_column, np.intp, len(by_column))
