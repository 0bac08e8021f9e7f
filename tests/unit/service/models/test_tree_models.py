"""Tree models: leaves as features, against scikit-learn itself."""

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor
from threadpoolctl import threadpool_limits

from sealserve.protocol.output import Task
from sealserve.steps.intervals import Bins
from sealserve.steps.trees import Trees
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.pipeline_steps import Consent
from sealserve_service.models.stumps import stump_head
from sealserve_service.models.trees import Nodes
from tests.support.agreement import assert_served, is_no_tie
from tests.support.tables import labels, rows_of, table

Make = Callable[[int], Any]
CATEGORIES = ["city", "rooms"]
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
    "HistGradientBoostingClassifier, categories": lambda seed: HistGradientBoostingClassifier(
        max_iter=5, categorical_features=CATEGORIES, random_state=seed
    ),
    "RandomForestClassifier, stumps": lambda seed: RandomForestClassifier(
        5, max_depth=1, min_samples_leaf=5, random_state=seed
    ),
    "GradientBoostingClassifier, stumps": lambda seed: GradientBoostingClassifier(
        n_estimators=9, max_depth=1, random_state=seed
    ),
    "HistGradientBoostingClassifier, stumps": lambda seed: HistGradientBoostingClassifier(
        max_iter=9, max_leaf_nodes=2, random_state=seed
    ),
    "AdaBoostClassifier": lambda seed: AdaBoostClassifier(n_estimators=9, random_state=seed),
    "AdaBoostClassifier of trees": lambda seed: AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=3, min_samples_leaf=5), n_estimators=5, random_state=seed
    ),
    "CalibratedClassifierCV of forests": lambda seed: CalibratedClassifierCV(
        RandomForestClassifier(3, min_samples_leaf=5, random_state=seed), cv=2
    ),
    "CalibratedClassifierCV of forests, isotonic": lambda seed: CalibratedClassifierCV(
        RandomForestClassifier(3, min_samples_leaf=5, random_state=seed), cv=2, method="isotonic"
    ),
    "OneVsRestClassifier of forests": lambda seed: OneVsRestClassifier(
        RandomForestClassifier(3, min_samples_leaf=5, random_state=seed)
    ),
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
    "HistGradientBoostingRegressor, categories": lambda seed: HistGradientBoostingRegressor(
        max_iter=5, categorical_features=CATEGORIES, random_state=seed
    ),
    "RandomForestRegressor, stumps": lambda seed: RandomForestRegressor(
        5, max_depth=1, min_samples_leaf=5, random_state=seed
    ),
    "GradientBoostingRegressor, stumps": lambda seed: GradientBoostingRegressor(
        n_estimators=9, max_depth=1, random_state=seed
    ),
    "AdaBoostRegressor of one": lambda seed: AdaBoostRegressor(n_estimators=1, random_state=seed),
}
NO_GAPS = ("Gradient", "Ada")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of histograms would wait for each other on busy cores."""
    with threadpool_limits(1):
        yield


def _leaf_count(estimator: Any) -> int:
    """Of the largest tree: a random one may have no split, and is refused."""
    counts: list[int] = [tree.get_n_leaves() for tree in getattr(estimator, "estimators_", [estimator])]
    return max(counts)


def with_thresholds(X: pd.DataFrame, model: LinearModel, random: np.random.Generator) -> pd.DataFrame:
    """Rows of thresholds, their neighbours, extremes and, where there may be, gaps."""
    assert model.published is not None
    found: list[Any] = [[0.0, -0.0, 5e-324, 1e36, -1e36, 16777217.0]]
    for step in model.published.program.steps:
        found += [step.thresholds] if isinstance(step, Trees) else []
        found += [column.edges for column in step.columns] if isinstance(step, Bins) else []
    cuts = np.concatenate(found)
    cuts = cuts[np.isfinite(cuts)]
    with np.errstate(over="ignore"):
        singles = cuts.astype(np.float32)
        near = [cuts, np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf), singles]
        near += [np.nextafter(singles, np.float32(end)) for end in (np.inf, -np.inf)]
        ties = (near[-1].astype(np.float64) + singles) / 2
    special = np.concatenate([*near, ties]).astype(np.float64)
    special = special[np.abs(special) <= 1e36]
    if all(column.allows_missing for column in model.published.columns):
        special = np.append(special, np.full(len(special) // 5 + 1, np.nan))
    rows = pd.DataFrame(random.choice(special, (60, X.shape[1])), columns=X.columns)
    if "city" in X:
        rows["city"] = random.choice(np.array(["Bern", "Ulm", "Genf", "Chur", "", None], object), len(rows))
        rows["rooms"] = random.choice([1.0, 2.0, 5.0, 77.0, 2.5, np.nan], len(rows))
    return rows


def check(name: str, seed: int, *, plans: bool = False) -> None:
    random = np.random.default_rng(seed)
    frame = table(random)
    X = frame[["age", "income", "rooms", *(["city"] if "categories" in name else [])]]
    if name.startswith(NO_GAPS):
        X = X.fillna(40.0)
    is_classifier = name in CLASSIFIERS
    class_count = 2 if "exponential" in name else 2 + seed % 3
    y = labels(frame, random, class_count) if is_classifier else np.log(frame["income"].to_numpy())
    with warnings.catch_warnings(action="ignore"):  # of the few rows of a fold
        estimator = (CLASSIFIERS | REGRESSORS)[name](seed % 1000).fit(X, y)
    assume(not name.startswith("ExtraTree") or _leaf_count(estimator) > 1)
    model = fold(estimator)
    assert_predicted(name, estimator, model, X, is_training=True)
    for others in (with_thresholds(X, model, random), X[:1]):
        assert_predicted(name, estimator, model, others, is_training=False)
    if plans:
        assert_served(estimator, model, rows_of(model, X), given=X)


def assert_predicted(name: str, estimator: Any, model: LinearModel, X: Any, *, is_training: bool) -> None:
    """A model predicts what its estimator predicts; and so many rows are no ties in training."""
    rows = rows_of(model, X)
    features = model.features(rows)
    assert ((features == 0) | (features == 1)).all()
    scores = model.decision(features)
    if is_training:
        np.testing.assert_allclose(model.expected_scores(rows), scores, rtol=1e-9, atol=1e-9)
    predicted, expected = model.output.predict(scores), estimator.predict(X)
    if model.output.task is Task.REGRESSION:
        np.testing.assert_allclose(predicted, expected, rtol=1e-9)
        return
    np.testing.assert_allclose(model.output.predict_proba(scores), estimator.predict_proba(X), rtol=1e-9, atol=1e-9)
    clear = is_no_tie(model.output, scores, 1e-9)
    if is_training:
        # Most rows of a random tree may be in one leaf, with as many rows of one class as of two.
        assume(clear.mean() > 0.5 or not name.startswith("ExtraTree"))
        assert clear.mean() > 0.5
    np.testing.assert_array_equal(predicted[clear], expected[clear])
    class_count = len(estimator.classes_)
    if name.startswith("AdaBoost") and class_count > 2:
        np.testing.assert_allclose(scores * (class_count - 1), estimator.decision_function(X), rtol=1e-9, atol=1e-12)
    else:
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
    check(name, seed, plans=True)


@settings(max_examples=1, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", CLASSIFIERS | REGRESSORS)
@given(seed=st.integers(0, 2**32 - 1))
def test_scores_are_within_the_published_bound(name: str, seed: int) -> None:
    check(name, seed, plans=True)


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


def test_categories_of_boosting_are_compared_as_sets() -> None:
    random = np.random.default_rng(8)
    X = np.stack([random.integers(0, 40, 400), random.normal(size=400)], axis=1)
    X[:20, 0] = np.nan
    y = np.isin(X[:, 0], random.choice(40, 20, replace=False)) + 0.1 * X[:, 1]
    estimator = HistGradientBoostingRegressor(max_iter=9, categorical_features=[0]).fit(X, y)
    model = fold(estimator)
    assert model.published is not None
    lookup, trees = model.published.program.steps
    assert [type(lookup).__name__, type(trees).__name__] == ["Lookup", "Trees"]
    assert trees.category_splits  # type: ignore[attr-defined]
    assert {p.consent.value for p in model.publications} == {"steps", "structure"}
    rows = np.array([[value, 0.0] for value in [*range(42), np.nan, -1.0, 0.5, 1e300]])
    np.testing.assert_allclose(model.decision(model.features(rows))[:, 0], estimator.predict(rows), rtol=1e-12)


@pytest.mark.parametrize("gap", [None, np.nan])
def test_a_gap_is_the_category_that_it_was_in_training(gap: Any) -> None:
    """To scikit-learn None is a category like others, and NaN is missing."""
    X = pd.DataFrame({"city": np.array(["Bern", "Ulm", gap, "Chur"] * 50, object), "rooms": np.arange(200.0) % 7})
    y = np.array([0.0, 5.0, 9.0, 2.0] * 50)
    estimator = HistGradientBoostingRegressor(max_iter=5, categorical_features=["city"]).fit(X, y)
    model = fold(estimator)
    scores = model.decision(model.features(rows_of(model, X)))
    np.testing.assert_allclose(scores[:, 0], estimator.predict(X), rtol=1e-12)


def test_categories_of_a_data_frame_are_those_of_its_type() -> None:
    random = np.random.default_rng(9)
    frame = table(random, 300)
    X = frame[["income", "city"]].assign(city=frame["city"].astype("category"))
    estimator = HistGradientBoostingClassifier(max_iter=5).fit(X, labels(frame, random))
    model = fold(estimator)
    assert model.feature_names == ("income", "city")
    others = X.assign(city=pd.Categorical(["Chur"] * len(X)))
    for rows in (X, others):
        scores = model.decision(model.features(rows_of(model, rows)))
        np.testing.assert_allclose(scores[:, 0], estimator.decision_function(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("place", [0.0, 1.0, -1e-40, 3e38, 16777217.0, 0.1])
def test_a_stump_compares_numbers_rounded_to_float32(place: float) -> None:
    """Next to its threshold, and at the ties between two float32."""
    X = np.array([[place - 1 - abs(place) / 10], [place + 1 + abs(place) / 10]] * 20)
    forest = RandomForestRegressor(3, max_depth=1, min_samples_leaf=5, random_state=0).fit(X, X[:, 0] > place)
    model = fold(forest)
    assert model.published is not None
    assert [type(step).__name__ for step in model.published.program.steps] == ["Bins"]
    threshold = np.float32(forest.estimators_[0].tree_.threshold[0])
    around = np.array(
        [np.nextafter(threshold, np.float32(-np.inf)), threshold, np.nextafter(threshold, np.float32(np.inf))]
    )
    ends = around.astype(np.float64)
    ties = (ends[:-1] + ends[1:]) / 2
    rows = np.concatenate([ends, ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf), [np.nan]])[:, None]
    np.testing.assert_allclose(model.decision(model.features(rows))[:, 0], forest.predict(rows), rtol=1e-12, atol=1e-15)


@settings(max_examples=200, deadline=None)
@given(threshold=st.floats(-3.4028234663852886e38, 3.4028234663852886e38), is_single=st.booleans())
def test_edges_of_stumps_are_thresholds_before_rounding(threshold: float, is_single: bool) -> None:
    threshold = float(np.float32(threshold)) if is_single else threshold
    nodes = np.arange(3)
    stump = Nodes(
        np.zeros(1, np.intp),
        np.array([1, -1, -1]),
        np.array([2, -1, -1]),
        0 * nodes,
        np.full(3, threshold),
        nodes > 0,
        nodes[:, np.newaxis].astype(np.float64),
        None,
    )
    ((edge,),) = stump_head(stump, rounds_to_float32=True, takes_missing=False).edges
    rows = np.array([edge, np.nextafter(edge, np.inf), np.nextafter(edge, -np.inf), threshold])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(rows <= edge, rows.astype(np.float32).astype(np.float64) <= threshold)


def test_stumps_are_exclusive_bins_of_their_columns() -> None:
    random = np.random.default_rng(10)
    frame = table(random)[["income", "rooms"]]
    estimator = GradientBoostingRegressor(n_estimators=60, max_depth=1).fit(frame, frame["income"] + frame["rooms"])
    model = fold(estimator)
    assert model.published is not None
    thresholds = {(int(t.tree_.feature[0]), t.tree_.threshold[0]) for t in estimator.estimators_[:, 0]}
    assert model.feature_count == len(thresholds), "the last bin of each column is left out"
    assert len(model.published.ranges.groups) == len({feature for feature, _ in thresholds})
    assert model.publications[0].consent is Consent.STRUCTURE
    assert f"{len(thresholds)} thresholds" in model.publications[0].tells


def test_an_isolation_forest_predicts_outliers_and_keeps_nothing_private() -> None:
    random = np.random.default_rng(11)
    rows = random.normal(size=(300, 3))
    for options in ({}, {"max_features": 2, "contamination": 0.1}, {"max_samples": 2}):
        forest = IsolationForest(n_estimators=20, random_state=0, **options).fit(rows)
        model = fold(forest)
        given = np.vstack([rows, 6 * random.normal(size=(50, 3)), np.full((1, 3), np.nan), np.full((1, 3), np.inf)])
        scores = model.decision(model.features(given))
        np.testing.assert_allclose(model.expected_scores(given), scores, rtol=1e-12, atol=1e-12)
        own = forest.decision_function(given)
        np.testing.assert_allclose(-forest.offset_ * (1 - 2.0 ** -scores[:, 0]), own, rtol=1e-9, atol=1e-12)
        clear = np.abs(scores[:, 0]) > 1e-9
        np.testing.assert_array_equal(model.output.predict(scores)[clear], forest.predict(given)[clear])
        (publication,) = model.publications
        assert "nothing of this model stays private" in publication.tells
        assert "OneClassSVM" in publication.training_values


def test_forests_are_members_by_their_probabilities() -> None:
    random = np.random.default_rng(12)
    frame = table(random)
    X, indicators = frame[["age", "income"]], np.stack([labels(frame, random) for _ in range(3)], axis=1)
    estimator = MultiOutputClassifier(RandomForestClassifier(5, min_samples_leaf=5, random_state=0)).fit(X, indicators)
    model = fold(estimator)
    scores = model.decision(model.features(rows_of(model, X)))
    own = np.stack([of_label[:, 1] for of_label in estimator.predict_proba(X)], axis=1)
    np.testing.assert_allclose(model.output.predict_proba(scores), own, rtol=1e-9, atol=1e-12)
    clear = np.abs(own - 0.5) > 1e-9
    np.testing.assert_array_equal(model.output.predict(scores)[clear], estimator.predict(X)[clear])


def test_many_cut_points_of_a_histogram_are_told() -> None:
    """They are edges of the bins of a column, and not thresholds between the rows of a node."""
    random = np.random.default_rng(14)
    frame = pd.DataFrame({"size": random.normal(size=600), "city": random.choice(["Bern", "Ulm"], 600)})
    y, many = np.sin(20 * frame["size"]), {"max_iter": 100, "min_samples_leaf": 5}

    def told(X: Any, **options: Any) -> str:
        estimator = HistGradientBoostingRegressor(**(many | options)).fit(X, y)
        *_, publication = fold(estimator).publications
        assert "each of them a value of a training row or midway between two" in publication.tells
        return publication.training_values

    text = "[12].. cut points of {} are many for 600 training rows: fit it with a smaller max_bins"
    assert re.fullmatch(text.format("'size'"), told(frame[["size"]]))
    assert re.fullmatch(text.format("'size'"), told(frame, categorical_features=["city"]))
    assert re.fullmatch(text.format("'x0'"), told(frame[["size"]].to_numpy()))
    assert told(frame[["size"]], max_bins=64) == ""
    assert told(frame, max_bins=64, categorical_features=["city"]) == ""
    boosted = GradientBoostingRegressor(min_samples_leaf=5, max_depth=4).fit(frame[["size"]], y)
    assert fold(boosted).publications[0].training_values == "", "the leaves of a node's own rows are enough"


def test_cut_points_of_a_histogram_are_values_of_rows_or_midway() -> None:
    X = np.random.default_rng(15).normal(size=(600, 1))
    ordered = np.sort(X[:, 0])
    midways = (ordered[:-1] + ordered[1:]) / 2
    for max_bins in (64, 255):
        model = fold(HistGradientBoostingRegressor(max_bins=max_bins, max_iter=30).fit(X, np.sin(9 * X[:, 0])))
        assert model.published is not None
        (trees,) = model.published.program.steps
        cuts = trees.thresholds[trees.left > 0]  # type: ignore[attr-defined]
        is_value, is_midway = np.isin(cuts, X), np.isclose(cuts[:, np.newaxis], midways, rtol=1e-12).any(axis=1)
        assert (is_value | is_midway).all()
        assert is_value.any()


def test_one_class_is_refused() -> None:
    X = np.random.default_rng(13).normal(size=(30, 2))
    for estimator in (AdaBoostClassifier(n_estimators=2), RandomForestClassifier(2)):
        with pytest.raises(UnsupportedModelError, match="fitted with one class"):
            fold(estimator.fit(X, np.ones(30)))


def test_several_outputs_are_refused() -> None:
    random = np.random.default_rng(7)
    X = random.normal(size=(60, 2))
    with pytest.raises(UnsupportedModelError, match="several outputs"):
        fold(RandomForestRegressor(2, min_samples_leaf=5).fit(X, X))
    with pytest.raises(UnsupportedModelError, match="several outputs"):
        fold(RandomForestClassifier(2, min_samples_leaf=5).fit(X, X > 0))
