"""Streams that break and are resumed: over reset connections, past stopped or busy services."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sealserve.client import Client
from sealserve.errors import DeadlineError, DrainingError, QuotaExceededError, UnavailableError
from tests.support.digits import Digits
from tests.support.resetting_proxy import resetting_proxy
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    running,
    running_server,
    with_limits,
)
from tests.support.streams import Streamed, assert_complete, both


@both
@pytest.mark.parametrize("connections", [1, 3])
def test_connections_that_are_cut_again_and_again(
    digits_server: str, digits_model: Digits, stream: Streamed, connections: int
) -> None:
    """Each after some items (a row has 33 KB), at any byte of a message."""
    rows = digits_model.X[:100]
    random = np.random.default_rng(connections)
    with resetting_proxy(digits_server, lambda _: int(random.integers(100_000, 700_000))) as proxy:
        results = stream(proxy.address, rows, connections=connections)
        assert proxy.resets > 3
    assert_complete(results, digits_model.estimator.predict(rows))


@both
def test_batches_of_columns_over_connections_that_are_cut(
    digits_server: str, digits_model: Digits, stream: Streamed
) -> None:
    """A batch has 2.1 MB. Connections that are reset carry a part of one batch.

    Every third connection carries any number of bytes.
    """
    rows = np.tile(digits_model.X, (21, 1))[:6000]
    with resetting_proxy(digits_server, lambda number: None if number % 3 == 2 else 1_500_000) as proxy:
        results = stream(proxy.address, rows, layout="column")
        assert proxy.resets == 2
    assert_complete(results, digits_model.estimator.predict(rows))


@both
def test_it_gives_up_once_nothing_gets_through(digits_server: str, digits_model: Digits, stream: Streamed) -> None:
    """No connection carries a whole item, so that the work would never end."""
    with resetting_proxy(digits_server, lambda _: 30_000) as proxy:
        with pytest.raises((UnavailableError, DeadlineError)):
            stream(proxy.address, digits_model.X[:5], timeout_seconds=1.0)
        assert proxy.resets > 2


@both
def test_it_gives_up_a_service_that_is_gone(digits_model: Digits, stream: Streamed) -> None:
    def rows() -> Iterator[Any]:
        yield digits_model.X[0]
        server.begin_stop().result(HANG_SECONDS)
        yield digits_model.X[1]

    with (
        running(digits_registry(digits_model.estimator)) as server,
        pytest.raises((UnavailableError, DrainingError)),
    ):
        stream(server.address, rows(), timeout_seconds=1.0)


@both
def test_a_service_that_stops_hands_over_to_another(digits_model: Digits, stream: Streamed) -> None:
    """Both listen on one port, as processes of one service do."""
    rows = digits_model.X[:60]
    registry = digits_registry(digits_model.estimator)
    shared = SETTINGS.with_changes(processes=2, weights="open")
    with running(registry, shared) as first, running(registry, shared.with_changes(address=first.address)):

        def source() -> Iterator[Any]:
            yield from rows[:30]
            first.begin_stop()
            yield from rows[30:]

        assert_complete(stream(first.address, source(), connections=4), digits_model.estimator.predict(rows))


@both
def test_streams_that_are_refused_wait_for_those_that_are_not(digits_model: Digits, stream: Streamed) -> None:
    settings = SETTINGS.with_changes(max_concurrent_calls=1)
    rows = digits_model.X[:50]
    with running_server(digits_registry(digits_model.estimator, settings), settings) as address:
        assert_complete(stream(address, rows, connections=3), digits_model.estimator.predict(rows))


@both
def test_items_that_are_refused_for_their_bytes_are_sent_later(digits_model: Digits, stream: Streamed) -> None:
    settings = SETTINGS.with_changes(bytes_in_flight=40_000)
    rows = digits_model.X[:50]
    with running_server(digits_registry(digits_model.estimator, settings), settings) as address:
        assert_complete(stream(address, rows, connections=3), digits_model.estimator.predict(rows))


@both
def test_a_quota_that_is_used_up_for_longer_than_the_time_is_an_error(digits_model: Digits, stream: Streamed) -> None:
    settings = SETTINGS.with_changes(rows_per_minute=2)
    with running_server(digits_registry(digits_model.estimator, settings), settings) as address:
        with pytest.raises(QuotaExceededError) as caught:
            stream(address, digits_model.X[:5], timeout_seconds=5.0)
        assert caught.value.quota == "rows_per_minute"


@both
def test_items_that_come_too_slowly_are_sent_again(digits_model: Digits, stream: Streamed) -> None:
    """The first batches stall for longer than the service waits for the rest of an item."""
    settings = with_limits(item_timeout_seconds=0.3)
    rows = np.tile(digits_model.X, (7, 1))[:2000]
    with (
        running_server(digits_registry(digits_model.estimator, settings), settings) as address,
        resetting_proxy(address, lambda _: None) as proxy,
    ):
        proxy.stall(at_bytes=500_000, seconds=1.0)
        assert_complete(stream(proxy.address, rows, layout="column"), digits_model.estimator.predict(rows))
        assert proxy.stalls == 1


@both
@pytest.mark.slow
def test_a_connection_that_falls_silent_is_left_for_another(
    digits_server: str, digits_model: Digits, stream: Streamed
) -> None:
    """Nothing tells that one connection is dead.

    What was on it is sent again once it is late, because the other connection goes on.
    """
    rows = digits_model.X[:50]

    def source() -> Iterator[Any]:
        yield from rows[:49]
        late.wait(3.5)  # longer than an answer may take, and than the stalled lane is waited for
        yield rows[49]

    late = threading.Event()
    with resetting_proxy(digits_server, lambda _: None) as proxy:
        proxy.stall(at_bytes=100_000, seconds=HANG_SECONDS)
        results = stream(proxy.address, source(), connections=2, timeout_seconds=3.0)
        assert proxy.stalls == 1
    assert_complete(results, digits_model.estimator.predict(rows))


def test_a_call_of_one_row_finds_another_connection(digits_server: str, digits_model: Digits) -> None:
    with (
        resetting_proxy(digits_server, lambda number: 10_000 if number in (0, 1, 3) else None) as proxy,
        Client(proxy.address, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert client.predict(digits_model.X[:1]) == digits_model.estimator.predict(digits_model.X[:1])
        assert proxy.resets == 2


def test_a_call_of_one_row_is_given_up_in_time(digits_server: str, digits_model: Digits) -> None:
    with (
        resetting_proxy(digits_server, lambda _: 10_000) as proxy,
        Client(proxy.address, timeout_seconds=1.0) as client,
        pytest.raises(UnavailableError),
    ):
        client.predict(digits_model.X[:1])
