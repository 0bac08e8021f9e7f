"""PredictionService: items scored one by one, or on a stream."""

import queue
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing

from grpc import ServicerContext

from sealserve.errors import (
    DrainingError,
    LimitExceededError,
    ServiceError,
)
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import header_from_proto
from sealserve.v1 import (
    prediction_pb2,
    prediction_pb2_grpc,
)
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.rpc import status
from sealserve_service.rpc.read_ahead import Inbox
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.calls_in_flight import RETRY_SECONDS, Drain
from sealserve_service.scoring.item import Item, as_service_error, check_bytes, done
from sealserve_service.scoring.table import ItemTable
from sealserve_service.telemetry import calls
from sealserve_service.tenants.authenticator import Authenticator
from sealserve_service.tenants.tenant import Tenant


class PredictionServicer(prediction_pb2_grpc.PredictionServiceServicer):
    """PredictionService over a registry.

    Args:
        models: what is served.
        authenticator: says whose call it is.
        limits: what one client may send.
        drain: once begun, new work is refused and work in flight finishes.
        admission: the bounds of what is under way.
        readers: a thread for each stream, that waits for its next message.
    """

    def __init__(
        self,
        models: ModelRegistry,
        authenticator: Authenticator,
        limits: Limits,
        drain: Drain,
        admission: Admission,
        readers: Executor,
    ) -> None:
        self._models = models
        self._admission = admission
        self._authenticator = authenticator
        self._limits = limits
        self._drain = drain
        self._readers = readers

    def check_room(self) -> None:
        """Look whether Predict could score anything soon, whatever a request asks for.

        Raises:
            DrainingError, QuotaExceededError: it could not.
        """
        # Seeded ciphertexts are half as long. What does not fit into a message nobody asks Predict for.
        longest = 2 * self._limits.max_message_bytes
        with self._drain.call():
            self._admission.check_wait(e for e in self._models.engines() if e.offer.cost.request_bytes <= longest)

    def Predict(
        self, request: prediction_pb2.PredictRequest, context: ServicerContext
    ) -> prediction_pb2.PredictResponse:
        """Score one item."""
        try:
            with self._drain.call():
                tenant = self._authenticator.authenticate(context)
                return self._predicted(request, tenant, context.time_remaining())
        except Exception as error:
            status.abort(context, as_service_error(error))

    def _predicted(
        self, request: prediction_pb2.PredictRequest, tenant: Tenant, seconds_left: float | None
    ) -> prediction_pb2.PredictResponse:
        ciphertexts = list(request.ciphertexts)
        check_bytes(ciphertexts, self._limits)
        call, header = calls.current(), header_from_proto(request.header)
        call.asks(header)
        item = Item(header, self._models, tenant, self._admission)
        call.item_began()
        if item.offer.cost.reply_bytes > self._limits.max_message_bytes:
            limit = self._limits.max_message_bytes
            raise LimitExceededError("max_message_bytes", limit, item.offer.cost.reply_bytes)
        with closing(item), item.whole_turn(seconds_left):
            item.add(0, ciphertexts)
            scores = item.message(0, list(item.scores()))
        call.scored(item.work)
        return prediction_pb2.PredictResponse(scores=scores, done=done(item))

    def StreamPredict(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """Score items as they come."""
        try:
            with self._drain.call():
                yield from self._answers(requests, context)
        except ServiceError as error:
            status.abort(context, error)

    def _answers(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        tenant = self._authenticator.authenticate(context)
        window = prediction_pb2.Window(max_bytes_in_flight=self._limits.window_bytes)
        yield prediction_pb2.StreamPredictResponse(window=window)
        with closing(ItemTable(self._models, tenant, self._limits, self._admission, calls.current())) as table:
            yield from self._ends(requests, context, table)

    def _ends(
        self, requests: Iterator[prediction_pb2.StreamPredictRequest], context: ServicerContext, table: ItemTable
    ) -> Iterator[prediction_pb2.StreamPredictResponse]:
        draining = self._drain.begun
        with closing(Inbox(requests, self._readers)) as inbox, self._drain.heard(inbox.wake):
            while table or not draining.done():
                try:
                    message = inbox.get(_seconds_left(table))
                except queue.Empty:
                    table.draining = draining.done()
                    yield from table.expired(time.monotonic())
                    table.check_idle(time.monotonic())
                    continue
                table.draining = draining.done()
                yield from table.expired(time.monotonic())
                if message is None:
                    yield from table.abandoned()
                    return
                # A token may have expired, or have been revoked, since the stream began.
                table.tenant = self._authenticator.authenticate(context)
                yield from table.receive(message)
        raise DrainingError(RETRY_SECONDS)


def _seconds_left(table: ItemTable) -> float | None:
    deadline = table.next_deadline
    return None if deadline is None else max(0.0, deadline - time.monotonic())
