"""The life of an item: header, chunks, groups of scores, end; and the items of one stream.

Nothing here waits or writes: messages go in, messages come out, so that every order of hostile messages can be tested
without a server.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from sealserve.errors import (
    DrainingError,
    IdleTimeoutError,
    InputMismatchError,
    InternalError,
    ItemTimeoutError,
    KeyNotFoundError,
    LimitExceededError,
    ModelNotFoundError,
    OutOfSequenceError,
    ParameterSetNotOfferedError,
    ServiceError,
    StaleConfigError,
)
from sealserve.item import ItemHeader, Scores
from sealserve.model import Limits
from sealserve.v1 import prediction_pb2
from sealserve.wire import error_to_proto, header_from_proto, scores_to_proto
from sealserve_service import calls, drain
from sealserve_service.admission import Admission
from sealserve_service.auth import Tenant
from sealserve_service.calls import Call
from sealserve_service.models.registry import ModelRegistry
from sealserve_service.telemetry import Work

GROUP_BYTES = 1 << 20
SLOWEST_BYTES_A_SECOND = 1e6
_MAX_ITEM_ID = (1 << 64) - 1
_MAX_ECHO_CHARACTERS = 100

_logger = logging.getLogger(__name__)


class Item:
    """One item on the server.

    Raises:
        ModelNotFoundError, StaleConfigError, ParameterSetNotOfferedError, InputMismatchError: the header fits no model
            or offer.
        KeyNotFoundError, KeyStoreUnavailableError: the key that the offer requires is not there, or cannot be read.
        QuotaExceededError: the tenant has used up its quota.
    """

    def __init__(self, header: ItemHeader, models: ModelRegistry, tenant: Tenant, admission: Admission) -> None:
        served = models.get(header.model, tenant)
        if header.config_id != served.model.config_id:
            raise StaleConfigError(served.model.config_id)
        engine = served.engine(header.layout, header.parameter_set)
        if engine is None:
            layout = header.layout.value if header.layout else ""
            raise ParameterSetNotOfferedError(layout, header.parameter_set)
        offer = engine.offer
        if not 1 <= header.row_count <= offer.rows_per_item:
            raise InputMismatchError("row_count", offer.rows_per_item, header.row_count)
        if header.ciphertext_count != offer.ciphertexts_per_item:
            raise InputMismatchError("ciphertext_count", offer.ciphertexts_per_item, header.ciphertext_count)
        if bool(header.key_id) != (offer.required_key is not None):
            raise InputMismatchError("key_id", 64 if offer.required_key else 0, len(header.key_id))
        self.engine = engine
        self.offer = offer
        self.held_bytes = 0
        self.work = Work(served.model.name, offer.layout.value, header.row_count, header.ciphertext_count)
        self.received = 0
        self._tenant = tenant
        self._admission = admission
        self._turn: Callable[[], AbstractContextManager[None]] = partial(admission.patient_turn, engine)
        admission.charge(tenant, header.row_count)
        self._scoring = engine.begin(header, tenant)

    @property
    def is_complete(self) -> bool:
        """Whether the last ciphertext has come."""
        return self.received == self.offer.ciphertexts_per_item

    def add(self, first_index: int, ciphertexts: Sequence[bytes]) -> None:
        """Take a chunk.

        Raises:
            OutOfSequenceError, InputMismatchError, MalformedCiphertextError: the item has failed.
            QuotaExceededError: there is no room for what it will hold.
        """
        if first_index != self.received:
            raise OutOfSequenceError(self.received, first_index)
        missing = self.offer.ciphertexts_per_item - self.received
        if not 1 <= len(ciphertexts) <= missing:
            raise InputMismatchError("ciphertexts", missing, len(ciphertexts))
        if not self.held_bytes:  # all at once: two items that are waiting for each other's room would wait for ever
            self._admission.hold(self._tenant, self.offer.cost.held_bytes)
            self.held_bytes = self.offer.cost.held_bytes
        with self._turn():
            start = time.perf_counter()
            self._scoring.add(ciphertexts)
            self.work.load_seconds += time.perf_counter() - start
        self.received += len(ciphertexts)

    def scores(self) -> Iterator[Scores]:
        """Yield the reply; others have their turn while the caller does something with a piece of it."""
        pieces = iter(self._scoring.finish())
        while True:
            with self._turn():
                start = time.perf_counter()
                piece = next(pieces, None)
                self.work.arithmetic_seconds += time.perf_counter() - start
            if piece is None:
                break
            yield piece
        self._admission.learn(self.engine, self.work.seconds)

    def message(self, first_index: int, pairs: Sequence[Scores]) -> prediction_pb2.ScoreGroup:
        """Make a message of pieces of the reply."""
        start = time.perf_counter()
        group = scores_to_proto(first_index, pairs)
        self.work.reply_seconds += time.perf_counter() - start
        return group

    @contextmanager
    def whole_turn(self, seconds_left: float | None) -> Iterator[None]:
        """Have the turn for the whole item at once, if it comes soon; see Admission.turn.

        Raises:
            QuotaExceededError: it does not.
        """
        with self._admission.turn(self.engine, seconds_left):
            self._turn = nullcontext
            yield

    def close(self) -> None:
        """Let go of the room that it has."""
        self._admission.release(self._tenant, self.held_bytes)
        self.held_bytes = 0


def grouped(
    pairs: Iterable[Scores], message: Callable[[int, Sequence[Scores]], prediction_pb2.ScoreGroup] = scores_to_proto
) -> Iterator[prediction_pb2.ScoreGroup]:
    """Gather pieces into messages of about GROUP_BYTES."""
    first_index, group, byte_count = 0, list[Scores](), 0
    for pair in pairs:
        if group and byte_count + pair.byte_count > GROUP_BYTES:
            yield message(first_index, group)
            first_index, group, byte_count = first_index + len(group), [], 0
        group.append(pair)
        byte_count += pair.byte_count
    yield message(first_index, group)


def as_service_error(error: Exception) -> ServiceError:
    """Return the error if it is one that the caller may see; else log it and return one that names the log entry.

    Names that the error repeats are cut short: a failed call's error travels in HTTP/2 headers, of which gRPC drops
    the whole answer beyond 16 KiB.
    """
    match error:
        case ModelNotFoundError():
            return ModelNotFoundError(error.model[:_MAX_ECHO_CHARACTERS])
        case ParameterSetNotOfferedError():
            return ParameterSetNotOfferedError(error.layout, error.parameter_set[:_MAX_ECHO_CHARACTERS])
        case KeyNotFoundError():
            return KeyNotFoundError(error.key_id[:_MAX_ECHO_CHARACTERS])
        case ServiceError():
            return error
    request_id = calls.request_id()
    _logger.error("request %s failed", request_id, exc_info=error)
    return InternalError(request_id)


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


def check_bytes(ciphertexts: Sequence[bytes], limits: Limits) -> None:
    """Check the length of a message's ciphertexts.

    Raises:
        LimitExceededError: they are over max_message_bytes.
    """
    byte_count = sum(map(len, ciphertexts))
    if byte_count > limits.max_message_bytes:
        raise LimitExceededError("max_message_bytes", limits.max_message_bytes, byte_count)


def done(item: Item) -> prediction_pb2.ItemDone:
    """Say that an item has all its scores."""
    return prediction_pb2.ItemDone(server_seconds=item.work.seconds)
