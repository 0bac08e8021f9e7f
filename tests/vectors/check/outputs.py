"""Outputs: predictions and probabilities from scores, as the comments of Output have them."""

import bisect
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

from sealserve.v1 import model_pb2

Output = model_pb2.Output
Row = Sequence[float]


def labels(output: model_pb2.Output) -> list[Any]:
    """The labels, in the order of the scores."""
    field: Any = output.classes.WhichOneof("labels")
    values: Any = getattr(output.classes, field).values if field else ()
    return list(values)


def has_probabilities(output: model_pb2.Output) -> bool:
    """Whether there are probabilities."""
    return output.task != Output.TASK_REGRESSION and output.link != Output.LINK_NONE


def prediction(output: model_pb2.Output, scores: Row) -> Any:
    """The prediction for a row of scores: a label, indicators, or a number or several."""
    if output.task == Output.TASK_REGRESSION:
        targets = [_TARGETS[output.link](score) for score in scores]
        return targets[0] if output.scalar_target else targets
    if output.task == Output.TASK_MULTILABEL:
        return [int(score > 0) for score in scores]
    if output.pairwise:
        votes, confidences = pairwise(scores)
        return labels(output)[_first_greatest(confidences if _decides_by_confidence(output) else votes)]
    if output.member_count > 1 or output.link == Output.LINK_CURVES:
        return labels(output)[_first_greatest(probabilities(output, scores))]
    return labels(output)[int(scores[0] > 0) if len(scores) == 1 else _first_greatest(scores)]


def decision(output: model_pb2.Output, scores: Row) -> list[float]:
    """The decision function: the scores, or the confidences of classes."""
    if output.pairwise in (Output.PAIRWISE_VOTES, Output.PAIRWISE_CONFIDENCES):
        return pairwise(scores)[1]
    return list(scores)


def probabilities(output: model_pb2.Output, scores: Row) -> list[float]:
    """The probabilities for a row of scores, in the order of the labels."""
    members = output.member_count or 1
    width = len(scores) // members
    curves = output.curves or [None] * len(scores)
    parts = [
        _of_member(output, scores[first : first + width], curves[first : first + width])
        for first in range(0, len(scores), width)
    ]
    return [sum(shares) / members for shares in zip(*parts, strict=True)]


def pairwise(scores: Row) -> tuple[list[float], list[float]]:
    """Votes and confidences of classes, from the scores of all pairs."""
    count = next(n for n in range(2, len(scores) + 2) if n * (n - 1) // 2 == len(scores))
    votes, sums = [0.0] * count, [0.0] * count
    for (first, second), score in zip(combinations(range(count), 2), scores, strict=True):
        votes[first if score > 0 else second] += 1
        sums[first] += score
        sums[second] -= score
    return votes, [v + s / (3 * (abs(s) + 1)) for v, s in zip(votes, sums, strict=True)]


def _of_member(output: model_pb2.Output, scores: Row, curves: Sequence[model_pb2.Curve | None]) -> list[float]:
    """The probabilities of one classifier."""
    link = output.link
    if link == Output.LINK_SOFTMAX and len(scores) > 1:
        # The same as of exp(score), which would be infinite for great scores.
        found = [math.exp(score - max(scores)) for score in scores]
    else:
        factor = 2 if link == Output.LINK_SOFTMAX else 1
        found = [_value(link, factor * score, curve) for score, curve in zip(scores, curves, strict=True)]
    if output.task == Output.TASK_MULTILABEL:
        return found
    if len(found) == 1:
        return [1 - found[0], found[0]]
    if total := math.fsum(found):
        return [value / total for value in found]
    return found if output.keeps_zero_rows else [1 / len(found)] * len(found)


def _value(link: int, score: float, curve: model_pb2.Curve | None) -> float:
    if link == Output.LINK_MODIFIED_HUBER:
        return (min(max(score, -1), 1) + 1) / 2
    if link == Output.LINK_CURVES:
        assert curve is not None
        return _on_curve(curve, score)
    # Of very negative scores exp(-score) would be infinite.
    return 1 / (1 + math.exp(-score)) if score > -700 else math.exp(score)


def _on_curve(curve: model_pb2.Curve, score: float) -> float:
    xs, ys = curve.scores, curve.probabilities
    at = bisect.bisect_right(xs, score)
    if at in (0, len(xs)):
        return ys[0] if at == 0 else ys[-1]
    return ys[at - 1] + (ys[at] - ys[at - 1]) / (xs[at] - xs[at - 1]) * (score - xs[at - 1])


def _first_greatest(values: Row) -> int:
    return max(range(len(values)), key=values.__getitem__)


def _decides_by_confidence(output: model_pb2.Output) -> bool:
    return output.pairwise == Output.PAIRWISE_CONFIDENCES


def _or_infinite(function: Any, value: float) -> float:
    try:
        return float(function(value))
    except OverflowError:
        return math.inf


_TARGETS: dict[int, Callable[[float], float]] = {
    Output.LINK_NONE: lambda score: score,
    Output.LINK_LOG: lambda score: _or_infinite(math.exp, score),
    Output.LINK_LOG1P: lambda score: _or_infinite(math.expm1, score),
}
