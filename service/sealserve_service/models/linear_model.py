"""LinearModel: `scores = W x + b`, and an `Output` that says what the scores mean."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sealserve.protocol.output import Output
from sealserve.protocol.schema import Schema
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.fronts import Front, Publication, front_of, told_by_curves
from sealserve_service.models.limits import MAX_FEATURES, check_limit, check_weights
from sealserve_service.models.packed import Packed
from sealserve_service.models.pipeline_steps import Branch, Branches, Node

_logger = logging.getLogger(__name__)

_MAX_FOLDING_ERROR = 1e-4
"""Of the range of the estimator's own scores: a tenth of what the planner accepts by default."""
_ROUNDING_ERROR = 1e-9
"""Of the greatest score: where rows have equal scores, their range is no measure."""


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A linear model in the units of the raw input.

    The arrays are private copies: float64, C-contiguous (SEAL's bindings ignore strides) and
    read-only.

    Attributes:
        weights: shape (score_count, feature_count).
        intercept: shape (score_count,).
        output: what the scores mean.
        feature_names: of the columns that the model was fitted with, in their order; empty if there
            were none.
        input_range: minimum and maximum of each feature, two arrays of shape (feature_count,),
            where the pipeline's own first scaler knows them.
        own_scores: rows (rows, column_count) -> scores (rows, score_count), as the estimator
            computes them that the model was folded from; None if there is no estimator.
        front: the steps that make the features of the columns; without any, they are the columns.
        column_count: length of a row that a user hands in.
        published: the front as it is published; None if there is none, or not yet.
        packed: how it was planned; None unless it comes from a packed file.

    Raises:
        ModelTooLargeError: the weights are too many.
        ValueError: a number is not finite, or the shapes disagree.
    """

    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    output: Output
    feature_names: tuple[str, ...] = ()
    input_range: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    own_scores: Callable[[NDArray[Any]], NDArray[np.float64]] | None = None
    front: tuple[Node, ...] = ()
    column_count: int = 0
    published: Front | None = None
    packed: Packed | None = None

    def __post_init__(self) -> None:
        if not self.column_count:
            object.__setattr__(self, "column_count", np.size(self.weights) // self.score_count)
        check_weights(self.score_count, np.size(self.weights) // self.score_count)
        check_limit("feature names", MAX_FEATURES, len(self.feature_names))
        object.__setattr__(self, "weights", _frozen(self.weights, "the weights"))
        object.__setattr__(self, "intercept", _frozen(self.intercept, "the intercept"))
        if self.input_range is not None:
            minimum, maximum = self.input_range
            frozen_range = _frozen(minimum, "the scaler's minimum"), _frozen(maximum, "the scaler's maximum")
            object.__setattr__(self, "input_range", frozen_range)
        self._check_shapes()

    @property
    def score_count(self) -> int:
        """Length of a row of scores."""
        return self.output.score_count

    @property
    def feature_count(self) -> int:
        """Length of a row of features."""
        return int(self.weights.shape[1])

    def decision(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the exact scores of rows X (rows, feature_count), of shape (rows, score_count)."""
        rows = np.asarray(X, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.feature_count:
            raise ValueError(f"rows have shape (rows, {self.feature_count}), not {rows.shape}")
        scores: NDArray[np.float64] = rows @ self.weights.T + self.intercept
        return scores

    @property
    def schema(self) -> Schema:
        """The columns of the rows that users hand in."""
        if self.published is None:
            return Schema(self.column_count, self.feature_names)
        return Schema.of(self.published.columns)

    @property
    def names_on_grid(self) -> tuple[str, ...]:
        """The names of the features; empty if there are none, or steps compute the features."""
        return self.feature_names if self.published is None else ()

    @property
    def publications(self) -> tuple[Publication, ...]:
        """What serving it publishes beside its description, step by step."""
        of_front = () if self.published is None else self.published.publications
        return (*of_front, *told_by_curves(self.output.curves))

    def features(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return the features (rows, feature_count) of rows (rows, column_count).

        Raises:
            ValueError: a step refuses a row.
        """
        if self.published is None:
            return np.asarray(rows, np.float64)
        values, is_refused = self.published.program.features(rows)
        if is_refused.any():
            raise ValueError(f"row {int(np.argmax(is_refused))} is refused by a step of the model")
        return values

    def with_front(self) -> "LinearModel":
        """Return the model with its front compiled, so that it can be published.

        Raises:
            ModelTooLargeError: it has too many values.
            ValueError: the steps do not fit together, or clients would refuse them.
        """
        if not self.front:
            return self
        return replace(self, published=front_of(self.front, self.column_count, self.feature_names))

    def plain_scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return the estimator's own scores of rows; without one, those of `decision`."""
        return self.decision(self.features(rows)) if self.own_scores is None else self.own_scores(rows)

    def expected_scores(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Return the estimator's own scores of rows, where there is an estimator: see `decision`.

        Raises:
            UnsupportedModelError: `W x + b` has other scores than the estimator.
        """
        folded = self.decision(self.features(rows))
        if self.own_scores is None:
            return folded
        try:
            with warnings.catch_warnings(action="ignore"):  # of names that the rows do not have
                own = np.asarray(self.own_scores(rows), np.float64)  # of rows with strings, they may be objects
        except Exception as fault:  # another version's estimator may lack anything
            _logger.warning(
                "the installed scikit-learn cannot score with the estimator, so errors are observed against its "
                "weights: %s: %s",
                type(fault).__name__,
                fault,
            )
            return folded
        error = np.abs(own - folded).max(axis=0)
        if not (error <= _MAX_FOLDING_ERROR * np.ptp(own, axis=0) + _ROUNDING_ERROR * np.abs(own).max(axis=0)).all():
            raise UnsupportedModelError(
                "the estimator's scores of the calibration rows differ from those of the weights that it was folded "
                "into: its steps are ill-conditioned. Leave out columns that are constant or follow from others, keep "
                "fewer components, and fit it again"
            )
        return own

    def _check_shapes(self) -> None:
        if self.weights.ndim != 2 or self.weights.shape[0] != self.score_count or self.weights.shape[1] < 1:
            raise ValueError(
                f"the weights have shape {self.weights.shape} instead of ({self.score_count} scores, features)"
            )
        if self.intercept.shape != (self.score_count,):
            raise ValueError(
                f"the intercept has shape {self.intercept.shape} instead of ({self.score_count},), one value a score"
            )
        if self.feature_names and len(self.feature_names) != self.column_count:
            raise ValueError(f"{len(self.feature_names)} feature names for {self.column_count} features")
        has_steps = self.front or self.published is not None
        if not has_steps and self.column_count != self.feature_count:
            raise ValueError(f"{self.column_count} columns are not {self.feature_count} features without a step")
        if any(bound.shape != (self.feature_count,) for bound in self.input_range or ()):
            raise ValueError(f"the scaler's range is not one of {self.feature_count} features")


class JoinedHeads(NamedTuple):
    """The weights of several models over the features of all.

    Attributes:
        weights: (scores, features).
        front: the steps of all; without any, features are columns.
        input_range: of the features, where it is known.
    """

    weights: NDArray[np.float64]
    front: tuple[Node, ...]
    input_range: tuple[NDArray[np.float64], NDArray[np.float64]] | None


def joined_heads(members: Sequence[LinearModel], factors: Sequence[NDArray[np.float64]]) -> JoinedHeads:
    """Join the weights of models that were fitted to the same columns.

    Args:
        members: the models.
        factors: of the scores of each model.

    Raises:
        ModelTooLargeError: the weights are too many.
    """
    scaled = [factor[:, np.newaxis] * member.weights for member, factor in zip(members, factors, strict=True)]
    if not any(member.front for member in members):
        return JoinedHeads(np.vstack(scaled), (), members[0].input_range)
    counts = [member.feature_count for member in members]
    score_count, column_count = sum(map(len, scaled)), members[0].column_count
    check_weights(score_count, sum(counts))
    weights, score, feature = np.zeros((score_count, sum(counts))), 0, 0
    for part in scaled:
        weights[score : score + part.shape[0], feature : feature + part.shape[1]] = part
        score, feature = score + part.shape[0], feature + part.shape[1]
    branches = tuple(Branch(np.arange(column_count), member.front) for member in members)
    return JoinedHeads(weights, (Branches(column_count, branches),), None)


def _frozen(values: ArrayLike, what: str) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64, order="C")
    if not np.isfinite(array).all():
        where = tuple(int(index) for index in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"NaN or infinity in {what}, first at index {where}")
    array.setflags(write=False)
    return array
