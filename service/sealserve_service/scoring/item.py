"""The item that is being scored: header, ciphertexts in chunks, pieces of the reply.

Nothing here waits for a message or writes one.
"""

import math
import time
from collections.abc import Iterator, Sequence

from sealserve.errors import (
    InputMismatchError,
    LimitExceededError,
    OutOfSequenceError,
    ParameterSetNotOfferedError,
    StaleConfigError,
)
from sealserve.protocol.item import EncryptedScores, ItemHeader
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import reply_form_number, scores_to_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.score_groups import GROUP_BYTES
from sealserve_service.scoring.turns import Waiter
from sealserve_service.telemetry.metrics import Work
from sealserve_service.tenants.tenant import Tenant

# An item of a stream that takes longer lets others have their turn between its parts.
_SHORT_SECONDS = 0.05


class ScoringItem:
    """One item on the server: scored at once (`score`) or in chunks (`add`, `scores`, `close`).

    Raises:
        ModelNotFoundError, StaleConfigError, ParameterSetNotOfferedError, InputMismatchError: the
            header matches no model or no offer.
        KeyNotFoundError, KeyStoreUnavailableError: the key that the offer requires does not exist,
            or cannot be read.
        QuotaExceededError: the tenant has used up its quota.
    """

    def __init__(
        self, header: ItemHeader, models: ModelRegistry, tenant: Tenant, admission: Admission, waiter: Waiter
    ) -> None:
        served = models.get(header.model, tenant, header.config_id)
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
        for form in offer.reply_forms:
            if form in header.reply_forms:
                break
        else:
            raise InputMismatchError("reply_forms", reply_form_number(offer.reply_forms[0]), 0)
        self.reply_bytes = offer.reply_bytes[form]
        self.engine = engine
        self.offer = offer
        self.held_bytes = 0
        self.work = Work(
            model=served.model.name,
            layout=offer.layout.name,
            rows=header.row_count,
            ciphertexts=header.ciphertext_count,
        )
        self.received = 0
        self._tenant = tenant
        self._admission = admission
        self._waiter = waiter
        self._wait_seconds = admission.telemetry.waits[self.work.model, self.work.layout]
        self._turns = admission.turns[engine.holds_gil]
        admission.charge(tenant, header.row_count)
        self._scoring = engine.begin(header, tenant.name)

    @property
    def is_complete(self) -> bool:
        """Whether the last ciphertext has arrived."""
        return self.received == self.offer.ciphertexts_per_item

    def has_one_turn(self, first_index: int, ciphertexts: Sequence[bytes]) -> bool:
        """Whether a chunk is a whole item, and a short one: it takes one turn from chunk to reply.

        A longer item takes a turn for each chunk and each piece of its reply.
        """
        is_whole = len(ciphertexts) == self.offer.ciphertexts_per_item
        is_short = self.offer.cost.server_seconds <= _SHORT_SECONDS and self.reply_bytes <= GROUP_BYTES
        return first_index == self.received == 0 and is_whole and is_short

    def score(
        self, ciphertexts: Sequence[bytes], seconds_left: float | None = None, *, may_wait_long: bool = False
    ) -> tuple[prediction_pb2.ScoreGroup, prediction_pb2.ItemDone]:
        """Score all ciphertexts of the item in one turn; see Turns.take.

        Args:
            ciphertexts: all of them.
            seconds_left: until the client's deadline, if it has one.
            may_wait_long: whether the item may wait for its turn for any time.

        Raises:
            InputMismatchError, MalformedCiphertextError: the item has failed.
            QuotaExceededError: there is no room for the item, or it would have to wait for too
                long.
            CallOverError: the call ended while the item waited.
        """
        if len(ciphertexts) != self.offer.ciphertexts_per_item:
            raise InputMismatchError("ciphertexts", self.offer.ciphertexts_per_item, len(ciphertexts))
        admission, work = self._admission, self.work
        admission.hold(self._tenant, self.offer.cost.held_bytes)
        try:
            with self._turns.take(self.engine, self._waiter, seconds_left, may_wait_long=may_wait_long) as waited:
                self._wait_seconds.observe(waited)
                start = time.perf_counter()
                self._scoring.add(ciphertexts)
                loaded = time.perf_counter()
                scores = list(self._scoring.finish())
                scored = time.perf_counter()
                group = scores_to_proto(0, scores)
                work.reply_seconds = time.perf_counter() - scored
            work.load_seconds, work.arithmetic_seconds = loaded - start, scored - loaded
        finally:
            admission.release(self._tenant, self.offer.cost.held_bytes)
        # As `done` has it, without another call on the way of a single row.
        seconds = scored - start
        told = math.ldexp(1.0, math.frexp(seconds)[1]) if self.offer.private_weights else seconds
        return group, prediction_pb2.ItemDone(server_seconds=told)

    def add(self, first_index: int, ciphertexts: Sequence[bytes]) -> None:
        """Take a chunk.

        Raises:
            OutOfSequenceError, InputMismatchError, MalformedCiphertextError: the item has failed.
            QuotaExceededError: there is no room for what the item will hold.
        """
        if first_index != self.received:
            raise OutOfSequenceError(self.received, first_index)
        missing = self.offer.ciphertexts_per_item - self.received
        if not 1 <= len(ciphertexts) <= missing:
            raise InputMismatchError("ciphertexts", missing, len(ciphertexts))
        if not self.held_bytes:  # all at once: two items that wait for each other's room would wait for ever
            self._admission.hold(self._tenant, self.offer.cost.held_bytes)
            self.held_bytes = self.offer.cost.held_bytes
        with self._turns.take(self.engine, self._waiter, part="chunk", may_wait_long=True) as waited:
            self._wait_seconds.observe(waited)
            start = time.perf_counter()
            self._scoring.add(ciphertexts)
            self.work.load_seconds += time.perf_counter() - start
        self.received += len(ciphertexts)

    def scores(self) -> Iterator[EncryptedScores]:
        """Yield the pieces of the reply; other items have their turn between two pieces."""
        pieces = iter(self._scoring.finish())
        while True:
            with self._turns.take(self.engine, self._waiter, part="piece", may_wait_long=True) as waited:
                self._wait_seconds.observe(waited)
                start = time.perf_counter()
                piece = next(pieces, None)
                self.work.arithmetic_seconds += time.perf_counter() - start
            if piece is None:
                break
            yield piece

    def group(self, first_index: int, scores: Sequence[EncryptedScores]) -> prediction_pb2.ScoreGroup:
        """Make a message of pieces of the reply."""
        start = time.perf_counter()
        group = scores_to_proto(first_index, scores)
        self.work.reply_seconds += time.perf_counter() - start
        return group

    def done(self) -> prediction_pb2.ItemDone:
        """Make the end of an item that is scored in chunks, after the last of its scores.

        In mode private its seconds are rounded up to a power of two. How long the arithmetic takes
        depends a little on the weights: a polynomial of zeros takes no product.
        """
        seconds = self.work.seconds
        told = math.ldexp(1.0, math.frexp(seconds)[1]) if self.offer.private_weights else seconds
        return prediction_pb2.ItemDone(server_seconds=told)

    def close(self) -> None:
        """Release the bytes that `add` holds."""
        self._admission.release(self._tenant, self.held_bytes)
        self.held_bytes = 0


def check_message_bytes(ciphertexts: Sequence[bytes], limits: Limits) -> None:
    """Check the length of a message's ciphertexts.

    Raises:
        LimitExceededError: they exceed max_message_bytes.
    """
    byte_count = sum(map(len, ciphertexts))
    if byte_count > limits.max_message_bytes:
        raise LimitExceededError("max_message_bytes", limits.max_message_bytes, byte_count)
