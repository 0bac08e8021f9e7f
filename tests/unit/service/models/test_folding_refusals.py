"""What is not folded: each refusal names the step and says what to do."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, PolynomialFeatures, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from sealserve_service.models.errors import UnsupportedModelError
from sealserve_service.models.folding import fold

Rows = NDArray[np.float64]


class Reversed(LogisticRegression):  # type: ignore[misc]
    """A user's own estimator, whose scores are not what its coefficients say."""

    def predict(self, X: Any) -> Any:
        return super().predict(X)[::-1]


def test_a_subclass_is_refused(rows: Rows, groups: Rows, fit: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"Reversed is a subclass of LogisticRegression .* save .* \.npz"):
        fold(fit(Reversed(), rows, groups))


def test_another_estimator_is_refused_with_what_is_supported(rows: Rows, groups: Rows, fit: Any) -> None:
    with pytest.raises(UnsupportedModelError) as refusal:
        fold(fit(DecisionTreeClassifier(), rows, groups))
    message = str(refusal.value)
    assert message.startswith("DecisionTreeClassifier is not supported. Supported models: LogisticRegression, ")
    for name in ("OneVsRestClassifier", "MultiOutputRegressor", "Pipeline", "StandardScaler", "PCA", "'passthrough'"):
        assert name in message


def test_what_is_no_estimator_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="dict is not supported"):
        fold({"coef": 1})


@pytest.mark.parametrize("estimator", [LogisticRegression(), OneVsRestClassifier(LinearSVC()), Ridge()], ids=repr)
def test_an_unfitted_estimator_is_refused(estimator: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{type(estimator).__name__} .* not fitted yet"):
        fold(estimator)


def test_a_member_of_a_meta_estimator_is_named(rows: Rows, groups: Rows, fit: Any) -> None:
    estimator = fit(OneVsRestClassifier(DecisionTreeClassifier()), rows, groups)
    with pytest.raises(UnsupportedModelError, match=r"step 'estimators_\[0\]' \(DecisionTreeClassifier\)"):
        fold(estimator)


@pytest.mark.filterwarnings("ignore:Label .* is present")
@pytest.mark.parametrize("answer", [0, 1])
def test_a_label_that_is_always_or_never_there_is_refused(
    answer: int, rows: Rows, indicators: NDArray[np.int64], fit: Any
) -> None:
    y = indicators.copy()
    y[:, 1] = answer
    with pytest.raises(UnsupportedModelError, match="all training rows agree on label 1"):
        fold(fit(OneVsRestClassifier(LogisticRegression()), rows, y))


def test_numbers_that_are_not_finite_are_refused(rows: Rows, groups: Rows, fit: Any) -> None:
    estimator = fit(LogisticRegression(), rows, groups)
    estimator.coef_[1, 2] = np.nan
    with pytest.raises(UnsupportedModelError, match=r"LogisticRegression .* infinity in the weights, .* \(1, 2\)"):
        fold(estimator)


def test_a_damaged_estimator_is_refused(rows: Rows, groups: Rows, fit: Any) -> None:
    estimator = fit(LogisticRegression(), rows, groups)
    del estimator.intercept_
    with pytest.raises(UnsupportedModelError, match=r"LogisticRegression cannot be served: .*intercept_"):
        fold(estimator)


def test_a_multi_output_regressor_of_classifiers_is_refused(
    rows: Rows, indicators: NDArray[np.int64], fit: Any
) -> None:
    estimator = fit(MultiOutputRegressor(LogisticRegression()), rows, indicators)
    with pytest.raises(UnsupportedModelError, match=r"MultiOutputRegressor cannot be served: .* are classifiers"):
        fold(estimator)


# Pipelines


@pytest.mark.parametrize("step", [PolynomialFeatures(), RobustScaler()], ids=repr)
def test_another_step_is_refused_by_its_path(step: Any, rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    inner = Pipeline([("scale", StandardScaler()), ("mine", clone(step))])
    pipeline = fit(Pipeline([("prepare", inner), ("classify", LogisticRegression())]), rows, groups)
    with pytest.raises(UnsupportedModelError) as refusal:
        fold(pipeline)
    message = str(refusal.value)
    assert message.startswith(f"step 'prepare__mine' ({type(step).__name__}) is not supported.")
    assert "StandardScaler, MinMaxScaler, MaxAbsScaler, PCA, TruncatedSVD, 'passthrough'" in message


class Squared(StandardScaler):  # type: ignore[misc]
    """A user's own step."""

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        return super().transform(X, copy) ** 2


def test_a_subclass_of_a_step_is_refused(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    pipeline = fit(make_pipeline(Squared(), LogisticRegression()), rows, groups)
    with pytest.raises(UnsupportedModelError, match=r"step 'squared' \(Squared\) is a subclass of StandardScaler"):
        fold(pipeline)


@pytest.mark.parametrize("scaler", [MinMaxScaler, MaxAbsScaler])
def test_clipping_is_refused(scaler: Any, rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    if "clip" not in scaler().get_params():
        pytest.skip("this scikit-learn has no such parameter")
    pipeline = fit(make_pipeline(scaler(clip=True), LogisticRegression()), rows, groups)
    with pytest.raises(UnsupportedModelError, match=rf"\({scaler.__name__}\) .* clips, .*clip=False"):
        fold(pipeline)


def test_an_unfitted_step_is_refused(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    pipeline = Pipeline([("scale", StandardScaler()), ("classify", fit(LogisticRegression(), rows, groups))])
    with pytest.raises(UnsupportedModelError, match=r"step 'scale' \(StandardScaler\) .* not fitted yet"):
        fold(pipeline)


def test_steps_that_do_not_fit_together_are_refused(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    classifier = fit(LogisticRegression(), rows[:, :4], groups)
    for step, columns in ((StandardScaler(), 1), (PCA(3), 6)):
        pipeline = make_pipeline(fit(step, rows[:, :columns]), classifier)
        with pytest.raises(UnsupportedModelError, match=r"[13] values come out of a step, 4 go into the next"):
            fold(pipeline)


def test_a_step_that_is_not_finite_is_refused(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    pipeline = fit(make_pipeline(StandardScaler(), LogisticRegression()), rows, groups)
    pipeline[0].mean_[0] = np.inf
    with pytest.raises(UnsupportedModelError, match=r"step 'standardscaler' \(StandardScaler\) .* infinity"):
        fold(pipeline)


def test_a_pipeline_without_a_model_is_refused(rows: Rows, fit: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="Pipeline cannot be served: none of its steps is a model"):
        fold(fit(Pipeline([("nothing", "passthrough")]), rows))
    with pytest.raises(UnsupportedModelError, match=r"step 'scale' \(StandardScaler\) is not supported"):
        fold(fit(Pipeline([("scale", StandardScaler()), ("nothing", None)]), rows))
