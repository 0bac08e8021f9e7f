"""Steps of a pipeline, one after another or in branches, and how they fold into a head.

The longest affine suffix folds into the head, in each branch too. What remains is the front:
clients compute it, and it is published.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.step import Step as PublishedStep
from sealserve_service.models.affine import Affine
from sealserve_service.models.conditioning import Condition, fault
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.limits import check_weights

_MOST_QUANTILES = 100  # of a column, that tell of no single training row
Weights = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weights (scores, features) and intercept (scores,)."""


def rows_told_by_quantiles(count: int, option: str) -> str:
    """Say why so many quantiles of a column publish training rows; "" if they are few."""
    if count <= _MOST_QUANTILES:
        return ""
    return (
        f"{count} quantiles are values of training rows, or lie between two of them: fit it with "
        f"{option}={_MOST_QUANTILES} or fewer"
    )


class Consent(Enum):
    """What an operator has to agree to before a step is published: --publish."""

    STEPS = "steps"
    """What transformers have learnt: means, categories, vocabularies, quantiles."""
    STRUCTURE = "structure"
    """The structure of trees: which features they compare with which thresholds."""


@dataclass(frozen=True, eq=False)
class Step:
    """An affine step.

    Attributes:
        name: of the step in error messages.
        map: what it computes.
        transformer: of scikit-learn, whose order of operations is kept where it is published.
    """

    name: str
    map: Affine
    transformer: Any = None

    @property
    def width(self) -> int:
        """The number of values that come out."""
        return len(self.map.offset)


Emit = Callable[[Callable[[PublishedStep], NDArray[np.intp]], NDArray[np.intp]], NDArray[np.intp]]
"""Emits published steps: (add, numbers of the inputs) -> numbers of the outputs.

`add` adds a step to the program and returns the numbers of its outputs.
"""


@dataclass(frozen=True, eq=False)
class OpenStep:
    """A step that is not affine: it is published, and clients compute it.

    Attributes:
        name: of the step in error messages.
        width: the number of values that come out.
        emit: emits the published steps.
        tells: what publishing it tells.
        consent: what the operator has to agree to.
        training_values: why it publishes training rows, "" if it does not; then the operator has to
            accept that, too.
        takes_missing: whether scikit-learn takes missing numbers, where the published steps do.
    """

    name: str
    width: int
    emit: Emit
    tells: str
    consent: Consent = Consent.STEPS
    training_values: str = ""
    takes_missing: bool = True


@dataclass(frozen=True, eq=False)
class Branch:
    """Steps that take some of the features.

    Attributes:
        columns: the features that go in, int (count,), in their order.
        steps: of the branch; without any, the features come out as they are.
    """

    columns: NDArray[np.intp]
    steps: tuple["Node", ...] = ()

    @property
    def width(self) -> int:
        """The number of values that come out."""
        return self.steps[-1].width if self.steps else len(self.columns)


@dataclass(frozen=True, eq=False)
class Branches:
    """Branches side by side: the values of the first, then those of the second, and so on.

    Attributes:
        feature_count: of the features that the branches choose from.
        branches: in the order of their values.

    Raises:
        ValueError: a branch takes a feature that there is not.
    """

    feature_count: int
    branches: tuple[Branch, ...]

    def __post_init__(self) -> None:
        for branch in self.branches:
            if len(branch.columns) and not 0 <= branch.columns.min() <= branch.columns.max() < self.feature_count:
                raise ValueError(f"it takes columns that are not among its {self.feature_count}")

    @property
    def width(self) -> int:
        """The number of values that come out."""
        return sum(branch.width for branch in self.branches)


Node = Step | Branches | OpenStep


class Head(NamedTuple):
    """What steps and a head become: a front that is published, and another head.

    Attributes:
        weights: (scores, features) of the features that come out of the front.
        intercept: (scores,).
        front: the steps that are left; without any, the features are the columns.
        minimum, maximum: of each feature, NaN where no step knows them.
    """

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    front: tuple[Node, ...]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]

    @property
    def known_range(self) -> Weights | None:
        """Minimum and maximum of each feature; None if they are not known of all."""
        return None if np.isnan(self.minimum).any() else (self.minimum, self.maximum)


def fold_steps(steps: Sequence[Node], weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> Head:
    """Fold the longest affine suffix of steps into the head after them.

    Raises:
        ModelTooLargeError: the weights would be too many.
        UnsupportedModelError: a step is ill-conditioned; it is named.
        ValueError: the shapes of two steps disagree.
    """
    conditions, measured = list[Condition](), list[Step]()
    front, of_front = tuple[Node, ...](), None
    first = len(steps)  # of the steps that are folded
    for index, step in reversed(list(enumerate(steps))):
        if isinstance(step, OpenStep):
            if step.width != weights.shape[1]:
                raise ValueError(f"{step.width} values come out of a step, {weights.shape[1]} go into the next")
            front = tuple(steps[: index + 1])
            break
        first = index
        if isinstance(step, Branches):
            folded = _fold_branches(step, weights, intercept)
            weights, intercept = folded.weights, folded.intercept
            if folded.front:
                front, of_front = (*steps[:index], *folded.front), folded
                break
            continue
        after, (weights, intercept) = weights, step.map.fold_into(weights, intercept)
        conditions.append(Condition.of(step.map, after, weights))
        measured.append(step)
    if found := fault(conditions[::-1]):
        index, reason = found
        raise UnsupportedModelError(f"{measured[::-1][index].name} cannot be served: it is ill-conditioned: {reason}.")
    if of_front is not None:
        return Head(weights, intercept, front, of_front.minimum, of_front.maximum)
    return Head(weights, intercept, front, *_known_range(steps[first:], weights.shape[1]))


def _fold_branches(step: Branches, weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> Head:
    if step.width != weights.shape[1]:
        raise ValueError(f"{step.width} values come out of a step, {weights.shape[1]} go into the next")
    check_weights(len(weights), step.feature_count)
    folded, is_used = np.zeros((len(weights), step.feature_count)), np.zeros(step.feature_count, np.bool_)
    published, first = list[tuple[Branch, Head]](), 0
    for branch in step.branches:
        # Conditions are those of a branch: what others add to the scores does not mend it.
        part = fold_steps(branch.steps, weights[:, first : first + branch.width], intercept)
        first, intercept = first + branch.width, part.intercept
        if part.front:
            published.append((Branch(branch.columns, part.front), part))
            continue
        if part.weights.shape[1] != len(branch.columns):
            raise ValueError(f"{len(branch.columns)} columns go into a step of {part.weights.shape[1]}")
        np.add.at(folded.T, branch.columns, part.weights.T)
        is_used[branch.columns] = True
    low, high = _known_range([step], step.feature_count)
    if not published:
        return Head(folded, intercept, (), low, high)
    # Columns of affine branches come first, each of them once.
    kept = np.flatnonzero(is_used)
    branches = [Branch(kept)] if len(kept) else []
    heads = [head for _, head in published]
    return Head(
        np.hstack([folded[:, kept], *(head.weights for head in heads)]),
        intercept,
        (Branches(step.feature_count, (*branches, *(branch for branch, _ in published))),),
        np.concatenate([low[kept], *(head.minimum for head in heads)]),
        np.concatenate([high[kept], *(head.maximum for head in heads)]),
    )


def _known_range(steps: Sequence[Node], feature_count: int) -> Weights:
    """Return minimum and maximum of each feature; NaN where no step tells them."""
    unknown = np.full(feature_count, np.nan)
    if not steps:
        return unknown, unknown
    first = steps[0]
    if isinstance(first, Step):
        return (unknown, unknown) if first.map.input_range is None else first.map.input_range
    if isinstance(first, OpenStep):
        return unknown, unknown
    low, high = unknown.copy(), unknown.copy()
    for branch in first.branches:
        is_selection = not branch.steps and len(first.branches) == 1
        inside = steps[1:] if is_selection else branch.steps
        of_branch = _known_range(inside, len(branch.columns))
        is_new = np.isnan(low[branch.columns])
        for bound, found in zip((low, high), of_branch, strict=True):
            bound[branch.columns] = np.where(is_new, found, bound[branch.columns])
    return low, high
