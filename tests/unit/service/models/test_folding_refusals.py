"""What is not folded: each refusal names the step and says what to do."""

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import Birch, FeatureAgglomeration
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, NuSVC

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
        fold(fit(KNeighborsClassifier(), rows, groups))
    message = str(refusal.value)
    assert message.startswith("KNeighborsClassifier is not supported. Supported models: LogisticRegression, ")
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
    estimator = fit(OneVsRestClassifier(KNeighborsClassifier()), rows, groups)
    with pytest.raises(UnsupportedModelError, match=r"step 'estimators_\[0\]' \(KNeighborsClassifier\)"):
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


@pytest.mark.parametrize("step", [FeatureAgglomeration(2), Birch(n_clusters=2)], ids=repr)
def test_another_step_is_refused_by_its_path(step: Any, rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    inner = Pipeline([("scale", StandardScaler()), ("mine", clone(step))])
    pipeline = fit(Pipeline([("prepare", inner), ("classify", LogisticRegression())]), rows, groups)
    with pytest.raises(UnsupportedModelError) as refusal:
        fold(pipeline)
    message = str(refusal.value)
    assert message.startswith(f"step 'prepare__mine' ({type(step).__name__}) is not supported.")
    assert "StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler, PCA, IncrementalPCA, TruncatedSVD" in message
    assert "'passthrough'. To leave it to the application" in message


class Mine(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A user's own transformer, of no base that is served."""

    def fit(self, X: Any, y: Any = None) -> Any:
        self.n_features_in_ = np.shape(X)[1]
        return self

    def transform(self, X: Any) -> Any:
        return np.round(X)


def test_a_users_own_step_in_a_branch_says_how_to_leave_it_to_the_application(
    rows: Rows, groups: NDArray[np.int64], fit: Any
) -> None:
    columns = ColumnTransformer([("a", StandardScaler(), [0]), ("mine", Mine(), [1, 2])])
    pipeline = fit(make_pipeline(columns, LogisticRegression()), rows, groups)
    with pytest.raises(UnsupportedModelError) as refusal:
        fold(pipeline)
    assert str(refusal.value).startswith("step 'columntransformer__mine' (Mine) is not supported.")
    assert "serve pipeline[k:]" in str(refusal.value)
    # And so it is done:
    model = fold(pipeline[1:])
    scores = model.output.decision_function(model.decision(pipeline[:1].transform(rows)))
    np.testing.assert_allclose(scores, pipeline.decision_function(rows), rtol=1e-9, atol=1e-9)


class Squared(StandardScaler):  # type: ignore[misc]
    """A user's own step."""

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        return super().transform(X, copy) ** 2


def test_a_subclass_of_a_step_is_refused(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    pipeline = fit(make_pipeline(Squared(), LogisticRegression()), rows, groups)
    with pytest.raises(UnsupportedModelError, match=r"step 'squared' \(Squared\) is a subclass of StandardScaler"):
        fold(pipeline)


@pytest.mark.parametrize("scaler", [MinMaxScaler, MaxAbsScaler])
def test_clipping_does_not_fold(scaler: Any, rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    if "clip" not in scaler().get_params():
        pytest.skip("this scikit-learn has no such parameter")
    model = fold(fit(make_pipeline(scaler(clip=True), LogisticRegression()), rows, groups))
    assert model.published is not None
    assert [type(step).__name__ for step in model.published.program.steps] == ["Affine", "Elementwise"]


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


# What is linear only in some of its forms


def test_a_function_is_refused_by_its_name(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    for function, name in ((np.round, "round"), (lambda X: X**2, "<lambda>")):
        pipeline = fit(
            make_pipeline(FunctionTransformer(function), StandardScaler(), LogisticRegression()), rows**2, groups
        )
        with pytest.raises(UnsupportedModelError, match="step 'functiontransformer'") as refusal:
            fold(pipeline)
        for part in (repr(name), "serve pipeline[k:]", "client.predict(pipeline[:k].transform(X))"):
            assert part in str(refusal.value)


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (
            SVC(),
            r"kernel 'rbf' is neither linear nor poly.* support vectors, which are training rows: .* kernel='linear'"
            " or kernel='poly', or put a RBFSampler with a fixed seed",
        ),
        (NuSVC(kernel="sigmoid", nu=0.2), "kernel 'sigmoid' is neither linear"),
        (SVC(kernel="poly", degree=0), "degree of its kernel is 0"),
        (AdaBoostClassifier(LogisticRegression(), n_estimators=2), "votes of its members are linear for trees only"),
        (OneVsOneClassifier(GaussianNB()), "have no decision_function"),
        (OneVsOneClassifier(MultinomialNB()), "have no decision_function"),
        (OneVsOneClassifier(Ridge()), "are no classifiers"),
        (MLPClassifier((3,), max_iter=5), "activation 'relu' is not affine: fit it with activation='identity'"),
        (CalibratedClassifierCV(MultinomialNB(), cv=2), "calibrates probabilities, which are no linear function"),
        (CalibratedClassifierCV(SVC(kernel="linear"), cv=2), "made of votes"),
        (MultiOutputClassifier(LogisticRegression()), "do not have one score each: serve each"),
        (GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2, refit=False), "refit=False"),
        (OneVsRestClassifier(CalibratedClassifierCV(LinearSVC(), cv=2)), "average probabilities"),
    ],
    ids=repr,
)
def test_what_is_linear_in_other_forms_says_which(
    estimator: Any, reason: str, rows: Rows, groups: Rows, fit: Any
) -> None:
    targets = np.stack([groups, groups], axis=1) if isinstance(estimator, MultiOutputClassifier) else groups
    with warnings.catch_warnings(action="ignore"):
        fitted = fit(clone(estimator), np.abs(rows), targets)
    with pytest.raises(UnsupportedModelError, match=reason):
        fold(fitted)


def test_naive_bayes_of_one_class_is_refused(rows: Rows, fit: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="fitted with one class"):
        fold(fit(MultinomialNB(), np.abs(rows), np.ones(len(rows))))


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (TransformedTargetRegressor(Ridge(), func=np.sqrt, inverse_func=np.square), "inverse_func 'square' is neither"),
        (TransformedTargetRegressor(Ridge(), transformer=PCA(2)), "mixes targets"),
        (TransformedTargetRegressor(PoissonRegressor(), func=np.log, inverse_func=np.exp), "a link of its own"),
        (KernelRidge(kernel="rbf"), "kernel 'rbf' is neither linear.* training rows"),
        (KernelRidge(kernel="poly", degree=2.5, coef0=1e4), "neither linear nor a polynomial of whole degree"),
        (AdaBoostRegressor(n_estimators=3), "median of its members.*GradientBoostingRegressor"),
    ],
    ids=repr,
)
def test_a_regressor_that_is_not_linear_says_why(
    estimator: Any, reason: str, rows: Rows, targets: Rows, fit: Any
) -> None:
    y = np.abs(targets) + 1 if "PCA" in repr(estimator) else np.abs(targets[:, 0]) + 1
    with warnings.catch_warnings(action="ignore"):
        fitted = fit(clone(estimator), rows, y)
    with pytest.raises(UnsupportedModelError, match=reason):
        fold(fitted)


def test_a_step_in_a_branch_is_named(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    columns = ColumnTransformer([("a", StandardScaler(), [0]), ("b", make_pipeline(FeatureAgglomeration(2)), [1, 2])])
    with pytest.raises(
        UnsupportedModelError, match=r"step 'columntransformer__b__featureagglomeration' \(FeatureAgglomeration\)"
    ):
        fold(fit(make_pipeline(columns, LogisticRegression()), rows, groups))


def test_an_ill_conditioned_step_in_a_branch_is_named(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    doubled = np.hstack([rows[:, :3], rows[:, :3]])
    whitened = PCA(6, whiten=True, svd_solver="full")
    columns = ColumnTransformer([("a", StandardScaler(), [0]), ("b", whitened, slice(0, 6))])
    with pytest.raises(UnsupportedModelError, match=r"step 'columntransformer__b' \(PCA\) .* ill-conditioned"):
        fold(fit(make_pipeline(columns, LogisticRegression()), doubled, groups))


def test_columns_that_there_are_not_are_refused(rows: Rows, groups: NDArray[np.int64], fit: Any) -> None:
    pipeline = fit(
        make_pipeline(ColumnTransformer([("a", StandardScaler(), [0, 2])]), LogisticRegression()), rows, groups
    )
    for columns in ([0, 6], [0, -7], [True, False], [0, "age"]):
        pipeline[0].transformers_[0] = ("a", pipeline[0].transformers_[0][1], columns)
        with pytest.raises(UnsupportedModelError, match=r"step 'columntransformer' \(ColumnTransformer\) cannot"):
            fold(pipeline)
