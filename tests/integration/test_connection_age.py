"""Connections that live for a while: calls and streams move to new ones, and none is lost."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from sealserve.errors import DrainingError
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.digits import Digits
from tests.support.raw import Message, RawClient, assert_scores
from tests.support.resetting_proxy import resetting_proxy
from tests.support.serving import SETTINGS, digits_registry, running_server
from tests.support.streams import Streamed, assert_complete, both

pytestmark = pytest.mark.slow

AGE_SECONDS = 0.6
AGED = SETTINGS.with_changes(max_connection_age=AGE_SECONDS)
STREAM = "/sealserve.v1.PredictionService/StreamPredict"


def test_calls_move_to_new_connections_and_none_fails(digits_model: Digits) -> None:
    """Raw calls, without any retry."""
    with (
        running_server(digits_registry(digits_model.estimator), AGED) as address,
        resetting_proxy(address, lambda _: None) as proxy,
        RawClient(proxy.address) as raw,
    ):
        request, end = raw.request(digits_model.X[0]), time.monotonic() + 4 * AGE_SECONDS
        while time.monotonic() < end or proxy.connections < 3:
            assert_scores(raw.predict(request), digits_model.scores[0])
        assert proxy.resets == 0


@both
def test_a_long_stream_moves_and_loses_no_row(digits_model: Digits, stream: Streamed) -> None:
    """The service ends each stream itself, so that no item is cut off and sent twice."""
    rows, telemetry = digits_model.X[:40], Telemetry()

    def source() -> Iterator[Any]:
        for row in rows:
            time.sleep(AGE_SECONDS / 10)
            yield row

    with running_server(digits_registry(digits_model.estimator), AGED, telemetry=telemetry) as address:
        assert_complete(stream(address, source()), digits_model.estimator.predict(rows))
    counted = telemetry.registry.get_sample_value
    ended = counted("sealserve_calls_total", {"method": STREAM, "status": "UNAVAILABLE"})
    assert ended is not None
    assert ended >= 2
    assert counted("sealserve_rows_total", {"model": "digits", "layout": "row"}) == len(rows)


def test_an_item_that_has_begun_is_finished(digits_model: Digits) -> None:
    with (
        running_server(digits_registry(digits_model.estimator), AGED) as address,
        RawClient(address) as raw,
        raw.conversation() as stream,
    ):
        whole = raw.item(1, digits_model.X[0])
        stream.send(Message(item_id=1, header=whole.header))
        time.sleep(AGE_SECONDS)
        stream.send(raw.item(2, digits_model.X[0]))
        number, error = next(stream.answers)
        assert (number, type(error)) == (2, DrainingError)
        stream.send(Message(item_id=1, chunk=whole.chunk))
        number, scores = next(stream.answers)
        assert number == 1
        assert_scores(scores, digits_model.scores[0])
        with pytest.raises(DrainingError) as ended:
            next(stream.answers)
        assert ended.value.retry_delay_seconds == 0.0, "another connection takes items at once"


def test_a_stream_without_items_ends_too(digits_model: Digits) -> None:
    with (
        running_server(digits_registry(digits_model.estimator), AGED) as address,
        RawClient(address) as raw,
        raw.conversation() as stream,
    ):
        stream.send(raw.item(1, digits_model.X[0]))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])
        with pytest.raises(DrainingError):
            next(stream.answers)
