"""The limits of models: each is reached, and passed, where memory has not been taken yet."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Binarizer, MinMaxScaler, Normalizer, PolynomialFeatures
from sklearn.svm import SVR

from sealserve.protocol.output import Output, Task
from sealserve_service.models.errors import ModelTooLargeError, UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.limits import (
    MAX_FEATURES,
    MAX_MODEL_BYTES,
    MAX_SCORES,
    MAX_WEIGHTS,
    check_weights,
)
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import load_model
from sealserve_service.models.skops_archive import full_bytes


@pytest.mark.parametrize(
    ("shape", "limit"),
    [
        ((MAX_SCORES + 1, 1), "scores"),
        ((1, MAX_FEATURES + 1), "features"),
        ((MAX_SCORES, MAX_WEIGHTS // MAX_SCORES + 1), "weights"),
    ],
)
def test_weights_are_bounded(shape: tuple[int, int], limit: str) -> None:
    score_count, feature_count = shape
    with pytest.raises(ModelTooLargeError) as caught:
        check_weights(score_count, feature_count)
    assert caught.value.limit == limit
    weights = np.broadcast_to(0.0, shape)  # takes no memory, but its copy would
    with pytest.raises(ModelTooLargeError):
        LinearModel(weights, np.zeros(score_count), Output(Task.REGRESSION, score_count))


def test_the_greatest_weights_pass() -> None:
    check_weights(MAX_SCORES, MAX_WEIGHTS // MAX_SCORES)
    check_weights(MAX_WEIGHTS // MAX_FEATURES, MAX_FEATURES)


def test_a_sparse_matrix_is_bounded_by_its_shape() -> None:
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    model.coef_ = scipy.sparse.csr_matrix(([1.0], ([0], [0])), shape=(MAX_SCORES, MAX_FEATURES))
    with pytest.raises(ModelTooLargeError, match="33,554,432 weights"):
        fold(model)


@pytest.mark.parametrize("attributes", [{"n_features_in_": 10**6}, {"n_features_in_": 10**12}, {"degree": 10**6}])
def test_products_are_bounded_before_they_are_listed(attributes: dict[str, int]) -> None:
    rows = np.arange(12.0).reshape(6, 2)
    model = make_pipeline(PolynomialFeatures(3), LinearRegression()).fit(rows, rows[:, 0])
    vars(model[0]).update(attributes)
    with pytest.raises(ModelTooLargeError):
        fold(model)


@pytest.mark.parametrize("degree", [6, 40, 10**12])
def test_products_of_a_kernel_are_bounded_before_they_are_listed(degree: int) -> None:
    rows = np.random.default_rng(0).normal(size=(8, 60))
    model = SVR(kernel="poly", degree=2, coef0=1.0).fit(rows, rows[:, 0])
    model.degree = degree
    with pytest.raises(ModelTooLargeError):
        fold(model)


@pytest.mark.parametrize("step", [Binarizer(), MinMaxScaler(clip=True), Normalizer(), VarianceThreshold()], ids=repr)
def test_a_number_of_features_is_bounded_before_there_are_so_many(step: Any) -> None:
    rows = np.arange(12.0).reshape(6, 2)
    model = make_pipeline(step, LinearRegression()).fit(rows, rows[:, 0])
    model[0].n_features_in_ = 10**12
    with pytest.raises(ModelTooLargeError, match="features"):
        fold(model)


def test_indices_of_a_sparse_matrix_beyond_its_shape_are_refused() -> None:
    model = LinearRegression().fit([[0.0, 1.0], [1.0, 0.0]], [0.0, 1.0])
    model.coef_ = scipy.sparse.csr_matrix(model.coef_.reshape(1, 2))
    model.coef_.indices = np.array([0, 10**6], np.int32)  # toarray() would write there
    with pytest.raises(UnsupportedModelError, match="ind"):
        fold(model)


@pytest.mark.parametrize("name", ["model.npz", "model.skops", "model.pkl"])
def test_a_file_is_bounded_before_it_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(MAX_MODEL_BYTES + 1)
    with pytest.raises(ModelTooLargeError, match=rf"{name}: the model may have 536,870,912 bytes and has 536,870,913"):
        load_model(path, trust_pickle=True)


def test_labels_are_bounded(tmp_path: Path) -> None:
    labels = np.zeros(MAX_SCORES + 1, np.int8)
    np.savez(tmp_path / "model.npz", coef=[1.0, 2.0], intercept=0.0, classes=labels)
    with pytest.raises(ModelTooLargeError, match="65,536 classes"):
        load_model(tmp_path / "model.npz", trust_pickle=False)


def test_a_number_counts_as_what_it_takes_in_float64() -> None:
    assert [full_bytes(np.zeros(3, dtype)) for dtype in ("i1", "f8", "U4")] == [24, 24, 48]
