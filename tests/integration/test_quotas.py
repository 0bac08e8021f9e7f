"""Quotas over a real socket: what exceeds them is refused at once, with a retry delay.

Clients obey the delay.
"""

import time
from typing import Any

import numpy as np
import pytest

from sealserve.client import Client
from sealserve.errors import QuotaExceededError
from sealserve.key_registry import KeyRegistry
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.tenants.quota import Quota
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.raw import Message, RawClient, assert_scores, chunk
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    linear,
    registered_keys,
    running_server,
    served,
)


def with_quota(**bounds: float) -> Any:
    return SETTINGS.with_changes(**bounds)


@pytest.mark.parametrize("name", ["rows_per_minute", "requests_per_minute"])
def test_rows_and_requests_of_a_minute(digits_model: Digits, name: str) -> None:
    with (
        running_server(digits_registry(digits_model.estimator), with_quota(**{name: 3})) as address,
        RawClient(address) as raw,
    ):
        for row in digits_model.X[:3]:
            raw.predict(raw.request(row))
        with pytest.raises(QuotaExceededError) as caught:
            raw.predict(raw.request(digits_model.X[0]))
        assert caught.value.quota == name
        assert 10 < caught.value.retry_delay_seconds <= 20
        refused = raw.stream([raw.item(1, digits_model.X[0])])[1]
        assert isinstance(refused, QuotaExceededError)


def test_a_client_obeys_the_delay(digits_model: Digits) -> None:
    """Ten rows at once, then one every tenth of a second."""
    settings = with_quota(rows_per_minute=600)
    expected = digits_model.estimator.predict(digits_model.X[:1])
    with (
        running_server(digits_registry(digits_model.estimator), settings) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        exhausted = time.monotonic()
        results = dict(client.stream(np.repeat(digits_model.X[:1], 603, axis=0)))
        assert set(results.values()) == set(expected)
        assert len(results) == 603
        assert client.predict(digits_model.X[:1]) == expected
        assert time.monotonic() - exhausted >= 0.3


def test_bytes_in_flight_of_a_tenant(digits_model: Digits) -> None:
    with (
        running_server(digits_registry(digits_model.estimator), with_quota(bytes_in_flight=40_000)) as address,
        RawClient(address) as raw,
    ):
        item = raw.item(1, digits_model.X[0])
        assert_scores(raw.predict(raw.request(digits_model.X[0])), digits_model.scores[0])
        assert_scores(raw.stream([item])[1], digits_model.scores[0])
        many = [raw.item(number, digits_model.X[0]) for number in range(2, 12)]
        for answer in raw.stream(many).values():  # one after the other they fit
            assert_scores(answer, digits_model.scores[0])


def test_key_bytes_of_a_tenant(ei_user: EIUser) -> None:
    data = ei_user.evaluation_keys
    with (
        running_server(ModelRegistry([]), keys=registered_keys(quota=Quota(key_bytes=len(data)))) as address,
        KeyRegistry(address, timeout_seconds=HANG_SECONDS) as registry,
    ):
        record = registry.register(data)
        assert registry.register(data).key_id == record.key_id  # the same again takes no more room
    with (
        running_server(ModelRegistry([]), keys=registered_keys(quota=Quota(key_bytes=len(data) - 1))) as address,
        KeyRegistry(address, timeout_seconds=HANG_SECONDS) as registry,
    ):
        with pytest.raises(QuotaExceededError) as caught:
            registry.register(data)
        assert caught.value.quota == "key_bytes"
        assert list(registry.list()) == []


def test_what_a_broken_stream_held_is_let_go(digits_model: Digits) -> None:
    """Half of an item's bytes have come when its client breaks off."""
    model = linear(np.ones((1, 8192)))
    settings = with_quota(bytes_in_flight=200_000)
    with running_server(ModelRegistry([served("blocks", model)]), settings) as address, RawClient(address) as raw:
        request = raw.request(np.full(8192, 0.5))
        half = request.ciphertexts[: len(request.ciphertexts) // 2]
        end, broken = time.monotonic() + HANG_SECONDS, 0
        while broken < 5:
            with raw.conversation() as stream:
                stream.send(Message(item_id=1, header=request.header, chunk=chunk(0, *half)))
                stream.send(Message(item_id=2, header=request.header, chunk=chunk(7, b"")))
                answered, _ = next(stream.answers)
            # If the second item is answered, the first one has been read. The first one is answered
            # where the server has not heard yet of the stream before.
            broken += answered == 2
            assert time.monotonic() < end
        while True:  # the server hears of it a little later
            try:
                assert raw.predict(request)[0, 0] == pytest.approx(4096, rel=0.01)
                break
            except QuotaExceededError:
                assert time.monotonic() < end
