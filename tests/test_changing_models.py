"""A model that changes while it is served: clients follow, once."""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sealserve.client import Client
from sealserve.errors import StaleConfigError
from sealserve_service.auth import Tenant
from sealserve_service.models.registry import ModelRegistry, ServedModel
from tests.conftest import Digits
from tests.raw import RawClient, as_message, assert_error
from tests.serving import HANG_SECONDS, running_server, served

RANDOM = np.random.default_rng(4)


class ChangingRegistry(ModelRegistry):
    """A registry whose only model has versions: `change` goes on to the next, as does every look if it is restless."""

    def __init__(self, *models: ServedModel, restless: bool = False) -> None:
        super().__init__(models[:1])
        self._versions = list(models)
        self._restless = restless

    def change(self) -> None:
        self._versions.append(self._versions.pop(0))
        super().__init__(self._versions[:1])

    def get(self, name: str, tenant: Tenant) -> ServedModel:
        found = super().get(name, tenant)
        if self._restless:
            self.change()
        return found


class Versions(NamedTuple):
    """Two classifiers of two features, with different labels, and the versions of one model made of them."""

    old: LogisticRegression
    new: LogisticRegression
    models: list[ServedModel]


@pytest.fixture(scope="module")
def versions() -> Versions:
    X = RANDOM.random((50, 2))
    old = LogisticRegression().fit(X, np.where(X[:, 0] > 0.5, "old yes", "old no"))
    new = LogisticRegression().fit(X, np.where(X[:, 0] < 0.5, "new yes", "new no"))
    return Versions(old, new, [served("model", model, input_step=1 / 128) for model in (old, new)])


@pytest.mark.parametrize("row_count", [1, 2000])
def test_a_client_follows_a_change_of_the_model(versions: Versions, row_count: int) -> None:
    old, new, models = versions
    registry, rows = ChangingRegistry(*models), RANDOM.integers(0, 129, (row_count, 2)) / 128
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        np.testing.assert_array_equal(client.predict(rows), old.predict(rows))
        registry.change()
        np.testing.assert_array_equal(client.predict(rows), new.predict(rows))
        registry.change()
        assert np.abs(client.predict_proba(rows) - old.predict_proba(rows)).max() < 0.1


def test_a_stream_follows_a_change_of_the_model(versions: Versions) -> None:
    old, new, models = versions
    registry, row = ChangingRegistry(*models), [0.75, 0.5]
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        arrived = threading.Semaphore(0)

        def rows() -> Iterator[Any]:
            for index in range(6):
                if index == 3:
                    registry.change()
                yield row
                assert arrived.acquire(timeout=HANG_SECONDS)

        labels = {}
        for index, label in client.stream(rows()):
            labels[index] = label
            arrived.release()
        assert [labels[index] for index in range(6)] == [*[old.predict([row])[0]] * 3, *[new.predict([row])[0]] * 3]


def test_a_model_that_changes_again_is_an_error_and_not_a_loop(versions: Versions) -> None:
    third = served("model", versions.old, input_step=1 / 64)
    registry = ChangingRegistry(*versions.models, third, restless=True)
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        with pytest.raises(StaleConfigError):
            client.predict([[0.5, 0.5]])
        ((_, result),) = client.stream([[0.5, 0.5]])
        assert isinstance(result, StaleConfigError)


def test_a_stale_config_names_the_current_one(raw: RawClient, digits_model: Digits) -> None:
    request = raw.request(digits_model.X[0])
    for stale in ("", "0" * 32, "x" * 100_000):
        request.header.config_id = stale
        with pytest.raises(StaleConfigError) as caught:
            raw.predict(request)
        assert caught.value.current_config_id == raw.exchange.model.config_id
        answer = raw.stream([as_message(1, request)])[1]
        assert_error(answer, caught.value)
