"""PredictionService: scores items, one in a call or many on a stream."""

import math
import queue
import random
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing

from grpc import ServicerContext

from sealserve.errors import DrainingError, LimitExceededError
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import header_from_proto
from sealserve.v1 import prediction_pb2, prediction_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.engines.base import Engine
from sealserve_service.rpc.read_ahead import ReadAhead
from sealserve_service.rpc.timed_read import LOOK_SECONDS
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.caller_slots import RETRY_SECONDS
from sealserve_service.scoring.calls_in_flight import CallsInFlight
from sealserve_service.scoring.item import ScoringItem, check_message_bytes
from sealserve_service.scoring.table import ItemTable
from sealserve_service.scoring.turns import CallEnd, Waiter
from sealserve_service.telemetry.call_record import current_call
from sealserve_service.tenants.authenticator import Authenticator
from sealserve_service.tenants.caller import current_caller
from sealserve_service.tenants.tenant import current_tenant

# Of the age of a connection, until a stream ends: it shall end by itself, and not with its
# connection, which gets as much time again from the moment on at which it takes no more calls.
_SHARES_OF_AGE = 0.75, 0.95


class PredictionServicer(prediction_pb2_grpc.PredictionServiceServicer):
    """PredictionService over a registry.

    Args:
        models: the models that are served.
        authenticator: tells, at each message of a stream, whose stream it is.
        limits: the bounds of what one client may send.
        calls_in_flight: admits calls.
        admission: the bounds of what is under way in this process.
        readers: has a thread for each stream, which waits for its next message.
        stream_seconds: how long a stream begins items at most.
    """

    def __init__(
        self,
        models: ModelRegistry,
        authenticator: Authenticator,
        limits: Limits,
        calls_in_flight: CallsInFlight,
        admission: Admission,
        readers: Executor,
        *,
        stream_seconds: float = math.inf,
    ) -> None:
        self._models = models
        self._admission = admission
        self._authenticator = authenticator
        self._limits = limits
        self._calls_in_flight = calls_in_flight
        self._readers = readers
        self._stream_seconds = stream_seconds

    def Predict(
        self, request: prediction_pb2.PredictRequest, context: ServicerContext
    ) -> prediction_pb2.PredictResponse:
        """Score one item."""
        call, limits = current_call.get(), self._limits
        with self._calls_in_flight.admit():
            header = header_from_proto(request.header)
            call.begin_item(header)
            ciphertexts = list(request.ciphertexts)
            check_message_bytes(ciphertexts, limits)
            waiter = Waiter(current_caller.get().name, context.add_callback)
            item = ScoringItem(header, self._models, current_tenant.get(), self._admission, waiter)
            if item.reply_bytes > limits.max_message_bytes:
                raise LimitExceededError("max_message_bytes", limits.max_message_bytes, item.reply_bytes)
            group, done = item.score(ciphertexts, context.time_remaining())
        call.count_scored(item.work)
        return prediction_pb2.PredictResponse(scores=group, done=done)

    def StreamPredict(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """Score items as they arrive."""
        with self._calls_in_flight.admit():
            end = CallEnd()
            if not context.add_callback(end.happen):
                end.happen()
            waiter = Waiter(current_caller.get().name, end.call_back)
            table = ItemTable(
                self._models, current_tenant.get(), self._limits, self._admission, current_call.get(), waiter
            )
            try:
                with closing(table):
                    window = prediction_pb2.Window(max_bytes_in_flight=self._limits.window_bytes)
                    yield prediction_pb2.StreamPredictResponse(window=window)
                    yield from self._answers(requests, context, table)
            finally:
                if not table.item_count:
                    self._admission.charge_in_vain(current_caller.get())

    def _answers(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext, table: ItemTable
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        stopping = self._calls_in_flight.stopping
        end = time.monotonic() + self._stream_seconds * random.uniform(*_SHARES_OF_AGE)  # noqa: S311  # no secret

        def is_ending() -> bool:
            return stopping.is_set() or time.monotonic() >= end

        with (
            closing(ReadAhead(requests, self._readers)) as read_ahead,
            self._calls_in_flight.calling_on_stop(read_ahead.interrupt),
        ):
            while table or not is_ending():
                table.idle_timeout_seconds = self._calls_in_flight.shortened(self._limits.idle_timeout_seconds)
                try:
                    message = read_ahead.receive(_seconds_left(table, end))
                except queue.Empty:
                    table.is_stopping = is_ending()
                    yield from table.expire(time.monotonic())
                    table.check_idle(time.monotonic())
                    continue
                table.is_stopping = is_ending()
                yield from table.expire(time.monotonic())
                if message is None:
                    yield from table.abandon()
                    return
                # Since the stream began, its token may have expired, or have been revoked.
                table.tenant = self._authenticator.authenticate(context)
                yield from table.receive(message)
        raise DrainingError(RETRY_SECONDS if stopping.is_set() else 0.0)


def unary_engines(models: ModelRegistry, limits: Limits) -> Iterator[Engine]:
    """Yield the engines whose items a client may send to Predict."""
    # The cost counts full ciphertexts. Packed ones are more than a third as long. Items that are
    # longer than that fit into no message.
    longest = 3 * limits.max_message_bytes
    return (engine for engine in models.engines() if engine.offer.cost.request_bytes <= longest)


def _seconds_left(table: ItemTable, end: float) -> float | None:
    """Return how long the next message of a stream may be waited for, and at most LOOK_SECONDS.

    Without an open item that is until the stream is to end.
    """
    deadline = min(math.inf if table.next_deadline is None else table.next_deadline, math.inf if table else end)
    return None if deadline == math.inf else min(LOOK_SECONDS, max(0.0, deadline - time.monotonic()))
