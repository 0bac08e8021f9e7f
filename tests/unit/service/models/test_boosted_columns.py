"""Columns of categories of boosted trees: as numbers, as texts, and as the libraries cut them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sealserve.protocol.column import ColumnKind
from sealserve_service.models.errors import ModelFileError, UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import load_model
from tests.support.boosting import (
    Fitted,
    Rows,
    catboost,
    cities,
    lightgbm,
    of_catboost,
    of_cities,
    of_lightgbm,
    of_xgboost,
    quietly,
    xgboost,
)
from tests.support.tables import rows_of

SEEDS = range(5)


def assert_scored(model: LinearModel, fitted: Fitted, rows: Any, for_library: Any = None) -> None:
    with quietly():
        scores = model.decision(model.features(rows_of(model, rows)))
        own = fitted.scores(rows if for_library is None else for_library)
    np.testing.assert_allclose(scores, own, rtol=1e-5, atol=1e-5)
    assert len(np.unique(own)) > 3


def numbered(random: np.random.Generator) -> Rows:
    """Rows of a column of categories as numbers, with gaps, and one of numbers."""
    X = np.column_stack([random.integers(0, 40, 300).astype(float), random.normal(size=300)])
    X[random.random(300) < 0.1, 0] = np.nan
    return X


def ascii_only(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(city=frame["city"].cat.rename_categories({"Zürich": "Zurich"}))


def odd_numbers() -> Rows:
    """Numbers that are none of the categories, or are cut to one; in every combination."""
    numbers = [
        -5.0,
        -1.0,
        -0.999,
        -0.5,
        -0.0,
        0.0,
        0.3,
        0.999999999,
        5.0,
        5.7,
        39.0,
        39.5,
        40.0,
        64.0,
        65.0,
        1e6,
        np.nan,
    ]
    return np.column_stack([np.repeat(numbers, 3), np.tile([-1.0, 0.0, np.nan], len(numbers))])


def of_numbered(X: Rows, random: np.random.Generator) -> Rows:
    return np.isin(X[:, 0] % 7, [1, 2, 5]) + 0.3 * np.isnan(X[:, 0]) + 0.1 * random.normal(size=len(X))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("suffix", [".json", ".ubj"])
def test_categories_of_xgboost_as_numbers(seed: int, suffix: str, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    X = numbered(random)
    most = int(random.choice([1, 4, 100]))  # one against all others, or sets
    estimator = xgboost.XGBRegressor(
        n_estimators=6, enable_categorical=True, feature_types=["c", "q"], max_cat_to_onehot=most
    )
    fitted = of_xgboost(estimator, X, of_numbered(X, random), suffix)
    assert_scored(load_model(fitted.saved(tmp_path), trust_pickle=False), fitted, np.vstack([X, odd_numbers()]))


@pytest.mark.parametrize("seed", SEEDS)
def test_categories_of_lightgbm_as_numbers(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    X = numbered(random)
    estimator = lightgbm.LGBMRegressor(n_estimators=6, min_child_samples=5, min_data_per_group=5, cat_smooth=1)
    fitted = of_lightgbm(estimator, X, of_numbered(X, random), categorical_feature=[0])
    assert "num_cat=1" in fitted.saved(tmp_path).read_text()
    model = load_model(tmp_path / "model.txt", trust_pickle=False)
    assert_scored(model, fitted, np.vstack([X, odd_numbers()]))


@pytest.mark.parametrize("seed", SEEDS)
def test_categories_of_xgboost_as_texts(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    frame = ascii_only(cities(random))
    estimator = xgboost.XGBClassifier(
        n_estimators=6, enable_categorical=True, max_cat_to_onehot=int(random.integers(1, 6))
    )
    fitted = of_xgboost(estimator, frame, of_cities(frame))
    model = load_model(fitted.saved(tmp_path), trust_pickle=False)
    assert model.published is not None
    assert [column.kind for column in model.published.columns] == [
        ColumnKind.NUMBER,
        ColumnKind.STRING,
        ColumnKind.NUMBER,
    ]
    assert "the names of 7 categories of 2 columns" in model.published.publications[0].tells
    assert_scored(model, fitted, frame)
    unknown = frame[:3].assign(city="Zug")  # which XGBoost refuses, too
    with pytest.raises(ValueError, match="is refused"):
        model.features(rows_of(model, unknown))
    in_memory = fold(fitted.estimator)
    np.testing.assert_array_equal(in_memory.weights, model.weights)


def test_names_that_xgboost_cuts_are_refused(tmp_path: Path) -> None:
    """It counts characters where its file has bytes: of "Zürich" the last is lost."""
    frame = cities(np.random.default_rng(3))
    estimator = xgboost.XGBClassifier(n_estimators=1, enable_categorical=True)
    fitted = of_xgboost(estimator, frame, of_cities(frame))
    with pytest.raises(ModelFileError, match="names of categories that are not ASCII: rename them"):
        load_model(fitted.saved(tmp_path), trust_pickle=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_categories_of_lightgbm_as_texts(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    frame = cities(random)
    estimator = lightgbm.LGBMClassifier(n_estimators=6, min_child_samples=5, min_data_per_group=5, cat_smooth=1)
    fitted = of_lightgbm(estimator, frame, of_cities(frame))
    model = load_model(fitted.saved(tmp_path), trust_pickle=False)
    other = frame.assign(city=pd.Categorical(random.choice(["Bern", "Zug", "Ulm"], len(frame))))
    for table in (frame, other):
        assert_scored(model, fitted, table)


@pytest.mark.parametrize("seed", SEEDS)
def test_categories_of_catboost_that_are_compared_one_by_one(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    frame = cities(random).astype({"city": object, "code": str})
    frame["city"] = frame["city"].fillna("none")
    y, named = of_cities(cities(np.random.default_rng(seed))), ["city", "code"]
    estimator = catboost.CatBoostClassifier(iterations=9, depth=4, cat_features=named, one_hot_max_size=9)
    fitted = of_catboost(estimator, frame, y, pool=catboost.Pool(frame, y, cat_features=named))
    model = load_model(fitted.saved(tmp_path), trust_pickle=False)
    other = frame.assign(city=random.choice(["Bern", "Zug", "Ulm"], len(frame)))
    for table in (frame, other):
        assert_scored(model, fitted, table)
    assert model.published is not None
    assert [column.allows_missing for column in model.published.columns] == [True, False, False]
    with pytest.raises(UnsupportedModelError, match="does not keep the names of its categories"):
        fold(fitted.estimator)


def test_statistics_of_labels_are_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"city": random.choice(list("abcdefgh"), 300), "size": random.normal(size=300)})
    y = frame["city"].isin(["a", "b"]).astype(int)
    estimator = catboost.CatBoostClassifier(iterations=5, cat_features=["city"], one_hot_max_size=2)
    fitted = of_catboost(estimator, frame, y, pool=catboost.Pool(frame, y, cat_features=["city"]))
    with pytest.raises(ModelFileError, match=r"'OnlineCtr', which compare statistics of labels"):
        load_model(fitted.saved(tmp_path), trust_pickle=False)


def test_constant_columns_hide_which_columns_have_categories(tmp_path: Path) -> None:
    frame = cities(np.random.default_rng(2)).assign(land=pd.Categorical(["CH"] * 300), zero=0.0)
    estimator = lightgbm.LGBMClassifier(n_estimators=3, min_child_samples=5, min_data_per_group=5, cat_smooth=1)
    fitted = of_lightgbm(estimator, frame, of_cities(frame))
    with pytest.raises(ModelFileError, match="leave out constant columns"):
        load_model(fitted.saved(tmp_path), trust_pickle=False)
