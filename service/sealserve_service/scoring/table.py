"""The items of one stream: messages in, messages out.

Nothing here waits or writes, so that every order of hostile messages can be tested without a server.
"""

import time
from collections.abc import Iterator

from sealserve.errors import (
    DrainingError,
    IdleTimeoutError,
    InputMismatchError,
    ItemTimeoutError,
    LimitExceededError,
    OutOfSequenceError,
    ServiceError,
)
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import error_to_proto, header_from_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.scoring import calls_in_flight as drain
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.item import Item, as_service_error, check_bytes, done, grouped
from sealserve_service.telemetry.calls import Call
from sealserve_service.tenants.tenant import Tenant

SLOWEST_BYTES_A_SECOND = 1e6
_MAX_ITEM_ID = (1 << 64) - 1


class ItemTable:
    """The items of one stream.

    Attributes:
        tenant: whose items begin from now on.
        draining: whether none may begin.
    """

    def __init__(self, models: ModelRegistry, tenant: Tenant, limits: Limits, admission: Admission, call: Call) -> None:
        self._call = call
        self._models = models
        self._admission = admission
        self.tenant = tenant
        self._limits = limits
        self._open: dict[int, Item] = {}
        self._deadlines: dict[int, float] = {}
        self._last_id = 0
        self._heard = time.monotonic()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    @property
    def next_deadline(self) -> float | None:
        """When the oldest open item times out, or without open items the stream, in time.monotonic() seconds."""
        silence_seconds = self._limits.idle_timeout_seconds
        return min(self._deadlines.values(), default=self._heard + silence_seconds if silence_seconds else None)

    @property
    def _least_free_id(self) -> int:
        """0, which no item may have, when there is none left."""
        return 0 if self._last_id == _MAX_ITEM_ID else self._last_id + 1

    def receive(self, message: prediction_pb2.StreamPredictRequest) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """Take a message and yield what there is to answer. An item that fails ends; no other notices."""
        try:
            yield from self._received(message)
        finally:
            self._heard = time.monotonic()

    def _received(self, message: prediction_pb2.StreamPredictRequest) -> Iterator[prediction_pb2.StreamPredictResponse]:
        item_id = message.item_id
        if message.cancel:
            self._forget(item_id)
            return
        # A chunk of an item that has failed was sent before its sender knew: there is nothing to say about it.
        if not message.HasField("header") and item_id not in self._open and 0 < item_id <= self._last_id:
            return
        try:
            item = self._begin(message) if message.HasField("header") else self._continued(item_id)
            if message.HasField("chunk"):
                self._add(item, message.chunk)
            if item.is_complete:
                yield from self._finish(item_id, item)
        except Exception as error:
            yield self._failed(item_id, as_service_error(error))

    def expired(self, now: float) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """End the items whose time has run out and yield their errors."""
        for item_id in [item_id for item_id, deadline in self._deadlines.items() if deadline <= now]:
            yield self._failed(item_id, ItemTimeoutError(self._timeout_seconds(self._open[item_id])))

    def check_idle(self, now: float) -> None:
        """Look whether there is still somebody who sends.

        Raises:
            IdleTimeoutError: no item is open, and nothing has come for idle_timeout_seconds.
        """
        if not self._open and self.next_deadline is not None and self.next_deadline <= now:
            raise IdleTimeoutError(self._limits.idle_timeout_seconds)

    def abandoned(self) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """End the items that the client has stopped sending, as it has closed its side, and yield their errors."""
        for item_id, item in list(self._open.items()):
            missing = InputMismatchError("ciphertexts", item.offer.ciphertexts_per_item, item.received)
            yield self._failed(item_id, missing)

    def _begin(self, message: prediction_pb2.StreamPredictRequest) -> Item:
        if message.item_id <= self._last_id:
            raise OutOfSequenceError(self._least_free_id, message.item_id)
        self._last_id = message.item_id
        if self.draining:
            raise DrainingError(drain.RETRY_SECONDS)
        if len(self._open) >= self._limits.max_open_items:
            raise LimitExceededError("max_open_items", self._limits.max_open_items, len(self._open) + 1)
        header = header_from_proto(message.header)
        self._call.asks(header)
        item = Item(header, self._models, self.tenant, self._admission)
        self._call.item_began()
        self._open[message.item_id] = item
        self._deadlines[message.item_id] = time.monotonic() + self._timeout_seconds(item)
        return item

    def _timeout_seconds(self, item: Item) -> float:
        """Return how long an item may take to come: longer, if it is so long that slow links would not do otherwise."""
        return max(self._limits.item_timeout_seconds, item.offer.cost.request_bytes / SLOWEST_BYTES_A_SECOND)

    def _continued(self, item_id: int) -> Item:
        if item_id not in self._open:
            raise OutOfSequenceError(self._least_free_id, item_id)
        return self._open[item_id]

    def _add(self, item: Item, chunk: prediction_pb2.Chunk) -> None:
        ciphertexts = list(chunk.ciphertexts)
        check_bytes(ciphertexts, self._limits)
        held = sum(other.held_bytes for other in self._open.values())
        in_flight = held + item.offer.cost.held_bytes - item.held_bytes
        if held > item.held_bytes and in_flight > self._limits.window_bytes:
            raise LimitExceededError("window_bytes", self._limits.window_bytes, in_flight)
        item.add(chunk.first_index, ciphertexts)

    def _finish(self, item_id: int, item: Item) -> Iterator[prediction_pb2.StreamPredictResponse]:
        held: prediction_pb2.ScoreGroup | None = None
        for group in grouped(item.scores(), item.message):
            if held is not None:
                yield prediction_pb2.StreamPredictResponse(item_id=item_id, scores=held)
            held = group
        self._forget(item_id)
        self._call.scored(item.work)
        # The last group travels with the end.
        yield prediction_pb2.StreamPredictResponse(item_id=item_id, scores=held, done=done(item))

    def close(self) -> None:
        """Forget all items: their client is gone."""
        for item_id in list(self._open):
            self._forget(item_id)

    def _failed(self, item_id: int, error: ServiceError) -> prediction_pb2.StreamPredictResponse:
        """End an item, if it ever began, and return what to say of it."""
        self._forget(item_id)
        self._call.refused(error)
        return prediction_pb2.StreamPredictResponse(item_id=item_id, error=error_to_proto(error))

    def _forget(self, item_id: int) -> None:
        if item := self._open.pop(item_id, None):
            item.close()
            self._call.item_ended()
        self._deadlines.pop(item_id, None)
