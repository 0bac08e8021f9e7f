"""Ill-conditioned pipelines: their weights are rounding errors. Refusals say what to do."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

from sealserve.he.quantization import InputGrid
from sealserve.protocol.output import Output, Task
from sealserve_service.engines import offering
from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.score_error import CalibrationScores, observe

Rows = NDArray[np.float64]
SOLVERS = ("full", "covariance_eigh", "arpack", "randomized")


@pytest.fixture(scope="module")
def wine() -> tuple[Rows, NDArray[np.int64]]:
    X, y = load_wine(return_X_y=True)
    return X, y


def collinear(X: Rows) -> Rows:
    """Add columns that follow from others."""
    return np.hstack([X, X[:, :3] @ np.array([[1.0, 0.5], [-2.0, 3.0], [0.1, 7.0]])])


def classified(*steps: Any) -> Any:
    return make_pipeline(*steps, LogisticRegression(max_iter=2000))


# Whitening


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", SOLVERS)
def test_whitened_collinear_columns_are_refused(solver: str, dtype: Any, wine: Any, fit: Any) -> None:
    X, y = wine
    count = 14 if solver == "arpack" else 15  # 13 components vary; arpack finds one fewer than there are columns
    pca = PCA(count, whiten=True, svd_solver=solver, random_state=0)
    pipeline = fit(classified(StandardScaler(), pca), collinear(X).astype(dtype), y)
    with pytest.raises(
        UnsupportedModelError, match=r"step 'pca' \(PCA\) .* ill-conditioned: .*columns that are"
    ) as refusal:
        fold(pipeline)
    assert "columns that are constant or follow from others" in str(refusal.value)
    if "n_components" in str(refusal.value):
        assert "n_components=13 or fewer" in str(refusal.value)
    remedied = fit(classified(StandardScaler(), PCA(13, whiten=True, random_state=0)), collinear(X), y)
    model = fold(remedied)
    np.testing.assert_array_equal(model.output.predict(model.decision(collinear(X))), remedied.predict(collinear(X)))


def test_what_was_served_before_had_half_of_the_labels(wine: Any, fit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = collinear(wine[0]), wine[1]
    pipeline = fit(classified(PCA(whiten=True, svd_solver="covariance_eigh")), X, y)
    monkeypatch.setattr("sealserve_service.models.pipeline_steps.fault", lambda conditions: None)
    model = fold(pipeline)
    assert np.abs(model.weights).max() > 1e6
    grid = InputGrid.of(model.feature_count, X.min(axis=0), X.max(axis=0))
    on_grid = grid.minimum + np.rint((X - grid.minimum) / grid.step) * grid.step
    assert np.mean(model.output.predict(model.decision(on_grid)) == pipeline.predict(X)) < 0.8
    monkeypatch.undo()
    with pytest.raises(UnsupportedModelError, match=r"\(PCA\) .* ill-conditioned"):
        fold(pipeline)


def test_constant_columns_are_refused_when_they_are_whitened(fit: Any) -> None:
    X, y = load_digits(return_X_y=True)  # three pixels are always 0
    with pytest.raises(UnsupportedModelError, match=r"step 'pca' \(PCA\) .* 3 of its 64 .* n_components=61 or fewer"):
        fold(fit(classified(PCA(whiten=True, svd_solver="full")), X / 16, y))


@pytest.mark.parametrize(
    ("projection", "scaler"),
    [
        (PCA(), StandardScaler()),
        (PCA(), MinMaxScaler()),
        (PCA(), MaxAbsScaler()),
        (TruncatedSVD(15, random_state=0), StandardScaler()),  # other scalers take its last value for a constant
    ],
    ids=repr,
)
def test_a_scaler_after_a_projection_whitens_too(projection: Any, scaler: Any, wine: Any, fit: Any) -> None:
    X, y = collinear(wine[0]), wine[1]
    pipeline = fit(classified(MinMaxScaler(), clone(projection), clone(scaler)), X, y)
    # The value that is left of collinear columns is a rounding error, which differs from processor
    # to processor: what is said of it does, too.
    said = rf"\({type(projection).__name__}\) .* (a step after it divides|varies so little)"
    with pytest.raises(UnsupportedModelError, match=said):
        fold(pipeline)


def test_a_scale_of_rounding_errors_is_refused(wine: Any, fit: Any) -> None:
    # What a scaler of scikit-learn 0.22 makes of a constant column.
    pipeline = fit(classified(StandardScaler()), *wine)
    pipeline[0].mean_[3], pipeline[0].scale_[3] = 0.1, 1.4e-17
    with pytest.raises(UnsupportedModelError, match=r"step 'standardscaler' .* value 3 varies so little.* if it is"):
        fold(pipeline)


@pytest.mark.parametrize(
    "steps",
    [
        [PCA(whiten=True)],
        [StandardScaler(), PCA(whiten=True)],
        [PCA(), StandardScaler()],
        [StandardScaler(), PCA(10, whiten=True, svd_solver="covariance_eigh")],
        [TruncatedSVD(10, algorithm="arpack"), MinMaxScaler()],
        [StandardScaler(with_std=False), PCA(whiten=True)],
    ],
    ids=repr,
)
def test_what_is_well_conditioned_is_served(steps: list[Any], fit: Any) -> None:
    """Also where columns have quite different units."""
    for X, y in (load_wine(return_X_y=True), load_breast_cancer(return_X_y=True)):
        units = np.geomspace(0.1, 10.0, X.shape[1])
        for rows in (X, X * units):
            pipeline = fit(classified(*map(clone, steps)), rows, y)
            model = fold(pipeline)
            scores = model.decision(rows)
            np.testing.assert_array_equal(model.output.predict(scores), pipeline.predict(rows))


def test_units_of_any_size_are_well_conditioned_behind_a_scaler(fit: Any) -> None:
    """A feature that varies by a billionth varies as much as any: a scaler takes units away."""
    random = np.random.default_rng(0)
    rows, units = random.normal(size=(500, 6)), 10.0 ** np.array([-9, -4, 0, 2, 7, 9])
    labels = rows @ random.normal(size=6) > 0
    for scaler in (StandardScaler(), MinMaxScaler()):
        pipeline = fit(classified(scaler), rows * units, labels)
        np.testing.assert_allclose(
            fold(pipeline).decision(rows * units)[:, 0], pipeline.decision_function(rows * units)
        )


def test_weights_that_a_model_itself_makes_huge_are_left_to_the_planner(wine: Any, fit: Any) -> None:
    X, y = wine
    nearly = np.hstack([X, X[:, :1] + 1e-9 * np.random.default_rng(0).normal(size=(len(X), 1))])
    pipeline = fit(make_pipeline(StandardScaler(), LinearRegression()), nearly, y)
    pipeline[-1].coef_[[0, -1]] += 1e7, -1e7
    np.testing.assert_allclose(fold(pipeline).decision(nearly)[:, 0], pipeline.predict(nearly), atol=1e-5)


# Against the estimator itself


def test_errors_are_observed_against_the_estimator(wine: Any, fit: Any) -> None:
    X, y = wine
    pipeline = fit(classified(StandardScaler()), X, y)
    model = fold(pipeline)
    np.testing.assert_allclose(model.expected_scores(X), pipeline.decision_function(X), rtol=1e-12, atol=1e-12)
    grid = InputGrid.of(model.feature_count, X.min(axis=0), X.max(axis=0))
    planned = next(offering.plan_layouts(model, grid, modes=[None]))
    assert not isinstance(planned.chosen, Exception)
    calibration = CalibrationScores.of(model, X)
    np.testing.assert_array_equal(calibration.scores, model.expected_scores(X))
    observed = observe(model.output, grid, planned.chosen.model, calibration)
    assert 0 <= observed.other_labels <= 0.1 * len(X)
    # Weights that are a bad fold: compared with themselves, they would have no error.
    other = dataclasses.replace(model, weights=model.weights * (1 + 1e-2))
    with pytest.raises(UnsupportedModelError, match=r"scores of the calibration rows differ .* Leave out columns"):
        CalibrationScores.of(other, X)


def test_a_fold_that_is_not_its_estimator_is_refused_with_calibration_rows(
    wine: Any, fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = collinear(wine[0]), wine[1]
    pipeline = fit(classified(PCA(whiten=True, svd_solver="full")), X, y)
    monkeypatch.setattr("sealserve_service.models.pipeline_steps.fault", lambda conditions: None)
    with pytest.raises(UnsupportedModelError, match="differ from those of the weights"):
        fold(pipeline).expected_scores(X)


@pytest.mark.parametrize("count", [1, 2])
def test_few_rows_and_equal_scores_are_no_difference(count: int, wine: Any, fit: Any) -> None:
    X, y = wine
    model = fold(fit(classified(StandardScaler(), PCA(5, whiten=True)), X, y))
    assert model.expected_scores(np.repeat(X[:1], count, axis=0)).shape == (count, 3)


def test_an_estimator_that_cannot_score_here_leaves_its_weights(
    wine: Any, fit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    X, y = wine
    estimator = fit(LogisticRegression(max_iter=2000), X, y)
    model = fold(estimator)
    del estimator.intercept_  # as an attribute that another version renamed
    np.testing.assert_array_equal(model.expected_scores(X), model.decision(X))
    assert "cannot score with the estimator" in caplog.text


def test_weights_without_an_estimator_are_their_own_measure() -> None:
    weights = np.arange(6.0).reshape(2, 3)
    model = LinearModel(weights, np.zeros(2), Output(Task.REGRESSION, 2))
    rows = np.ones((4, 3))
    np.testing.assert_array_equal(model.expected_scores(rows), model.decision(rows))
