"""A real client against a real server: what it predicts is what the estimator predicts."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier

from sealserve.client import Client
from sealserve.errors import (
    FeatureNameError,
    InputError,
    NoSuchMethodError,
    NotFiniteError,
    OutOfRangeError,
    QuotaExceededError,
)
from sealserve.protocol.model import Model
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.models.linear_model import LinearModel
from tests.support.digits import Digits
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    linear,
    running_server,
    served,
    with_limits,
)

RANDOM = np.random.default_rng(1)
X, Y = load_digits(return_X_y=True)
X = X / 16
TRAIN, TEST = X[:600], X[600:640]
NAMES = [f"pixel{index}" for index in range(64)]

CLASSIFIERS = {
    "binary": LogisticRegression(max_iter=1000).fit(TRAIN, Y[:600] < 5),
    "strings": LogisticRegression(max_iter=1000).fit(TRAIN, np.char.add("digit ", Y[:600].astype(str))),
    "ridge": RidgeClassifier().fit(TRAIN, Y[:600]),
    "one versus rest": OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(TRAIN, Y[:600]),
    "multilabel": OneVsRestClassifier(LogisticRegression(max_iter=1000)).fit(
        TRAIN, np.stack([Y[:600] % 2 == 0, Y[:600] > 6], axis=1).astype(int)
    ),
    "named": LogisticRegression(max_iter=1000).fit(pd.DataFrame(TRAIN, columns=NAMES), Y[:600]),
}
REGRESSORS = {
    "one target": Ridge().fit(TRAIN, Y[:600]),
    "three targets": LinearRegression(positive=True).fit(TRAIN, RANDOM.random((600, 3))),
}


LAYOUTS = pytest.mark.parametrize("layout", ["row", "column"])


@pytest.fixture(scope="module")
def zoo() -> Iterator[str]:
    """The address of one server of many models."""
    models = (served(name, model, input_step=1 / 16) for name, model in (CLASSIFIERS | REGRESSORS).items())
    with running_server(ModelRegistry(models)) as address:
        yield address


def client_of(address: str, model: str = "", **settings: Any) -> Client:
    return Client(address, model=model, timeout_seconds=HANG_SECONDS, **settings)


# Estimators


def named(model: str, rows: NDArray[np.float64]) -> Any:
    """Rows as the estimator wants them."""
    return pd.DataFrame(rows, columns=NAMES) if model == "named" else rows


@LAYOUTS
@pytest.mark.parametrize("model", CLASSIFIERS)
def test_classifiers_agree_with_the_estimator(zoo: str, model: str, layout: str) -> None:
    estimator, rows = CLASSIFIERS[model], named(model, TEST)
    with client_of(zoo, model, layout=layout) as client:
        offer = client.offer(len(TEST))
        assert offer.layout.name == layout
        expected = estimator.decision_function(rows)
        scores = client.decision_function(rows)
        assert scores.shape == expected.shape
        assert np.abs(scores - expected).max() <= offer.weight_rounding_error_bound
        labels = client.predict(rows)
        np.testing.assert_array_equal(labels, estimator.predict(rows))
        assert labels.shape == estimator.predict(rows).shape
        if hasattr(estimator, "predict_proba"):
            probabilities = client.predict_proba(rows)
            assert probabilities.shape == estimator.predict_proba(rows).shape
            # No link's slope is above 1; normalizing at most doubles an error.
            bound = 2 * offer.weight_rounding_error_bound
            assert np.abs(probabilities - estimator.predict_proba(rows)).max() <= bound
        else:
            with pytest.raises(NoSuchMethodError):
                client.predict_proba(rows)


@LAYOUTS
@pytest.mark.parametrize("model", REGRESSORS)
def test_regressors_agree_with_the_estimator(zoo: str, model: str, layout: str) -> None:
    expected = REGRESSORS[model].predict(TEST)
    with client_of(zoo, model, layout=layout) as client:
        predicted = client.predict(TEST)
        assert predicted.shape == expected.shape
        assert np.abs(predicted - expected).max() <= client.offer(len(TEST)).weight_rounding_error_bound
        with pytest.raises(NoSuchMethodError):
            client.predict_proba(TEST)


def test_a_server_lists_its_models_by_name(zoo: str) -> None:
    with client_of(zoo) as client:
        assert [model.name for model in client.models()] == sorted(CLASSIFIERS | REGRESSORS)


def test_columns_are_checked_by_name_and_order(zoo: str) -> None:
    frame = pd.DataFrame(TEST, columns=NAMES)
    with client_of(zoo, "named") as client:
        np.testing.assert_array_equal(client.predict(frame), client.predict(TEST))
        for wrong in (frame[NAMES[::-1]], frame.rename(columns={"pixel3": "x"})):
            with pytest.raises(FeatureNameError, match=r"not 'pixel0'|missing: pixel3; unexpected: x"):
                client.predict(wrong)
        assert len(client.predict(frame)) == len(frame)


def test_no_rows_give_no_predictions(client: Client) -> None:
    assert client.predict(np.empty((0, 64))).shape == (0,)
    assert client.decision_function(np.empty((0, 64))).shape == (0, 10)
    assert client.predict_proba(np.empty((0, 64))).shape == (0, 10)
    assert list(client.stream([])) == []


def test_threads_share_a_client(client: Client, digits_model: Digits) -> None:
    expected = digits_model.estimator.predict(digits_model.X)
    parts = np.array_split(np.arange(200), 10)
    with ThreadPoolExecutor(10) as threads:
        for part, labels in zip(
            parts, threads.map(lambda part: client.predict(digits_model.X[part]), parts), strict=True
        ):
            np.testing.assert_array_equal(labels, expected[part])


# Shapes


def check(model: LinearModel, rows: NDArray[np.float64], **limits: Any) -> Model:
    """Predict rows, together and one by one, through a server of the model.

    Returns the server's description of it.
    """
    settings = with_limits(**limits)
    with (
        running_server(ModelRegistry([served("model", model, limits=settings.limits)]), settings) as address,
        client_of(address) as client,
    ):
        offer = client.model.offers[0]
        bound = offer.weight_rounding_error_bound + offer.input_rounding_error_bound
        expected = model.decision(rows)
        assert np.abs(client.predict(rows) - expected).max() <= bound
        assert np.abs(client.predict(rows[:1]) - expected[:1]).max() <= bound
        return client.model


def test_one_feature() -> None:
    described = check(linear([[3.0], [-2.0]], [1.0, 5.0]), RANDOM.random((7, 1)))
    assert described.offers[0].rows_per_item > 7


def test_full_items_and_rows_left_over() -> None:
    model = linear(RANDOM.normal(size=(2, 30)))
    described = check(model, RANDOM.random((100, 30)))
    assert 1 < described.offers[0].rows_per_item < 100


def test_a_thousand_classes_come_in_several_groups() -> None:
    described = check(linear(RANDOM.normal(size=(1000, 500))), RANDOM.random((3, 500)))
    assert described.offers[0].cost.reply_bytes > described.limits.max_message_bytes


@pytest.mark.slow
def test_eighty_thousand_features_go_in_several_chunks() -> None:
    described = check(linear(RANDOM.normal(size=(2, 80_000))), RANDOM.random((3, 80_000)))
    assert described.offers[0].cost.request_bytes > 1 << 20


def test_items_longer_than_a_message_and_than_the_window() -> None:
    limits = {"max_message_bytes": 100_000, "window_bytes": 150_000}
    described = check(linear(RANDOM.normal(size=(10, 20_000))), RANDOM.random((4, 20_000)), **limits)
    assert described.offers[0].cost.request_bytes > limits["window_bytes"]


# Streams


def test_stream_gives_every_index_once(client: Client, digits_model: Digits) -> None:
    expected = digits_model.estimator.predict(digits_model.X)
    for rows_per_item in (1, 2, 1000):
        results = list(client.stream(digits_model.X[:100], rows_per_item=rows_per_item))
        assert sorted(index for index, _ in results) == list(range(100))
        assert all(label == expected[index] for index, label in results)


@pytest.mark.parametrize("method", ["decision_function", "predict_proba"])
def test_stream_gives_scores_and_probabilities(client: Client, digits_model: Digits, method: Any) -> None:
    expected = getattr(client, method)(digits_model.X[:5])
    results = dict(client.stream(digits_model.X[:5], method=method, rows_per_item=3))
    np.testing.assert_allclose([results[index] for index in range(5)], expected)


def test_stream_refuses_what_it_does_not_know(client: Client) -> None:
    with pytest.raises(InputError, match="rows_per_item"):
        next(client.stream([], rows_per_item=0))
    with pytest.raises(InputError, match="fit_predict"):
        next(client.stream([], method="fit_predict"))  # type: ignore[arg-type]


def test_stream_of_a_model_without_probabilities(zoo: str) -> None:
    with client_of(zoo, "ridge") as client, pytest.raises(NoSuchMethodError):
        next(client.stream(TEST, method="predict_proba"))


@pytest.mark.parametrize("rows_per_item", [1, 3])
def test_a_bad_row_is_an_error_as_a_value_and_its_neighbours_succeed(
    client: Client, digits_model: Digits, rows_per_item: int
) -> None:
    bad: dict[int, Any] = {0: digits_model.X[0] + 2, 4: np.full(64, np.nan), 5: "text", 11: np.zeros(63)}
    rows = [bad.get(index, row) for index, row in enumerate(digits_model.X[:12])]
    results = dict(client.stream(rows, rows_per_item=rows_per_item))
    assert sorted(results) == list(range(12))
    assert isinstance(results[0], OutOfRangeError)
    expected = digits_model.estimator.predict(digits_model.X[:12])
    for index, result in results.items():
        assert isinstance(result, InputError) if index in bad else result == expected[index]


@pytest.mark.parametrize("count", [2, 3, 200])
@pytest.mark.parametrize("layout", ["row", "column"])
def test_errors_are_raised_with_all_rows_or_returned_in_their_places(
    digits_server: str, digits_model: Digits, layout: str, count: int
) -> None:
    rows, estimator = digits_model.X[:count].copy(), digits_model.estimator
    bad: dict[int, type[InputError]] = {0: OutOfRangeError, count - 1: NotFiniteError}
    rows[0, 5], rows[-1, 7] = -0.5, np.inf
    inside = np.clip(np.nan_to_num(rows, posinf=0.0), 0, 1)
    with Client(digits_server, layout=layout, timeout_seconds=HANG_SECONDS) as client:
        for method in (client.predict, client.decision_function, client.predict_proba, client.scored):
            what = rf"^row 0, feature 5 is .*; row {count - 1}, feature 7 is infinite"
            with pytest.raises(NotFiniteError, match=what):
                method(rows)
            results = method(rows, errors="return")
            assert isinstance(results, list)
            assert {i: type(result) for i, result in enumerate(results) if isinstance(result, InputError)} == bad
            assert not any("row" in str(results[index]) for index in bad), "its place says which row it is"
        labels = client.predict(rows, errors="return")
        scores = client.decision_function(rows, errors="return")
        scored = client.scored(rows, errors="return")
        assert len(labels) == len(scores) == len(scored) == count
        for index in set(range(count)) - set(bad):
            assert labels[index] == estimator.predict(inside[index : index + 1])[0]
            assert np.abs(scores[index] - digits_model.scores[index]).max() < 0.01
            assert scored[index].predictions.tolist() == [labels[index]]
            np.testing.assert_array_equal(scored[index].scores[0], scores[index])
        assert client.predict(np.empty((0, 64)), errors="return") == []


def test_a_result_arrives_while_the_source_waits(client: Client, digits_model: Digits) -> None:
    arrived = threading.Semaphore(0)

    def live() -> Iterator[Any]:
        for row in digits_model.X[:5]:
            yield row
            assert arrived.acquire(timeout=HANG_SECONDS), "the result is held back until the source goes on"

    for _ in client.stream(live()):
        arrived.release()


def test_what_the_source_raises_comes_after_the_results_before_it(client: Client, digits_model: Digits) -> None:
    def source() -> Iterator[Any]:
        yield from digits_model.X[:50]
        raise LookupError("the source is broken")

    indices: list[int] = []
    with pytest.raises(LookupError, match="the source is broken"):
        indices.extend(index for index, _ in client.stream(source()))
    assert sorted(indices) == list(range(50))
    assert len(client.predict(digits_model.X[:2])) == 2


def test_closing_a_stream_early_ends_its_call_and_its_thread(digits_model: Digits) -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield digits_model.X[0]

    # The server takes one call at a time: the next is refused for as long as the stream is open.
    settings = SETTINGS.with_changes(max_concurrent_calls=1)
    with (
        running_server(digits_registry(digits_model.estimator, settings), settings) as address,
        client_of(address) as client,
        Client(address, timeout_seconds=0.9) as impatient,  # less than the retry delay
    ):
        results = client.stream(endless())
        assert next(results)
        with pytest.raises(QuotaExceededError, match="concurrent_calls"):
            impatient.predict(digits_model.X[:1])
        results.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "sealserve-reader"]
        assert len(client.predict(digits_model.X[:1])) == 1


def test_more_rows_than_the_window_and_the_open_items(digits_model: Digits) -> None:
    settings = with_limits(window_bytes=150_000, max_open_items=3)  # a ciphertext has 33 KB
    registry = digits_registry(digits_model.estimator, settings)
    expected = digits_model.estimator.predict(digits_model.X)
    with running_server(registry, settings) as address, client_of(address) as client:
        np.testing.assert_array_equal(client.predict(digits_model.X), expected)
        results = dict(client.stream(digits_model.X[:60]))
        assert [results[index] for index in range(60)] == expected[:60].tolist()


def test_several_connections(digits_server: str, digits_model: Digits) -> None:
    expected = digits_model.estimator.predict(digits_model.X)
    with client_of(digits_server, connections=3) as client:
        results = dict(client.stream(digits_model.X[:100]))
        assert [results[index] for index in range(100)] == expected[:100].tolist()
        np.testing.assert_array_equal(client.predict(digits_model.X), expected)
