"""Target transforms: TransformedTargetRegressor, where its inverse is affine or an exponential."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.preprocessing import FunctionTransformer

from sealserve.protocol.output import Link, Output, Task
from sealserve.protocol.text import printable
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import Step
from sealserve_service.models.transformers import steps_of

_LINKS: dict[Any, Link] = {None: Link.NONE, np.exp: Link.LOG, np.expm1: Link.LOG1P}
"""Inverse functions -> links."""


def transformed_target(
    estimator: TransformedTargetRegressor, fold_member: Callable[[Any, str], LinearModel]
) -> LinearModel:
    """Return the model of a TransformedTargetRegressor."""
    model = fold_member(estimator.regressor_, "regressor_")
    if model.output.task is not Task.REGRESSION or model.output.link is not Link.NONE:
        raise ValueError("its regressor has a link of its own: fit it without a transformed target")
    link, factors, offsets = _inverse(estimator.transformer_, model.score_count)
    output = Output(Task.REGRESSION, model.score_count, link=link, scalar_target=estimator._training_dim == 1)
    return dataclasses.replace(
        model,
        weights=factors[:, np.newaxis] * model.weights,
        intercept=factors * model.intercept + offsets,
        output=output,
        own_scores=partial(_own_scores, model, factors, offsets),
    )


def _own_scores(
    model: LinearModel, factors: NDArray[np.float64], offsets: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    return factors * model.plain_scores(rows) + offsets


def _inverse(transformer: Any, target_count: int) -> tuple[Link, NDArray[np.float64], NDArray[np.float64]]:
    """Return the inverse of a transformer: a link of `factors * target + offsets`."""
    ones, zeros = np.ones(target_count), np.zeros(target_count)
    if type(transformer) is FunctionTransformer:
        function = transformer.inverse_func
        link = next((link for known, link in _LINKS.items() if known is function), None)
        if link is None:
            name = printable(str(getattr(function, "__name__", type(function).__name__)))
            raise ValueError(
                f"its inverse_func {name!r} is neither numpy.exp nor numpy.expm1: serve its regressor_, and compute "
                "the inverse in the application"
            )
        return link, ones, zeros
    factors, offsets = ones, zeros
    for step in steps_of(transformer, "transformer_"):
        if not isinstance(step, Step) or step.map.factor.ndim != 1 or step.width != target_count:
            raise ValueError("its transformer mixes targets: use a scaler, or compute the inverse in the application")
        # Targets are what goes into the steps: t -> factor t + offset.
        factors, offsets = step.map.factor * factors, step.map.factor * offsets + step.map.offset
    return Link.NONE, 1.0 / factors, -offsets / factors
