"""Output of a model: the meaning of its scores, which turns them into predictions.

This is the last step of scikit-learn's linear models, without scikit-learn. The service publishes
an `Output` with each model, and the client applies it to the scores that it decrypts. Shapes,
thresholds and probabilities are those of the estimator's own `decision_function`, `predict` and
`predict_proba`.
"""

import math
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import NoSuchMethodError
from sealserve.protocol.links import MAX_CURVE_POINTS, Curve, Link, probabilities_of, targets_of
from sealserve.protocol.text import counted

__all__ = ["Curve", "Label", "Link", "Output", "Pairwise", "Scored", "Task"]

Label = bool | int | float | str

MAX_MEMBERS = 1 << 10
"""Classifiers whose probabilities are averaged: a client combines them one by one."""


class Task(Enum):
    """The kind of prediction."""

    REGRESSION = "regression"
    """The prediction is the scores, or what a log link makes of them."""
    CLASSIFICATION = "classification"
    """One label for each row.

    A single score decides between two classes: the second one if the score is above 0. With several
    scores, the label is that of the greatest.
    """
    MULTILABEL = "multilabel"
    """One indicator for each row and label: 1 if the label's score is above 0."""


class Pairwise(Enum):
    """What the scores mean of a classifier that compares each pair of classes (one versus one).

    The scores are those of the pairs (0, 1), (0, 2), ..., (1, 2), ...: above 0, the pair votes for
    its first class, else for its second. See `pair_confidences`.
    """

    NONE = "none"
    """The scores are not those of pairs."""
    VOTES = "votes"
    """The label is the class with the most votes; of several, the first."""
    PAIRS = "pairs"
    """The same; and `decision_function` returns the scores of the pairs themselves."""
    CONFIDENCES = "confidences"
    """The label is the class with the greatest confidence, which decides between equal votes."""


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
        has_no_decision_function: whether the estimator of a classification has none, such as naive
            Bayes or OneVsRestClassifier of regressors, or one that is not the scores, such as
            IsolationForest. It changes no prediction.
        member_count: the number of classifiers whose probabilities are averaged. If there are
            several, the scores are those of the first, then those of the second, and so on, and the
            label is that of the greatest average.
        curves: one for each score, if the link is CURVES. The label is that of the greatest
            probability.
        pairwise: whether the scores are those of pairs of classes.

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
    member_count: int = 1
    curves: tuple[Curve, ...] = ()
    pairwise: Pairwise = Pairwise.NONE

    def __post_init__(self) -> None:
        if self.score_count < 1:
            raise ValueError(f"a model must have at least one score, not {self.score_count}")
        if self.scalar_target and (self.task is not Task.REGRESSION or self.score_count != 1):
            raise ValueError("only a regression with one score has a scalar target: set scalar_target to False")
        self._check_members()
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

    @cached_property
    def is_binary(self) -> bool:
        """Whether a single score decides between two classes."""
        return self.task is Task.CLASSIFICATION and self.score_count == 1

    @cached_property
    def decides_by_probabilities(self) -> bool:
        """Whether a label is that of the greatest probability, which scores alone do not tell."""
        return self.member_count > 1 or self.link is Link.CURVES

    @property
    def compares_scores(self) -> bool:
        """Whether a label is that of the greatest of several scores."""
        is_of_one = self.pairwise is Pairwise.NONE and not self.decides_by_probabilities
        return self.task is Task.CLASSIFICATION and self.score_count > 1 and is_of_one

    @property
    def has_probabilities(self) -> bool:
        """Whether there is a `predict_proba`."""
        return self.task is not Task.REGRESSION and self.link is not Link.NONE

    def decision_function(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores: (rows,) for a binary classifier, (rows, score_count) otherwise.

        For pairs of classes they are the confidences, (rows, classes); see `Pairwise`.

        Raises:
            NoSuchMethodError: the estimator has none.
        """
        self.check_decision_function()
        self._check_shape(scores)
        if self.pairwise in (Pairwise.VOTES, Pairwise.CONFIDENCES):
            return pair_confidences(scores)
        return scores[:, 0] if self.is_binary else scores

    def predict(self, scores: NDArray[np.float64]) -> NDArray[Any]:
        """Return the predictions.

        They are labels (rows,), for a multilabel model int64 indicators (rows, score_count), and
        for a regression its targets.
        """
        self._check_shape(scores)
        if self.task is Task.REGRESSION:
            targets = targets_of(self.link, scores)
            return targets[:, 0] if self.scalar_target else targets
        if self.task is Task.MULTILABEL:
            return (scores > 0).astype(np.int64)
        labels: NDArray[Any] = np.array(self.classes)[self.class_indices(scores)]
        return labels

    def class_indices(self, scores: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the index of the label of each row of a classification, (rows,)."""
        if self.is_binary and not self.decides_by_probabilities:
            return (scores[:, 0] > 0).astype(np.intp)
        if self.pairwise is Pairwise.CONFIDENCES:
            scores = pair_confidences(scores)
        elif self.pairwise is not Pairwise.NONE:
            scores = _pair_votes(scores)[0]
        elif self.decides_by_probabilities:
            scores = self.predict_proba(scores)
        indices: NDArray[np.intp] = scores.argmax(axis=1)
        return indices

    def predict_proba(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities of shape (rows, classes), in the order of `classes`.

        Raises:
            NoSuchMethodError: there are none.
        """
        self.check_probabilities()
        self._check_shape(scores)
        width = self._member_width
        total = np.zeros((len(scores), self._class_count))
        for first in range(0, self.score_count, width):
            part = slice(first, first + width)
            total += self._member_probabilities(scores[:, part], self.curves[part])
        total /= self.member_count
        return total

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
        """Raise NoSuchMethodError if the scores are no decision_function of an estimator."""
        if self.task is Task.REGRESSION:
            raise NoSuchMethodError("a regression has no decision_function: use predict, which returns its scores")
        if self.has_no_decision_function or self.decides_by_probabilities:
            raise NoSuchMethodError("this model has no decision_function: use predict, which returns labels")

    def check_probabilities(self) -> None:
        """Raise NoSuchMethodError if there are no probabilities."""
        if not self.has_probabilities:
            other = "predict" if self.has_no_decision_function else "predict or decision_function"
            raise NoSuchMethodError(f"this model has no probabilities: use {other}")

    @property
    def _member_width(self) -> int:
        """The number of scores of one classifier."""
        return self.score_count // self.member_count

    @property
    def _class_count(self) -> int:
        if self.task is Task.REGRESSION:
            return 0
        if self.pairwise is not Pairwise.NONE:
            return class_count_of_pairs(self.score_count)
        return 2 if self.task is Task.CLASSIFICATION and self._member_width == 1 else self._member_width

    @property
    def _possible_links(self) -> tuple[Link, ...]:
        if self.task is Task.REGRESSION:
            return Link.NONE, Link.LOG, Link.LOG1P
        if self.task is Task.MULTILABEL:
            return Link.NONE, Link.LOGISTIC, Link.MODIFIED_HUBER
        if self.pairwise is not Pairwise.NONE:
            return (Link.NONE,)
        logistic = Link.LOGISTIC if self._member_width == 1 else Link.OVR_LOGISTIC
        with_probabilities = logistic, Link.SOFTMAX, Link.MODIFIED_HUBER, Link.CURVES
        return with_probabilities if self.member_count > 1 else (Link.NONE, *with_probabilities)

    def _check_members(self) -> None:
        """Check what there is more of than one: members, curves and pairs."""
        is_classifier = self.task is Task.CLASSIFICATION
        if not 1 <= self.member_count <= min(MAX_MEMBERS, self.score_count) or self.score_count % self.member_count:
            raise ValueError(f"{self.score_count} scores cannot be those of {self.member_count} classifiers")
        if self.member_count > 1 and not is_classifier:
            raise ValueError("only the probabilities of classifiers are averaged: set member_count to 1")
        if len(self.curves) != (self.score_count if self.link is Link.CURVES else 0):
            raise ValueError(
                f"{len(self.curves)} curves for {self.score_count} scores with link {self.link.value}: give one for "
                "each score if the link is curves, and none otherwise"
            )
        if sum(len(curve.scores) for curve in self.curves) > MAX_CURVE_POINTS:
            raise ValueError(f"the curves have more than {MAX_CURVE_POINTS} points")
        if self.pairwise is not Pairwise.NONE and not (
            is_classifier and self.member_count == 1 and class_count_of_pairs(self.score_count) > 2
        ):
            raise ValueError(f"{self.score_count} scores are not those of all pairs of three classes or more")

    def _member_probabilities(self, scores: NDArray[np.float64], curves: tuple[Curve, ...]) -> NDArray[np.float64]:
        """Return the probabilities of one classifier, (rows, classes)."""
        probabilities = probabilities_of(self.link, scores, curves)
        if self.task is Task.MULTILABEL:
            return probabilities
        if self._member_width == 1:
            return np.hstack([1 - probabilities, probabilities])
        return self._divided_by_sum(probabilities)

    def _check_shape(self, scores: NDArray[np.float64]) -> None:
        if scores.ndim != 2 or scores.shape[1] != self.score_count:
            raise ValueError(f"scores must have shape (rows, {self.score_count}), not {scores.shape}")

    def _divided_by_sum(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = probabilities.sum(axis=1, keepdims=True)
        of_zeros = np.full_like(probabilities, 0.0 if self.keeps_zero_rows else 1 / probabilities.shape[1])
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
        return self.output.predict_proba(self.scores) if self.output.has_probabilities else None


def class_count_of_pairs(pair_count: int) -> int:
    """Return of how many classes these are all pairs; 0 if of none."""
    count = (1 + math.isqrt(1 + 8 * pair_count)) // 2
    return count if count * (count - 1) // 2 == pair_count else 0


def pair_confidences(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the confidence of each class, (rows, classes), from the scores of all pairs.

    It is the number of votes for the class, plus c / (3 (|c| + 1)), which is less than a third of a
    vote. c is the sum of the class's scores: those of its pairs, negative where it is the second.
    Source: scikit-learn's `_ovr_decision_function`.
    """
    votes, sums = _pair_votes(scores)
    confidences: NDArray[np.float64] = votes + sums / (3 * (np.abs(sums) + 1))
    return confidences


def _pair_votes(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return votes and sums of scores of each class, (rows, classes)."""
    class_count, start = class_count_of_pairs(scores.shape[1]), 0
    votes, sums = np.zeros((2, len(scores), class_count))
    for first in range(class_count - 1):
        pairs = scores[:, start : start + class_count - 1 - first]
        start += pairs.shape[1]
        votes[:, first] += (pairs > 0).sum(axis=1)
        votes[:, first + 1 :] += pairs <= 0
        sums[:, first] += pairs.sum(axis=1)
        sums[:, first + 1 :] -= pairs
    return votes, sums


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
