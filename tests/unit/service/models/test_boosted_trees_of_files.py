"""Files of boosted trees: what of them counts, and what they publish of the training."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sealserve.protocol.output import Task
from sealserve.steps.trees import Trees
from sealserve_service.models.fronts import Publication
from sealserve_service.models.loading import load_model
from sealserve_service.models.pipeline_steps import Consent
from sealserve_service.models.trees import MIN_ROWS
from tests.support.boosting import (
    FITS,
    Fitted,
    catboost,
    classes,
    lightgbm,
    numbers,
    of_catboost,
    of_lightgbm,
    of_xgboost,
    quietly,
    xgboost,
)
from tests.support.serving import HANG_SECONDS


def test_trees_after_the_best_iteration_are_left_out(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    X = numbers(random)
    fitted = FITS["XGBoost, stopped early"](X, random)
    best, count = fitted.estimator.best_iteration, fitted.estimator.get_booster().num_boosted_rounds()
    assert best + 1 < count
    model = load_model(fitted.saved(tmp_path), trust_pickle=False)
    assert model.published is not None
    assert f"{best + 1} trees" in model.published.publications[0].tells


def test_several_labels_of_a_row(tmp_path: Path) -> None:
    random = np.random.default_rng(20)
    X = random.normal(size=(300, 3))
    y = (X + 0.5 * random.normal(size=X.shape) > 0).astype(int)
    fitted = of_xgboost(xgboost.XGBClassifier(n_estimators=5, max_depth=3), X, y)
    model = load_model(fitted.saved(tmp_path), trust_pickle=False)
    assert model.output.task is Task.MULTILABEL
    scores = model.decision(model.features(X))
    with quietly():
        np.testing.assert_allclose(scores, fitted.scores(X), atol=1e-5)
        np.testing.assert_allclose(model.output.predict_proba(scores), fitted.estimator.predict_proba(X), atol=1e-6)
        clear = (np.abs(scores) > 1e-5).all(axis=1)
        np.testing.assert_array_equal(model.output.predict(scores)[clear], fitted.estimator.predict(X)[clear])


# Files of other versions


def same(folder: Path, name: str, change: Callable[[str], str]) -> None:
    """A file is the same model after a change to its text."""
    random = np.random.default_rng(21)
    path = FITS[name](numbers(random), random).saved(folder)
    expected, text = load_model(path, trust_pickle=False), path.read_text()
    changed = change(text)
    assert changed != text
    path.write_text(changed)
    model = load_model(path, trust_pickle=False)
    np.testing.assert_array_equal(model.weights, expected.weights)
    np.testing.assert_allclose(model.intercept, expected.intercept, rtol=1e-12)
    assert model.output == expected.output


@pytest.mark.parametrize("name", ["XGBoost", "XGBoost, two classes", "XGBoost, poisson", "XGBoost, stopped early"])
def test_a_file_of_xgboost_1(name: str, tmp_path: Path) -> None:
    """With one base_score, a probability of two classes; flags; and no ends of iterations."""

    def change(text: str) -> str:
        model = json.loads(text)
        learner = model["learner"]
        learner["learner_model_param"]["base_score"] = learner["learner_model_param"]["base_score"].strip("[]")
        del learner["learner_model_param"]["num_target"]
        del learner["gradient_booster"]["model"]["iteration_indptr"]
        del learner["gradient_booster"]["model"]["cats"]
        learner["gradient_booster"]["model"]["gbtree_model_param"]["size_leaf_vector"] = "0"
        for tree in learner["gradient_booster"]["model"]["trees"]:
            tree["default_left"] = [bool(flag) for flag in tree["default_left"]]
            tree["tree_param"]["size_leaf_vector"] = "0"
            del tree["split_type"]
        return json.dumps(model | {"version": [1, 7, 6]})

    same(tmp_path, name, change)


def test_a_file_of_lightgbm_3(tmp_path: Path) -> None:
    same(tmp_path, "LightGBM", lambda text: text.replace("version=v4", "version=v3").replace("is_linear=0\n", ""))


def test_a_file_of_an_older_catboost(tmp_path: Path) -> None:
    def change(text: str) -> str:
        model = json.loads(text)
        scale, (bias,) = model["scale_and_bias"]
        return json.dumps(model | {"scale_and_bias": [scale, bias]})

    same(tmp_path, "CatBoost", change)


def test_a_newer_version_without_new_fields_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    same(tmp_path, "XGBoost", lambda text: json.dumps(json.loads(text) | {"version": [9, 9, 0]}))
    same(tmp_path, "LightGBM", lambda text: text.replace("version=v4", "version=v9"))
    assert [message.partition(",")[0] for message in caplog.messages] == [
        "a model was written by XGBoost 9.9.0",
        "a model of LightGBM has the format v9",
    ]


@pytest.mark.parametrize("fit", [of_xgboost, of_lightgbm, of_catboost])
def test_names_of_columns_become_the_models(fit: Any, tmp_path: Path) -> None:
    kind = {
        of_xgboost: xgboost.XGBRegressor,
        of_lightgbm: lightgbm.LGBMRegressor,
        of_catboost: catboost.CatBoostRegressor,
    }
    random = np.random.default_rng(6)
    frame = pd.DataFrame(random.normal(size=(200, 2)), columns=["Größe", "income"])
    fitted = fit(kind[fit](n_estimators=3), frame, frame["income"])
    model = load_model(fitted.saved(tmp_path), trust_pickle=False)
    assert model.feature_names == ("Größe", "income")
    assert model.published is not None
    assert all(column.allows_missing for column in model.published.columns)


@pytest.mark.parametrize("name", ["XGBoost", "XGBoost, ubj", "LightGBM", "CatBoost"])
def test_a_file_needs_no_library(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    path = FITS[name](numbers(random), random).saved(tmp_path)
    program = (
        "import sys; from sealserve_service.models.loading import load_model; "
        "load_model(sys.argv[1], trust_pickle=False); "
        "print([m for m in sys.modules if m in ('xgboost', 'lightgbm', 'catboost', 'sklearn', 'pandas')])"
    )
    command = [sys.executable, "-c", program, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANG_SECONDS)
    assert result.stdout.strip() == "[]"


# What is published of the training


def publication(fitted: Fitted, folder: Path) -> Publication:
    model = load_model(fitted.saved(folder), trust_pickle=False)
    assert model.published is not None
    (found,) = model.published.publications
    assert found.consent is Consent.STRUCTURE
    return found


def test_cut_points_of_xgboost_are_values_of_training_rows(tmp_path: Path) -> None:
    """So the text says: nothing but these values may follow from a column."""
    X = np.random.default_rng(8).normal(size=(400, 2))
    fitted = of_xgboost(xgboost.XGBRegressor(n_estimators=9, min_child_weight=5), X, X[:, 0] * X[:, 1])
    found = publication(fitted, tmp_path)
    assert "each of them a value of a training row" in found.tells
    model = load_model(tmp_path / "model.json", trust_pickle=False)
    assert model.published is not None
    trees = model.published.program.steps[-1]
    assert isinstance(trees, Trees)
    cuts = trees.thresholds[trees.left > 0]
    assert len(cuts) > 50
    assert np.isin(cuts, X.astype(np.float32).astype(np.float64)).mean() > 0.95


@pytest.mark.parametrize(
    ("objective", "weight", "reason"),
    [
        ("reg:squarederror", 5.0, ""),
        ("reg:squarederror", 1.0, "a leaf may have as few as . training rows: fit it with min_child_weight=5 or more"),
        ("binary:logistic", 1.25, ""),
        ("binary:logistic", 0.1, "as few as 1 training rows: fit it with min_child_weight=1.25 or more"),
        ("multi:softprob", 2.5, ""),
        ("multi:softprob", 0.5, "as few as . training rows: fit it with min_child_weight=2.5 or more"),
        ("count:poisson", 5.0, "how many training rows its leaves have is not known"),
    ],
)
def test_rows_of_leaves_of_xgboost_follow_from_hessians(
    objective: str, weight: float, reason: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(9)
    X = random.integers(0, 40, (500, 3)).astype(float)
    y = classes(np.hstack([X, X]), random, 3 if "multi" in objective else 2)
    kind = xgboost.XGBRegressor if objective.startswith(("reg", "count")) else xgboost.XGBClassifier
    fitted = of_xgboost(kind(objective=objective, min_child_weight=weight, n_estimators=9, max_depth=8), X, y)
    found = publication(fitted, tmp_path).training_values
    assert re.search(reason, found) if reason else found == ""
    if not reason:  # and it is true: no leaf has fewer rows than the Hessians say
        counts = [np.bincount(column)[np.unique(column)].min() for column in fitted.leaves(X).T]
        assert min(counts) >= MIN_ROWS


def test_rows_of_leaves_of_lightgbm_are_counts(tmp_path: Path) -> None:
    random = np.random.default_rng(10)
    X = random.integers(0, 40, (500, 3)).astype(float)
    for least, reason in ((5, ""), (2, "as few as 2 training rows: fit it with min_child_samples=5 or more")):
        fitted = of_lightgbm(lightgbm.LGBMRegressor(n_estimators=3, min_child_samples=least), X, random.random(500))
        found = publication(fitted, tmp_path)
        assert "midway between training values" in found.tells
        assert (reason in found.training_values) if reason else found.training_values == ""


def test_many_cut_points_of_a_column_are_told(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    X = random.normal(size=(600, 1))
    y = np.sin(20 * X[:, 0])
    of_xgb = of_xgboost(xgboost.XGBRegressor(n_estimators=30, min_child_weight=5), X, y)
    found = publication(of_xgb, tmp_path).training_values
    assert re.fullmatch("1.. cut points of 'x0' are values of training rows: fit it with a smaller max_bin", found)
    of_few = of_xgboost(xgboost.XGBRegressor(n_estimators=30, min_child_weight=5, max_bin=64), X, y)
    assert publication(of_few, tmp_path).training_values == ""
    of_cat = of_catboost(catboost.CatBoostRegressor(iterations=200, depth=2), X, y)
    found = publication(of_cat, tmp_path).training_values
    assert re.fullmatch(".* cut points of 'x0' are many for 600 training rows: .*smaller border_count", found)
    of_few_cuts = of_catboost(catboost.CatBoostRegressor(iterations=200, depth=2, border_count=32), X, y)
    assert publication(of_few_cuts, tmp_path).training_values == ""


def test_leaves_of_catboost_may_be_empty_without_telling_of_a_row(tmp_path: Path) -> None:
    """A level splits all rows: that a leaf is there does not say that a row was in it."""
    random = np.random.default_rng(12)
    X = random.normal(size=(900, 2))
    fitted = of_catboost(catboost.CatBoostRegressor(iterations=9, depth=6, border_count=16), X, X[:, 0])
    found = publication(fitted, tmp_path)
    assert (
        min(min(tree["leaf_weights"]) for tree in json.loads((tmp_path / "model.json").read_text())["oblivious_trees"])
        == 0
    )
    assert found.training_values == ""


def test_weights_of_rows_hide_how_many_there_are(tmp_path: Path) -> None:
    random = np.random.default_rng(13)
    X = random.normal(size=(300, 2))
    estimator = catboost.CatBoostRegressor(iterations=3, verbose=False, allow_writing_files=False, thread_count=1)
    estimator.fit(X, X[:, 0], sample_weight=random.random(300))
    estimator.save_model(str(tmp_path / "model.json"), format="json")
    model = load_model(tmp_path / "model.json", trust_pickle=False)
    assert model.published is not None
    assert "is not known: fit it without weights" in model.published.publications[0].training_values
