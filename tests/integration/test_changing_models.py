"""A model that changes while it is served: clients follow, once."""

import dataclasses
import itertools
import threading
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sealserve.client import Client
from sealserve.errors import DeadlineError, StaleConfigError
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.tenants.tenant import Tenant
from tests.support.digits import Digits
from tests.support.raw import RawClient, as_message, assert_error
from tests.support.serving import HANG_SECONDS, running_server, served

RANDOM = np.random.default_rng(4)


class RestlessRegistry(ModelRegistry):
    """A registry that goes on to the next version of its only model at every look."""

    def __init__(self, versions: Iterable[ServedModel]) -> None:
        self._versions = iter(versions)
        super().__init__([next(self._versions)])

    def get(self, name: str, tenant: Tenant, config_id: str = "") -> ServedModel:
        found = super().get(name, tenant, config_id)
        self.put(next(self._versions))
        return found


class UnevenRegistry(ModelRegistry):
    """A registry of processes that change at different instants.

    Each look-up is at another process; the last one has changed for good.
    """

    def __init__(self, *found: ServedModel) -> None:
        super().__init__(found[:1])
        self._found = list(found)

    def get(self, name: str, tenant: Tenant, config_id: str = "") -> ServedModel:
        return self._found.pop(0) if len(self._found) > 1 else self._found[0]


class Versions(NamedTuple):
    """Two classifiers of two features, with different labels, as versions of one model."""

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
    registry, rows = ModelRegistry(models[:1]), RANDOM.integers(0, 129, (row_count, 2)) / 128
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        np.testing.assert_array_equal(client.predict(rows), old.predict(rows))
        registry.put(models[1])
        np.testing.assert_array_equal(client.predict(rows), new.predict(rows))
        registry.put(models[0])
        assert np.abs(client.predict_proba(rows) - old.predict_proba(rows)).max() < 0.1


def test_a_stream_follows_a_change_of_the_model(versions: Versions) -> None:
    old, new, models = versions
    registry, row = ModelRegistry(models[:1]), [0.75, 0.5]
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        arrived = threading.Semaphore(0)

        def rows() -> Iterator[Any]:
            for index in range(6):
                if index == 3:
                    registry.put(models[1])
                yield row
                assert arrived.acquire(timeout=HANG_SECONDS)

        labels = {}
        for index, label in client.stream(rows()):
            labels[index] = label
            arrived.release()
        assert [labels[index] for index in range(6)] == [*[old.predict([row])[0]] * 3, *[new.predict([row])[0]] * 3]


def test_a_client_follows_processes_that_change_one_after_the_other(versions: Versions) -> None:
    _, new, (first, second) = versions
    row = [[0.75, 0.5]]
    for found in ([first, second] * 3, [first, second, second], [first, first, second, first, second, first, second]):
        with running_server(UnevenRegistry(*found)) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
            while (label := client.predict(row)[0]) not in new.classes_:
                assert label == versions.old.predict(row)[0]
            assert label == new.predict(row)[0]


def test_rows_of_one_call_have_labels_of_one_kind(versions: Versions) -> None:
    _, new, (first, second) = versions
    rows = RANDOM.integers(0, 129, (5000, 2)) / 128
    described, first_item = first, first
    with (
        running_server(UnevenRegistry(described, first_item, second)) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert len(rows) > max(engine.offer.rows_per_item for engine in first.engines)
        np.testing.assert_array_equal(client.predict(rows), new.predict(rows))
        assert client.model.config_id == second.model.config_id


def test_a_client_without_a_name_keeps_to_the_model_it_has(versions: Versions) -> None:
    old, new, models = versions
    registry, row = ModelRegistry(models[:1]), [[0.75, 0.5]]
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        assert client.predict(row) == old.predict(row)
        registry.put(served("another", old))
        registry.put(models[1])
        assert client.predict(row) == new.predict(row)


def test_versions_that_take_turns_are_followed(versions: Versions) -> None:
    old, new, models = versions
    third = served("model", old, input_step=1 / 64)
    registry, row = RestlessRegistry(itertools.cycle([*models, third])), [[0.75, 0.5]]
    with running_server(registry) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        labels = {client.predict(row)[0] for _ in range(10)}
    assert labels <= {old.predict(row)[0], new.predict(row)[0]}


def test_a_model_that_changes_without_end_is_an_error_and_not_a_loop(versions: Versions) -> None:
    first = versions.models[0]
    registry = RestlessRegistry(
        dataclasses.replace(first, model=dataclasses.replace(first.model, config_id=str(number)))
        for number in itertools.count()
    )
    with running_server(registry) as address, Client(address, timeout_seconds=1.0) as client:
        with pytest.raises((StaleConfigError, DeadlineError)):  # whichever the time ends in
            client.predict([[0.5, 0.5]])
        ((_, result),) = client.stream([[0.5, 0.5]])
        assert isinstance(result, StaleConfigError)


def test_a_stale_config_names_the_current_one(raw: RawClient, digits_model: Digits) -> None:
    request = raw.request(digits_model.X[0])
    for stale in ("", "0" * 32, "x" * 100_000):
        request.header.config_id = stale
        with pytest.raises(StaleConfigError) as caught:
            raw.predict(request)
        assert caught.value.current_config_id == raw.codec.model.config_id
        answer = raw.stream([as_message(1, request)])[1]
        assert_error(answer, caught.value)
