"""Boosted trees in files of other libraries, against the libraries themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.protocol.output import Output, Task
from sealserve.steps.trees import Trees
from sealserve_service.engines import offering
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import load_model
from sealserve_service.planning.declared import known_ranges
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.plan import Plan
from tests.support.agreement import is_no_tie
from tests.support.boosting import (
    FITS,
    Fitted,
    Rows,
    numbers,
    probes,
    quietly,
)


def leaves_of(model: LinearModel, features: Rows) -> NDArray[np.intp]:
    """The leaf of each tree that rows reach: the last one if no kept one is 1."""
    assert model.published is not None
    trees = model.published.program.steps[-1]
    assert isinstance(trees, Trees)
    found, start = [], 0
    for count in (trees.leaf_counts - 1).tolist():
        kept = features[:, start : start + count]
        assert (kept.sum(axis=1) <= 1).all()
        found.append(np.where(kept.any(axis=1), kept.argmax(axis=1) if count else 0, count))
        start += count
    return np.stack(found, axis=1)


def assert_same_cells(own: NDArray[np.intp], found: NDArray[np.intp]) -> None:
    """Leaves have other numbers, but the same rows."""
    assert own.shape == found.shape
    for first, second in zip(own.T, found.T, strict=True):
        pairs = len(np.unique(np.stack([first, second]), axis=1).T)
        assert pairs == len(np.unique(first)) == len(np.unique(second))


def plan_of(model: LinearModel) -> Plan[Any]:
    assert model.published is not None
    ranges = input_ranges(model, declared=known_ranges(model.published.ranges))
    planned = next(offering.plan_layouts(model, ranges, modes=(None,), accept_disagreement=True))
    assert isinstance(planned.chosen, Plan)
    return planned.chosen


def assert_within_bound(model: LinearModel, features: Rows, expected: Rows, error: float) -> float:
    """What clients decrypt is within the published bound, which is returned."""
    plan = plan_of(model)
    integers, is_refused = plan.grid.quantize(features)
    assert not is_refused.any()
    scores = integers.astype(object) @ plan.model.weights.T.astype(object) + np.array(plan.model.intercept, object)
    served = (scores / plan.model.score_scale).astype(np.float64)
    assert np.abs(served - expected).max() <= plan.total_error_bound + error
    return plan.total_error_bound


def assert_predicts(output: Output, scores: Rows, rows: Rows, fitted: Fitted, error: float) -> None:
    """Labels are equal outside of ties, and so are targets and probabilities."""
    estimator = fitted.estimator
    predicted, expected = output.predict(scores), np.asarray(estimator.predict(rows))
    if output.task is Task.REGRESSION:
        np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=error)
        return
    clear = is_no_tie(output, scores, error)
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(predicted[clear], expected.ravel()[clear])
    if output.has_probabilities:
        np.testing.assert_allclose(output.predict_proba(scores), estimator.predict_proba(rows), rtol=1e-5, atol=1e-6)


def check(name: str, seed: int, folder: Path, *, plans: bool) -> None:
    random = np.random.default_rng(seed)
    X = numbers(random)
    fitted = FITS[name](X, random)
    with quietly():
        model = load_model(fitted.saved(folder), trust_pickle=False)
        assert model.published is not None
        trees = model.published.program.steps[-1]
        assert isinstance(trees, Trees)
        rows = probes(X, np.unique(trees.thresholds[np.isfinite(trees.thresholds)]))
        features = model.features(rows)
        assert ((features == 0) | (features == 1)).all()
        own_leaves = fitted.leaves(rows)
        found = leaves_of(model, features)
        assert_same_cells(own_leaves[:, : found.shape[1]], found)
        scores, own = model.decision(features), fitted.scores(rows)
        sizes = np.abs(model.weights).max() * found.shape[1] + np.abs(model.intercept).max() + 1
        error = sizes * found.shape[1] * 2.0**-fitted.float_bits
        np.testing.assert_allclose(scores, own, rtol=0, atol=error)
        if plans:
            assert assert_within_bound(model, features, own, error) < np.ptp(own) + 1
        assert_predicts(model.output, scores, rows, fitted, error)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", FITS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_file_is_served_as_its_library_predicts(name: str, seed: int, tmp_path: Path) -> None:
    check(name, seed, tmp_path, plans=False)


@pytest.mark.parametrize("name", [name for name in FITS if "," not in name or "four classes" in name])
def test_scores_are_within_the_published_bound(name: str, tmp_path: Path) -> None:
    check(name, 1, tmp_path, plans=True)


@pytest.mark.long
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", FITS)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_file_is_served_as_its_library_predicts_at_length(name: str, seed: int, tmp_path: Path) -> None:
    check(name, seed, tmp_path, plans=True)
