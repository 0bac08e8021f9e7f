"""Output of a model: the meaning of its scores, which turns them into predictions.

This is the last step of scikit-learn's linear models, without scikit-learn. The service publishes
an `Output` with each model, and the client applies it to the scores that it decrypts. Shapes,
thresholds and probabilities are those of the estimator's own `decision_function`, `predict` and
`predict_proba`.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import NoSuchMethodError
from sealserve.protocol.text import counted

__all__ = ["Label", "Link", "Output", "Scored", "Task"]

Label = bool | int | float | str


class Task(Enum):
    """The kind of prediction."""

    REGRESSION = "regression"
    """The scores are the prediction."""
    CLASSIFICATION = "classification"
    """One label for each row.

    A single score decides between two classes: the second one if the score is above 0. With several
    scores, the label is that of the greatest.
    """
    MULTILABEL = "multilabel"
    """One indicator for each row and label: 1 if the label's score is above 0."""


class Link(Enum):
    """The function that turns scores into probabilities."""

    NONE = "none"
    """There are no probabilities: the estimator has no `predict_proba`."""
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


@dataclass(frozen=True)
class Output:
    """The meaning of a model's scores.

    Every method takes scores of shape (rows, score_count).

    Attributes:
        classes: the labels, all of one type, in the order of the scores. Empty for a regression.
        scalar_target: whether a regression's target was 1-D. Predictions then have shape (rows,),
            not (rows, 1).
        keeps_zero_rows: what becomes of probabilities that are all zero when they are divided by
            their sum. Scores far below 0 give such probabilities. If true, they stay zero
            (OneVsRestClassifier). If false, they become equal shares (all other estimators).
        has_no_decision_function: whether the estimator of a classification has none:
            OneVsRestClassifier of regressors. It changes no prediction.

    Raises:
        ValueError: the fields contradict each other.
    """

    task: Task
    score_count: int
    classes: tuple[Label, ...] = ()
    link: Link = Link.NONE
    _: KW_ONLY
    scalar_target: bool = False
    keeps_zero_rows: bool = False
    has_no_decision_function: bool = False

    def __post_init__(self) -> None:
        if self.score_count < 1:
            raise ValueError(f"a model must have at least one score, not {self.score_count}")
        if self.scalar_target and (self.task is not Task.REGRESSION or self.score_count != 1):
            raise ValueError("only a regression with one score has a scalar target: set scalar_target to False")
        if self.link not in self._possible_links:
            raise ValueError(
                f"link {self.link.value} does not fit {self.task.value} with {self.score_count} score(s): change it"
            )
        if len(self.classes) != self._class_count:
            raise ValueError(
                f"{len(self.classes)} classes, but the scores decide between {self._class_count}: give a label for each"
            )
        _check_labels(self.classes)

    @property
    def outcomes_in_words(self) -> str:
        """How many classes or, of a regression, targets there are."""
        return counted(len(self.classes), "classes") if self.classes else counted(self.score_count, "targets")

    @property
    def is_binary(self) -> bool:
        """Whether a single score decides between two classes."""
        return self.task is Task.CLASSIFICATION and self.score_count == 1

    def decision_function(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores: (rows,) for a binary classifier, (rows, score_count) otherwise.

        Raises:
            NoSuchMethodError: the estimator has none.
        """
        self.check_decision_function()
        self._check_shape(scores)
        return scores[:, 0] if self.is_binary else scores

    def predict(self, scores: NDArray[np.float64]) -> NDArray[Any]:
        """Return the predictions.

        They are labels (rows,), for a multilabel model int64 indicators (rows, score_count), and
        for a regression its targets.
        """
        self._check_shape(scores)
        if self.task is Task.REGRESSION:
            return scores[:, 0] if self.scalar_target else scores
        if self.task is Task.MULTILABEL:
            return (scores > 0).astype(np.int64)
        indices = (scores[:, 0] > 0).astype(np.intp) if self.is_binary else scores.argmax(axis=1)
        labels: NDArray[Any] = np.array(self.classes)[indices]
        return labels

    def predict_proba(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities of shape (rows, classes), in the order of `classes`.

        Raises:
            NoSuchMethodError: the link is NONE.
        """
        self.check_probabilities()
        self._check_shape(scores)
        probabilities = _LINK_FUNCTIONS[self.link](scores)
        if self.is_binary:
            if self.link is Link.SOFTMAX:
                probabilities = _logistic(2.0 * scores)
            return np.hstack([1 - probabilities, probabilities])
        if self.task is Task.MULTILABEL:
            return probabilities
        return self._divided_by_sum(probabilities)

    def check_method(self, method: str) -> None:
        """Raise NoSuchMethodError if scikit-learn's estimator has no such method either.

        Args:
            method: "predict", "decision_function" or "predict_proba".
        """
        if method == "predict_proba":
            self.check_probabilities()
        elif method == "decision_function":
            self.check_decision_function()

    def check_decision_function(self) -> None:
        """Raise NoSuchMethodError if scikit-learn's estimator has no decision_function either."""
        if self.task is Task.REGRESSION:
            raise NoSuchMethodError("a regression has no decision_function: use predict, which returns its scores")
        if self.has_no_decision_function:
            raise NoSuchMethodError(
                "this classifier is made of regressors, and has no decision_function: use predict, which returns labels"
            )

    def check_probabilities(self) -> None:
        """Raise NoSuchMethodError if the link is NONE."""
        if self.link is Link.NONE:
            other = "predict" if self.has_no_decision_function else "predict or decision_function"
            raise NoSuchMethodError(f"this model has no probabilities: use {other}")

    @property
    def _class_count(self) -> int:
        if self.task is Task.REGRESSION:
            return 0
        return 2 if self.is_binary else self.score_count

    @property
    def _possible_links(self) -> tuple[Link, ...]:
        if self.task is Task.REGRESSION:
            return (Link.NONE,)
        if self.task is Task.MULTILABEL:
            return Link.NONE, Link.LOGISTIC, Link.MODIFIED_HUBER
        if self.is_binary:
            return Link.NONE, Link.LOGISTIC, Link.SOFTMAX, Link.MODIFIED_HUBER
        return Link.NONE, Link.OVR_LOGISTIC, Link.SOFTMAX, Link.MODIFIED_HUBER

    def _check_shape(self, scores: NDArray[np.float64]) -> None:
        if scores.ndim != 2 or scores.shape[1] != self.score_count:
            raise ValueError(f"scores must have shape (rows, {self.score_count}), not {scores.shape}")

    def _divided_by_sum(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = probabilities.sum(axis=1, keepdims=True)
        of_zeros = np.full_like(probabilities, 0.0 if self.keeps_zero_rows else 1 / self.score_count)
        shares: NDArray[np.float64] = np.divide(probabilities, sums, out=of_zeros, where=sums != 0)
        return shares


class Scored(NamedTuple):
    """Decrypted scores of some rows, with the output that gives them a meaning.

    Attributes:
        output: the meaning of the scores. It may change between two items, as the model may.
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
        """What `predict_proba` returns for the rows; None if the model has no probabilities."""
        return None if self.output.link is Link.NONE else self.output.predict_proba(self.scores)


def _check_labels(classes: tuple[Label, ...]) -> None:
    kinds = {type(label) for label in classes}
    if len(kinds) > 1 or not kinds <= {bool, int, float, str}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"labels must be all int, all float, all str or all bool, not {names}")
    if len(set(classes)) != len(classes):
        raise ValueError("a class occurs twice: make the labels distinct")
    texts = [label for label in classes if isinstance(label, str)]
    if any(text.endswith("\0") for text in texts):
        raise ValueError("a label ends with NUL, which arrays of text cut off: rename the class")
    if any(_has_surrogate(text) for text in texts):
        raise ValueError("a label is not valid Unicode, and files cannot hold it in UTF-8: rename the class")
    if kinds == {int} and np.array(classes).dtype != np.int64:
        raise ValueError("an integer label has more than 64 bits, sign included: use smaller integers, or strings")


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


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


_LINK_FUNCTIONS: dict[Link, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    Link.LOGISTIC: _logistic,
    Link.OVR_LOGISTIC: _logistic,
    Link.SOFTMAX: _exponential,
    Link.MODIFIED_HUBER: _clipped,
}
