"""Estimators of XGBoost, LightGBM and CatBoost: each is read as the file that its library writes.

The libraries are not imported here: an estimator that exists has brought its own. Its class is
known by name.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.output import Task
from sealserve_service.models import catboost_format, lightgbm_format, xgboost_format
from sealserve_service.models.estimators import labels
from sealserve_service.models.fields import parsed_json
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.ubjson import parsed_ubjson

Rows = NDArray[Any]


def boosted_rule(estimator: object) -> Callable[[Any], LinearModel] | None:
    """Return the rule for an estimator of one of the libraries; None if it is of none of them."""
    kind = type(estimator)
    return BOOSTED_ESTIMATORS.get((kind.__module__, kind.__qualname__))


def _xgboost(estimator: Any) -> LinearModel:
    if not np.isnan(estimator.missing):
        raise ValueError(
            f"it has missing={estimator.missing}: replace it by NaN in the rows, and fit it with missing=numpy.nan"
        )
    model = xgboost_format.ensemble(parsed_ubjson(bytes(estimator.get_booster().save_raw("ubj"))))
    return _with_own_scores(model, partial(_xgboost_scores, estimator))


def _xgboost_scores(estimator: Any, rows: Rows) -> Rows:
    scores: Rows = estimator.predict(rows, output_margin=True, validate_features=False)
    return scores


def _lightgbm(estimator: Any) -> LinearModel:
    model, factor = lightgbm_format.ensemble(estimator.booster_.model_to_string().encode())
    if model.output.task is Task.CLASSIFICATION:
        model = replace(model, output=replace(model.output, classes=labels(_Classes(estimator.classes_))))
    return _with_own_scores(model, partial(_lightgbm_scores, estimator, factor))


class _Classes:
    """Classes of an estimator, as `labels` reads them."""

    def __init__(self, classes: Any) -> None:
        self.classes_ = np.asarray(classes)


def _lightgbm_scores(estimator: Any, factor: float, rows: Rows) -> Rows:
    scores: Rows = factor * estimator.predict(rows, raw_score=True, validate_features=False)
    return scores


def _catboost(estimator: Any) -> LinearModel:
    if estimator.get_cat_feature_indices():
        raise ValueError(
            "an estimator of CatBoost does not keep the names of its categories: save it by save_model('model.json', "
            "format='json', pool=Pool(X, y, cat_features=...)), and serve that file"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        estimator.save_model(str(path), format="json")
        model = catboost_format.ensemble(parsed_json(path.read_bytes()))
    return _with_own_scores(model, partial(estimator.predict, prediction_type="RawFormulaVal"))


def _with_own_scores(model: LinearModel, scores: Callable[[Rows], Rows]) -> LinearModel:
    published = model.with_front().published
    if published is None or any(column.kind.is_text for column in published.columns):
        return model  # the library wants a DataFrame of the types that it was fitted with
    return replace(model, own_scores=partial(_as_matrix, scores))


def _as_matrix(scores: Callable[[Rows], Rows], rows: Rows) -> NDArray[np.float64]:
    return np.asarray(scores(rows), np.float64).reshape(len(rows), -1)


_CLASSES = {
    ("xgboost.sklearn", _xgboost): ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor"),
    ("lightgbm.sklearn", _lightgbm): ("LGBMClassifier", "LGBMRegressor", "LGBMRanker"),
    ("catboost.core", _catboost): ("CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"),
}
BOOSTED_ESTIMATORS = {(module, name): rule for (module, rule), names in _CLASSES.items() for name in names}
"""Module and name of a class -> rule."""
