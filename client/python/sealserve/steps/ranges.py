"""Ranges: what values can be, as far as the steps themselves tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class GroupKind(Enum):
    """How the values of a group depend on each other."""

    EXACTLY_ONE = "exactly one"
    """One of them is 1, and the others are 0."""
    AT_MOST_ONE = "at most one"
    """One of them is 1, or none, and the others are 0."""
    NORM = "norm"
    """Their Euclidean norm is at most 1, but for rounding."""


@dataclass(frozen=True, eq=False)
class Group:
    """Values that depend on each other.

    Attributes:
        kind: how.
        members: the numbers of the values, increasing.
    """

    kind: GroupKind
    members: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Ranges:
    """What values can be in a row that is not refused.

    Attributes:
        low: no value that is a number is below it, but for rounding: float64 (values,). It is
            infinite if it is not known, and so for texts.
        high: no value that is a number is above it, but for rounding.
        is_integral: whether a value is an integer, if it is a number.
        may_be_missing: whether a value can be NaN or, of a text, None.
        groups: values that depend on each other. No value is in two groups of the same kind.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    is_integral: NDArray[np.bool_]
    may_be_missing: NDArray[np.bool_]
    groups: tuple[Group, ...] = ()

    @classmethod
    def of(
        cls,
        low: NDArray[np.float64],
        high: NDArray[np.float64],
        *,
        is_integral: NDArray[np.bool_] | bool = False,
        may_be_missing: NDArray[np.bool_] | bool = False,
        groups: tuple[Group, ...] = (),
    ) -> "Ranges":
        """Make ranges, where one flag may stand for all values. What is NaN is not known."""
        size = len(low)
        return cls(
            np.where(np.isnan(low), -np.inf, low),
            np.where(np.isnan(high), np.inf, high),
            np.broadcast_to(np.asarray(is_integral, np.bool_), size),
            np.broadcast_to(np.asarray(may_be_missing, np.bool_), size),
            groups,
        )

    @classmethod
    def of_flags(cls, width: int, groups: tuple[Group, ...] = ()) -> "Ranges":
        """Make the ranges of values that are 0 or 1."""
        return cls.of(np.zeros(width), np.ones(width), is_integral=True, groups=groups)

    @classmethod
    def joined(cls, parts: Sequence["Ranges"]) -> "Ranges":
        """Join ranges of consecutive values."""
        starts = np.cumsum([0, *(len(part.low) for part in parts)])
        return cls(
            np.concatenate([part.low for part in parts]),
            np.concatenate([part.high for part in parts]),
            np.concatenate([part.is_integral for part in parts]),
            np.concatenate([part.may_be_missing for part in parts]),
            tuple(
                Group(group.kind, group.members + start)
                for start, part in zip(starts[:-1], parts, strict=True)
                for group in part.groups
            ),
        )

    def take(self, chosen: NDArray[np.intp]) -> "Ranges":
        """Return the ranges of some of the values, in the order of `chosen`.

        A group of which exactly one is 1 is one of which at most one is, once a value is left out.
        A group with a value that is chosen twice is left out.
        """
        places = np.full(len(self.low), -1, np.intp)
        places[chosen] = np.arange(len(chosen))
        times = np.bincount(chosen, minlength=len(self.low))
        groups = []
        for group in self.groups:
            kept = group.members[times[group.members] > 0]
            if not len(kept) or (times[kept] > 1).any():
                continue
            is_whole = len(kept) == len(group.members)
            kind = GroupKind.AT_MOST_ONE if group.kind is GroupKind.EXACTLY_ONE and not is_whole else group.kind
            groups.append(Group(kind, np.sort(places[kept])))
        return Ranges(
            self.low[chosen],
            self.high[chosen],
            self.is_integral[chosen],
            self.may_be_missing[chosen],
            tuple(groups),
        )
