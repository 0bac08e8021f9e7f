"""Additive models of interpret against interpret itself."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from interpret import glassbox

from sealserve.protocol.output import Link, Task
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.loading import load_model
from sealserve_service.models.pipeline_steps import Consent
from tests.support.agreement import assert_served, is_no_tie
from tests.support.tables import labels, rows_of, table

COLUMNS = ["age", "income", "city", "rooms"]
TYPES = ["continuous", "continuous", "nominal", "nominal"]
Make = Callable[[int], Any]


def _machine(kind: str, **options: Any) -> Make:
    """A machine of few rounds, with pairs."""
    given: dict[str, Any] = {
        "interactions": 3,
        "max_bins": 16,
        "max_interaction_bins": 6,
        "outer_bags": 2,
        "max_rounds": 30,
    }
    given |= {"n_jobs": 1, "feature_names": COLUMNS, "feature_types": TYPES}
    return lambda seed: getattr(glassbox, kind)(random_state=seed, **(given | options))


CLASSIFIERS = {
    "two classes": (_machine("ExplainableBoostingClassifier"), 2),
    "without pairs": (_machine("ExplainableBoostingClassifier", interactions=0), 2),
    "three classes": (_machine("ExplainableBoostingClassifier", interactions=0), 3),
    "triples": (_machine("ExplainableBoostingClassifier", interactions=[(0, 1, 2), (1, 3)]), 2),
}
REGRESSORS = {
    "regression": _machine("ExplainableBoostingRegressor"),
    "log link": _machine("ExplainableBoostingRegressor", objective="poisson_deviance"),
}


def _data(seed: int, count: int = 200) -> tuple[pd.DataFrame, np.random.Generator]:
    random = np.random.default_rng(seed)
    return table(random, count), random


def _fitted(machine: Any, X: pd.DataFrame, y: Any) -> Any:
    with warnings.catch_warnings(action="ignore"):
        return machine.fit(X, y)


def _others(X: pd.DataFrame) -> pd.DataFrame:
    """Rows with unknown categories, infinities and gaps."""
    others = X[:8].copy()
    others["city"] = ["Chur", "", None, "Bern", "Ulm", "Chur", None, "Bern"]
    others["rooms"] = [1.0, 77.0, 2.5, np.nan, 3.0, np.nan, -1.0, 1.0]
    others["income"] = [np.inf, -np.inf, np.nan, 0.0, 1e300, -1e300, np.nan, 1.0]
    others["age"] = np.nan
    return others


def check(name: str, seed: int, *, plans: bool = False) -> None:
    frame, random = _data(seed)
    X = frame[COLUMNS]
    if name in CLASSIFIERS:
        make, class_count = CLASSIFIERS[name]
        y = labels(frame, random, class_count)
    else:
        make, y = REGRESSORS[name], np.log1p(frame["income"])
    machine = _fitted(make(seed % 1000), X, y)
    model = fold(machine)
    for rows in (X, _others(X)):
        given = rows_of(model, rows)
        features = model.features(given)
        assert ((features == 0) | (features == 1)).all()
        scores = model.decision(features)
        own = machine._predict_score(rows).reshape(len(rows), -1)
        np.testing.assert_allclose(scores, own, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(model.expected_scores(given), own, rtol=1e-12, atol=1e-12)
        predicted, expected = model.output.predict(scores), machine.predict(rows)
        if model.output.task is Task.REGRESSION:
            np.testing.assert_allclose(predicted, expected, rtol=1e-9)
            continue
        np.testing.assert_allclose(model.output.predict_proba(scores), machine.predict_proba(rows), atol=1e-9)
        np.testing.assert_allclose(
            model.output.decision_function(scores), machine.decision_function(rows), rtol=1e-9, atol=1e-12
        )
        clear = is_no_tie(model.output, scores, 1e-9)
        np.testing.assert_array_equal(predicted[clear], expected[clear])
    if plans:
        assert_served(machine, model, rows_of(model, X), given=X)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_machine_becomes_bins_and_cells(name: str, seed: int) -> None:
    check(name, seed)


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
@given(seed=st.integers(0, 2**32 - 1))
def test_a_machine_becomes_bins_and_cells_at_length(name: str, seed: int) -> None:
    check(name, seed, plans=True)


@pytest.mark.parametrize("name", [*CLASSIFIERS, *REGRESSORS])
def test_scores_are_within_the_published_bound(name: str) -> None:
    check(name, 1, plans=True)


def test_a_row_is_in_one_bin_of_each_term() -> None:
    frame, random = _data(1)
    machine = _fitted(CLASSIFIERS["two classes"][0](0), frame[COLUMNS], labels(frame, random))
    model = fold(machine)
    assert model.published is not None
    groups = model.published.ranges.groups
    assert len(groups) == len(machine.term_features_) == 7
    assert sorted(np.concatenate([group.members for group in groups]).tolist()) == list(range(model.feature_count))
    assert [column.allows_missing for column in model.published.columns] == [True] * 4
    assert [column.kind.is_text for column in model.published.columns] == [False, False, True, False]


def test_cut_points_need_consent_and_those_of_few_rows_more() -> None:
    frame, random = _data(2)
    X, y = frame[COLUMNS], labels(frame, random)
    (publication,) = fold(_fitted(CLASSIFIERS["two classes"][0](0), X, y)).publications
    assert publication.consent is Consent.STRUCTURE
    assert "cut points between values of training rows" in publication.tells
    assert not publication.training_values
    few = _machine("ExplainableBoostingClassifier", max_bins=256)(0)
    (publication,) = fold(_fitted(few, X, y)).publications
    assert "so that cut points bracket single values: fit it with max_bins=20 or fewer" in publication.training_values
    with warnings.catch_warnings(action="ignore"):
        weighted = CLASSIFIERS["two classes"][0](0).fit(X, y, sample_weight=random.uniform(0.5, 2, len(X)))
    (publication,) = fold(weighted).publications
    assert "its rows had weights" in publication.training_values


def test_a_pickle_of_arrays_is_loaded(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    X = random.normal(size=(200, 3))
    machine = glassbox.ExplainableBoostingRegressor(outer_bags=2, max_rounds=20, n_jobs=1, random_state=0)
    joblib.dump(_fitted(machine, X, X[:, 0] * X[:, 1]), tmp_path / "model.joblib")
    model = load_model(tmp_path / "model.joblib", trust_pickle=True)
    assert model.output.link is Link.NONE
    np.testing.assert_allclose(model.decision(model.features(X))[:, 0], machine.predict(X), rtol=1e-9, atol=1e-12)


def test_what_is_no_sum_of_terms_is_refused() -> None:
    frame, _ = _data(4)
    X = frame[COLUMNS]
    with pytest.raises(UnsupportedModelError, match="fit it with two classes or more"):
        fold(_fitted(CLASSIFIERS["two classes"][0](0), X, np.ones(len(X), int)))
    with pytest.raises(UnsupportedModelError, match="RegressionTree is not supported"):
        fold(glassbox.RegressionTree().fit(X[["income"]], frame["rooms"]))
