"""Meta-estimators: models that hold other models.

To add one, write its rule and enter it in `META_ESTIMATORS`. A rule folds the members by the
function that it is given, which names them in errors.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import AdaBoostRegressor
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import RANSACRegressor
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, HalvingRandomSearchCV, RandomizedSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor

from sealserve.protocol.output import Link, Output, Pairwise, Task
from sealserve_service.models.adaptive_boosting import boosted_median
from sealserve_service.models.calibration import calibrated_classifier
from sealserve_service.models.estimators import labels
from sealserve_service.models.fronts import scores_are_probabilities
from sealserve_service.models.limits import MAX_WEIGHTS, check_limit
from sealserve_service.models.linear_model import LinearModel, joined_heads
from sealserve_service.models.target_transforms import transformed_target

FoldMember = Callable[[Any, str], LinearModel]
"""Folds a member: an estimator, with its name in the estimator that holds it."""

_REGRESSORS_THRESHOLD = 0.5
"""Regressors of OneVsRestClassifier learn 0 and 1, and it cuts between them. Our threshold is 0."""
_OVR_LINKS = {
    Link.NONE: Link.NONE,
    Link.LOGISTIC: Link.OVR_LOGISTIC,
    Link.MODIFIED_HUBER: Link.MODIFIED_HUBER,
}
"""Link of a binary classifier -> link of several classes with such a classifier each."""


def _only_member(attribute: str) -> Callable[[Any, FoldMember], LinearModel]:
    """Return the rule of an estimator that predicts what one member does."""
    return lambda estimator, fold_member: fold_member(getattr(estimator, attribute), attribute)


def _search(search: Any, fold_member: FoldMember) -> LinearModel:
    if not hasattr(search, "best_estimator_"):
        raise ValueError("it was fitted with refit=False and keeps no model: save the best one, fitted, instead")
    return fold_member(search.best_estimator_, "best_estimator_")


def _one_vs_rest(estimator: OneVsRestClassifier, fold_member: FoldMember) -> LinearModel:
    _check_both_answers_seen(estimator)
    members = _members(estimator, fold_member)
    link = members[0].output.link
    if link is Link.SOFTMAX and len(members) > 1:
        raise ValueError(
            "its estimators_ have multi_class='multinomial', for which there is no link; fit it again without it"
        )
    if estimator.multilabel_:
        output = Output(Task.MULTILABEL, len(members), labels(estimator), link)
    elif len(members) == 1:
        output = Output(Task.CLASSIFICATION, 1, labels(estimator), link)
    else:
        output = Output(Task.CLASSIFICATION, len(members), labels(estimator), _OVR_LINKS[link], keeps_zero_rows=True)
    is_of_regressors = members[0].output.task is Task.REGRESSION
    has_none = is_of_regressors or members[0].output.has_no_decision_function
    output = dataclasses.replace(output, has_no_decision_function=has_none)
    return _stacked(members, output, threshold=_REGRESSORS_THRESHOLD if is_of_regressors else 0.0)


def _check_both_answers_seen(estimator: OneVsRestClassifier) -> None:
    for label, member in zip(labels(estimator), estimator.estimators_, strict=False):
        if type(member).__name__ == "_ConstantPredictor":
            raise ValueError(
                f"all training rows agree on label {label!r}, so scikit-learn put a constant there, whose probability "
                "is no function of a score; train without that label"
            )


def _one_vs_one(estimator: OneVsOneClassifier, fold_member: FoldMember) -> LinearModel:
    classes = labels(estimator)
    if len(classes) == 2:
        raise ValueError("of two classes its decision function is no linear function: serve its estimators_[0]")
    members = _members(estimator, fold_member)
    if any(member.output.task is not Task.CLASSIFICATION for member in members):
        raise ValueError("its estimators_ are no classifiers: fit it with classifiers")
    if any(member.output.has_no_decision_function for member in members):
        raise ValueError("its estimators_ have no decision_function, and votes are counted by probabilities")
    # A member's score is that of the second class of its pair, ours that of the first.
    output = Output(Task.CLASSIFICATION, len(members), classes, pairwise=Pairwise.CONFIDENCES)
    return _stacked(members, output, sign=-1.0)


def _multi_output_regressor(estimator: MultiOutputRegressor, fold_member: FoldMember) -> LinearModel:
    members = _members(estimator, fold_member)
    if any(member.output.task is not Task.REGRESSION for member in members):
        raise ValueError("its estimators_ are classifiers, whose labels are no linear function")
    link = members[0].output.link
    if any(member.output.link is not link for member in members):
        raise ValueError("its estimators_ have different links: serve each of them as a model of its own")
    return _stacked(members, Output(Task.REGRESSION, len(members), link=link))


def _multi_output_classifier(estimator: MultiOutputClassifier, fold_member: FoldMember) -> LinearModel:
    members = _members(estimator, fold_member)
    first = members[0].output
    for member in members:
        output = member.output
        if output.task is not Task.CLASSIFICATION or output.classes != (0, 1):
            raise ValueError(
                "its targets are not all 0 and 1, as what is served as labels has to be: serve each of its "
                "estimators_ as a model of its own"
            )
        if output.link is not first.link or output.link is Link.SOFTMAX:
            raise ValueError("its estimators_ have different links: serve each of them as a model of its own")
    indices = tuple(range(len(members)))
    return _stacked(members, Output(Task.MULTILABEL, len(members), indices, first.link, has_no_decision_function=True))


def _members(estimator: Any, fold_member: FoldMember) -> list[LinearModel]:
    """Return the models of a meta-estimator's `estimators_`, each of one score."""
    members, weight_count = list[LinearModel](), 0
    for index, member in enumerate(estimator.estimators_):
        members.append(fold_member(member, f"estimators_[{index}]"))
        weight_count += members[-1].weights.size
        check_limit("weights", MAX_WEIGHTS, weight_count)  # before there are more: all may share one large step
    members = list(map(_about_zero, members))
    if any(member.output.decides_by_probabilities for member in members):
        raise ValueError("its estimators_ average probabilities, which are no linear function")
    if {member.score_count for member in members} != {1}:
        raise ValueError("its estimators_ do not have one score each: serve each of them as a model of its own")
    return members


def _about_zero(model: LinearModel) -> LinearModel:
    """Return a model that is cut at 0; a forest of two classes is cut at a probability of 1/2.

    With the score 2 p - 1, the probability is (score + 1) / 2: what the link of Huber's loss says.
    """
    if not (scores_are_probabilities(model.output) and model.output.is_binary):
        return model
    return dataclasses.replace(
        model,
        weights=2.0 * model.weights,
        intercept=2.0 * model.intercept - 1.0,
        output=dataclasses.replace(model.output, link=Link.MODIFIED_HUBER, curves=()),
        own_scores=partial(_twice_less_one, model),
    )


def _twice_less_one(model: LinearModel, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2.0 * model.plain_scores(rows) - 1.0


def _stacked(members: list[LinearModel], output: Output, *, threshold: float = 0.0, sign: float = 1.0) -> LinearModel:
    # All were fitted on the same columns: names and range are those of the first.
    heads = joined_heads(members, [np.full(1, sign)] * len(members))
    intercept = sign * np.concatenate([member.intercept for member in members]) - threshold
    own_scores = partial(_stacked_scores, members, threshold, sign)
    return LinearModel(
        heads.weights,
        intercept,
        output,
        members[0].feature_names,
        heads.input_range,
        own_scores,
        front=heads.front,
        column_count=members[0].column_count,
    )


def _stacked_scores(
    members: list[LinearModel], threshold: float, sign: float, rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    return sign * np.hstack([member.plain_scores(rows) for member in members]) - threshold


META_ESTIMATORS: dict[type, Callable[[Any, FoldMember], LinearModel]] = {
    OneVsRestClassifier: _one_vs_rest,
    OneVsOneClassifier: _one_vs_one,
    MultiOutputRegressor: _multi_output_regressor,
    MultiOutputClassifier: _multi_output_classifier,
    CalibratedClassifierCV: calibrated_classifier,
    TransformedTargetRegressor: transformed_target,
    AdaBoostRegressor: boosted_median,
    RANSACRegressor: _only_member("estimator_"),
    FrozenEstimator: _only_member("estimator"),
    GridSearchCV: _search,
    RandomizedSearchCV: _search,
    HalvingGridSearchCV: _search,
    HalvingRandomSearchCV: _search,
}
