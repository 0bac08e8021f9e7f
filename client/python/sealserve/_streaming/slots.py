"""Slots and their streams: the next batch of a slot, and the room of a stream. No I/O."""

import math
from collections import deque
from dataclasses import dataclass, field

from sealserve._codec.batches import Batch
from sealserve._rpc.retry import ON_ANOTHER_CONNECTION
from sealserve.errors import SealserveError, ServiceError
from sealserve.protocol.item import EncryptedScores

# A hostile service could let an item fail again and again, each time shortly before the timeout.
_COUNTED_ATTEMPTS = 3

# How many answers in a row tell what is usual. Fewer tell nothing.
_ANSWERS = 32
# A stream is not left for a shorter silence. A service lets items wait for 0.1 s when it is busy.
_LEAST_SILENCE_SECONDS = 0.15
# How many times what the slowest of the last answers took.
_SILENCE_FACTOR = 2.0
# The first message of a stream takes no computing, and nothing is sent again if it is not awaited.
_LEAST_OPENING_SECONDS = 0.05
# So many streams in a row may stall on one connection, before a first message has more time.
_STALLS_OF_A_CONNECTION = 2


@dataclass(eq=False)
class PendingBatch:
    """A batch that is not finished.

    Attributes:
        failures: how often it has failed temporarily.
        failing_since: the time of its first failure.
        changes: how often it met a change of the model or a lost key.
        changing_since: the time of the first of them.
        losses: how often the key was lost.
        stale: the last such error, if the batch must be made anew because of it.
    """

    batch: Batch
    failures: int = 0
    failing_since: float = 0.0
    changes: int = 0
    changing_since: float = 0.0
    losses: int = 0
    stale: ServiceError | None = None


@dataclass(eq=False)
class Slot:
    """A numbered slot, in which one stream follows another.

    Attributes:
        number: from 0.
        max_items: how many items may be open on its stream. It grows to the service's limit, and
            falls to 1 after a failure.
        next_batch: the batch that it sends next.
        paused_until: the time at which it may send again.
        failures: the number of failures since a batch last succeeded.
        wants_batch: whether it could send another batch from the source.
        answers: how long each of the last items took that were answered, and the bytes that it
            sent. They are of one stream, and of those that were opened because it had stalled.
        stalls: how many streams have stalled since one of them answered as many items as it takes
            to know what is usual.
    """

    number: int
    max_items: int
    next_batch: PendingBatch | None = None
    paused_until: float = 0.0
    failures: int = 0
    wants_batch: bool = False
    answers: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_ANSWERS))
    stalls: int = 0

    def is_ready(self, now: float) -> bool:
        """Whether there is a batch to send, and no pause."""
        return self.next_batch is not None and now >= self.paused_until

    def silence_seconds(self, sent_bytes: int | None) -> float:
        """Return the silence after which a stream has stalled; infinity while too little is known.

        It is a multiple of what the slowest of the last answers took. An item that sends more bytes
        than that one may take as much longer. The silence doubles with each stream that stalls.

        Args:
            sent_bytes: those of the item that is waited for; None if it is the window.
        """
        if len(self.answers) < _ANSWERS:
            return math.inf
        slowest = max(seconds * max(1.0, (sent_bytes or 0) / bytes_then) for seconds, bytes_then in self.answers)
        if sent_bytes is None:
            return max(_LEAST_OPENING_SECONDS, slowest) * 2.0 ** max(0, self.stalls - _STALLS_OF_A_CONNECTION)
        return max(_LEAST_SILENCE_SECONDS, _SILENCE_FACTOR * slowest) * 2.0**self.stalls


@dataclass
class OpenItem:
    """A batch that is being sent, and the pieces of its reply so far.

    Attributes:
        began: when it began to be sent.
        carried_bytes, computed_seconds: those of its stream at that time.
        unread_seconds: for how long its stream's messages had not been read by then.
        sent: when a message of it was last sent.
    """

    pending: PendingBatch
    began: float
    carried_bytes: int
    computed_seconds: float
    unread_seconds: float
    sent: float
    reply: list[EncryptedScores] = field(default_factory=list)


class Stream:
    """A stream and its open items.

    Attributes:
        slot: the slot that it is in.
        window_bytes: how many bytes its items may count. None until the service has said it.
        last_progress: the time at which it was opened, a message was last sent on it, or an item of
            it was last finished. That a message arrives is no progress.
        last_counted: the time at which it last sent a message that counts for the caller's timeout.
            The messages of an item count, unless it was sent too often before.
        is_read: whether its messages are being read.
        unread_since: when they were last read, if they are not.
        unread_seconds: for how long they were not read, because of decryption or the caller.
        has_ended: whether nothing more can be sent.
        is_draining: whether the service's process is stopping, so that no more items are sent.
        config_id: the configuration that the replica at its end has named; "" while it has named
            none.
        items: the open items, by id.
        carried_bytes: the bytes of its finished items and their replies.
        last_heard: when a message last came on it, or the reading of its messages went on.
        answered: how many of its items were answered.
        has_stalled: whether it was silent for too long, and is to be left.
        computed_seconds: how long items were encrypted here and finished ones scored there, and how
            long no message was read, because of decryption or the caller.
    """

    def __init__(self, slot: Slot, now: float, max_reply_bytes: int) -> None:
        self.slot = slot
        self.window_bytes: int | None = None
        self.last_progress = now
        self.last_counted = -math.inf
        self.is_read = True
        self.unread_since = now
        self.unread_seconds = 0.0
        self.has_ended = False
        self.is_draining = False
        self.config_id = ""
        self.items: dict[int, OpenItem] = {}
        self.carried_bytes = 0
        self.computed_seconds = 0.0
        self.last_heard = now
        self.answered = 0
        self.has_stalled = False
        self._last_id = 0
        self._held_bytes = 0
        self._max_reply_bytes = max_reply_bytes
        self._reply_bytes = 0  # that its items may have

    def seconds_to_stall(self, awake_since: float, now: float) -> float:
        """Return for how long it may go on being silent; infinity if nobody waits for it.

        It owes the window, or an answer to its oldest item. That later items can be written proves
        nothing: a proxy takes them.

        Args:
            awake_since: when this process last stood still. Silence before that is no sign.
            now: the time.
        """
        if self.has_stalled or not self.is_read or (self.window_bytes is not None and not self.items):
            return math.inf
        oldest = next(iter(self.items.values()), None)
        if oldest is None:
            return max(awake_since, self.last_heard) + self.slot.silence_seconds(None) - now
        most = self.slot.silence_seconds(oldest.pending.batch.sent_bytes)
        return max(awake_since, self.last_heard, oldest.sent) + most - now

    def has_room(self, batch: Batch | None, max_items: int) -> bool:
        """Whether an item may be sent: it is the only one, or there is room for it.

        There is room in the service's window, and in the client's memory for the reply.

        Args:
            batch: the item's; None if it is not known yet.
            max_items: how many items may be open.
        """
        if self.window_bytes is None or self.has_ended or self.is_draining:
            return False
        fits = batch is None or (
            self._held_bytes + batch.held_bytes <= self.window_bytes
            and self._reply_bytes + _reply_bytes(batch) <= self._max_reply_bytes
        )
        return not self.items or (fits and len(self.items) < min(max_items, self.slot.max_items))

    def is_open(self, item_id: int) -> bool:
        """Whether the rest of an item is still to be sent."""
        return not self.has_ended and item_id in self.items

    def add_item(self, pending: PendingBatch, now: float) -> int:
        """Add an item that is being sent, and return its id."""
        self._last_id += 1
        self.items[self._last_id] = OpenItem(
            pending, now, self.carried_bytes, self.computed_seconds, self.unread_seconds, now
        )
        self._held_bytes += pending.batch.held_bytes
        self._reply_bytes += _reply_bytes(pending.batch)
        self.note_sent(self._last_id, now)
        return self._last_id

    def note_sent(self, item_id: int, now: float) -> None:
        """Note that a message of an item is about to be sent."""
        self.last_progress = now
        item = self.items.get(item_id)
        if item is None:
            return
        item.sent = now
        if item.pending.failures + item.pending.changes < _COUNTED_ATTEMPTS:
            self.last_counted = now

    def note_answer(self, item: OpenItem, now: float) -> None:
        """Note how long an answered item took, less the time in which nothing was read."""
        seconds = now - item.began - (self.unread_seconds - item.unread_seconds)
        self.slot.answers.append((seconds, item.pending.batch.sent_bytes))
        self.answered += 1
        if self.answered >= _ANSWERS:
            self.slot.stalls = 0

    def needs_another_connection(self, error: SealserveError | None) -> bool:
        """Whether the next stream of its slot is to be on another connection, after this error.

        After the first stalls it is not: on the same connection a proxy, or a balancer of this
        process, chooses a replica anew. If a whole service has paused, its clients do not all
        connect again at once.
        """
        if self.has_stalled and self.slot.stalls <= _STALLS_OF_A_CONNECTION:
            return False
        return self.is_draining or isinstance(error, ON_ANOTHER_CONNECTION)

    def transfer(self, item: OpenItem, server_seconds: float, now: float) -> tuple[int, float, float]:
        """Count a finished item. Return what the stream has carried since the item began.

        Returns:
            The bytes of all items that were finished in that time, the time itself, and how much of
            it both ends computed.
        """
        self.carried_bytes += item.pending.batch.sent_bytes + sum(piece.byte_count for piece in item.reply)
        self.computed_seconds += max(0.0, server_seconds)
        carried_bytes = self.carried_bytes - item.carried_bytes
        return carried_bytes, now - item.began, self.computed_seconds - item.computed_seconds

    def remove_item(self, item_id: int) -> OpenItem:
        """Remove an item and return it."""
        removed = self.items.pop(item_id)
        self._held_bytes -= removed.pending.batch.held_bytes
        self._reply_bytes -= _reply_bytes(removed.pending.batch)
        return removed


def _reply_bytes(batch: Batch) -> int:
    return batch.polynomials * batch.max_piece_bytes
