"""Messages built by hand, over the generated stubs: what the SDK would not send."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from sealserve._calls import messages, translated
from sealserve._exchange import Exchange
from sealserve.errors import SealserveError, ServiceError
from sealserve.item import Residues
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from sealserve.wire import error_from_proto, header_to_proto, model_from_proto, scores_from_proto
from tests.serving import HANG_SECONDS

Answer = NDArray[np.float64] | ServiceError


class RawClient:
    """A client of one model that sends any message and reads any answer."""

    def __init__(self, address: str, model: str = "") -> None:
        self.channel = grpc.insecure_channel(address)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.predictions = prediction_pb2_grpc.PredictionServiceStub(self.channel)
        described = self.models.GetModel(model_pb2.GetModelRequest(model=model), timeout=HANG_SECONDS).model
        self.exchange = Exchange(model_from_proto(described))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def request(self, rows: NDArray[np.float64]) -> prediction_pb2.PredictRequest:
        """A good item, for Predict."""
        item = self.exchange.encrypt(self.exchange.quantize(np.atleast_2d(rows)))
        return prediction_pb2.PredictRequest(header=header_to_proto(item.header), ciphertexts=item.ciphertexts)

    def item(self, item_id: int, rows: NDArray[np.float64]) -> prediction_pb2.StreamPredictRequest:
        """A good item, for StreamPredict, in one message."""
        item = self.exchange.encrypt(self.exchange.quantize(np.atleast_2d(rows)))
        (message,) = messages(item_id, item, self.exchange.model.limits)
        return message

    def predict(self, request: prediction_pb2.PredictRequest) -> NDArray[np.float64]:
        """Call Predict and decrypt.

        Raises:
            SealserveError: as the SDK would; the grpc.RpcError is its cause.
        """
        try:
            response = self.predictions.Predict(request, timeout=HANG_SECONDS)
        except grpc.RpcError as error:
            raise translated(error) from error
        return self.decrypt(request.header.row_count, scores_from_proto(response.scores))

    def stream(self, requests: Sequence[prediction_pb2.StreamPredictRequest]) -> dict[int, Answer]:
        """Send messages on one stream, close our side, and return each item's end: scores or error.

        Raises:
            SealserveError: the whole call failed.
        """
        row_counts = {request.item_id: request.header.row_count for request in requests if request.HasField("header")}
        answers: dict[int, Answer] = {}
        for item_id, answer in self.answers(self.predictions.StreamPredict(iter(requests), timeout=HANG_SECONDS)):
            assert item_id not in answers, "an item has one end"
            answers[item_id] = answer if isinstance(answer, ServiceError) else self.decrypt(row_counts[item_id], answer)
        return answers

    @staticmethod
    def answers(
        call: Iterable[prediction_pb2.StreamPredictResponse],
    ) -> Iterable[tuple[int, list[Residues] | ServiceError]]:
        """Yield the end of each item as it comes: its polynomial pairs, or its error.

        Raises:
            SealserveError: the whole call failed.
        """
        replies: dict[int, list[Residues]] = {}
        try:
            for response in call:
                reply = replies.setdefault(response.item_id, [])
                if response.HasField("scores"):
                    assert response.scores.first_index == len(reply)
                    reply += scores_from_proto(response.scores)
                match response.WhichOneof("end"):
                    case "done":
                        yield response.item_id, reply
                    case "error":
                        yield response.item_id, error_from_proto(response.error)
        except grpc.RpcError as error:
            raise translated(error) from error

    def decrypt(self, row_count: int, reply: Sequence[Residues]) -> NDArray[np.float64]:
        """Decrypt the scores of an item."""
        return self.exchange.decrypt(row_count, reply)


def same_error(error: BaseException, expected: SealserveError) -> bool:
    """Tell whether two errors agree in type and details."""
    return type(error) is type(expected) and vars(error) == vars(expected)
