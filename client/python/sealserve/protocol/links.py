"""Links: the functions that turn scores into probabilities, or into the targets of a regression."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Link", "probabilities_of", "targets_of"]

MAX_CURVE_POINTS = 1 << 18
"""Points of all curves of an output together: 4 MB."""


class Link(Enum):
    """The function that turns scores into probabilities, or into the targets of a regression."""

    NONE = "none"
    """There are no probabilities: the estimator has no `predict_proba`. Scores are targets."""
    LOGISTIC = "logistic"
    """`1 / (1 + exp(-score))`, for the second class or for each label."""
    OVR_LOGISTIC = "ovr_logistic"
    """The logistic function of each class's score, divided by their sum (one versus rest)."""
    SOFTMAX = "softmax"
    """`exp(score)` of each class, divided by their sum.

    A single score s of two classes stands for the scores -s and s: 1 / (1 + exp(-2 s)) for the
    second class. Such are the probabilities of `LogisticRegression(multi_class="multinomial")` with
    two classes, in versions of scikit-learn that have this parameter.
    """
    MODIFIED_HUBER = "modified_huber"
    """`(clip(score, -1, 1) + 1) / 2`; several classes are divided by their sum.

    Source: Zadrozny and Elkan, KDD 2002.
    """
    CURVES = "curves"
    """The value of each score's own curve (`Curve`); several classes are divided by their sum."""
    LOG = "log"
    """Regression: the target is `exp(score)`, as in generalized linear models with a log link."""
    LOG1P = "log1p"
    """Regression: the target is `exp(score) - 1`."""


@dataclass(frozen=True)
class Curve:
    """A piecewise linear function, constant to the left of its first point and right of its last.

    Attributes:
        scores: of the points, strictly increasing.
        probabilities: of the points, 0 to 1.

    Raises:
        ValueError: there is no such function.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.scores) == len(self.probabilities) <= MAX_CURVE_POINTS:
            raise ValueError(
                f"a curve has {len(self.scores)} scores and {len(self.probabilities)} probabilities: give as many of "
                "both, and at least one"
            )
        scores, probabilities = np.array(self.scores), np.array(self.probabilities)
        if not (np.isfinite(scores).all() and (np.diff(scores) > 0).all()):
            raise ValueError("the scores of a curve must be finite, and each greater than the one before")
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ValueError("the probabilities of a curve must be 0 to 1")

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values at scores of any shape."""
        values: NDArray[np.float64] = np.interp(scores, self.scores, self.probabilities)
        return values


def targets_of(link: Link, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the targets of a regression; those beyond the greatest number are infinite."""
    with np.errstate(over="ignore"):
        return _TARGETS[link](scores)


def probabilities_of(link: Link, scores: NDArray[np.float64], curves: tuple[Curve, ...]) -> NDArray[np.float64]:
    """Return what the probabilities of one classifier are made of, (rows, scores), like the scores.

    Several classes are still to be divided by their sum.

    Args:
        link: one with probabilities.
        scores: of the classifier.
        curves: one for each score, if the link is CURVES.
    """
    if link is Link.CURVES:
        return np.stack([curve(column) for curve, column in zip(curves, scores.T, strict=True)], axis=1)
    if link is Link.SOFTMAX and scores.shape[1] == 1:
        return _logistic(2.0 * scores)
    return _PROBABILITIES[link](scores)


def _logistic(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    # exp(-score) itself would overflow for scores of -710 and below.
    probabilities: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -scores))
    return probabilities


def _exponential(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    # The argument is the distance to the greatest score, so that nothing overflows. Dividing by the
    # sum cancels the shift.
    probabilities: NDArray[np.float64] = np.exp(scores - scores.max(axis=1, keepdims=True))
    return probabilities


def _clipped(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.clip(scores, -1.0, 1.0) + 1.0) / 2.0


_PROBABILITIES: dict[Link, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    Link.LOGISTIC: _logistic,
    Link.OVR_LOGISTIC: _logistic,
    Link.SOFTMAX: _exponential,
    Link.MODIFIED_HUBER: _clipped,
}
_TARGETS: dict[Link, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    Link.NONE: lambda scores: scores,
    Link.LOG: np.exp,
    Link.LOG1P: np.expm1,
}
