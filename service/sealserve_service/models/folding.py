"""Folding: fitted scikit-learn estimators -> one `W x + b`.

Pipelines are folded back to front, meta-estimators by recursion.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sealserve.protocol.output import Link, Output, Task
from sealserve_service.models.affine import AFFINE_STEPS, Affine
from sealserve_service.models.conditioning import Condition, fault
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.estimators import LINEAR_ESTIMATORS, feature_names, labels, linear_model
from sealserve_service.models.limits import MAX_WEIGHTS, check_limit
from sealserve_service.models.linear_model import LinearModel

Rule = TypeVar("Rule")

_REGRESSORS_THRESHOLD = 0.5
"""Regressors of OneVsRestClassifier learn 0 and 1, and it cuts between them. Our threshold is 0."""
_OVR_LINKS = {
    Link.NONE: Link.NONE,
    Link.LOGISTIC: Link.OVR_LOGISTIC,
    Link.MODIFIED_HUBER: Link.MODIFIED_HUBER,
}
"""Link of a binary classifier -> link of several classes with such a classifier each."""


def fold(estimator: object) -> LinearModel:
    """Return the linear model that a fitted estimator is.

    Only scikit-learn's own classes are folded, by exact type: a subclass may override `predict`,
    and would be served as something it is not.

    Raises:
        UnsupportedModelError: something in it is not linear, affine, fitted or finite; the text
            names the step.
    """
    model = _fold(estimator, path="")
    return dataclasses.replace(model, own_scores=partial(_own_scores, estimator))


def _own_scores(estimator: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores that scikit-learn itself computes, of shape (rows, score_count)."""
    if type(estimator) is Pipeline:
        *steps, (_, estimator) = _flat_steps(estimator, "")
        for _, step in steps:
            rows = step.transform(rows)
        return _own_scores(estimator, rows)
    if hasattr(estimator, "decision_function"):
        scores = estimator.decision_function(rows)
    elif type(estimator) is OneVsRestClassifier:
        scores = np.hstack([_own_scores(member, rows) for member in estimator.estimators_]) - _REGRESSORS_THRESHOLD
    else:
        scores = estimator.predict(rows)
    return np.asarray(scores, np.float64).reshape(len(rows), -1)


def _fold(estimator: Any, path: str) -> LinearModel:
    """Fold an estimator; `path` names it in the whole model, as in scikit-learn's `set_params`."""
    name = _name(estimator, path)
    rule = _rule(_RULES, estimator, name)
    with _errors_naming(name):
        check_is_fitted(estimator)
        return rule(estimator, path)


def _linear(estimator: Any, path: str) -> LinearModel:
    return linear_model(estimator)


def _pipeline(pipeline: Pipeline, path: str) -> LinearModel:
    flat = list(_flat_steps(pipeline, path))
    if not flat:
        raise ValueError("none of its steps is a model")
    *steps, (last_path, last) = flat
    model = _fold(last, last_path)
    if not steps:
        return model
    maps = [_affine(step, step_path) for step_path, step in steps]
    weights, intercept = model.weights, model.intercept
    conditions = list[Condition]()
    for step_map in reversed(maps):
        after, (weights, intercept) = weights, step_map.fold_into(weights, intercept)
        conditions.append(Condition.of(step_map, after, weights))
    if found := fault(conditions[::-1]):
        index, reason = found
        step_path, step = steps[index]
        raise UnsupportedModelError(f"{_name(step, step_path)} cannot be served: it is ill-conditioned: {reason}.")
    _, first_step = steps[0]
    return LinearModel(weights, intercept, model.output, feature_names(first_step), maps[0].input_range)


def _flat_steps(pipeline: Pipeline, path: str) -> Iterator[tuple[str, Any]]:
    """Yield paths and steps that do something; those of a nested pipeline take its place."""
    for name, step in pipeline.steps:
        step_path = _joined(path, name)
        if type(step) is Pipeline:
            yield from _flat_steps(step, step_path)
        elif step is not None and step != "passthrough":
            yield step_path, step


def _affine(step: Any, path: str) -> Affine:
    name = _name(step, path)
    rule = _rule(AFFINE_STEPS, step, name)
    with _errors_naming(name):
        check_is_fitted(step)
        return rule(step)


def _one_vs_rest(estimator: OneVsRestClassifier, path: str) -> LinearModel:
    _check_both_answers_seen(estimator)
    members = _members(estimator, path)
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
    if members[0].output.task is Task.REGRESSION:
        output = dataclasses.replace(output, has_no_decision_function=True)
        return _stacked(members, output, _REGRESSORS_THRESHOLD)
    return _stacked(members, output)


def _check_both_answers_seen(estimator: OneVsRestClassifier) -> None:
    for label, member in zip(labels(estimator), estimator.estimators_, strict=False):
        if type(member).__name__ == "_ConstantPredictor":
            raise ValueError(
                f"all training rows agree on label {label!r}, so scikit-learn put a constant there, whose probability "
                "is no function of a score; train without that label"
            )


def _multi_output(estimator: MultiOutputRegressor, path: str) -> LinearModel:
    members = _members(estimator, path)
    if any(member.output.task is not Task.REGRESSION for member in members):
        raise ValueError("its estimators_ are classifiers, whose labels are no linear function")
    return _stacked(members, Output(Task.REGRESSION, len(members)))


def _members(estimator: Any, path: str) -> list[LinearModel]:
    """Return the models of a meta-estimator's `estimators_`, each of one score."""
    members, weight_count = list[LinearModel](), 0
    for index, member in enumerate(estimator.estimators_):
        members.append(_fold(member, _joined(path, f"estimators_[{index}]")))
        weight_count += members[-1].weights.size
        check_limit("weights", MAX_WEIGHTS, weight_count)  # before there are more: all may share one large step
    if {member.score_count for member in members} != {1}:
        raise ValueError("its estimators_ do not have one score each")
    return members


def _stacked(members: list[LinearModel], output: Output, threshold: float = 0.0) -> LinearModel:
    # All were fitted on the same columns: names and range are those of the first.
    weights = np.vstack([member.weights for member in members])
    intercept = np.concatenate([member.intercept for member in members]) - threshold
    return LinearModel(weights, intercept, output, members[0].feature_names, members[0].input_range)


def _rule(rules: Mapping[type, Rule], estimator: object, name: str) -> Rule:
    kind = type(estimator)
    if kind in rules:
        return rules[kind]
    base = next((base for base in kind.__mro__ if base in rules), None)
    if base:
        raise UnsupportedModelError(
            f"{name} is a subclass of {base.__name__} and may compute something else, so it is not served. If it does "
            "not, save its weights as .npz: coef, intercept and, for a classifier, classes."
        )
    raise UnsupportedModelError(f"{name} is not supported. {SUPPORTED}")


@contextmanager
def _errors_naming(name: str) -> Iterator[None]:
    """Name the step in errors about its numbers, its attributes, or that it is not fitted."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:  # scikit-learn's NotFittedError is a ValueError
        raise UnsupportedModelError(f"{name} cannot be served: {error}") from error


def _name(estimator: object, path: str) -> str:
    kind = type(estimator).__name__
    return f"step {path!r} ({kind})" if path else kind


def _joined(path: str, name: str) -> str:
    return f"{path}__{name}" if path else name


def _listed(rules: Mapping[type, object]) -> str:
    return ", ".join(kind.__name__ for kind in rules)


_RULES: dict[type, Callable[[Any, str], LinearModel]] = {
    **dict.fromkeys(LINEAR_ESTIMATORS, _linear),
    OneVsRestClassifier: _one_vs_rest,
    MultiOutputRegressor: _multi_output,
    Pipeline: _pipeline,
}

SUPPORTED = (
    f"Supported models: {_listed(_RULES)}. Supported steps before the model: {_listed(AFFINE_STEPS)}, 'passthrough'."
)
SUPPORTED_CLASSES = {kind.__name__ for kind in (*_RULES, *AFFINE_STEPS)}
