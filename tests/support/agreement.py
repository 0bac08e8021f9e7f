"""Agreement of a model with the scikit-learn estimator that it was made of."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.output import Output, Task
from sealserve_service.engines import offering
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.declared import known_ranges
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.plan import Plan

Rows = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ServedScores:
    """What a client would decrypt of some rows.

    Attributes:
        scores: (rows, score_count): encryption changes nothing, so they need none.
        bound: the published bound on their errors.
    """

    scores: Rows
    bound: float


def served_scores(model: LinearModel, rows: Rows, hiding_bits: int | None = None) -> ServedScores:
    """Plan a model as `serve` does, with the rows to calibrate, and score them on its grid."""
    features = model.features(rows)
    declared = None if model.published is None else known_ranges(model.published.ranges)
    planned = next(
        offering.plan_layouts(
            model,
            input_ranges(model, calibration=features, declared=declared),
            modes=(hiding_bits,),
            calibration=rows,
            accept_disagreement=True,
        )
    )
    plan = planned.chosen
    assert isinstance(plan, Plan), plan
    integers, is_refused = plan.grid.quantize(features)
    assert not is_refused.any()
    scores = integers.astype(object) @ plan.model.weights.T.astype(object) + np.array(plan.model.intercept, object)
    return ServedScores((scores / plan.model.score_scale).astype(np.float64), plan.total_error_bound)


def is_no_tie(output: Output, scores: Rows, bound: float) -> NDArray[np.bool_]:
    """Whether no error within the bound changes the label of a row, as far as 40 show."""
    labels = output.predict(scores).reshape(len(scores), -1)
    stays = np.ones(len(scores), np.bool_)
    for errors in np.random.default_rng(0).choice([-1.0, -0.5, 0.5, 1.0], (40, 1, scores.shape[1])):
        stays &= (output.predict(scores + bound * errors).reshape(len(scores), -1) == labels).all(axis=1)
    return stays


def assert_folded(estimator: Any, model: LinearModel, rows: Rows) -> None:
    """`W x + b` and its output predict what the estimator predicts, but for rounding errors."""
    scores = model.decision(model.features(rows))
    np.testing.assert_allclose(model.expected_scores(rows), scores, rtol=1e-9, atol=1e-9 * (1 + np.abs(scores).max()))
    predicted, expected = model.output.predict(scores), np.asarray(estimator.predict(rows))
    assert predicted.shape == expected.shape
    if model.output.task is Task.REGRESSION:
        np.testing.assert_allclose(predicted, expected, rtol=1e-8, atol=1e-9 * (1 + np.abs(expected).max()))
    else:
        clear = is_no_tie(model.output, scores, 1e-9 * (1 + np.abs(scores).max()))
        np.testing.assert_array_equal(predicted[clear], expected[clear])
    has_decision = hasattr(estimator, "decision_function")
    assert has_decision == (model.output.task is not Task.REGRESSION and not model.output.has_no_decision_function)
    if has_decision:
        own = estimator.decision_function(rows)
        found = model.output.decision_function(scores)
        assert found.shape == own.shape
        np.testing.assert_allclose(found, own, rtol=1e-8, atol=1e-8 * (1 + np.abs(own).max()))
    assert hasattr(estimator, "predict_proba") == model.output.has_probabilities
    if model.output.has_probabilities:
        own = estimator.predict_proba(rows)
        if isinstance(own, list):  # of MultiOutputClassifier: an array a label
            own = np.stack([of_label[:, 1] for of_label in own], axis=1)
        np.testing.assert_allclose(model.output.predict_proba(scores), own, rtol=1e-6, atol=1e-8)


def assert_served(
    estimator: Any, model: LinearModel, rows: Rows, hiding_bits: int | None = None, *, given: Any = None
) -> None:
    """What clients decrypt is within the published bound, and labels are equal outside of ties.

    Args:
        estimator: predicts the labels.
        model: was made of it.
        rows: as a client reads them.
        hiding_bits: of private weights.
        given: the rows as the estimator takes them, if it does not take an array.
    """
    served = served_scores(model, rows, hiding_bits)
    own = model.expected_scores(rows)
    assert np.abs(served.scores - own).max() <= served.bound * (1 + 1e-9)
    if model.output.task is not Task.REGRESSION:
        clear = is_no_tie(model.output, own, served.bound)
        predicted = model.output.predict(served.scores)
        expected = np.asarray(estimator.predict(rows if given is None else given))
        np.testing.assert_array_equal(predicted[clear], expected[clear])
