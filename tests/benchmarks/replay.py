"""Batches that were encrypted beforehand, sent over and over: the load of a service without a client's encryption."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from sealserve._calls import messages
from sealserve._exchange import Exchange
from sealserve.item import Scores
from sealserve.v1 import prediction_pb2
from sealserve.wire import scores_from_proto

STREAM = "/sealserve.v1.PredictionService/StreamPredict"


def prefix(item_id: int) -> bytes:
    """Serialize an item id: put before a message without one, it is that message's."""
    return prediction_pb2.StreamPredictRequest(item_id=item_id).SerializeToString()


@dataclass(frozen=True)
class Batch:
    """An encrypted item: its messages, serialized, without an item id."""

    row_count: int
    bodies: list[bytes]

    @classmethod
    def of(cls, exchange: Exchange, quantized_rows: NDArray[np.int64]) -> "Batch":
        """Encrypt rows on the model's grid."""
        item = exchange.encrypt(quantized_rows)
        bodies = [message.SerializeToString() for message in messages(0, item, exchange.model.limits)]
        return cls(len(quantized_rows), bodies)

    @property
    def byte_count(self) -> int:
        """Bytes of all messages."""
        return sum(map(len, self.bodies))


@dataclass(frozen=True)
class Replayed:
    """What came of a replay.

    Attributes:
        reply: the last item's.
        reply_bytes: of all messages of an item's reply, on average.
    """

    rows_per_second: float
    server_seconds: float
    reply: list[Scores]
    reply_bytes: float


def replay(channel: grpc.Channel, batch: Batch, count: int, in_flight: int) -> Replayed:
    """Send a batch `count` times on one stream, at most `in_flight` at a time.

    Raises:
        RuntimeError: an item has failed.
    """
    room = threading.Semaphore(in_flight)

    def requests() -> Iterator[bytes]:
        for item_id in range(1, count + 1):
            room.acquire()
            head = prefix(item_id)
            for body in batch.bodies:
                yield head + body

    call: Any = channel.stream_stream(STREAM, bytes, prediction_pb2.StreamPredictResponse.FromString)(requests())
    reply: list[Scores] = []
    done, reply_bytes, server_seconds, start = 0, 0, 0.0, time.perf_counter()
    for response in call:
        reply_bytes += response.ByteSize()
        if response.HasField("error"):
            raise RuntimeError(response.error.message)
        if response.item_id and not response.scores.first_index:
            reply = []
        reply += scores_from_proto(response.scores)
        if response.HasField("done"):
            server_seconds += response.done.server_seconds
            done += 1
            room.release()
    seconds = time.perf_counter() - start
    return Replayed(done * batch.row_count / seconds, server_seconds / done, reply, reply_bytes / done)
