"""Folding: fitted scikit-learn estimators -> one `W x + b`.

Each kind of estimator has a rule: `estimators` has those of kinds with a `coef_`, `collapses` those
that are linear in another way, `quadratic_models` those of products, `tree_models` those of trees,
`boosted_estimators` those of XGBoost, LightGBM and CatBoost, `additive_models` those of interpret,
and `meta_estimators` those that hold other estimators.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sealserve_service.models.boosted_estimators import BOOSTED_ESTIMATORS, boosted_rule
from sealserve_service.models.collapses import COLLAPSES
from sealserve_service.models.estimators import LINEAR_ESTIMATORS, feature_names, linear_model
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.meta_estimators import META_ESTIMATORS, FoldMember
from sealserve_service.models.naming import errors_naming, joined, listed, name_of, rule_for
from sealserve_service.models.pipeline_steps import Branch, Branches, fold_steps
from sealserve_service.models.quadratic_models import QUADRATIC_MODELS
from sealserve_service.models.transformers import (
    STEP_RULES,
    SUPPORTED_STEPS,
    column_count,
    is_nothing,
    read_columns,
    steps_of,
    transformed,
)
from sealserve_service.models.tree_models import TREE_MODELS


def fold(estimator: object) -> LinearModel:
    """Return the linear model that a fitted estimator is.

    Only scikit-learn's own classes are folded, by exact type: a subclass may override `predict`,
    and would be served as something it is not.

    Raises:
        ModelTooLargeError: something in it passes a limit.
        UnsupportedModelError: something in it is not linear, affine, fitted or finite; the text
            names the step.
    """
    model = _fold(estimator, "")
    with errors_naming(name_of(estimator, "")):
        if model.feature_names and not model.front:
            model = _without(~_is_read(estimator, model.column_count), model)
        return model.with_front()


def _is_read(estimator: Any, count: int) -> NDArray[np.bool_]:
    """Tell which of so many columns go into any step of a model."""
    if type(estimator) is Pipeline:
        return read_columns(estimator, count)
    name = next((name for name in _MEMBERS if hasattr(estimator, name)), None)
    if name is None:
        return np.ones(count, np.bool_)
    members = getattr(estimator, name)
    several = members if isinstance(members, list | tuple | np.ndarray) else [members]
    found: NDArray[np.bool_] = np.any([_is_read(member, count) for member in several], axis=0)
    return found


def _without(is_left_out: NDArray[np.bool_], model: LinearModel) -> LinearModel:
    """Return a model to which columns of a DataFrame are no features: they may hold anything."""
    kept = np.flatnonzero(~is_left_out)
    if len(kept) in (0, model.column_count):
        return model
    known = model.input_range
    return replace(
        model,
        weights=model.weights[:, kept],
        input_range=None if known is None else (known[0][kept], known[1][kept]),
        front=(Branches(model.column_count, (Branch(kept),)),),
    )


def _fold(estimator: Any, path: str) -> LinearModel:
    """Fold an estimator; `path` names it in the whole model, as in scikit-learn's `set_params`."""
    name = name_of(estimator, path)
    foreign = boosted_rule(estimator) or _additive_rule(estimator)
    rule = rule_for(_RULES, estimator, name, SUPPORTED) if foreign is None else _alone(foreign)
    with errors_naming(name):
        check_is_fitted(estimator)
        return rule(estimator, path)


def _additive_rule(estimator: Any) -> Callable[[Any], LinearModel] | None:
    """Return the rule for an estimator of interpret; None if it is of another library."""
    if not type(estimator).__module__.startswith("interpret."):
        return None
    # Imported here: other models need no interpret, and whoever has such a model has it.
    from sealserve_service.models.additive_models import ADDITIVE_MODELS

    return ADDITIVE_MODELS.get(type(estimator))


def _alone(rule: Callable[[Any], LinearModel]) -> Callable[[Any, str], LinearModel]:
    """Adapt the rule of an estimator that holds no other."""
    return lambda estimator, _path: rule(estimator)


def _with_members(rule: Callable[[Any, FoldMember], LinearModel]) -> Callable[[Any, str], LinearModel]:
    """Adapt the rule of an estimator that holds others."""
    return lambda estimator, path: rule(estimator, lambda member, name: _fold(member, joined(path, name)))


def _pipeline(pipeline: Pipeline, path: str) -> LinearModel:
    named = [(name, step) for name, step in pipeline.steps if not is_nothing(step)]
    if not named:
        raise ValueError("none of its steps is a model")
    *before, (name, last) = named
    model = _fold(last, joined(path, name))
    if not before:
        return model
    steps = [part for name, step in before for part in steps_of(step, joined(path, name))]
    head = fold_steps([*steps, *model.front], model.weights, model.intercept)
    own_scores = partial(_scores_after, pipeline.steps[: pipeline.steps.index((name, last))], model)
    return LinearModel(
        head.weights,
        head.intercept,
        model.output,
        feature_names(before[0][1]),
        head.known_range,
        own_scores,
        front=head.front,
        column_count=column_count(before[0][1]) if head.front else 0,
    )


def _scores_after(steps: list[tuple[str, Any]], model: LinearModel, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    for _, step in steps:
        rows = transformed(step, rows)
    return model.plain_scores(rows)


_RULES: dict[type, Callable[[Any, str], LinearModel]] = {
    **dict.fromkeys(LINEAR_ESTIMATORS, _alone(linear_model)),
    **{kind: _alone(rule) for kind, rule in COLLAPSES.items()},
    **{kind: _alone(rule) for kind, rule in {**QUADRATIC_MODELS, **TREE_MODELS}.items()},
    **{kind: _with_members(rule) for kind, rule in META_ESTIMATORS.items()},
    Pipeline: _pipeline,
}

_MEMBERS = ("best_estimator_", "regressor_", "estimators_", "calibrated_classifiers_", "estimator_", "estimator")
"""Attributes of models that hold other models: the first that there is."""

_BOOSTED = [name for _, name in BOOSTED_ESTIMATORS]
SUPPORTED = f"Supported models: {listed(_RULES)}, {', '.join(_BOOSTED)}, and EBMs of interpret. {SUPPORTED_STEPS}"
SUPPORTED_CLASSES = {*(kind.__name__ for kind in (*_RULES, *STEP_RULES)), *_BOOSTED}
