"""Calls, gRPC's failures -> sealserve's errors, items -> messages: what every client does."""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import grpc
from google.rpc.status_pb2 import Status

from sealserve import errors
from sealserve._backoff import BUSY, delay_seconds
from sealserve._exchange import Item
from sealserve.item import Scores
from sealserve.model import Limits, Model
from sealserve.v1 import errors_pb2, model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from sealserve.wire import error_from_proto, header_to_proto, model_from_proto, scores_from_proto

CHUNK_BYTES = 1 << 20
_CIPHERTEXTS_A_CHUNK = 8

SIGN_OF_LIFE = prediction_pb2.StreamPredictRequest(cancel=True)
"""A cancel of no item, which says nothing else: see Limits.idle_timeout."""
_MIN_SIGN_OF_LIFE_SECONDS, _MAX_SIGN_OF_LIFE_SECONDS = 0.01, 3600.0  # whatever a service says

# What gRPC's own server says as it refuses a call for the number of those that it has.
_TOO_MANY_CALLS = "Concurrent RPC limit exceeded"
# What gRPC says of a stream that broke; the last is grpc.aio's word if something was just being written.
_BROKEN_STREAM = ("RST_STREAM", "Stream removed", "Internal error from Core")

_REFUSED_SECONDS = 1.0

T = TypeVar("T")


def called(method: Callable[..., Any], request: Any, timeout_seconds: float) -> Any:
    """Call a method that has one reply.

    Raises:
        SealserveError: the call failed.
    """
    try:
        return method(request, timeout=timeout_seconds)
    except grpc.RpcError as error:
        raise translated(error) from error


class Patience:
    """How long to go on with something that fails in a way that may pass.

    Args:
        seconds: for all attempts together.
        unanswered_seconds: for as long as nothing answers at all; by default that is no error that passes.
    """

    def __init__(self, seconds: float, unanswered_seconds: float | None = None) -> None:
        unanswered = () if unanswered_seconds is None else (errors.UnavailableError,)
        # The end of the time passes to who says why there was none: see `delay_seconds`.
        self.passing = (*BUSY, *unanswered, errors.DeadlineError)
        self._failure: errors.SealserveError | None = None
        now = time.monotonic()
        self._end = now + seconds
        self._unanswered_end = now + min(seconds, unanswered_seconds or 0.0)
        self._failures = 0

    @property
    def seconds_left(self) -> float:
        """For the next attempt."""
        return max(0.0, self._end - time.monotonic())

    def delay_seconds(self, error: errors.SealserveError) -> float:
        """Return how long to wait after a failure.

        Raises:
            SealserveError: the error, when no time is left for another attempt; if that is all that it says, the one
                before.
        """
        if isinstance(error, errors.DeadlineError):
            raise error if self._failure is None else self._failure
        self._failure = error
        self._failures += 1
        delay = delay_seconds(error, self._failures)
        end = self._unanswered_end if isinstance(error, errors.UnavailableError) else self._end
        if time.monotonic() + delay >= end:
            raise error
        return delay


def retried(act: Callable[[float], T], patience: Patience) -> T:
    """Act, with the seconds that are left, and again after a delay when a failure may pass.

    Raises:
        SealserveError: what the last attempt raised.
    """
    while True:
        try:
            return act(patience.seconds_left)
        except patience.passing as error:
            time.sleep(patience.delay_seconds(error))


def described(channel: grpc.Channel, name: str, timeout_seconds: float) -> Model:
    """Ask what a model is; the name may be empty when the service has one model only."""
    return retried(lambda left: described_once(channel, name, left), Patience(timeout_seconds))


def described_once(channel: grpc.Channel, name: str, timeout_seconds: float) -> Model:
    """Ask what a model is, once."""
    request = model_pb2.GetModelRequest(model=name)
    return model_from_proto(called(model_pb2_grpc.ModelServiceStub(channel).GetModel, request, timeout_seconds).model)


def scored(channel: grpc.Channel, item: Item, limits: Limits, timeout_seconds: float) -> list[Scores]:
    """Score an item, and again as long as the service is too busy: see `scored_once`."""
    return retried(lambda left: scored_once(channel, item, limits, left), Patience(timeout_seconds))


def scored_once(channel: grpc.Channel, item: Item, limits: Limits, timeout_seconds: float) -> list[Scores]:
    """Score an item, once: in one message each way if they fit, else on a stream of its own; returns the reply."""
    stub = prediction_pb2_grpc.PredictionServiceStub(channel)
    if fits_a_message(item, limits):
        return scores_from_proto(called(stub.Predict, predict_request(item), timeout_seconds).scores)
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
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or any(s in details for s in _BROKEN_STREAM):
        return errors.UnavailableError(f"the service cannot be reached: {details}")
    if code is grpc.StatusCode.UNAUTHENTICATED:  # bare, as nothing tells a stranger whose service it is
        return errors.UnauthenticatedError()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_MANY_CALLS in details:
        return errors.QuotaExceededError("concurrent_calls", _REFUSED_SECONDS)
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
    """Yield the messages of an item, the first with its header, each with a chunk of it.

    A chunk has CHUNK_BYTES or some ciphertexts, whichever is more, within the limit: the products of few would be added
    to sums that take more memory than they do.
    """
    header: prediction_pb2.ItemHeader | None = header_to_proto(item.header)
    least_bytes = _CIPHERTEXTS_A_CHUNK * item.byte_count // item.header.ciphertext_count
    chunk_bytes = min(max(CHUNK_BYTES, least_bytes), limits.max_message_bytes)
    chunk, byte_count = prediction_pb2.Chunk(), 0
    for index, ciphertext in enumerate(item.ciphertexts):
        if byte_count and byte_count + len(ciphertext) > chunk_bytes:
            yield prediction_pb2.StreamPredictRequest(item_id=item_id, header=header, chunk=chunk)
            header, chunk, byte_count = None, prediction_pb2.Chunk(first_index=index), 0
        chunk.ciphertexts.append(ciphertext)
        byte_count += len(ciphertext)
    yield prediction_pb2.StreamPredictRequest(item_id=item_id, header=header, chunk=chunk)


def predict_request(item: Item) -> prediction_pb2.PredictRequest:
    """Encrypt an item into one message."""
    return prediction_pb2.PredictRequest(header=header_to_proto(item.header), ciphertexts=item.ciphertexts)


def fits_a_message(item: Item, limits: Limits) -> bool:
    """Whether an item and its reply may travel in one message each way."""
    return max(item.byte_count, item.cost.reply_bytes) <= limits.max_message_bytes


def sign_of_life_seconds(idle_timeout_seconds: float) -> float | None:
    """Return how long to be silent on a stream: None for as long as one likes."""
    if idle_timeout_seconds <= 0:
        return None
    return min(max(_MIN_SIGN_OF_LIFE_SECONDS, idle_timeout_seconds / 3), _MAX_SIGN_OF_LIFE_SECONDS)
