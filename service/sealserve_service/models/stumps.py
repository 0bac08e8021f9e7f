"""Stumps: trees of one split each, as bins of the columns that they compare.

All stumps of a column together are a function that is constant between their thresholds. So a
column has one feature for each bin, and one for a missing number where that is taken; the last
one is left out, whatever its value. Exactly one feature of a column is 1.
"""

from typing import Any, NamedTuple

import numpy as np

from sealserve.steps.intervals import Bins, BinsColumn
from sealserve_service.models.trees import Indices, Nodes, Numbers

_NODES_OF_A_STUMP = 3
_FLOAT32_END = 2.0**128 - 2.0**103
"""The least number that rounds to an infinite float32: a tie, and the largest float32 is odd."""


class StumpHead(NamedTuple):
    """The head of stumps.

    Attributes:
        columns: those that are compared, in order.
        edges: of each of them.
        weights: (scores, features).
        intercept: (scores,).
        takes_missing: whether a missing number has a feature. If not, its row is refused.
    """

    columns: Indices
    edges: list[Numbers]
    weights: Numbers
    intercept: Numbers
    takes_missing: bool

    @property
    def threshold_count(self) -> int:
        """The number of different thresholds."""
        return sum(map(len, self.edges))

    def emit(self, add: Any, inputs: Indices) -> Indices:
        """Emit the bins, without the last of each column: see `pipeline_steps.Emit`."""
        bins = [
            BinsColumn(edges, closed_right=True, missing_bin=len(edges) + 1 if self.takes_missing else None)
            for edges in self.edges
        ]
        outputs = add(Bins(inputs[self.columns], bins, one_hot=True))
        return np.delete(outputs, np.cumsum([column.bin_count for column in bins]) - 1)


def are_stumps(nodes: Nodes) -> bool:
    """Tell whether no tree has more than one split, and each split has a threshold."""
    return not nodes.categories and bool((nodes.sizes <= _NODES_OF_A_STUMP).all())


def stump_head(nodes: Nodes, *, rounds_to_float32: bool, takes_missing: bool) -> StumpHead:
    """Return the head of stumps, of which one at least has a split.

    Raises:
        ValueError: they compare columns, and all numbers are in one bin.
    """
    is_split = nodes.sizes == _NODES_OF_A_STUMP
    split, score_count = nodes.roots[is_split], nodes.values.shape[1]
    intercept = sum(nodes.values[nodes.roots[~is_split]], np.zeros(score_count))
    features, thresholds, misses_left = nodes.features[split], nodes.thresholds[split], nodes.misses_left[split]
    of_left, of_right = nodes.values[nodes.left[split]], nodes.values[nodes.right[split]]
    if rounds_to_float32:
        thresholds = _before_rounding(thresholds)
    columns = np.unique(features)
    edges, weights = list[Numbers](), list[Numbers]()
    for column in columns.tolist():
        of_column = np.flatnonzero(features == column)
        # An infinite threshold only parts what is missing from all numbers.
        finite = np.unique(thresholds[of_column][np.isfinite(thresholds[of_column])])
        values = np.zeros((len(finite) + 1 + takes_missing, score_count))
        places = np.searchsorted(finite, thresholds[of_column]) + 1  # bins to the left of a threshold
        for stump, place in zip(of_column.tolist(), places.tolist(), strict=True):
            left, right = of_left[stump], of_right[stump]
            values[: min(place, len(finite) + 1)] += left
            values[place : len(finite) + 1] += right
            if takes_missing:
                values[-1] += left if misses_left[stump] else right
        edges.append(finite)
        weights.append((values[:-1] - values[-1]).T)
        intercept = intercept + values[-1]
    return StumpHead(columns, edges, np.hstack(weights), intercept, takes_missing)


def _before_rounding(thresholds: Numbers) -> Numbers:
    """Return the greatest numbers that are not above thresholds once they are float32.

    Rounding is to the nearest float32, of two the even one.
    """
    with np.errstate(all="ignore"):  # of the largest and the least float32
        below = thresholds.astype(np.float32)
        below = np.where(below > thresholds, np.nextafter(below, np.float32(-np.inf)), below)
        above = np.nextafter(below, np.float32(np.inf))
    ties = np.where(np.isinf(above), _FLOAT32_END, (below.astype(np.float64) + above.astype(np.float64)) / 2)
    is_even = below.view(np.uint32) % 2 == 0
    found: Numbers = np.where(is_even, ties, np.nextafter(ties, -np.inf))
    return np.where(np.isinf(thresholds), thresholds, found)
