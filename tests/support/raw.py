"""RawClient: messages built by hand over the generated stubs, which the SDK would not send."""

import contextlib
import queue
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve._codec.messages import item_messages
from sealserve._codec.offers import choose
from sealserve._rpc.channel import open_channel
from sealserve._rpc.status import typed_error
from sealserve.credentials import Credentials
from sealserve.errors import ServiceError
from sealserve.he.layouts import Layout
from sealserve.protocol.item import EncryptedScores
from sealserve.protocol.wire import error_from_proto, model_from_proto, scores_from_proto
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from tests.support.serving import HANG_SECONDS

Request = prediction_pb2.PredictRequest
Message = prediction_pb2.StreamPredictRequest
Answer = NDArray[np.float64] | ServiceError


class RawClient:
    """A client of one model that sends any message and reads any answer."""

    def __init__(
        self, address: str, model: str = "", credentials: Credentials | None = None, *, layout: Layout | None = None
    ) -> None:
        self.channel = open_channel(address, credentials)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.predictions = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        described = self.models.GetModel(model_pb2.GetModelRequest(model=model), timeout=HANG_SECONDS).model
        known = model_from_proto(described)
        self.codec = RowCodec(known, offer=choose(known, 1, layout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def call(self, method: str, data: bytes) -> list[bytes]:
        """Call a method ("PredictionService/Predict") with any bytes; return the replies' bytes."""
        path = f"/sealserve.v1.{method}"
        if method == "PredictionService/StreamPredict":
            streaming = self.channel.stream_stream(path, _as_is, _as_is)
            return list(streaming(iter([data]), timeout=HANG_SECONDS))
        return [self.channel.unary_unary(path, _as_is, _as_is)(data, timeout=HANG_SECONDS)]

    def request(self, rows: NDArray[np.float64]) -> Request:
        """A good item, for Predict."""
        item = self.codec.encrypt(self.codec.quantize(np.atleast_2d(rows)).integers)
        return Request(header=item.header_message, ciphertexts=item.ciphertexts)

    def item(self, item_id: int, rows: NDArray[np.float64]) -> Message:
        """A good item, for StreamPredict, in one message."""
        (message,) = self.messages(item_id, rows)
        return message

    def messages(self, item_id: int, rows: NDArray[np.float64]) -> list[Message]:
        """A good item, for StreamPredict, in as many messages as the SDK makes of it."""
        item = self.codec.encrypt(self.codec.quantize(np.atleast_2d(rows)).integers)
        return list(item_messages(item_id, item))

    def predict(self, request: Request) -> NDArray[np.float64]:
        """Call Predict and decrypt.

        Raises:
            SealserveError: as the SDK would; the grpc.RpcError is its cause.
        """
        try:
            response = self.predictions.Predict(request, timeout=HANG_SECONDS)
        except grpc.RpcError as error:
            raise typed_error(error) from error
        return self.codec.decrypt(request.header.row_count, scores_from_proto(response.scores))

    def stream(self, requests: Sequence[Message]) -> dict[int, Answer]:
        """Send messages on one stream, close our side, and return each item's end: scores or error.

        Raises:
            SealserveError: the whole call failed.
        """
        row_counts = {request.item_id: request.header.row_count for request in requests if request.HasField("header")}
        answers: dict[int, Answer] = {}
        call = self.predictions.StreamPredict(iter(requests), timeout=HANG_SECONDS)
        for item_id, answer in self.answers(call, row_counts):
            assert item_id not in answers, "an item has one end"
            answers[item_id] = answer
        return answers

    @contextlib.contextmanager
    def conversation(self) -> Iterator["Conversation"]:
        """A stream that stays open while the test decides what to send next."""
        outbox: queue.Queue[Message | None] = queue.Queue()
        call = self.predictions.StreamPredict(iter(outbox.get, None), timeout=HANG_SECONDS)
        try:
            yield Conversation(outbox.put, self.answers(call), call)
        finally:
            call.cancel()
            outbox.put(None)

    def answers(
        self, call: Iterable[prediction_pb2.StreamPredictResponse], row_counts: Mapping[int, int] = MappingProxyType({})
    ) -> Iterator[tuple[int, Answer]]:
        """Yield the end of each item as it comes: its scores or its error.

        Scores are of one row where row_counts does not say otherwise.

        Raises:
            SealserveError: the whole call failed.
        """
        replies = defaultdict[int, list[EncryptedScores]](list)
        try:
            for response in call:
                reply = replies[response.item_id]
                if response.HasField("scores"):
                    assert response.scores.first_index == len(reply)
                    reply += scores_from_proto(response.scores)
                match response.WhichOneof("end"):
                    case "done":
                        yield response.item_id, self.codec.decrypt(row_counts.get(response.item_id, 1), reply)
                    case "error":
                        yield response.item_id, error_from_proto(response.error)
        except grpc.RpcError as error:
            raise typed_error(error) from error


def _as_is(data: bytes) -> bytes:
    return data


@dataclass(frozen=True)
class Conversation:
    """An open stream: a way to send, the ends of items as they come, and the call."""

    send: Callable[[Message], None]
    answers: Iterator[tuple[int, Answer]]
    call: Any


def as_message(item_id: int, request: Request) -> Message:
    """A unary request as the one message of a stream's item."""
    return Message(item_id=item_id, header=request.header, chunk=chunk(0, *request.ciphertexts))


def chunk(first_index: int, *ciphertexts: bytes) -> prediction_pb2.Chunk:
    """Consecutive ciphertexts."""
    return prediction_pb2.Chunk(first_index=first_index, ciphertexts=ciphertexts)


def assert_scores(answer: Answer, expected: NDArray[np.float64]) -> None:
    """Check one row's scores of the digits model."""
    assert not isinstance(answer, ServiceError), answer
    assert np.abs(answer - expected).max() < 0.01


def assert_error(answer: object, expected: ServiceError) -> None:
    """Check type and details of an error."""
    assert type(answer) is type(expected), repr(answer)
    assert vars(answer) == vars(expected)
