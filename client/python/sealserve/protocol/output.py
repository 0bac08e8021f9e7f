"""What turns scores into predictions: the last step of scikit-learn's linear models, without scikit-learn.

The service publishes an `Output` with each model; the client applies it to the scores it decrypts. Shapes, thresholds
and probabilities are those of the estimator's own `decision_function`, `predict` and `predict_proba`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import NoSuchMethodError

__all__ = ["Label", "Link", "Output", "Scored", "Task"]

Label = bool | int | float | str


class Task(Enum):
    """What a prediction is."""

    REGRESSION = "regression"
    """The scores themselves."""
    CLASSIFICATION = "classification"
    """One label a row. One score decides between two classes (the second if it is above 0); else the greatest wins."""
    MULTILABEL = "multilabel"
    """An indicator a row and label: 1 where the label's score is above 0."""


class Link(Enum):
    """How scores become probabilities."""

    NONE = "none"
    """They do not: the estimator has no `predict_proba`."""
    LOGISTIC = "logistic"
    """`1 / (1 + exp(-score))`, of the second class or of each label."""
    OVR_LOGISTIC = "ovr_logistic"
    """The logistic function of each class's score, divided by their sum: one versus rest."""
    SOFTMAX = "softmax"
    """`exp(score)` of each class, divided by their sum."""
    MODIFIED_HUBER = "modified_huber"
    """`(clip(score, -1, 1) + 1) / 2`, for several classes divided by their sum (Zadrozny and Elkan, KDD 2002)."""


@dataclass(frozen=True)
class Output:
    """The meaning of a model's scores; every method takes scores of shape (rows, score_count).

    Attributes:
        classes: the labels, all of one type, in the order of the scores; empty for a regression.
        scalar_target: a regression whose target was 1-D: predictions have shape (rows,), not (rows, 1).
        keeps_zero_rows: what dividing by their sum makes of probabilities that are all zero, which far scores give:
            they stay zero (OneVsRestClassifier) instead of becoming equal shares (all others).

    Raises:
        ValueError: the fields contradict each other.
    """

    task: Task
    score_count: int
    classes: tuple[Label, ...] = ()
    link: Link = Link.NONE
    scalar_target: bool = False
    keeps_zero_rows: bool = False

    def __post_init__(self) -> None:
        if self.score_count < 1:
            raise ValueError(f"a model has at least one score, not {self.score_count}")
        if self.scalar_target and (self.task is not Task.REGRESSION or self.score_count != 1):
            raise ValueError("a scalar target is a regression's, with one score")
        if self.link not in self._possible_links:
            raise ValueError(f"link {self.link.value} does not fit {self.task.value} with {self.score_count} score(s)")
        if len(self.classes) != self._class_count:
            raise ValueError(f"{len(self.classes)} classes where the scores decide between {self._class_count}")
        _check_labels(self.classes)

    @property
    def is_binary(self) -> bool:
        """Whether one score decides between two classes."""
        return self.task is Task.CLASSIFICATION and self.score_count == 1

    def decision_function(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores, of shape (rows,) for a binary classifier and (rows, score_count) otherwise.

        Raises:
            NoSuchMethodError: the model is a regression, which has none in scikit-learn either.
        """
        if self.task is Task.REGRESSION:
            raise NoSuchMethodError("a regression has no decision_function: its scores are what predict returns")
        self._check_shape(scores)
        return scores[:, 0] if self.is_binary else scores

    def predict(self, scores: NDArray[np.float64]) -> NDArray[Any]:
        """Labels (rows,); of a multilabel model indicators int64 (rows, score_count); of a regression its targets."""
        self._check_shape(scores)
        if self.task is Task.REGRESSION:
            return scores[:, 0] if self.scalar_target else scores
        if self.task is Task.MULTILABEL:
            return (scores > 0).astype(np.int64)
        indices = (scores[:, 0] > 0).astype(np.intp) if self.is_binary else scores.argmax(axis=1)
        labels: NDArray[Any] = np.array(self.classes)[indices]
        return labels

    def predict_proba(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of shape (rows, classes), in the order of `classes`.

        Raises:
            NoSuchMethodError: the link is NONE.
        """
        self.check_probabilities()
        self._check_shape(scores)
        probabilities = _LINK_FUNCTIONS[self.link](scores)
        if self.is_binary:
            return np.hstack([1 - probabilities, probabilities])
        if self.task is Task.MULTILABEL:
            return probabilities
        return self._divided_by_sum(probabilities)

    def check_probabilities(self) -> None:
        """Raise NoSuchMethodError if the link is NONE."""
        if self.link is Link.NONE:
            raise NoSuchMethodError("this model has no probabilities: use predict or decision_function")

    @property
    def _class_count(self) -> int:
        if self.task is Task.REGRESSION:
            return 0
        return 2 if self.is_binary else self.score_count

    @property
    def _possible_links(self) -> tuple[Link, ...]:
        if self.task is Task.REGRESSION:
            return (Link.NONE,)
        if self.task is Task.MULTILABEL or self.is_binary:
            return Link.NONE, Link.LOGISTIC, Link.MODIFIED_HUBER
        return Link.NONE, Link.OVR_LOGISTIC, Link.SOFTMAX, Link.MODIFIED_HUBER

    def _check_shape(self, scores: NDArray[np.float64]) -> None:
        if scores.ndim != 2 or scores.shape[1] != self.score_count:
            raise ValueError(f"scores have shape (rows, {self.score_count}), not {scores.shape}")

    def _divided_by_sum(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = probabilities.sum(axis=1, keepdims=True)
        of_zeros = np.full_like(probabilities, 0.0 if self.keeps_zero_rows else 1 / self.score_count)
        shares: NDArray[np.float64] = np.divide(probabilities, sums, out=of_zeros, where=sums != 0)
        return shares


class Scored(NamedTuple):
    """Decrypted scores of some rows, with what they mean.

    Attributes:
        output: what the scores mean. It may change between two items, as the model does.
        scores: float64, shape (rows, score_count).
    """

    output: Output
    scores: NDArray[np.float64]

    @property
    def predictions(self) -> NDArray[Any]:
        """Labels, indicators or targets: what `predict` returns for the rows."""
        return self.output.predict(self.scores)

    @property
    def probabilities(self) -> NDArray[np.float64] | None:
        """What `predict_proba` returns for the rows; None where the model has no probabilities."""
        return None if self.output.link is Link.NONE else self.output.predict_proba(self.scores)


def _check_labels(classes: tuple[Label, ...]) -> None:
    kinds = {type(label) for label in classes}
    if len(kinds) > 1 or not kinds <= {bool, int, float, str}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"labels are all int, all float, all str or all bool, not {names}")
    if len(set(classes)) != len(classes):
        raise ValueError("a class occurs twice")
    if kinds == {int} and np.array(classes).dtype != np.int64:
        raise ValueError("integer labels have at most 64 bits, sign included")


def _logistic(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    # exp(-score) itself overflows from scores of -710 on.
    probabilities: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -scores))
    return probabilities


def _exponential(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    # Of the distance to the greatest score: dividing by the sum undoes it, and nothing overflows.
    probabilities: NDArray[np.float64] = np.exp(scores - scores.max(axis=1, keepdims=True))
    return probabilities


def _clipped(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.clip(scores, -1.0, 1.0) + 1.0) / 2.0


_LINK_FUNCTIONS: dict[Link, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    Link.LOGISTIC: _logistic,
    Link.OVR_LOGISTIC: _logistic,
    Link.SOFTMAX: _exponential,
    Link.MODIFIED_HUBER: _clipped,
}
