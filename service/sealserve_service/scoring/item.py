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
    InputMismatchError,
    InternalError,
    KeyNotFoundError,
    LimitExceededError,
    ModelNotFoundError,
    OutOfSequenceError,
    ParameterSetNotOfferedError,
    ServiceError,
    StaleConfigError,
)
from sealserve.protocol.item import EncryptedScores, ItemHeader
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import scores_to_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.scoring.admission import Admission
from sealserve_service.telemetry import calls
from sealserve_service.telemetry.metrics import Work
from sealserve_service.tenants.tenant import Tenant

GROUP_BYTES = 1 << 20
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
            layout = header.layout.name if header.layout else ""
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
        self.work = Work(served.model.name, offer.layout.name, header.row_count, header.ciphertext_count)
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

    def scores(self) -> Iterator[EncryptedScores]:
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

    def message(self, first_index: int, pairs: Sequence[EncryptedScores]) -> prediction_pb2.ScoreGroup:
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
    pairs: Iterable[EncryptedScores],
    message: Callable[[int, Sequence[EncryptedScores]], prediction_pb2.ScoreGroup] = scores_to_proto,
) -> Iterator[prediction_pb2.ScoreGroup]:
    """Gather pieces into messages of about GROUP_BYTES."""
    first_index, group, byte_count = 0, list[EncryptedScores](), 0
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
