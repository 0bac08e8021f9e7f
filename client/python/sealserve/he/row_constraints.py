"""Row constraints: what is known of a row beyond the range of each feature.

Of an *exclusive group* of features at most one, or exactly one, is at its maximum, and all others
are at their minimum: the categories of a column, the leaves of a tree. Of a *norm*, the features'
squares sum to a bound squared at most: texts by tf-idf.

A weighted sum of a row is an intercept and, of each feature, at most what the feature adds at its
maximum: v_j, with 0 at the minimum. Features without constraints add up their extremes, min(v_j, 0)
and max(v_j, 0). A group adds one v_j, so that its extremes are the least and the greatest of its
v_j, and of 0 where none may be set. (That is what linear programming finds over all rows of the
group: it has its extremes in corners.) A norm R adds, with w_j the weight of a unit of x_j, by
Cauchy and Schwarz

    sum w_j x_j <= R |w'|        w' the weights of features that can have their weight's sign

and no more than the extremes of its features, whichever is less. Rounding x onto a grid moves it by
half a level: half the sum of |v_j| / levels_j more, over the same features.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealserve.errors import InputError

Sums = NDArray[Any]
"""Integers or float64."""

_NORM_SLACK = 1e-9
"""Of a bound: float64 computes norms, and the features that have them, to 15 digits."""


class Norm(NamedTuple):
    """Features whose Euclidean norm is bounded.

    Attributes:
        members: their numbers, intp (members,).
        bound: of the norm, in the features' own units.
    """

    members: NDArray[np.intp]
    bound: float


class Span(NamedTuple):
    """What a norm has to know of the features, float64 (feature_count,).

    Attributes:
        minimum, maximum: of the range.
        width: from the minimum to where a feature adds v_j.
        rounding: how far rounding moves a feature at most, as a share of this width.
    """

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    width: NDArray[np.float64]
    rounding: NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class RowConstraints:
    """Exclusive groups and norms. A feature is in one of them at most.

    Attributes:
        group: the number of each feature's group, from 1; 0 for a feature in none. int64
            (feature_count,), or empty if there is no group.
        exactly_one: whether exactly one of a group's features is at its maximum, and not at most
            one; bool (groups,).
        is_checked: whether clients check a group, and refuse rows that break it; bool (groups,).
            Groups that published steps compute cannot be broken. They are not described to clients.
        norms: the bounded norms. Published steps compute them, so that they cannot be broken.
    """

    group: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    exactly_one: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    is_checked: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    norms: tuple[Norm, ...] = ()

    @classmethod
    def of(
        cls,
        feature_count: int,
        group: ArrayLike = (),
        exactly_one: ArrayLike = (),
        *,
        is_checked: ArrayLike = True,
        norms: Iterable[Norm] = (),
    ) -> "RowConstraints":
        """Check and build constraints.

        Args:
            feature_count: the length of a row.
            group: see RowConstraints.
            exactly_one: one value a group.
            is_checked: one value for all groups, or one a group.
            norms: see RowConstraints.

        Raises:
            InputError: there are not as many numbers as features, a number is of no group, a group
                has no feature, a norm is not above 0, or a feature is named twice.
        """
        numbers, exact = np.array(group, np.int64), np.array(exactly_one, np.bool_)
        if numbers.shape not in ((0,), (feature_count,)) or exact.ndim != 1:
            raise InputError(f"groups need one number for each of {feature_count} features")
        if len(exact) > len(numbers) or not np.array_equal(np.unique(numbers[numbers != 0]), 1 + np.arange(len(exact))):
            raise InputError("each group needs a feature, and each number of a group has to be 0 to their count")
        if not len(exact):
            numbers = numbers[:0]
        checked = np.broadcast_to(np.asarray(is_checked, np.bool_), exact.shape).copy()
        bounds = tuple(Norm(np.unique(np.asarray(members, np.intp)), float(bound)) for members, bound in norms)
        named = np.concatenate([np.flatnonzero(numbers), *(norm.members for norm in bounds)])
        if len(np.unique(named)) < len(named) or (named >= feature_count).any() or (named < 0).any():
            raise InputError("a feature is in two groups or norms, or there is no such feature")
        if not all(len(members) and np.isfinite(bound) and bound > 0 for members, bound in bounds):
            raise InputError("a norm needs features, and a bound above 0")
        for values in (numbers, exact, checked, *(norm.members for norm in bounds)):
            values.flags.writeable = False
        return cls(group=numbers, exactly_one=exact, is_checked=checked, norms=bounds)

    @cached_property
    def checked(self) -> "RowConstraints":
        """The constraints that clients check, with groups numbered anew: what is described."""
        if self.is_checked.all() and not self.norms:
            return self
        if not self.is_checked.any():
            return RowConstraints()
        new = np.concatenate([[0], np.where(self.is_checked, self.is_checked.cumsum(), 0)])
        return RowConstraints.of(len(self.group), new[self.group], self.exactly_one[self.is_checked])

    @cached_property
    def is_none(self) -> bool:
        """Whether there is no constraint."""
        return not len(self.exactly_one) and not self.norms

    @cached_property
    def members(self) -> NDArray[np.intp]:
        """The features in groups, ordered by group and then by number."""
        return np.argsort(self.group, kind="stable")[np.count_nonzero(self.group == 0) :]

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Where each group begins in `members`, intp (groups,)."""
        return np.flatnonzero(np.diff(self.group[self.members], prepend=0))

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """How many features each group has, intp (groups,)."""
        return np.diff(self.starts, append=len(self.members))

    def alone(self, feature_count: int) -> NDArray[np.bool_]:
        """Tell which features are in no group: bool (feature_count,)."""
        return self.group == 0 if len(self.group) else np.ones(feature_count, np.bool_)

    def extremes(self, at_maximum: Sums, span: Span) -> tuple[Sums, Sums]:
        """Return the least and the greatest of weighted sums over all rows, (sums,) each.

        Sums of integers are exact; where a norm has a part in them, they are rounded outwards.

        Args:
            at_maximum: what each feature adds at its maximum, (sums, feature_count).
            span: of the features.
        """
        low, high = np.minimum(at_maximum, 0), np.maximum(at_maximum, 0)
        alone = self.alone(at_maximum.shape[1])
        is_free = alone.copy()
        for norm in self.norms:
            is_free[norm.members] = False
        least, greatest = low[:, is_free].sum(axis=1), high[:, is_free].sum(axis=1)
        if len(self.members):
            is_exact = self.exactly_one[self.group[self.members] - 1]
            added = at_maximum[:, self.members]
            ends = [np.where(is_exact, added, end[:, self.members]) for end in (low, high)]
            least = least + np.minimum.reduceat(ends[0], self.starts, axis=1).sum(axis=1)
            greatest = greatest + np.maximum.reduceat(ends[1], self.starts, axis=1).sum(axis=1)
        for norm in self.norms:
            part = at_maximum[:, norm.members]
            within = Span(*(values[norm.members] for values in span))
            below, above = -_greatest(-part, within, norm.bound), _greatest(part, within, norm.bound)
            if at_maximum.dtype.kind == "i":
                below, above = np.floor(below).astype(np.int64), np.ceil(above).astype(np.int64)
            least = least + np.maximum(below, low[:, norm.members].sum(axis=1))
            greatest = greatest + np.minimum(above, high[:, norm.members].sum(axis=1))
        return least, greatest

    def in_common(self, at_maximum: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what can be taken off the features of exactly-one groups, and added to all rows.

        It is the median of the group's v_j, which leaves the least sum of |v_j|. Exactly one of the
        features counts: the sum of a row stays the same if the median is added to it.

        Args:
            at_maximum: what each feature adds at its maximum, (sums, feature_count).

        Returns:
            The medians of the features' groups, (sums, feature_count), 0 for other features; and
            the sums of the groups' medians, (sums,).
        """
        taken, common = np.zeros_like(at_maximum), np.zeros(len(at_maximum))
        if not self.exactly_one.any():
            return taken, common
        middles, numbers = self.starts + (self.sizes - 1) // 2, self.group[self.members]
        for k, values in enumerate(at_maximum[:, self.members]):
            medians = np.where(self.exactly_one, values[np.lexsort((values, numbers))[middles]], 0.0)
            taken[k, self.members] = np.repeat(medians, self.sizes)
            common[k] = medians.sum()
        return taken, common

    def broken(self, is_set: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which groups rows break, bool (rows, groups).

        Args:
            is_set: which features are at their maximum, (rows, feature_count); the others are at
                their minimum.
        """
        counts = np.add.reduceat(is_set[:, self.members], self.starts, axis=1, dtype=np.int64)
        is_broken: NDArray[np.bool_] = (counts > 1) | (self.exactly_one & (counts == 0))
        return is_broken


def _greatest(at_maximum: Sums, span: Span, bound: float) -> NDArray[np.float64]:
    """Return the greatest sums (sums,) over features of a bounded norm, rounded up.

    The range of each feature has 0 in it.
    """
    added = at_maximum.astype(np.float64)
    width = np.where(span.width > 0, span.width, np.inf)
    offset = -added * (span.minimum / width)
    can_add = ((added > 0) & (span.maximum > 0)) | ((added < 0) & (span.minimum < 0))
    reach = np.linalg.norm(np.where(can_add, added / width, 0.0), axis=1) * bound * (1 + _NORM_SLACK)
    rounding = np.where(can_add, np.abs(added), 0.0) @ span.rounding
    slack = np.finfo(np.float64).eps * (len(width) + 16) * (np.abs(offset).sum(axis=1) + reach + rounding)
    greatest: NDArray[np.float64] = offset.sum(axis=1) + reach + rounding + slack
    return greatest
