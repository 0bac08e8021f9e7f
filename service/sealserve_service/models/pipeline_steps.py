"""Steps of a pipeline, one after another or in branches, and how they fold into a head."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealserve_service.models.affine import Affine
from sealserve_service.models.conditioning import Condition, fault
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.limits import check_weights

Weights = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weights (scores, features) and intercept (scores,)."""


@dataclass(frozen=True, eq=False)
class Step:
    """A step.

    Attributes:
        name: of the step in error messages.
        map: what it computes.
    """

    name: str
    map: Affine

    @property
    def width(self) -> int:
        """The number of values that come out."""
        return len(self.map.offset)


@dataclass(frozen=True, eq=False)
class Branch:
    """Steps that take some of the features.

    Attributes:
        columns: the features that go in, int (count,), in their order.
        steps: of the branch; without any, the features come out as they are.
    """

    columns: NDArray[np.intp]
    steps: tuple["Step | Branches", ...] = ()

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


def fold_steps(
    steps: Sequence[Step | Branches], weights: NDArray[np.float64], intercept: NDArray[np.float64]
) -> Weights:
    """Return weights and intercept for what goes into steps, given those for what comes out.

    Raises:
        ModelTooLargeError: the weights would be too many.
        UnsupportedModelError: a step is ill-conditioned; it is named.
        ValueError: the shapes of two steps disagree.
    """
    conditions, measured = list[Condition](), list[Step]()
    for step in reversed(steps):
        if isinstance(step, Branches):
            weights, intercept = _fold_branches(step, weights, intercept)
            continue
        after, (weights, intercept) = weights, step.map.fold_into(weights, intercept)
        conditions.append(Condition.of(step.map, after, weights))
        measured.append(step)
    if found := fault(conditions[::-1]):
        index, reason = found
        raise UnsupportedModelError(f"{measured[::-1][index].name} cannot be served: it is ill-conditioned: {reason}.")
    return weights, intercept


def known_range(steps: Sequence[Step | Branches], feature_count: int) -> Weights | None:
    """Return minimum and maximum of each feature; None if the first steps do not tell them all."""
    low, high = _known_range(steps, feature_count)
    return None if np.isnan(low).any() else (low, high)


def _fold_branches(step: Branches, weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> Weights:
    if step.width != weights.shape[1]:
        raise ValueError(f"{step.width} values come out of a step, {weights.shape[1]} go into the next")
    check_weights(len(weights), step.feature_count)
    folded = np.zeros((len(weights), step.feature_count))
    first = 0
    for branch in step.branches:
        # Conditions are those of a branch: what others add to the scores does not mend it.
        part = weights[:, first : first + branch.width]
        first += branch.width
        part, intercept = fold_steps(branch.steps, part, intercept)
        if part.shape[1] != len(branch.columns):
            raise ValueError(f"{len(branch.columns)} columns go into a step of {part.shape[1]}")
        np.add.at(folded.T, branch.columns, part.T)
    return folded, intercept


def _known_range(steps: Sequence[Step | Branches], feature_count: int) -> Weights:
    """Return minimum and maximum of each feature; NaN where no step tells them."""
    unknown = np.full(feature_count, np.nan)
    if not steps:
        return unknown, unknown
    first = steps[0]
    if isinstance(first, Step):
        return (unknown, unknown) if first.map.input_range is None else first.map.input_range
    low, high = unknown.copy(), unknown.copy()
    for branch in first.branches:
        is_selection = not branch.steps and len(first.branches) == 1
        inside = steps[1:] if is_selection else branch.steps
        of_branch = _known_range(inside, len(branch.columns))
        is_new = np.isnan(low[branch.columns])
        for bound, found in zip((low, high), of_branch, strict=True):
            bound[branch.columns] = np.where(is_new, found, bound[branch.columns])
    return low, high
