"""Ensembles: trees whose leaves are features, and whose values are a private head.

A tree has one feature for each leaf: 1 for the leaf that a row reaches. The last leaf of each tree
is left out, whatever its value: its value is added to the intercept and subtracted from the others.
Trees of one split each become bins instead: see `stumps`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.output import Output
from sealserve.steps.trees import CategorySplit, Trees
from sealserve_service.models.boosted_columns import Add, Recoding
from sealserve_service.models.limits import check_weights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import Consent, OpenStep
from sealserve_service.models.stumps import are_stumps, stump_head
from sealserve_service.models.trees import MIN_ROWS, Indices, Nodes, Numbers

MAX_VALUES = 100
"""Values of training rows in one column: as many quantiles of a QuantileTransformer are allowed."""


@dataclass(frozen=True)
class EnsembleKind:
    """A kind of ensemble: how its trees compare, and what they tell of the training.

    Attributes:
        name: of the estimator, or of its library.
        remedy: how to fit trees whose leaves have enough rows.
        fewer_cuts: how to fit trees with fewer cut points, where these are the edges of a
            histogram: of a column, not of the rows at a node. "" if they are not.
        cuts_are_values: whether cut points are values of training rows; else they are midway
            between two.
        leaves_have_rows: whether each leaf had a training row.
        strict: whether a number that equals a threshold goes to the right.
        rounds_to_float32: whether columns are rounded to float32 first.
        takes_missing: whether numbers may be missing.
        makes_bins: whether trees of one split become bins.
        compared: what is published of nodes, in words.
        cuts: what their cut points are, in words.
        few_rows: what is said of a leaf that has too few training rows.
        values: what publishing the structure tells of the values of leaves.
    """

    name: str
    remedy: str
    fewer_cuts: str = ""
    cuts_are_values: bool = False
    leaves_have_rows: bool = True
    strict: bool = False
    rounds_to_float32: bool = False
    takes_missing: bool = True
    makes_bins: bool = False
    compared: str = "which columns they compare with which cut points"
    cuts: str = "midway between training values"
    few_rows: str = "a leaf may have as few as {} training rows"
    values: str = "The values of leaves stay private"


def ensemble(
    kind: EnsembleKind,
    nodes: Nodes,
    baseline: Numbers,
    output: Output,
    names: tuple[str, ...],
    column_count: int,
    *,
    recodings: Sequence[Recoding] = (),
    own_scores: Callable[[NDArray[Any]], Numbers] | None = None,
) -> LinearModel:
    """Return the model whose scores are a baseline and the values of the leaves that are reached.

    Args:
        kind: of the ensemble.
        nodes: of its trees.
        baseline: of the scores, (scores,).
        output: what the scores mean.
        names: of the columns; none where they have none, and cut points are no edges of histograms.
        column_count: the number of columns.
        recodings: what becomes of columns before they are compared.
        own_scores: see `LinearModel`.

    Raises:
        ModelTooLargeError: it has too many leaves.
        ValueError: it has no split.
    """
    is_leaf, is_last = nodes.is_leaf, nodes.is_last_leaf
    is_kept, of_last = is_leaf & ~is_last, nodes.values[is_last]
    if not is_kept.any():
        raise ValueError("none of its trees has a split: it predicts the same of any row")
    if not np.isfinite(nodes.values[is_leaf]).all():
        raise ValueError("a leaf has a value that is not finite")
    check_weights(output.score_count, int(is_kept.sum()))
    if kind.makes_bins and are_stumps(nodes):
        stumps = stump_head(nodes, rounds_to_float32=kind.rounds_to_float32, takes_missing=kind.takes_missing)
        weights, intercept, emit = stumps.weights, baseline + stumps.intercept, stumps.emit
        what = f"{stumps.threshold_count} thresholds of {len(stumps.columns)} features"
    else:
        with np.errstate(over="ignore"):  # the model refuses what is not finite
            # A tree has one leaf more than it has splits.
            weights = (nodes.values[is_kept] - np.repeat(of_last, nodes.sizes // 2, axis=0)).T
            # One after the other: sums of NumPy depend on the machine.
            intercept = baseline + np.cumsum(of_last, axis=0)[-1]
        emit = partial(_emit, kind, nodes, recodings)
        what = f"the structure of {len(nodes.roots)} trees with {len(nodes.left)} nodes: {kind.compared}"
    used = np.unique(nodes.features[~is_leaf])
    told = [f"; {found.tells}" for found in recodings if found.tells and np.isin(found.columns, used).any()]
    front = OpenStep(
        kind.name,
        weights.shape[1],
        emit,
        f"{what}, {kind.cuts}{''.join(told)}. {kind.values}",
        Consent.STRUCTURE,
        training_values=_training_values(kind, nodes, names),
        takes_missing=kind.takes_missing,
    )
    return LinearModel(
        weights, intercept, output, names, own_scores=own_scores, front=(front,), column_count=column_count
    )


def _emit(kind: EnsembleKind, nodes: Nodes, recodings: Sequence[Recoding], add: Add, inputs: Indices) -> Indices:
    compared = inputs.copy()
    for recoding in recodings:
        compared[recoding.columns] = recoding.emit(add, inputs[recoding.columns])
    is_leaf, sizes = nodes.is_leaf, nodes.sizes
    roots = np.repeat(nodes.roots, sizes)
    outputs = add(
        Trees(
            compared,
            node_counts=sizes,
            left=np.where(is_leaf, 0, nodes.left - roots),
            right=np.where(is_leaf, 0, nodes.right - roots),
            features=np.where(is_leaf, 0, nodes.features),
            thresholds=np.where(is_leaf, 0.0, nodes.thresholds),
            misses_left=nodes.misses_left & ~is_leaf,
            strict=kind.strict,
            rounds_to_float32=kind.rounds_to_float32,
            category_splits=[CategorySplit(node, *sides) for node, sides in nodes.categories.items()],
        )
    )
    return outputs[~nodes.is_last_leaf[is_leaf]]


def _training_values(kind: EnsembleKind, nodes: Nodes, names: tuple[str, ...]) -> str:
    """Return why cut points tell of single training rows; "" if they do not."""
    counts = nodes.row_counts
    if counts is None:
        return f"how many training rows its leaves have is not known: {kind.remedy}"
    least = float(counts[nodes.is_leaf].min())
    if kind.leaves_have_rows and least < MIN_ROWS:
        return f"{kind.few_rows.format(int(np.ceil(max(least, 1.0))))}: {kind.remedy}"
    if not kind.fewer_cuts:
        return ""
    is_cut = ~nodes.is_leaf
    is_cut[list(nodes.categories)] = False
    cuts = np.unique(np.stack([nodes.features[is_cut].astype(np.float64), nodes.thresholds[is_cut]]), axis=1)
    of_column = np.bincount(cuts[0].astype(np.intp), minlength=1)
    column, most = int(of_column.argmax()), int(of_column.max())
    if kind.cuts_are_values and most > MAX_VALUES:
        return f"{most} cut points of {names[column]!r} are values of training rows: {kind.fewer_cuts}"
    rows = float(counts[nodes.roots].max())
    if most and rows < MIN_ROWS * (most + 1):
        return f"{most} cut points of {names[column]!r} are many for {int(rows)} training rows: {kind.fewer_cuts}"
    return ""
