"""Steps: how fine the grid of each feature is, chosen together with t and the scale s.

t is the range of the integer scores, s S, with S the widest range that a score has over the rows.
That is sum_j |W_j| R_j, with R the widths of the ranges; but an exclusive group has, instead of its
sum, the greatest W_j R_j less the least, where 0 is one of them if none of the group may be at its
maximum (`sealserve.he.row_constraints`, also for norms). It is the same whatever the steps are. A
step d has two errors. Rounding x onto the grid adds up to |W| d / 2. Rounding W d s to an integer
adds up to 1 / (2 s) for each of the R / d levels, half of that with the intercept centred. And A',
the sum of |W d s| that a ciphertext's noise is multiplied by, falls as steps get finer. So for
every t there are steps of the least error, and A' may ask for finer ones the larger t is. The t to
take is the one where the two errors together are smallest.

Both are estimated as mean squares. Residues are uniform, and a feature is rho R from the centre of
its range, where the intercept takes up the error. With a margin of half the width at each end, rho
is 0.14 for a uniform feature, and less for a normal one; 1/8 is taken. In groups and norms rho
follows from their size (`InputRanges.spread`):

    inputs     W^2 d^2 / 12
    weights    (rho R / (s d))^2 / 12

Mode open. A feature's best step is where both are equal, d = sqrt(rho R / (s |W|)), with the mean
|W| of the classes. Where A' is too large, all steps are divided by sqrt(1 + nu), with the
least nu for which it fits; that is what Lagrange's rule gives.

Mode private. The steps are published, hence **no step may depend on a weight**. All features get
one number of levels, L. t is taken, and L, from what is public anyway: parameters, packing, lambda,
the number of features, their own grids, and their groups and norms, which a description or
published steps tell. With M = max_k sum_j |W_kj| R_j and C classes that share a polynomial, A' is
at most C s M / L; and s = t / S. So L has to be at least C t (M / S) / A'_max, with A'_max the
largest that t has room for.

Without groups and norms M is S: no weights have an A' above C t / L. In a group they differ,
because noise knows no groups: every weight of a group is multiplied with it, and one of them with a
1. So M / S depends on the weights. The range of a group is at least its greatest |W_j| R_j, so that
n features have at most n times their range, which is what equal weights have. A centred exactly-one
group has at most floor(n / 2) times its range: of two features on either side of the median, both
have the range at most. What is taken is the ratio of weights that are equally large, |W_j| R_j = w,
and of signs that alternate in each group: n w to 2 w, and all n features together

    M / S = n / E        E parts: one of each feature that is alone, two of each group

(`InputRanges.equal_weights_range`. n features of width 1 and norm R are R sqrt(2 n) parts.) No L is
right for all weights, and a wrong one costs little. Features of groups have errors of weights only,
L / s each. If M / S is x times the estimate, and x > 1, s has to be x times smaller than t asks
for; a t smaller by sqrt(x) would have done with an s smaller by sqrt(x). If x < 1, a t larger by
1 / sqrt(x) would have had room. Either way the error is up to sqrt(x), or 1 / sqrt(x), times what
it could be. Of eight measured tables of categories and ensembles of trees, x is 0.44 to 1. Their
errors are 1.0 to 2.6 times those with the best of seven guesses at M / S, 1.4 in the geometric
mean. t comes in powers of two, so that up to sqrt(2) is its rounding.

The error, relative to S, is estimated as if all |W_j| R_j were equal. Weights that leave less room
than the estimate says, because A' is also widened by rounding, or because M / S is greater, get a
smaller s, never another L.

Features on a grid of their own, of l levels, have no error of inputs on it. Mode open divides each
such grid just as far as A' asks for. Mode private divides all of them to at least the L that A'
asks for: one choice for all. A grid that is far finer than it need be is left, unless it is
declared, for the step that the feature would get without: the many levels would cost more in the
rounding of weights than the rounding of inputs does. Features of groups are always on their own
grid, and mode open leaves none of them without levels, so that each row keeps to its groups.
"""

import heapq
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts import Packing
from sealserve.he.parameters import MAX_PLAIN_MODULUS_BITS
from sealserve.he.quantization import MAX_LEVELS, InputGrid
from sealserve_service.planning.ranges import InputRanges

_MIN_PLAIN_MODULUS_BITS = 4
_BYTE = 255
"""Levels are multiples of it, where there are more: bytes and flags then lie on the grid."""
_SHARES = (1.0, 2**-0.25, 2**-0.5, 2**-0.75)
"""Of t, to be filled. Own grids are divided by integers: a smaller scale may save a division."""
_SPARE_LEVELS = 1.25
"""Private grids of features' own may have so many times the levels that others get."""
_TRIED = 4
"""How many t are handed out: what does not fit the best one is likely to fit the next."""
_HOPELESS = 16.0
"""Errors so many times the least one end the search: they only grow from there."""


class Steps(NamedTuple):
    """A grid, and what it was chosen for.

    Attributes:
        expected_error: root mean square, in units that are the same for all steps of a model.
        plain_modulus: t.
        grid: the steps.
        share: of t that the range of the scores is to fill.
    """

    expected_error: float
    plain_modulus: int
    grid: InputGrid
    share: float = 1.0


def private_steps(
    ranges: InputRanges, packing: Packing, largest_sum: Callable[[int], int], max_weight: int
) -> list[Steps]:
    """Return steps for the best few t that have room, the least expected error first.

    Args:
        ranges: of the features.
        packing: its classes share a polynomial.
        largest_sum: t -> the largest A' that t has room for; below 1 if there is none.
        max_weight: the largest |W_int|.
    """
    return _best(_private_steps(ranges, packing.classes, largest_sum, max_weight))


def _private_steps(
    ranges: InputRanges, classes: int, largest_sum: Callable[[int], int], max_weight: int
) -> Iterator[Steps]:
    varies = ranges.width > 0
    count = max(1, int(varies.sum()))
    parts = count if ranges.constraints.is_none else ranges.equal_weights_range
    ratio = 1 if ranges.constraints.is_none else count / parts
    is_free = varies & ~ranges.is_member
    spread = math.sqrt(float((ranges.spread[is_free] ** 2).mean())) if is_free.any() else 1.0
    own = ranges.own_levels
    shares = _SHARES if own.any() else _SHARES[:1]
    for bits in range(_MIN_PLAIN_MODULUS_BITS, MAX_PLAIN_MODULUS_BITS):
        t = 1 << bits
        if (largest := largest_sum(t)) < 1:
            return
        for share in shares:
            filled = math.ceil(share * t)
            least = max(1, -(-math.ceil(classes * filled * ratio) // largest), -(-filled // max_weight))
            free = max(least, round(math.sqrt(filled / (spread * parts))))
            if free >= min(t - 1, MAX_LEVELS):
                continue
            divisor = np.ceil(least / np.maximum(own, 1))
            is_own = (own > 0) & (ranges.is_declared | (own * divisor <= _SPARE_LEVELS * free))
            levels = np.where(varies, np.where(is_own, own * divisor, free), 0)
            if levels.max() >= min(t - 1, MAX_LEVELS):
                continue
            rounded = np.count_nonzero(varies & ~is_own)
            inputs = rounded / (12 * (parts * free) ** 2)
            weights = float(((ranges.spread * levels) ** 2).sum()) / (12 * filled**2)
            step = np.where(is_own, ranges.own_step / divisor, ranges.width / free)
            yield Steps(math.sqrt(inputs + weights), t, ranges.grid(step, is_own), share)


def open_steps(
    weights: NDArray[np.float64],
    ranges: InputRanges,
    packing: Packing,
    largest_sum: Callable[[int], int],
    max_weight: int,
) -> list[Steps]:
    """Return steps for the best few t that have room, the least expected error first.

    Args:
        weights: (score_count, feature_count).
        ranges: of the features.
        packing: its classes share a polynomial.
        largest_sum: t -> the largest A' that t has room for; below 1 if there is none.
        max_weight: the largest |W_int|.
    """
    return _best(_OpenSteps(weights, ranges, packing, max_weight).of_every_t(largest_sum))


class _OpenSteps:
    """The search for the steps of mode open."""

    def __init__(self, weights: NDArray[np.float64], ranges: InputRanges, packing: Packing, max_weight: int) -> None:
        taken, _ = ranges.constraints.in_common(weights * ranges.width)
        low, high = ranges.extremes(weights * ranges.width - taken)
        sizes = np.abs(weights - taken / np.where(ranges.width > 0, ranges.width, 1.0))
        self._ranges, self._max_weight = ranges, max_weight
        self._peak = sizes.max(axis=0)
        # Features without weight have no level: open weights may show which they are.
        self._live = (ranges.width > 0) & ((self._peak > 0) | ranges.is_member)
        least = 1e-30 * (float(sizes.max()) or 1.0)  # in the place of 0, for a feature of a group
        self._peak = np.maximum(self._peak, least)
        self._mean = np.where(self._live, np.maximum(sizes.mean(axis=0), least), 1.0)
        self._square = np.where(self._live, (sizes**2).mean(axis=0), 0.0)
        self._sums = np.add.reduceat(sizes, range(0, packing.score_count, packing.classes), axis=0)
        has_own = bool((self._live & (ranges.own_levels > 0)).any())
        self._shares = _SHARES if has_own else _SHARES[:1]
        self._widest = float((high - low).max()) or 1.0

    def of_every_t(self, largest_sum: Callable[[int], int]) -> Iterator[Steps]:
        least = math.inf
        for bits in range(_MIN_PLAIN_MODULUS_BITS, MAX_PLAIN_MODULUS_BITS):
            t = 1 << bits
            if (largest := largest_sum(t)) < 1:
                return
            least_here = math.inf
            for share in self._shares:
                scale = share * (t - 2) / self._widest
                if (found := self._fitting(scale, largest)) is None:
                    continue
                step, is_own = found
                levels = np.where(self._live, self._ranges.width / step, 0)
                if levels.max() >= min(t - 1, MAX_LEVELS):
                    continue
                error = self._error(step, levels, is_own, scale)
                least_here = min(least_here, error)
                yield Steps(error, t, self._ranges.grid(step, is_own), share)
            if _HOPELESS * least < least_here < math.inf:
                return
            least = min(least, least_here)

    def _fitting(self, scale: float, largest: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | None:
        """Find the least nu for which A' fits, to a quarter of a bit."""
        found = self._steps(scale, 0.0)
        if (total := self._absolute_sum(scale, found[0])) <= largest:
            return found
        low, high = 0.0, (total / largest) ** 2
        for _ in range(40):
            found = self._steps(scale, high)
            if self._absolute_sum(scale, found[0]) <= largest:
                break
            low, high = high, 4 * high
        else:
            return None
        for _ in range(4):
            middle = math.sqrt(max(low, high / 16) * high)
            tried = self._steps(scale, middle)
            if self._absolute_sum(scale, tried[0]) <= largest:
                found, high = tried, middle
            else:
                low = middle
        return found

    def _absolute_sum(self, scale: float, step: NDArray[np.float64]) -> float:
        return scale * float((self._sums @ np.where(self._live, step, 0)).max())

    def _steps(self, scale: float, nu: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the steps for a multiplier of A', and which are on a feature's own grid."""
        ranges, live = self._ranges, self._live
        width = np.where(live, ranges.width, 1.0)
        best = np.sqrt(ranges.spread * width / (scale * self._mean))
        widest = self._max_weight / (scale * np.where(live, self._peak, 1.0))
        levels = width / np.minimum(best / math.sqrt(1 + nu), np.minimum(widest, width))
        bits = np.log2(levels / _BYTE)
        # A cap of the weights is a cap of the step; other steps may be rounded either way.
        rounded = np.exp2(np.where(widest < best, np.ceil(bits), np.rint(bits))) * _BYTE
        free = width / np.minimum(np.where(levels > _BYTE, rounded, np.ceil(levels)), MAX_LEVELS)
        own = np.where(live & (ranges.own_levels > 0), ranges.own_step, np.inf)
        largest_own = np.minimum(best / math.sqrt(nu) if nu else np.inf, widest)
        divisor = np.where(np.isfinite(own), np.ceil(own / largest_own * (1 - 1e-12)), 1)
        own = own / np.maximum(divisor, 1)
        # Without an error of inputs, but perhaps with more levels: which is better?
        of_free = (self._mean * free) ** 2 + (ranges.spread * width / (scale * free)) ** 2
        of_own = (ranges.spread * width / (scale * own)) ** 2
        is_own = np.isfinite(own) & (ranges.is_declared | (of_own <= of_free))
        step = np.where(is_own, own, free)
        # One level, 0, holds the whole range of a feature without weight.
        return np.where(live, step, np.where(ranges.width > 0, 4 * ranges.width, 1.0)), is_own

    def _error(
        self, step: NDArray[np.float64], levels: NDArray[np.float64], is_own: NDArray[np.bool_], scale: float
    ) -> float:
        inputs = float(np.where(is_own, 0, self._square * step**2).sum()) / 12
        weights = float(((self._ranges.spread * levels) ** 2).sum()) / (12 * scale**2)
        return math.sqrt(inputs + weights)


def _best(found: Iterator[Steps]) -> list[Steps]:
    return heapq.nsmallest(_TRIED, found, key=lambda steps: (steps.expected_error, steps.plain_modulus))
