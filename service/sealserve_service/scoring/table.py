"""The table of a stream's open items: messages in, messages out.

Nothing here waits for a message or writes one, so that tests can try every order of hostile
messages without a server.
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
)
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import error_to_proto, header_from_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.caller_slots import RETRY_SECONDS
from sealserve_service.scoring.item import ScoringItem, check_message_bytes
from sealserve_service.scoring.score_groups import grouped
from sealserve_service.scoring.turns import CallOverError, Waiter
from sealserve_service.telemetry.call_record import CallRecord
from sealserve_service.tenants.tenant import Tenant

SLOWEST_BYTES_PER_SECOND = 1e6
_MAX_ITEM_ID = (1 << 64) - 1


class ItemTable:
    """The open items of one stream.

    Args:
        models: the models that are served.
        tenant: the tenant whose stream it is.
        limits: the bounds of what one client may send.
        admission: the bounds of what is under way in this process.
        call: the record of the stream's call.
        waiter: the stream's call, too.

    Attributes:
        tenant: the tenant of the items that begin from now on.
        is_stopping: whether no item may begin.
        idle_timeout_seconds: how long no item may be open; 0 for no limit.
        item_count: of the items that have begun.
    """

    def __init__(
        self,
        models: ModelRegistry,
        tenant: Tenant,
        limits: Limits,
        admission: Admission,
        call: CallRecord,
        waiter: Waiter,
    ) -> None:
        self._call = call
        self._waiter = waiter
        self._models = models
        self._admission = admission
        self.tenant = tenant
        self._limits = limits
        self._open: dict[int, ScoringItem] = {}
        self._deadlines: dict[int, float] = {}
        self._last_id = 0
        # A message that neither begins nor continues an item keeps no stream open.
        self._last_use_time = time.monotonic()
        self.is_stopping = False
        self.idle_timeout_seconds = limits.idle_timeout_seconds
        self.item_count = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def next_deadline(self) -> float | None:
        """When the next open item times out, or the stream if none is open, by time.monotonic()."""
        idle_seconds = self.idle_timeout_seconds
        return min(self._deadlines.values(), default=self._last_use_time + idle_seconds if idle_seconds else None)

    @property
    def _least_free_id(self) -> int:
        """The least id that the next item may have; 0, which no item may have, if none is left."""
        return 0 if self._last_id == _MAX_ITEM_ID else self._last_id + 1

    def receive(self, message: prediction_pb2.StreamPredictRequest) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """Take a message and yield the answers to it. An item that fails affects no other item.

        Raises:
            CallOverError: the call ended while an item waited for its turn.
        """
        item_id = message.item_id
        if message.cancel:
            self._forget(item_id)
            return
        # The sender of a chunk of a failed item did not know of the failure yet: the chunk has no
        # answer.
        if not message.HasField("header") and item_id not in self._open and 0 < item_id <= self._last_id:
            return
        try:
            item = self._begin(message) if message.HasField("header") else self._opened(item_id)
            if message.HasField("chunk"):
                ciphertexts = self._checked(item, message.chunk)
                if item.has_one_turn(message.chunk.first_index, ciphertexts):
                    yield self._score(item_id, item, ciphertexts)
                    return
                item.add(message.chunk.first_index, ciphertexts)
            if item.is_complete:
                yield from self._finish(item_id, item)
        except CallOverError:  # no item has failed: nobody is left who could read an answer
            raise
        except Exception as error:
            yield self._fail(item_id, error)

    def expire(self, now: float) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """End the items whose time is up, and yield their errors."""
        for item_id in [item_id for item_id, deadline in self._deadlines.items() if deadline <= now]:
            yield self._fail(item_id, ItemTimeoutError(self._timeout_seconds(self._open[item_id])))

    def check_idle(self, now: float) -> None:
        """Check that the stream is in use.

        Raises:
            IdleTimeoutError: no item is open, and nothing has arrived for idle_timeout_seconds.
        """
        if not self._open and self.next_deadline is not None and self.next_deadline <= now:
            raise IdleTimeoutError(self.idle_timeout_seconds)

    def abandon(self) -> Iterator[prediction_pb2.StreamPredictResponse]:
        """End all open items, as the client sends no more, and yield their errors."""
        for item_id, item in list(self._open.items()):
            missing = InputMismatchError("ciphertexts", item.offer.ciphertexts_per_item, item.received)
            yield self._fail(item_id, missing)

    def _begin(self, message: prediction_pb2.StreamPredictRequest) -> ScoringItem:
        if message.item_id <= self._last_id:
            raise OutOfSequenceError(self._least_free_id, message.item_id)
        self._last_id = message.item_id
        if self.is_stopping:
            raise DrainingError(RETRY_SECONDS)
        if len(self._open) >= self._limits.max_open_items:
            raise LimitExceededError("max_open_items", self._limits.max_open_items, len(self._open) + 1)
        header = header_from_proto(message.header)
        self._call.begin_item(header)
        try:
            item = ScoringItem(header, self._models, self.tenant, self._admission, self._waiter)
        except BaseException:
            self._call.end_item()
            raise
        self.item_count += 1
        self._open[message.item_id] = item
        self._deadlines[message.item_id] = time.monotonic() + self._timeout_seconds(item)
        return item

    def _timeout_seconds(self, item: ScoringItem) -> float:
        """Return how long an item may take to arrive; long items have more time, for slow links."""
        return max(self._limits.item_timeout_seconds, item.offer.cost.request_bytes / SLOWEST_BYTES_PER_SECOND)

    def _opened(self, item_id: int) -> ScoringItem:
        if item_id not in self._open:
            raise OutOfSequenceError(self._least_free_id, item_id)
        return self._open[item_id]

    def _checked(self, item: ScoringItem, chunk: prediction_pb2.Chunk) -> list[bytes]:
        """Return the ciphertexts of a chunk, for which there is room in the window."""
        ciphertexts = list(chunk.ciphertexts)
        check_message_bytes(ciphertexts, self._limits)
        held = sum(other.held_bytes for other in self._open.values())
        in_flight = held + item.offer.cost.held_bytes - item.held_bytes
        if held > item.held_bytes and in_flight > self._limits.window_bytes:
            raise LimitExceededError("window_bytes", self._limits.window_bytes, in_flight)
        return ciphertexts

    def _score(self, item_id: int, item: ScoringItem, ciphertexts: list[bytes]) -> prediction_pb2.StreamPredictResponse:
        """Score a short item, which is whole, and return its only answer."""
        group, done = item.score(ciphertexts, may_wait_long=True)
        self._forget(item_id)
        self._call.count_scored(item.work)
        return prediction_pb2.StreamPredictResponse(item_id=item_id, scores=group, done=done)

    def _finish(self, item_id: int, item: ScoringItem) -> Iterator[prediction_pb2.StreamPredictResponse]:
        last: prediction_pb2.ScoreGroup | None = None
        for group in grouped(item.scores(), item.group):
            if last is not None:
                yield prediction_pb2.StreamPredictResponse(item_id=item_id, scores=last)
            last = group
        self._forget(item_id)
        self._call.count_scored(item.work)
        # The last group travels with the end of the item.
        yield prediction_pb2.StreamPredictResponse(item_id=item_id, scores=last, done=item.done())

    def close(self) -> None:
        """Forget all items: their client is gone."""
        for item_id in list(self._open):
            self._forget(item_id)

    def _fail(self, item_id: int, error: Exception) -> prediction_pb2.StreamPredictResponse:
        """End an item, if it ever began, and return the message of its error."""
        item = self._open.get(item_id)
        self._forget(item_id)
        refusal = self._call.refuse_item(error, None if item is None else item.work)
        return prediction_pb2.StreamPredictResponse(item_id=item_id, error=error_to_proto(refusal))

    def _forget(self, item_id: int) -> None:
        if item := self._open.pop(item_id, None):
            item.close()
            self._call.end_item()
            self._last_use_time = time.monotonic()
        self._deadlines.pop(item_id, None)
