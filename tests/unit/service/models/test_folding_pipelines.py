"""Folding pipelines: affine steps become weights and intercept, the first scaler the range."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from sealserve_service.models.folding import fold

Rows = NDArray[np.float64]

STEPS = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    StandardScaler(with_mean=False, with_std=False),
    MinMaxScaler(),
    MinMaxScaler(feature_range=(-3, 5)),
    MaxAbsScaler(),
    PCA(3),
    PCA(whiten=True, svd_solver="covariance_eigh"),
    TruncatedSVD(3, algorithm="arpack", random_state=0),
    make_pipeline(MinMaxScaler(), "passthrough", PCA(4)),
    "passthrough",
    None,
]


def cloned(steps: list[Any]) -> list[Any]:
    return [clone(step) if hasattr(step, "fit") else step for step in steps]


def assert_agrees(pipeline: Any, X: Rows) -> None:
    model = fold(pipeline)
    scores = model.decision(X)
    own = pipeline.decision_function(X)
    np.testing.assert_allclose(model.output.decision_function(scores), own, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(model.output.predict(scores), pipeline.predict(X))
    np.testing.assert_allclose(model.output.predict_proba(scores), pipeline.predict_proba(X), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "multiclass"])
@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_step(step: Any, binary: bool, rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    [step] = cloned([step])
    pipeline = fit(make_pipeline(step, LogisticRegression()), rows, groups > 0 if binary else groups)
    assert_agrees(pipeline, rows)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_sequence_of_steps(data: st.DataObject, rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    scalers = st.sampled_from([step for step in STEPS if "SVD" not in repr(step) and "PCA" not in repr(step)])
    projections = st.sampled_from([[], [PCA(3)], [PCA(5, whiten=True)], [TruncatedSVD(2, algorithm="arpack")]])
    before, after = data.draw(st.lists(scalers, max_size=3)), data.draw(st.lists(scalers, max_size=3))
    steps = cloned([*before, *data.draw(projections), *after])
    assert_agrees(fit(make_pipeline(*steps, LogisticRegression()), rows, groups), rows)


def test_nested_pipelines(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    inner = make_pipeline(PCA(4), LogisticRegression())
    assert_agrees(fit(make_pipeline(make_pipeline(StandardScaler()), inner), rows, groups), rows)


def test_regression(rows: Rows, targets: Rows, fit: Any) -> None:
    pipeline = fit(make_pipeline(StandardScaler(), Ridge()), rows, targets[:, 0])
    model = fold(pipeline)
    np.testing.assert_allclose(model.output.predict(model.decision(rows)), pipeline.predict(rows))


def test_a_scaler_of_many_features_needs_no_square_matrix(fit: Any) -> None:
    wide = np.random.default_rng(0).normal(size=(8, 20_000))
    pipeline = fit(make_pipeline(StandardScaler(), Ridge()), wide, wide[:, 0])
    np.testing.assert_allclose(fold(pipeline).decision(wide)[:, 0], pipeline.predict(wide))


# The range


def input_range(steps: list[Any], rows: Rows, groups: NDArray[np.int64], fit: Any) -> tuple[Rows, Rows] | None:
    return fold(fit(make_pipeline(*cloned(steps), LogisticRegression()), rows, groups)).input_range


@pytest.mark.parametrize(
    "steps", [[MinMaxScaler()], ["passthrough", MinMaxScaler((-1, 1)), StandardScaler()]], ids=repr
)
def test_min_max_scaler_tells_the_range(steps: list[Any], rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    found = input_range(steps, rows, groups, fit)
    assert found is not None
    np.testing.assert_array_equal(found, [rows.min(axis=0), rows.max(axis=0)])


def test_max_abs_scaler_tells_the_range(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    found = input_range([make_pipeline(MaxAbsScaler(), PCA(3))], rows, groups, fit)
    assert found is not None
    np.testing.assert_array_equal(found, [-abs(rows).max(axis=0), abs(rows).max(axis=0)])


@pytest.mark.parametrize("with_mean", [True, False])
def test_standard_scaler_tells_six_deviations(with_mean: bool, rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    found = input_range([StandardScaler(with_mean=with_mean)], rows, groups, fit)
    assert found is not None
    deviations = np.where(rows.std(axis=0) < 1e-12, 1.0, rows.std(axis=0))  # a constant feature has scale 1
    np.testing.assert_allclose(found, rows.mean(axis=0) + np.array([[-5.0], [5.0]]) * deviations)


@pytest.mark.parametrize(
    "steps", [[], ["passthrough"], [StandardScaler(with_std=False)], [PCA(4)], [PCA(4), MinMaxScaler()]], ids=repr
)
def test_no_range_without_a_first_scaler_that_knows_it(
    steps: list[Any], rows: Rows, groups: NDArray[np.int64], fit: Any
) -> None:
    assert input_range(steps, rows, groups, fit) is None


# Branches


def test_columns_of_a_data_frame_by_every_way_of_naming_them(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    names = ["age", "height", "weight", "income", "rooms", "floor"]
    frame = pd.DataFrame(rows, columns=names)
    columns = ColumnTransformer(
        [
            ("names", StandardScaler(), ["income", "age"]),
            ("slice", MinMaxScaler(), slice("height", "weight")),
            ("mask", PCA(1), [False, True, False, False, True, False]),
            ("callable", RobustScaler(), lambda table: [1, -2]),
            ("nothing", StandardScaler(), []),
            ("twice", "passthrough", ["rooms"]),
        ],
        remainder=MaxAbsScaler(),
    )
    pipeline = fit(make_pipeline(columns, LogisticRegression()), frame, groups)
    model = fold(pipeline)
    assert model.feature_names == tuple(names)
    np.testing.assert_allclose(model.decision(rows), pipeline.decision_function(frame), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(model.expected_scores(rows), model.decision(rows), rtol=1e-9, atol=1e-9)


def test_branches_tell_the_range_where_all_do(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    both = ColumnTransformer([("a", MinMaxScaler(), [3, 0, 5]), ("b", MinMaxScaler(), [1, 2, 4])])
    found = input_range([both], rows, groups, fit)
    assert found is not None
    np.testing.assert_array_equal(found, [rows.min(axis=0), rows.max(axis=0)])
    for partly in (
        ColumnTransformer([("a", MinMaxScaler(), [3, 0, 5])]),
        ColumnTransformer([("a", MinMaxScaler(), [3, 0, 5])], remainder="passthrough"),
        VarianceThreshold(),
    ):
        assert input_range([partly, MinMaxScaler()], rows, groups, fit) is None


def test_a_selector_of_all_columns_leaves_the_range_to_the_next_step(
    rows: Rows, groups: NDArray[np.int64], fit: Any
) -> None:
    varying = rows[:, :5]
    found = input_range([SelectKBest(k="all"), MinMaxScaler()], varying, groups, fit)
    assert found is not None
    np.testing.assert_array_equal(found, [varying.min(axis=0), varying.max(axis=0)])


def test_branches_of_many_features_need_no_square_matrix(fit: Any) -> None:
    wide = np.random.default_rng(0).normal(size=(8, 20_000))
    columns = ColumnTransformer([("a", StandardScaler(), slice(0, 10_000))], remainder="passthrough")
    pipeline = fit(make_pipeline(columns, VarianceThreshold(), Ridge()), wide, wide[:, 0])
    np.testing.assert_allclose(fold(pipeline).decision(wide)[:, 0], pipeline.predict(wide))
