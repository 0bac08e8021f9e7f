"""Schedule: which batches wait, are being sent or are finished, and what to do when one fails.

It is the pure part of a client's streams, which threads and coroutines share. It has no thread, no
gRPC and no clock.

Batches travel in slots. In a slot, one stream follows another. When a stream breaks, its unfinished
batches wait again for any free slot, ahead of new batches and in the order of their rows. The same
happens to an item that the service was too busy for, that arrived too slowly, or whose
configuration has changed. After a broken stream, or an item that was late or met a busy service,
the slot pauses, and then begins again with one item at a time. While all slots pause, no new batch
is taken from the source.

A stream that is silent for much longer than usual is left, and its batches wait again, without a
pause: the replica at its end may be frozen, which a proxy notices seconds later. Its last answers
tell what is usual. A service that is merely slow is not left again and again: each time the silence
may be twice as long. All of this depends on times and numbers of bytes, and on no decrypted value.

While a service is updated, the streams may lead to replicas with two versions of a model. A stream
notes the configuration that its replica names. A batch of another one is made anew before it is
sent on that stream.
"""

import dataclasses
import heapq
import math
from collections import deque
from collections.abc import Sequence

from sealserve._codec.batches import Batch, FinishedBatch
from sealserve._codec.offers import MAX_REPLY_BYTES
from sealserve._rpc.retry import BROKEN, BUSY, CHANGED, MAX_LOSSES, change_delay_seconds, delay_seconds
from sealserve._rpc.transfer_time import TransferTime
from sealserve._streaming.slots import PendingBatch, Slot, Stream
from sealserve.errors import (
    DeadlineError,
    DrainingError,
    ItemTimeoutError,
    KeyNotFoundError,
    ReplyError,
    SealserveError,
    ServiceError,
    StaleConfigError,
)
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import error_from_proto, scores_from_proto
from sealserve.v1 import prediction_pb2

# A batch that fails more often than this, and for longer than timeout_seconds, fails for good, even
# if other batches succeed.
_MAX_FAILURES = 8

MAX_RESULTS = 64
"""How many results may wait for the caller."""

CLOSING_SECONDS = 2.0
"""How long the service may take to end streams that have no more work."""

_CHECK_SECONDS = 1.0
# How often to look whether a stream has been silent for too long, and how late a look may come. A
# later one shows that this process stood still itself.
_WATCH_SECONDS, _LATE_SECONDS = 0.05, 0.025


class Schedule:
    """All batches of a call, in all its slots.

    Every `now` is in seconds of one clock that never goes back.

    Args:
        limits: the service's.
        slots: how many streams are open at a time.
        timeout_seconds: how long there may be no progress before the call fails. Progress is an
            item that is finished, or a message that is sent. It is not a message that arrives: a
            hostile service could send empty ones for ever.
        now: the time.
        transfer_time: what notes how long items take; by default a new one.
    """

    def __init__(
        self,
        limits: Limits,
        slots: int,
        timeout_seconds: float,
        now: float,
        transfer_time: TransferTime | None = None,
    ) -> None:
        self.slots = [Slot(number, limits.max_open_items) for number in range(slots)]
        self.source_has_ended = False
        self._max_items = limits.max_open_items
        self._timeout_seconds = timeout_seconds
        self._transfer_time = transfer_time or TransferTime()
        self._streams: dict[int, Stream] = {}
        self._requeued: list[tuple[int, int, PendingBatch]] = []  # a heap: the oldest rows first
        self._new: deque[PendingBatch] = deque()
        self._requeue_count = 0
        self._last_progress = now
        self._next_check = self._awake_since = now
        self._has_extended_timeout = False
        self._last_failure: SealserveError | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the source has ended and every batch of it is finished."""
        return self.source_has_ended and not self._has_work

    @property
    def wants_batch(self) -> bool:
        """Whether the slots could send more new batches than the schedule holds."""
        return sum(slot.wants_batch for slot in self.slots) > len(self._new)

    def add(self, batch: Batch, now: float) -> None:
        """Add a batch from the source."""
        if not self._has_work:
            self._last_progress = now
        self._new.append(PendingBatch(batch))

    # Sending

    def assign(self, slot: Slot, now: float) -> None:
        """Give a slot a batch to send next, if it needs one and there is one."""
        is_paused = now < slot.paused_until
        if slot.next_batch is None and not is_paused:
            if self._requeued:
                slot.next_batch = heapq.heappop(self._requeued)[-1]
            elif self._new:
                slot.next_batch = self._new.popleft()
        slot.wants_batch = slot.next_batch is None and not is_paused

    def open_stream(self, slot: Slot, now: float) -> Stream:
        """Add a stream in a slot."""
        if not slot.stalls:  # what is usual elsewhere tells little of this stream's replica
            slot.answers.clear()
        stream = self._streams[slot.number] = Stream(slot, now, MAX_REPLY_BYTES // len(self.slots))
        return stream

    def assign_to_stream(self, stream: Stream, now: float) -> None:
        """Give the slot of a stream a batch to send next, if the stream has room for one."""
        slot = stream.slot
        if stream.has_room(None if slot.next_batch is None else slot.next_batch.batch, self._max_items):
            self.assign(slot, now)
        else:
            slot.wants_batch = False

    def sendable(self, stream: Stream, now: float) -> PendingBatch | None:
        """Return the batch to send now; None while there is no batch, no room, or a pause."""
        pending = stream.slot.next_batch
        if pending is None or not stream.slot.is_ready(now):
            return None
        return pending if stream.has_room(pending.batch, self._max_items) else None

    @staticmethod
    def change(stream: Stream, pending: PendingBatch) -> ServiceError | None:
        """Return why a batch must be made anew for a stream before it is sent, or None."""
        if not stream.config_id:
            return pending.stale
        if stream.config_id != pending.batch.codec.model.config_id:
            return StaleConfigError(stream.config_id)
        # What the replica of another stream has named is of no concern here.
        return None if isinstance(pending.stale, StaleConfigError) else pending.stale

    def renew(self, stream: Stream, batches: Sequence[Batch]) -> list[FinishedBatch]:
        """Replace the stale next batch of a stream by the batches that were made of its rows.

        Return the batches of rows that do not fit the model's schema now, and are not sent.
        """
        pending = stream.slot.next_batch
        if stream.has_ended or pending is None:  # the batch waits again, and another slot will renew it
            return []
        renewed = [dataclasses.replace(pending, batch=batch, stale=None) for batch in batches if batch.error is None]
        # The first stays: another slot might make it anew once more, for its own replica.
        stream.slot.next_batch = renewed[0] if renewed else None
        for each in renewed[1:]:
            self._requeue(each)
        if stream.config_id:  # if nobody describes the configuration that the replica names, another one is tried
            stream.config_id = batches[0].codec.model.config_id
        return [FinishedBatch(batch, batch.error) for batch in batches if batch.error is not None]

    def fail(self, stream: Stream, error: SealserveError) -> list[FinishedBatch]:
        """Finish the next batch of a stream with an error, because it cannot be renewed."""
        pending = stream.slot.next_batch
        if stream.has_ended or pending is None:
            return []
        stream.slot.next_batch = None
        return [FinishedBatch(pending.batch, error)]

    def begin_item(self, stream: Stream, now: float) -> int:
        """Make an item of the next batch of a stream, and return its id."""
        pending = stream.slot.next_batch
        if pending is None:
            raise AssertionError("the stream has no next batch")
        stream.slot.next_batch = None
        return stream.add_item(pending, now)

    def continue_item(self, stream: Stream, item_id: int, now: float, *, is_long: bool) -> None:
        """Note that a message of an item is about to be sent.

        While a long item is sent, the next batch is already taken from the source.
        """
        stream.note_sent(item_id, now)
        stream.slot.wants_batch = is_long and not self._requeued

    # Receiving

    def receive(
        self, stream: Stream, response: prediction_pb2.StreamPredictResponse, now: float
    ) -> FinishedBatch | None:
        """Add a response, and return the batch that it finishes, or None.

        Raises:
            ReplyError: the response breaks the protocol.
        """
        if response.HasField("window"):
            stream.window_bytes = response.window.max_bytes_in_flight
        stream.last_heard = now
        item = stream.items.get(response.item_id)
        if item is None:
            return None
        if response.HasField("scores"):
            if response.scores.first_index != len(item.reply):
                raise ReplyError
            pieces, batch = scores_from_proto(response.scores), item.pending.batch
            item.reply += pieces
            is_too_long = any(piece.byte_count > batch.max_piece_bytes for piece in pieces)
            if is_too_long or len(item.reply) > batch.polynomials:
                raise ReplyError
        if response.WhichOneof("end") is None:
            return None
        stream.remove_item(response.item_id)
        if response.HasField("error"):
            return self._handle_item_error(stream, item.pending, error_from_proto(response.error), now)
        stream.note_answer(item, now)
        self._transfer_time.note(*stream.transfer(item, response.done.server_seconds, now))
        self._record_progress(stream, now)
        stream.slot.max_items = min(stream.slot.max_items + 1, self._max_items)
        return FinishedBatch(item.pending.batch, item.reply)

    def end_stream(self, stream: Stream, error: SealserveError | None, now: float) -> list[FinishedBatch]:
        """End a stream: its unfinished batches wait again. Return those that have failed too often.

        Raises:
            SealserveError: the stream's error, if another stream would meet it, too.
            ReplyError: the service ended the stream without its items.
        """
        if stream.has_ended:
            return []
        slot = stream.slot
        stream.has_ended = True
        slot.wants_batch = False
        del self._streams[slot.number]
        if error is None and stream.items:
            raise ReplyError
        if error is not None and not isinstance(error, (*BUSY, *BROKEN)):
            raise error
        if stream.has_stalled:
            error, slot.max_items = DeadlineError("the stream had stalled"), 1
        else:
            self._pause(slot, error, now)
        unfinished = [stream.remove_item(item_id).pending for item_id in list(stream.items)]
        if slot.next_batch is not None:
            self._requeue(slot.next_batch)
            slot.next_batch = None
        cause = error or DeadlineError("the stream broke")
        return [end for pending in unfinished if (end := self._retry(pending, cause, now)) is not None]

    # Time

    def expect_result(self, now: float) -> None:
        """Note that the caller waits for a result from now on. The timeout begins anew."""
        self._last_progress = max(self._last_progress, now)

    def set_reading(self, stream: Stream, now: float, *, is_read: bool) -> None:
        """Note whether the messages of a stream are being read."""
        if is_read and not stream.is_read:  # decryption and the caller's own time are not the link's
            stream.computed_seconds += now - stream.unread_since
            stream.unread_seconds += now - stream.unread_since
        elif not is_read:
            stream.unread_since = now
        stream.is_read, stream.last_progress, stream.last_heard = is_read, now, now

    def timeout_error(self, now: float) -> SealserveError | None:
        """Return the error if the call has timed out, otherwise None.

        A call times out if there was no progress for timeout_seconds, or if all slots pause until
        after that time.
        """
        if not self._has_work:
            return None
        progress = [stream.last_counted for stream in self._streams.values() if stream.items]
        end = max(self._last_progress, *progress, 0.0) + self._timeout_seconds
        is_hopeless = not progress and all(slot.paused_until > end for slot in self.slots)
        if now <= end and not is_hopeless:
            return None
        if self._last_failure is not None and not progress:
            return self._last_failure
        return DeadlineError("the answer did not come within timeout_seconds")

    def check_seconds(self, now: float) -> float:
        """Return when to look at `stalled_slots` and `timeout_error` again, in seconds."""
        seconds = min(_CHECK_SECONDS, self._timeout_seconds / 4)
        if any(slot.silence_seconds(0) < math.inf for slot in self.slots):
            left = (stream.seconds_to_stall(self._awake_since, now) for stream in self._streams.values())
            seconds = max(0.0, min(seconds, _WATCH_SECONDS, *left))
        self._next_check = now + seconds
        return seconds

    def stalled_slots(self, now: float) -> list[int]:
        """Return the numbers of the slots whose streams have stalled, and are to be left.

        A stream has stalled if it was silent for much longer than usual, of which it is told once.
        It has also stalled if it has made no progress for timeout_seconds while another stream has.
        """
        if now > self._next_check + _LATE_SECONDS:
            self._awake_since = now
        silent = [stream for stream in self._streams.values() if stream.seconds_to_stall(self._awake_since, now) <= 0]
        for stream in silent:
            stream.has_stalled = True
            stream.slot.stalls += 1
        progress = {number: stream.last_progress for number, stream in self._streams.items()}
        return [
            number
            for number, stream in self._streams.items()
            if stream in silent
            or (
                stream.items
                and stream.is_read
                and now > stream.last_progress + self._timeout_seconds
                and max(progress.values()) > stream.last_progress
            )
        ]

    def extend_timeout(self, now: float) -> None:
        """Let the timeout begin anew, so that the items of stalled streams can be sent again.

        This happens once at most between two results.
        """
        if not self._has_extended_timeout:
            self._has_extended_timeout, self._last_progress = True, now

    @property
    def _has_work(self) -> bool:
        has_next = any(slot.next_batch is not None for slot in self.slots)
        is_sending = any(stream.items for stream in self._streams.values())
        return bool(self._requeued or self._new or has_next or is_sending)

    def _handle_item_error(
        self, stream: Stream, pending: PendingBatch, error: SealserveError, now: float
    ) -> FinishedBatch | None:
        """Retry an item that failed, after a pause where the service asks for one, or finish it."""
        if isinstance(error, StaleConfigError):
            stream.config_id = error.current_config_id
        if isinstance(error, CHANGED) and self._retry_changed(stream.slot, pending, error, now):
            return None
        if isinstance(error, (*BUSY, ItemTimeoutError)):
            stream.is_draining |= isinstance(error, DrainingError)
            self._pause(stream.slot, error, now)
            return self._retry(pending, error, now)
        self._record_progress(stream, now)
        return FinishedBatch(pending.batch, error)

    def _retry_changed(self, slot: Slot, pending: PendingBatch, change: ServiceError, now: float) -> bool:
        """Let a batch wait until it is made anew.

        Return False if its changes have taken too long, or its key was lost too often.
        """
        pending.changing_since = pending.changing_since if pending.changes else now
        pending.changes += 1
        pending.losses += isinstance(change, KeyNotFoundError)
        delay = change_delay_seconds(pending.changes)
        if pending.losses > MAX_LOSSES or now + delay >= pending.changing_since + self._timeout_seconds:
            return False
        pending.stale = self._last_failure = change
        slot.paused_until = max(slot.paused_until, now + delay)
        self._requeue(pending)
        return True

    def _retry(self, pending: PendingBatch, error: SealserveError, now: float) -> FinishedBatch | None:
        """Let a batch wait for another attempt, or finish it if it has failed too often."""
        pending.failing_since = pending.failing_since if pending.failures else now
        pending.failures += 1
        if pending.failures > _MAX_FAILURES and now - pending.failing_since > self._timeout_seconds:
            return FinishedBatch(pending.batch, error)
        self._requeue(pending)
        return None

    def _requeue(self, pending: PendingBatch) -> None:
        self._requeue_count += 1  # breaks ties between batches, which cannot be compared
        heapq.heappush(self._requeued, (pending.batch.first_index, self._requeue_count, pending))

    def _pause(self, slot: Slot, error: SealserveError | None, now: float) -> None:
        """Pause a slot. Items that fail during a pause do not make it longer."""
        self._last_failure = error or self._last_failure
        slot.max_items = 1
        if now >= slot.paused_until:
            slot.failures += 1
            slot.paused_until = now + delay_seconds(error, slot.failures)

    def _record_progress(self, stream: Stream, now: float) -> None:
        self._last_progress = stream.last_progress = now
        self._has_extended_timeout = False
        self._last_failure = None
        stream.slot.failures = 0
