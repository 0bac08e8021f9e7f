"""Tree models: leaves as features, against scikit-learn itself."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from sealserve.protocol.output import Task
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from tests.support.agreement import is_no_tie
from tests.support.tables import labels, rows_of, table

Make = Callable[[int], Any]
CLASSIFIERS: dict[str, Make] = {
    "DecisionTreeClassifier": lambda seed: DecisionTreeClassifier(min_samples_leaf=5, random_state=seed),
    "ExtraTreeClassifier": lambda seed: ExtraTreeClassifier(min_samples_leaf=5, random_state=seed),
    "RandomForestClassifier": lambda seed: RandomForestClassifier(5, min_samples_leaf=5, random_state=seed),
    "ExtraTreesClassifier": lambda seed: ExtraTreesClassifier(5, min_samples_leaf=5, random_state=seed),
    "GradientBoostingClassifier": lambda seed: GradientBoostingClassifier(n_estimators=5, random_state=seed),
    "GradientBoostingClassifier, exponential": lambda seed: GradientBoostingClassifier(
        n_estimators=5, loss="exponential", random_state=seed
    ),
    "HistGradientBoostingClassifier": lambda seed: HistGradientBoostingClassifier(max_iter=5, random_state=seed),
}
REGRESSORS: dict[str, Make] = {
    "DecisionTreeRegressor": lambda seed: DecisionTreeRegressor(min_samples_leaf=5, random_state=seed),
    "ExtraTreeRegressor": lambda seed: ExtraTreeRegressor(min_samples_leaf=5, random_state=seed),
    "RandomForestRegressor": lambda seed: RandomForestRegressor(5, min_samples_leaf=5, random_state=seed),
    "ExtraTreesRegressor": lambda seed: ExtraTreesRegressor(5, min_samples_leaf=5, random_state=seed),
    "GradientBoostingRegressor": lambda seed: GradientBoostingRegressor(n_estimators=5, random_state=seed),
    "GradientBoostingRegressor, huber": lambda seed: GradientBoostingRegressor(
        n_estimators=5, loss="huber", random_state=seed
    ),
    "HistGradientBoostingRegressor": lambda seed: HistGradientBoostingRegressor(max_iter=5, random_state=seed),
    "HistGradientBoostingRegressor, poisson": lambda seed: HistGradientBoostingRegressor(
        max_iter=5, loss="poisson", random_state=seed
    ),
}


def _leaf_count(estimator: Any) -> int:
    """Of the largest tree: a random one may have no split, and is refused."""
    counts: list[int] = [tree.get_n_leaves() for tree in getattr(estimator, "estimators_", [estimator])]
    return max(counts)


def check(name: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    frame = table(random)
    X = frame[["age", "income", "rooms"]]
    if name.startswith("Gradient"):
        X = X.fillna(40.0)
    is_classifier = name in CLASSIFIERS
    class_count = 2 if "exponential" in name else 2 + seed % 3
    y = labels(frame, random, class_count) if is_classifier else np.log(frame["income"].to_numpy())
    estimator = (CLASSIFIERS | REGRESSORS)[name](seed % 1000).fit(X, y)
    assume(not name.startswith("ExtraTree") or _leaf_count(estimator) > 1)
    model = fold(estimator)
    rows = rows_of(model, X)
    features = model.features(rows)
    assert ((features == 0) | (features == 1)).all()
    scores = model.decision(features)
    np.testing.assert_allclose(model.expected_scores(rows), scores, rtol=1e-9, atol=1e-9)
    predicted, expected = model.output.predict(scores), estimator.predict(X)
    if model.output.task is Task.REGRESSION:
        np.testing.assert_allclose(predicted, expected, rtol=1e-9)
        return
    np.testing.assert_allclose(model.output.predict_proba(scores), estimator.predict_proba(X), rtol=1e-9, atol=1e-9)
    clear = is_no_tie(model.output, scores, 1e-9)
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(predicted[clear], expected[clear])
    assert hasattr(estimator, "decision_function") == (not model.output.has_no_decision_function)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", CLASSIFIERS | REGRESSORS)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_ensemble_becomes_leaves(name: str, seed: int) -> None:
    check(name, seed)


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", CLASSIFIERS | REGRESSORS)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_ensemble_becomes_leaves_at_length(name: str, seed: int) -> None:
    check(name, seed)


def test_trees_follow_steps_of_a_pipeline() -> None:
    random = np.random.default_rng(1)
    frame = table(random)[["age", "income", "city"]]
    columns = ColumnTransformer(
        [("city", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"])], remainder="passthrough"
    )
    pipeline = make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5)).fit(frame, labels(frame, random))
    model = fold(pipeline)
    rows = rows_of(model, frame)
    np.testing.assert_allclose(
        model.decision(model.features(rows))[:, 0], pipeline.decision_function(frame), rtol=1e-9, atol=1e-9
    )
    assert model.published is not None
    assert [type(step).__name__ for step in model.published.program.steps] == ["OneHot", "Trees"]
    assert [column.allows_missing for column in model.published.columns] == [True, True, True]


def test_a_scaler_before_trees_is_published_to_the_bit() -> None:
    random = np.random.default_rng(2)
    whole = table(random)
    frame = whole[["income", "rooms"]]
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(9, min_samples_leaf=5, random_state=0))
    pipeline.fit(frame, labels(whole, random))
    model = fold(pipeline)
    assert model.published is not None
    assert [type(step).__name__ for step in model.published.program.steps] == ["Affine", "Trees"]
    leaves = pipeline[-1].apply(pipeline[0].transform(frame))
    assert len(np.unique(model.features(rows_of(model, frame)), axis=0)) == len(np.unique(leaves, axis=0))


def test_a_threshold_parts_what_is_missing_from_all_numbers() -> None:
    X = np.tile([[np.nan], [1.0], [2.0]], (40, 1))
    estimator = HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=5).fit(X, np.isnan(X[:, 0]).astype(float))
    assert np.isinf(estimator._predictors[0][0].nodes["num_threshold"][0])
    model = fold(estimator)
    rows = np.array([[np.inf], [-np.inf], [np.finfo(np.float64).max], [1.5], [np.nan]])
    np.testing.assert_allclose(model.decision(model.features(rows))[:, 0], estimator.predict(rows), rtol=1e-12)


def test_the_last_leaf_of_each_tree_is_left_out_whatever_its_value() -> None:
    random = np.random.default_rng(4)
    frame = table(random)[["income", "rooms"]]
    forest = RandomForestRegressor(4, min_samples_leaf=5, random_state=0).fit(frame, random.normal(size=len(frame)))
    leaf_count = sum(tree.get_n_leaves() for tree in forest.estimators_)
    model = fold(forest)
    assert model.feature_count == leaf_count - 4
    assert model.published is not None
    (trees,) = model.published.program.steps
    outputs = np.asarray(model.published.program.outputs) - model.column_count
    stops = np.cumsum(trees.leaf_counts)  # type: ignore[attr-defined]
    assert sorted(set(range(trees.width)) - set(outputs.tolist())) == (stops - 1).tolist()


def test_scalars_and_gaps_of_gradient_boosting_are_scikit_learns() -> None:
    random = np.random.default_rng(5)
    frame = table(random)[["income", "rooms"]]
    model = fold(GradientBoostingRegressor(n_estimators=3).fit(frame, frame["income"]))
    assert model.published is not None
    assert not any(column.allows_missing for column in model.published.columns)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (HistGradientBoostingClassifier(categorical_features=[1]), "has categorical_features.*OneHotEncoder"),
        (GradientBoostingClassifier(init=LogisticRegression()), "init is an estimator of its own"),
        (DecisionTreeClassifier(min_samples_leaf=100), "none of its trees has a split"),
    ],
    ids=repr,
)
def test_what_is_no_sum_of_leaves_is_refused(estimator: Any, reason: str) -> None:
    random = np.random.default_rng(6)
    frame = table(random)
    X = frame[["income", "rooms"]].to_numpy()
    with warnings.catch_warnings(action="ignore"):
        estimator.fit(X, labels(frame, random))
    with pytest.raises(UnsupportedModelError, match=reason):
        fold(estimator)


def test_several_outputs_are_refused() -> None:
    random = np.random.default_rng(7)
    X = random.normal(size=(60, 2))
    with pytest.raises(UnsupportedModelError, match="several outputs"):
        fold(RandomForestRegressor(2, min_samples_leaf=5).fit(X, X))
    with pytest.raises(UnsupportedModelError, match="several outputs"):
        fold(RandomForestClassifier(2, min_samples_leaf=5).fit(X, X > 0))
