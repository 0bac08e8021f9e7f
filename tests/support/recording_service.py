"""A recording service: it describes a model as it likes, answers as a test says, and records all.

It speaks the protocol over a real socket, and holds no weights.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from google.protobuf import any_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status
from numpy.typing import NDArray

from sealserve._codec.offers import packing_of
from sealserve.errors import ServiceError
from sealserve.he.reply_bits import ReplyBits
from sealserve.protocol.item import EncryptedScores
from sealserve.protocol.model import Model, Offer
from sealserve.protocol.wire import error_to_proto, model_to_proto, scores_to_proto
from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from tests.support.reply_pairs import pair_of

Event = tuple[Any, ...]
"""What a service sees of a client: a method and the lengths of messages, or the end of a call."""

_GRACE_SECONDS = 10.0


@dataclass(frozen=True)
class Sent:
    """An item that has arrived.

    Attributes:
        number: how many items arrived before.
        ciphertexts: all of them.
        has_ended: is set when the client ends the call.
    """

    number: int
    header: prediction_pb2.ItemHeader
    ciphertexts: list[bytes]
    has_ended: threading.Event


Answer = Sequence[EncryptedScores] | ServiceError | grpc.StatusCode
"""Pieces of a reply; the error of the item; or the status with which the whole call breaks."""


@dataclass
class RecordingService:
    """The state of the service.

    Attributes:
        model: what it says of its model.
        answer: what it does with an item.
        trace: what it has seen, in order.
        sent: the items that have arrived.
        steps: what it sends as the steps of the model.
    """

    model: Model
    answer: Callable[[Sent], Answer]
    trace: list[Event] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    address: str = ""
    steps: bytes = b""

    def handlers(self) -> "list[grpc.GenericRpcHandler[Any, Any]]":
        """The methods of the protocol that a client calls."""
        unary, streamed = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        return [
            grpc.method_handlers_generic_handler(
                "sealserve.v1.ModelService",
                {
                    "GetModel": unary(self._get_model),
                    "ListModels": unary(self._list_models),
                    "GetInputSteps": grpc.unary_stream_rpc_method_handler(self._get_input_steps),
                },
            ),
            grpc.method_handlers_generic_handler(
                "sealserve.v1.PredictionService",
                {"Predict": unary(self._predict), "StreamPredict": streamed(self._stream)},
            ),
            grpc.method_handlers_generic_handler(
                "sealserve.v1.KeyService",
                {
                    "RegisterKey": grpc.stream_unary_rpc_method_handler(self._register_key),
                    "GetKey": unary(self._get_key),
                },
            ),
        ]

    def _get_model(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        self.trace.append(("GetModel", len(request)))
        return model_pb2.GetModelResponse(model=model_to_proto(self.model)).SerializeToString()

    def _list_models(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        self.trace.append(("ListModels", len(request)))
        return model_pb2.ListModelsResponse(models=[model_to_proto(self.model)]).SerializeToString()

    def _get_input_steps(self, request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        self.trace.append(("GetInputSteps", len(request)))
        yield model_pb2.GetInputStepsResponse(piece=self.steps).SerializeToString()

    def _register_key(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        self.trace.append(("RegisterKey", *map(len, requests)))
        return keys_pb2.RegisterKeyResponse().SerializeToString()

    def _get_key(self, request: bytes, _: grpc.ServicerContext) -> bytes:
        self.trace.append(("GetKey", len(request)))
        return keys_pb2.GetKeyResponse().SerializeToString()

    def _predict(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.trace.append(("Predict", len(request)))
        message = prediction_pb2.PredictRequest.FromString(request)
        answer = self._answer_to(message.header, list(message.ciphertexts), context)
        if isinstance(answer, ServiceError):
            details = any_pb2.Any()
            details.Pack(error_to_proto(answer))
            code: int = grpc.StatusCode.FAILED_PRECONDITION.value[0]
            context.abort_with_status(rpc_status.to_status(Status(code=code, details=[details])))
        return prediction_pb2.PredictResponse(
            scores=scores_to_proto(0, answer), done=prediction_pb2.ItemDone()
        ).SerializeToString()

    def _stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self.trace.append(("StreamPredict",))
        window = prediction_pb2.Window(max_bytes_in_flight=self.model.limits.window_bytes)
        yield prediction_pb2.StreamPredictResponse(window=window).SerializeToString()
        header, ciphertexts = prediction_pb2.ItemHeader(), list[bytes]()
        try:
            for request in requests:
                self.trace.append(("message", len(request)))
                message = prediction_pb2.StreamPredictRequest.FromString(request)
                if message.HasField("header"):
                    header, ciphertexts = message.header, []
                ciphertexts += message.chunk.ciphertexts
                if len(ciphertexts) < header.ciphertext_count:
                    continue
                answer = self._answer_to(header, ciphertexts, context)
                if isinstance(answer, ServiceError):
                    end = prediction_pb2.StreamPredictResponse(item_id=message.item_id, error=error_to_proto(answer))
                else:
                    end = prediction_pb2.StreamPredictResponse(
                        item_id=message.item_id, scores=scores_to_proto(0, answer), done=prediction_pb2.ItemDone()
                    )
                self.trace.append(("answered",))
                yield end.SerializeToString()
        except (grpc.RpcError, GeneratorExit):  # while a message is awaited, or while one is sent
            self.trace.append(("cancelled",))
            raise
        self.trace.append(("half-closed",))

    def _answer_to(
        self, header: prediction_pb2.ItemHeader, ciphertexts: list[bytes], context: grpc.ServicerContext
    ) -> Sequence[EncryptedScores] | ServiceError:
        has_ended = threading.Event()
        context.add_callback(has_ended.set)
        sent = Sent(len(self.sent), header, ciphertexts, has_ended)
        self.sent.append(sent)
        answer = self.answer(sent)
        if isinstance(answer, grpc.StatusCode):
            self.trace.append(("broken",))
            context.abort(answer, "")
        return answer


@contextlib.contextmanager
def recording_service(model: Model, answer: Callable[[Sent], Answer]) -> Iterator[RecordingService]:
    """Run a hostile service. When the block has ended, its trace is complete."""
    service = RecordingService(model, answer)
    options = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), handlers=service.handlers(), options=options)
    service.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield service
    finally:
        server.stop(_GRACE_SECONDS).wait()


def described(model: Model, *, layout: str, **limits: Any) -> Model:
    """Describe a model so that its client tells the most.

    It has one offer, the widest ranges of scores that are less than all of them, one open item at a
    time, and no keep-alive messages.
    """
    offer = next(offer for offer in model.offers if offer.layout.name == layout)
    t, count = offer.parameters.plain_modulus, model.output.score_count
    offer = dataclasses.replace(offer, score_centers=(0,) * count, score_radii=((t + 1) // 2 - 1,) * count)
    changes = {"max_open_items": 1, "idle_timeout_seconds": 0.0, "suggested_connections": 1} | limits
    return dataclasses.replace(model, offers=(offer,), limits=dataclasses.replace(model.limits, **changes))


def scaled(offer: Offer, residue: int) -> list[int]:
    """Return round(q m / t) modulo each data prime: the coefficient that decrypts to m."""
    q, t = offer.parameters.parameter_set.modulus, offer.parameters.plain_modulus
    return [(2 * q * (residue % t) + t) // (2 * t) % prime for prime in offer.parameters.parameter_set.data_primes]


def bits_asked_for(offer: Offer, sent: Sent) -> ReplyBits | None:
    """How the reply to an item is packed, which has the form that its header asks for."""
    return offer.reply_bits if prediction_pb2.REPLY_FORM_PACKED in sent.header.reply_forms else None


def reply_of(model: Model, values: NDArray[np.int64], sent: Sent | None = None) -> list[EncryptedScores]:
    """Make a reply that any key decrypts to given integer scores (rows, score_count).

    Its form is the one that the item asks for, or the shortest.
    """
    (offer,) = model.offers
    packing, primes = packing_of(model, offer), offer.parameters.parameter_set.data_primes
    bits = offer.reply_bits if sent is None else bits_asked_for(offer, sent)
    pieces: list[EncryptedScores] = []
    for polynomial in range(packing.polynomials):
        classes = packing.classes_in(polynomial)
        kept = values[:, classes.start : classes.stop].ravel().tolist()
        c0 = np.array([scaled(offer, value) for value in kept], np.uint64).T
        c1 = np.zeros((len(primes), packing.poly_modulus_degree), np.uint64)
        pieces.append(pair_of(offer.parameters.parameter_set, bits, c0, c1))
    return pieces


def accepted(model: Model, sent: Sent) -> list[EncryptedScores]:
    """Make a reply that passes the client's checks."""
    return reply_of(model, np.zeros((sent.header.row_count, model.output.score_count), np.int64), sent)


def refused(model: Model, sent: Sent) -> list[EncryptedScores]:
    """Make a reply whose last score is out of its published range."""
    values = np.zeros((sent.header.row_count, model.output.score_count), np.int64)
    values[-1, -1] = model.offers[0].parameters.plain_modulus // 2
    return reply_of(model, values, sent)
