"""Calls, gRPC's failures -> sealserve's errors, items -> messages: what every client does."""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
from google.rpc.status_pb2 import Status

from sealserve import errors
from sealserve._exchange import Item
from sealserve.item import Scores
from sealserve.model import Limits, Model
from sealserve.v1 import errors_pb2, model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from sealserve.wire import error_from_proto, header_to_proto, model_from_proto, scores_from_proto

CHUNK_BYTES = 1 << 20
_BACKOFF = 1.5
# What a wait grows to when the service asks for less: a few attempts a timeout, or a client could starve.
_MAX_GROWN_SECONDS = 2.0

T = TypeVar("T")

BUSY = (errors.QuotaExceededError, errors.DrainingError, errors.KeyStoreUnavailableError)
"""Errors of a service that may do later what it does not now; each has a retry delay."""


def called(method: Callable[..., Any], request: Any, timeout_seconds: float) -> Any:
    """Call a method that has one reply.

    Raises:
        SealserveError: the call failed.
    """
    try:
        return method(request, timeout=timeout_seconds)
    except grpc.RpcError as error:
        raise translated(error) from error


def retried(act: Callable[[float], T], timeout_seconds: float) -> T:
    """Act, and again after the delay for which a busy or stopping service asks, for as long as the time allows.

    Args:
        act: is given the seconds that are left.
        timeout_seconds: for all attempts together.

    Raises:
        SealserveError: what the last attempt raised; if that one's time ran out, why the service had refused before.
    """
    end, left, wait = time.monotonic() + timeout_seconds, timeout_seconds, 0.0
    busy: errors.SealserveError | None = None
    while True:
        try:
            return act(left)
        except BUSY as error:
            busy = error
            # Ever longer, and not all clients at once: else those that were refused together come back together.
            wait = max(error.retry_delay_seconds, min(_BACKOFF * wait, _MAX_GROWN_SECONDS))
            delay = wait * random.uniform(1.0, 2.0)  # noqa: S311  # no secret
            left = end - time.monotonic() - delay
            if left <= 0:
                raise
            time.sleep(delay)
        except errors.DeadlineError:
            if busy is None:
                raise
            # What was left of the time tells nothing of the service: that it was busy does.
            raise busy from busy.__cause__


def described(channel: grpc.Channel, name: str, timeout_seconds: float) -> Model:
    """Ask what a model is; the name may be empty when the service has one model only."""
    stub, request = model_pb2_grpc.ModelServiceStub(channel), model_pb2.GetModelRequest(model=name)
    return model_from_proto(retried(lambda left: called(stub.GetModel, request, left), timeout_seconds).model)


def scored(channel: grpc.Channel, item: Item, limits: Limits, timeout_seconds: float) -> list[Scores]:
    """Score an item: in one message each way if they fit, else on a stream of its own; returns the whole reply."""
    return retried(lambda left: _scored(channel, item, limits, left), timeout_seconds)


def _scored(channel: grpc.Channel, item: Item, limits: Limits, timeout_seconds: float) -> list[Scores]:
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    if max(item.byte_count, item.cost.reply_bytes) <= limits.max_message_bytes:
        request = prediction_pb2.PredictRequest(header=header_to_proto(item.header), ciphertexts=item.ciphertexts)
        return scores_from_proto(called(stub.Predict, request, timeout_seconds).scores)
    reply: list[Scores] = []
    try:
        for response in stub.StreamPredict(messages(1, item, limits), timeout=timeout_seconds):
            if response.HasField("error"):
                raise error_from_proto(response.error)
            reply += scores_from_proto(response.scores)
    except grpc.RpcError as error:
        raise translated(error) from error
    return reply


def translated(error: Any) -> errors.SealserveError:
    """Return the typed error that a failed call (a grpc.RpcError) carries, or what its status code means."""
    code, details = error.code(), error.details() or ""
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    if detail := _detail(packed):
        return error_from_proto(detail)
    # A server that begins to shut down ends the calls that are just arriving with CANCELLED.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return errors.UnavailableError(f"the service cannot be reached: {details}")
    if code is grpc.StatusCode.UNAUTHENTICATED:  # bare, as nothing tells a stranger whose service it is
        return errors.UnauthenticatedError()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineError("the answer did not come within timeout_seconds")
    return errors.CallError(f"the call failed with {code.name}: {details}")


def _detail(value: bytes) -> errors_pb2.Error | None:
    try:
        for packed in Status.FromString(value).details:
            if packed.Is(errors_pb2.Error.DESCRIPTOR):
                return errors_pb2.Error.FromString(packed.value)
    except ValueError:  # protobuf's DecodeError is one: not ours, so that the status code has to do
        pass
    return None


def messages(item_id: int, item: Item, limits: Limits) -> Iterator[prediction_pb2.StreamPredictRequest]:
    """Yield the messages of an item: the first with its header, each with a chunk of CHUNK_BYTES or the limit."""
    header: prediction_pb2.ItemHeader | None = header_to_proto(item.header)
    chunk_bytes = min(CHUNK_BYTES, limits.max_message_bytes)
    chunk, byte_count = prediction_pb2.Chunk(), 0
    for index, ciphertext in enumerate(item.ciphertexts):
        if byte_count and byte_count + len(ciphertext) > chunk_bytes:
            yield prediction_pb2.StreamPredictRequest(item_id=item_id, header=header, chunk=chunk)
            header, chunk, byte_count = None, prediction_pb2.Chunk(first_index=index), 0
        chunk.ciphertexts.append(ciphertext)
        byte_count += len(ciphertext)
    yield prediction_pb2.StreamPredictRequest(item_id=item_id, header=header, chunk=chunk)
