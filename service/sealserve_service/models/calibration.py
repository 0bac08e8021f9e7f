"""Calibration: CalibratedClassifierCV, whose members' calibrated probabilities are averaged.

A sigmoid is `1 / (1 + exp(a score + b))`, and a temperature multiplies the scores of a softmax:
both fold into the weights, so that the client sees a usual link. An isotonic regression becomes a
curve that the client applies to the score, with the values at its points: `Output.curves`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV

from sealserve.protocol.output import Curve, Link, Output, Pairwise, Task
from sealserve_service.models.arrays import vector
from sealserve_service.models.estimators import labels
from sealserve_service.models.fronts import scores_are_probabilities
from sealserve_service.models.limits import MAX_WEIGHTS, check_limit
from sealserve_service.models.linear_model import LinearModel, joined_heads

_Scaled = tuple[LinearModel, NDArray[np.float64], NDArray[np.float64]]
"""A member with factors and offsets of its scores, (scores,)."""


def calibrated_classifier(
    estimator: CalibratedClassifierCV, fold_member: Callable[[Any, str], LinearModel]
) -> LinearModel:
    """Return the model of a CalibratedClassifierCV: the scores of its members in a row."""
    classes = labels(estimator)
    members, curves, links, weight_count = list[_Scaled](), list[Curve](), set[Link](), 0
    for index, calibrated in enumerate(estimator.calibrated_classifiers_):
        member = fold_member(calibrated.estimator, f"calibrated_classifiers_[{index}]__estimator")
        # By temperature, members may be fitted to the numbers of the classes.
        is_numbered = calibrated.method == "temperature" and member.output.classes == tuple(range(len(classes)))
        _check_member(member.output, member.output.classes if is_numbered else classes, calibrated.method)
        weight_count += member.weights.size
        check_limit("weights", MAX_WEIGHTS, weight_count)
        link, factors, offsets, of_member = _calibration(calibrated, member.score_count)
        members.append((member, factors, offsets))
        curves += of_member
        links.add(link)
    (link,) = links  # a method is that of all members
    first = members[0][0]
    output = Output(
        Task.CLASSIFICATION,
        sum(member.score_count for member, _, _ in members),
        classes,
        link,
        has_no_decision_function=True,
        member_count=len(members),
        curves=tuple(curves),
    )
    heads = joined_heads([member for member, _, _ in members], [factors for _, factors, _ in members])
    return LinearModel(
        heads.weights,
        np.concatenate([factors * member.intercept + offsets for member, factors, offsets in members]),
        output,
        first.feature_names,
        heads.input_range,
        partial(_own_scores, members),
        front=heads.front,
        column_count=first.column_count,
    )


def _check_member(output: Output, classes: tuple[Any, ...], method: str) -> None:
    if output.task is not Task.CLASSIFICATION:
        raise ValueError("it calibrates what is no classification: serve its member")
    if output.pairwise is not Pairwise.NONE:
        raise ValueError("it calibrates what is made of votes, which is no linear function: use LinearSVC")
    # The scores of a forest are its probabilities, whose logarithms temperatures multiply.
    is_linear = scores_are_probabilities(output) and method != "temperature"
    if not is_linear and (output.has_no_decision_function or output.decides_by_probabilities):
        raise ValueError(
            "it calibrates probabilities, which are no linear function: calibrate a classifier that has a "
            "decision_function, or a forest with method='sigmoid'"
        )
    if output.classes != classes:
        raise ValueError("a member has seen only some of the classes: fit it with fewer folds, or with more rows")


def _calibration(
    calibrated: Any, score_count: int
) -> tuple[Link, NDArray[np.float64], NDArray[np.float64], list[Curve]]:
    """Return the link of a member, factors and offsets of its scores, and its curves."""
    calibrators, logistic = calibrated.calibrators, Link.LOGISTIC if score_count == 1 else Link.OVR_LOGISTIC
    ones, zeros = np.ones(score_count), np.zeros(score_count)
    if calibrated.method == "temperature":
        return Link.SOFTMAX, float(calibrators[0].beta_) * ones, zeros, []
    if len(calibrators) != score_count:
        raise ValueError(f"it has {len(calibrators)} calibrators for {score_count} scores")
    if calibrated.method == "sigmoid":
        factors = -np.array([float(sigmoid.a_) for sigmoid in calibrators])
        return logistic, factors, -np.array([float(sigmoid.b_) for sigmoid in calibrators]), []
    if calibrated.method == "isotonic":
        return Link.CURVES, ones, zeros, [_curve(isotonic) for isotonic in calibrators]
    raise ValueError(f"its method {calibrated.method!r} is unknown; fit it with 'sigmoid' or 'isotonic'")


def _curve(isotonic: Any) -> Curve:
    scores, probabilities = vector(isotonic.X_thresholds_), vector(isotonic.y_thresholds_)
    return Curve(tuple(scores.tolist()), tuple(probabilities.clip(0.0, 1.0).tolist()))


def _own_scores(members: list[_Scaled], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([factors * member.plain_scores(rows) + offsets for member, factors, offsets in members])
