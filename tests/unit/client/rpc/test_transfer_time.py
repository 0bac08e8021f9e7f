"""How long a byte takes, as calls show it: which of them count, and when the choice changes."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from sealserve._rpc.connections import Connections, call, call_async
from sealserve._rpc.transfer_time import (
    LOCAL_SECONDS_A_BYTE,
    LOOK_CALLS,
    REMOTE_SECONDS_A_BYTE,
    TransferTime,
)
from sealserve.v1 import prediction_pb2

KB, MB = 1 << 10, 1 << 20
REPLY = prediction_pb2.PredictResponse(done=prediction_pb2.ItemDone(server_seconds=0.25))


def shown_by(*calls: tuple[int, float, float], is_local: bool = False) -> float:
    """The time after calls, each noted."""
    times = TransferTime(is_local=is_local)
    for noted in calls:
        times.note(*noted)
    return times.seconds_a_byte


def test_until_calls_have_shown_it_the_address_says() -> None:
    assert shown_by(is_local=True) == LOCAL_SECONDS_A_BYTE
    assert shown_by() == REMOTE_SECONDS_A_BYTE
    few = [(100 * KB, 1.0, 0.0)] * (LOOK_CALLS - 1)
    assert shown_by(*few) == REMOTE_SECONDS_A_BYTE


def test_calls_show_it_whatever_the_address_is() -> None:
    """As through a tunnel that begins on this machine, or to a service of the same rack."""
    slow, fast = [(100 * KB, 0.1, 0.0)] * LOOK_CALLS, [(100 * KB, 0.0005, 0.0)] * LOOK_CALLS
    assert shown_by(*slow, is_local=True) == pytest.approx(0.1 / (100 * KB))
    assert shown_by(*fast) == pytest.approx(0.0005 / (100 * KB))


def test_the_least_of_several_calls_counts_without_what_both_ends_computed() -> None:
    disturbed = [(100 * KB, 1.0 + number, 0.5) for number in range(LOOK_CALLS - 1)]
    assert shown_by(*disturbed, (100 * KB, 0.6, 0.1)) == pytest.approx(0.5 / (100 * KB))


def test_a_large_item_is_enough() -> None:
    assert shown_by((8 * MB, 4.0, 0.0)) == pytest.approx(0.5 / MB)


def test_short_calls_show_nothing() -> None:
    """They take the round trip, whatever the rate is."""
    assert shown_by(*[(KB, 1e-6, 0.0)] * (3 * LOOK_CALLS)) == REMOTE_SECONDS_A_BYTE


def test_earlier_calls_are_forgotten() -> None:
    slow = [(100 * KB, 0.1, 0.0)] * LOOK_CALLS
    fast = [(100 * KB, 0.001, 0.0)] * LOOK_CALLS
    assert shown_by(*fast, *slow) == shown_by(*slow)
    assert shown_by(*slow, *fast) == shown_by(*fast)


@pytest.mark.parametrize(("factor", "changes"), [(0.2, True), (0.3, False), (1.0, False), (3.9, False), (4.1, True)])
def test_a_time_that_is_about_the_same_changes_nothing(factor: float, changes: bool) -> None:
    calls = [(MB, factor * REMOTE_SECONDS_A_BYTE * MB, 0.0)] * LOOK_CALLS
    assert (shown_by(*calls) != REMOTE_SECONDS_A_BYTE) is changes


@pytest.mark.parametrize("told", [math.nan, math.inf, -math.inf, -1e300, 1e300, 5.0])
def test_whatever_seconds_a_service_tells_the_time_is_between_none_and_the_whole(told: float) -> None:
    shown = shown_by(*[(MB, 1.0, told)] * LOOK_CALLS)
    assert 0.0 <= shown <= 1.0 / MB
    assert not (told < 0 or math.isnan(told)) or shown == pytest.approx(1.0 / MB)


class Connection:
    """A connection whose calls take no time; `meanwhile` happens during the next one."""

    def __init__(self) -> None:
        self.meanwhile: Callable[[], Any] = lambda: None

    def predict_serialized(self, request: bytes, timeout: float) -> prediction_pb2.PredictResponse:
        """Answer."""
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return REPLY

    def get_model(self, request: bytes, timeout: float) -> prediction_pb2.PredictResponse:
        """Answer."""
        return REPLY


class AsyncConnection:
    """Another one, for asyncio."""

    async def predict_serialized(self, request: bytes, timeout: float) -> prediction_pb2.PredictResponse:
        """Answer."""
        return REPLY


def bytes_and_computed(times: TransferTime) -> list[tuple[int, float]]:
    return [(byte_count, computed) for byte_count, _, computed in times.noted]


def test_predictions_are_noted_and_other_calls_are_not() -> None:
    connections: Any = Connections(Connection, lambda _: None)
    call(connections, "get_model", b"request", 1.0)
    assert not connections.transfer_time.noted
    call(connections, "predict_serialized", bytes(1000), 1.0)
    assert bytes_and_computed(connections.transfer_time) == [(1000 + REPLY.ByteSize(), 0.25)]
    assert 0.0 <= connections.transfer_time.noted[0][1] < 1.0


def test_a_call_counts_what_was_carried_while_it_lasted() -> None:
    """Calls of many threads wait for each other; the link is no slower for that."""
    connection = Connection()
    connections: Any = Connections(lambda: connection, lambda _: None)
    connection.meanwhile = lambda: call(connections, "predict_serialized", bytes(500), 1.0)
    call(connections, "predict_serialized", bytes(1000), 1.0)
    inner, outer = (500 + REPLY.ByteSize(), 0.25), (1500 + 2 * REPLY.ByteSize(), 0.5)
    assert bytes_and_computed(connections.transfer_time) == [inner, outer]


def test_calls_of_asyncio_are_noted_alike() -> None:
    connections: Any = Connections(AsyncConnection, lambda _: None)
    asyncio.run(call_async(connections, "predict_serialized", bytes(1000), 1.0))
    assert bytes_and_computed(connections.transfer_time) == [(1000 + REPLY.ByteSize(), 0.25)]


@pytest.mark.parametrize("byte_count", [KB, 100 * KB])
def test_eight_predictions_are_looked_at(byte_count: int) -> None:
    """They take no time beyond what the service tells, if there are enough bytes to show it."""
    connections: Any = Connections(Connection, lambda _: None)
    times = connections.transfer_time
    for number in range(LOOK_CALLS):
        assert len(times.noted) == number
        call(connections, "predict_serialized", bytes(byte_count), 1.0)
    assert not times.noted
    assert times.seconds_a_byte == (REMOTE_SECONDS_A_BYTE if byte_count == KB else 0.0)
