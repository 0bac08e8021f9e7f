"""A client's streams, against a service that is played by hand."""

import dataclasses
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sealserve._codec.batches import Batch
from sealserve._codec.codec import RowCodec
from sealserve._rpc.connections import Connections
from sealserve._streaming.threads import ScoreStream
from sealserve.errors import ModelNotFoundError, SealserveError
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import error_to_proto
from sealserve.v1 import prediction_pb2
from tests.support.serving import HANG_SECONDS, LIMITS, linear, served

CODEC = RowCodec(served("line", linear([[1.0, 2.0]])).model)
ROWS = np.array([[0.25, 0.5]])
REFUSAL = ModelNotFoundError("line")


class Call:
    """A stream on which every item is refused; the messages that come are kept."""

    def __init__(self) -> None:
        self.received: queue.Queue[prediction_pb2.StreamPredictRequest] = queue.Queue()

    def __call__(self, requests: Iterator[prediction_pb2.StreamPredictRequest]) -> Any:
        self._requests = requests
        return self

    def __iter__(self) -> Iterator[prediction_pb2.StreamPredictResponse]:
        yield prediction_pb2.StreamPredictResponse(window=prediction_pb2.Window(max_bytes_in_flight=1 << 20))
        for request in self._requests:
            self.received.put(request)
            if request.HasField("header"):
                yield prediction_pb2.StreamPredictResponse(item_id=request.item_id, error=error_to_proto(REFUSAL))

    def cancel(self) -> None:
        """Nothing is left to cancel."""


class Connection:
    """One on which every stream is the same call."""

    def __init__(self, call: Call) -> None:
        self.stream_predict = call


def batch(first_index: int) -> Batch:
    return Batch(first_index, ROWS, CODEC, *CODEC.quantize(ROWS))


def stream_of(call: Call, batches: Iterator[Batch], limits: Limits) -> ScoreStream:
    def renew(*_: object) -> Any:
        raise AssertionError("nothing is stale")

    connections: Any = Connections(lambda: Connection(call), lambda _: None)
    return ScoreStream(connections, 1, batches, limits, renew, HANG_SECONDS)


def test_a_quiet_source_does_not_make_a_stream_look_dead() -> None:
    """Until its next row comes, the stream sends keep-alives, before the service would end it."""
    call = Call()

    def source() -> Iterator[Batch]:
        yield batch(0)
        while not call.received.get(timeout=HANG_SECONDS).HasField("header"):
            pass
        for _ in range(3):
            message = call.received.get(timeout=HANG_SECONDS)
            assert (message.item_id, message.cancel) == (0, True)
            assert not message.HasField("header")
        yield batch(1)

    results = list(stream_of(call, source(), dataclasses.replace(LIMITS, idle_timeout_seconds=0.03)))
    assert [(one.first_index, type(result)) for one, result in results] == [
        (0, ModelNotFoundError),
        (1, ModelNotFoundError),
    ]


def test_no_keep_alive_for_a_service_that_waits_for_ever() -> None:
    call = Call()
    limits = dataclasses.replace(LIMITS, idle_timeout_seconds=0.0)
    results: list[tuple[Batch, Any]] = list(stream_of(call, map(batch, range(3)), limits))
    assert all(isinstance(result, SealserveError) for _, result in results)
    assert [call.received.get_nowait().item_id for _ in range(call.received.qsize())] == [1, 2, 3]


@pytest.mark.parametrize("seconds", [-1.0, 1e-9, 1e300])
def test_a_service_that_waits_for_an_absurd_time(seconds: float) -> None:
    call = Call()
    results = list(stream_of(call, map(batch, range(3)), dataclasses.replace(LIMITS, idle_timeout_seconds=seconds)))
    assert [type(result) for _, result in results] == [ModelNotFoundError] * 3


def test_no_batch_is_taken_before_there_is_use_for_it() -> None:
    """A live source is asked for its next row when the one before has been sent, and no earlier."""
    call = Call()

    def source() -> Iterator[Batch]:
        for first_index in range(5):
            assert call.received.qsize() == first_index
            yield batch(first_index)

    assert sorted(one.first_index for one, _ in stream_of(call, source(), LIMITS)) == list(range(5))
