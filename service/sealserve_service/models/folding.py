"""Folding: fitted scikit-learn estimators -> one `W x + b`.

Pipelines are folded back to front, meta-estimators by recursion.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sealserve.protocol.output import Link, Output, Task
from sealserve_service.models.affine import AFFINE_STEPS, Affine
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.estimators import LINEAR_ESTIMATORS, feature_names, labels, linear_model
from sealserve_service.models.limits import MAX_WEIGHTS, check_limit
from sealserve_service.models.linear_model import LinearModel

Rule = TypeVar("Rule")

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
    return _fold(estimator, path="")


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
    for step_map in reversed(maps):
        weights, intercept = step_map.fold_into(weights, intercept)
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
    if estimator.multilabel_:
        output = Output(Task.MULTILABEL, len(members), labels(estimator), link)
    elif len(members) == 1:
        output = Output(Task.CLASSIFICATION, 1, labels(estimator), link)
    else:
        output = Output(Task.CLASSIFICATION, len(members), labels(estimator), _OVR_LINKS[link], keeps_zero_rows=True)
    # A regressor learns 0 and 1, and scikit-learn cuts between them; our threshold is 0.
    threshold = 0.5 if members[0].output.task is Task.REGRESSION else 0.0
    return _stacked(members, output, threshold)


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
    raise UnsupportedModelError(
        f"{name} is not supported. Supported models: {_listed(_RULES)}. Supported steps before the model: "
        f"{_listed(AFFINE_STEPS)}, 'passthrough'."
    )


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
