"""What of many batches is where: waiting, on its way, or at its end; and what to do when something breaks.

The pure part of a client's streams, shared by its threads and its coroutines: no thread, no gRPC, no clock.

Batches travel on lanes. On a lane, streams follow each other; what has no reply yet when one breaks goes back to those
that wait, oldest rows first and before new ones, for whichever lane is free. So does an item that the service was too
busy for, that came too slowly, or that was made for a configuration which has changed. A lane that has met with such a
failure pauses, and then begins again with one item at a time: new batches are not even taken from the source while
all lanes pause.
"""

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sealserve._codec.batches import Batch, Result, Scored
from sealserve._rpc.retry import BROKEN, BUSY, CHANGED, delay_seconds
from sealserve.errors import (
    DeadlineError,
    DrainingError,
    ItemTimeoutError,
    ReplyError,
    SealserveError,
    ServiceError,
)
from sealserve.protocol.item import Scores
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import error_from_proto, scores_from_proto
from sealserve.v1 import prediction_pb2

# Changes of the model are followed, as a service's processes do not change at the same instant; then one is an error.
MAX_CHANGES = 4
# A batch that fails so often, and for as long as an answer may take, fails for good, even if others get through.
_MAX_FAILURES = 8


class End(NamedTuple):
    """The end of a batch: its whole reply, to be decrypted, or why there is none."""

    batch: Batch
    reply: list[Scores] | SealserveError


def result_of(end: End) -> Result:
    """Decrypt the reply of a batch."""
    batch, reply = end
    if isinstance(reply, SealserveError):
        return batch, reply
    try:
        return batch, Scored(batch.exchange.model.output, batch.exchange.decrypt(len(batch.rows), reply))
    except SealserveError as error:
        return batch, error


@dataclass(eq=False)
class Job:
    """A batch that has no end yet.

    Attributes:
        failures, failing_since: how often it has failed in a way that may pass, and when first.
        changes: how often the model has changed under it.
        stale: the last such change, if the batch has to be made anew for it.
    """

    batch: Batch
    failures: int = 0
    failing_since: float = 0.0
    changes: int = 0
    stale: ServiceError | None = None


@dataclass(eq=False)
class Lane:
    """A place for one stream after the other.

    Attributes:
        number: among the lanes, from 0.
        in_hand: the job that it will send next.
        paused_until: when it may go on.
        failures: since something got through.
        is_waiting: it would take a batch from the source.
        max_items: how many may be open on its stream, if the service allows it.
    """

    number: int
    max_items: int
    in_hand: Job | None = None
    paused_until: float = 0.0
    failures: int = 0
    is_waiting: bool = False


@dataclass
class _Open:
    job: Job
    reply: list[Scores] = field(default_factory=list)


class Flight:
    """One stream: the items on it that have no end yet.

    Attributes:
        lane: its lane.
        window_bytes: None until the service has said it.
        moved: when something came or went.
        is_read: whether somebody waits for what comes.
        has_ended: nothing more can be sent.
        is_draining: nothing more is to be sent, as the service at its other end is stopping.
    """

    def __init__(self, lane: Lane, now: float) -> None:
        self.lane = lane
        self.window_bytes: int | None = None
        self.moved = now
        self.is_read = True
        self.has_ended = False
        self.is_draining = False
        self.items: dict[int, _Open] = {}
        self._last_id = 0
        self._held_bytes = 0

    def has_room(self, held_bytes: int, max_items: int) -> bool:
        """Whether an item may be sent: into the window, or, if it is larger than that, alone."""
        if self.window_bytes is None or self.has_ended or self.is_draining:
            return False
        fits = self._held_bytes + held_bytes <= self.window_bytes
        return not self.items or (fits and len(self.items) < min(max_items, self.lane.max_items))

    def begin(self, job: Job, now: float) -> int:
        """Count a job as sent; returns its item's id."""
        self._last_id += 1
        self.items[self._last_id] = _Open(job)
        self._held_bytes += job.batch.held_bytes
        self.moved = now
        return self._last_id

    def end(self, item_id: int) -> _Open:
        """Count an item out."""
        ended = self.items.pop(item_id)
        self._held_bytes -= ended.job.batch.held_bytes
        return ended


class Transfer:
    """All batches of a call, on all its lanes.

    Every `now` is in seconds of one clock, that never goes back.

    Args:
        limits: the service's.
        lanes: how many.
        timeout_seconds: how long nothing may get through before all is given up.
    """

    def __init__(self, limits: Limits, lanes: int, timeout_seconds: float, now: float) -> None:
        self.lanes = [Lane(number, limits.max_open_items) for number in range(lanes)]
        self.source_has_ended = False
        self._max_items = limits.max_open_items
        self._timeout_seconds = timeout_seconds
        self._flights: dict[int, Flight] = {}
        self._again: list[tuple[int, int, Job]] = []  # a heap: the oldest rows first
        self._fresh: deque[Job] = deque()
        self._returned = 0
        self._moved = now
        self._has_stalled = False
        self._last_failure: SealserveError | None = None

    @property
    def is_finished(self) -> bool:
        """Whether every batch there ever was has its end."""
        return self.source_has_ended and not self._has_work

    @property
    def wants_batch(self) -> bool:
        """Whether a lane could send another batch than those that are here."""
        return sum(lane.is_waiting for lane in self.lanes) > len(self._fresh)

    def add(self, batch: Batch, now: float) -> None:
        """Take a batch from the source."""
        if not self._has_work:
            self._moved = now
        self._fresh.append(Job(batch))

    # Sending

    def take(self, lane: Lane, now: float) -> bool:
        """Give a lane without a stream a job to open one for; False if it has to wait."""
        if lane.in_hand is None and now >= lane.paused_until:
            if self._again:
                lane.in_hand = heapq.heappop(self._again)[-1]
            elif self._fresh:
                lane.in_hand = self._fresh.popleft()
        lane.is_waiting = lane.in_hand is None and now >= lane.paused_until
        return lane.in_hand is not None and now >= lane.paused_until

    def begin(self, lane: Lane, now: float) -> Flight:
        """Open a stream on a lane."""
        flight = self._flights[lane.number] = Flight(lane, now)
        return flight

    def next(self, flight: Flight, now: float) -> Job | None:
        """Return the job to send now, or None if it has to wait: for work, for room, for the end of a pause."""
        lane = flight.lane
        if not flight.has_room(0 if lane.in_hand is None else lane.in_hand.batch.held_bytes, self._max_items):
            lane.is_waiting = False
            return None
        if not self.take(lane, now) or lane.in_hand is None:
            return None
        return lane.in_hand if flight.has_room(lane.in_hand.batch.held_bytes, self._max_items) else None

    def renew(self, flight: Flight, batches: Sequence[Batch]) -> Iterator[End]:
        """Replace the job in hand, which is stale, by what it has become; yields the ends of rows refused by now."""
        job = flight.lane.in_hand
        if flight.has_ended or job is None:  # it waits elsewhere, to be renewed there
            return
        flight.lane.in_hand = None
        for batch in batches:
            if batch.error:
                yield End(batch, batch.error)
            else:
                self._put_back(Job(batch, job.failures, job.failing_since, job.changes))

    def drop(self, flight: Flight, error: SealserveError) -> Iterator[End]:
        """End the job in hand with an error, as it cannot be renewed."""
        job = flight.lane.in_hand
        if not flight.has_ended and job is not None:
            flight.lane.in_hand = None
            yield End(job.batch, error)

    def send(self, flight: Flight, now: float) -> int:
        """Count the job in hand as sent; returns its item's id."""
        job = flight.lane.in_hand
        if job is None:
            raise AssertionError("there is a job in hand")
        flight.lane.in_hand = None
        return flight.begin(job, now)

    def goes_on(self, flight: Flight, item_id: int, now: float, *, is_long: bool) -> bool:
        """Whether the rest of an item is still wanted, before each message of it; the next batch is, if it is long."""
        flight.moved = now
        flight.lane.is_waiting = is_long and not self._again
        return not flight.has_ended and item_id in flight.items

    # Receiving

    def receive(self, flight: Flight, response: prediction_pb2.StreamPredictResponse, now: float) -> End | None:
        """Take a message; returns the end of a batch, if it was that.

        Raises:
            ReplyError: no message of this kind is due.
        """
        flight.moved = now
        if response.HasField("window"):
            flight.window_bytes = response.window.max_bytes_in_flight
        item = flight.items.get(response.item_id)
        if item is None:
            return None
        if response.HasField("scores"):
            if response.scores.first_index != len(item.reply):
                raise ReplyError
            item.reply += scores_from_proto(response.scores)
            if len(item.reply) > item.job.batch.polynomials:
                raise ReplyError
        if response.WhichOneof("end") is None:
            return None
        flight.end(response.item_id)
        if response.HasField("error"):
            return self._failed(flight, item.job, error_from_proto(response.error), now)
        self._got_through(flight.lane, now)
        flight.lane.max_items = min(flight.lane.max_items + 1, self._max_items)
        return End(item.job.batch, item.reply)

    def broken(self, flight: Flight, error: SealserveError | None, now: float) -> list[End]:
        """End a stream: what has no end on it waits again. Returns the ends of batches that have failed too often.

        Raises:
            SealserveError: the error, if no other stream would fare better.
        """
        if flight.has_ended:
            return []
        flight.has_ended = True
        flight.lane.is_waiting = False
        del self._flights[flight.lane.number]
        if error is None and flight.items:  # the service ended the stream, but not its items
            raise ReplyError
        if error is not None and not isinstance(error, (*BUSY, *BROKEN)):
            raise error
        self._pause(flight.lane, error, now)
        jobs = [flight.end(item_id).job for item_id in list(flight.items)]
        if flight.lane.in_hand is not None:
            self._put_back(flight.lane.in_hand)
            flight.lane.in_hand = None
        cause = error or DeadlineError("the stream broke")
        return [end for job in jobs if (end := self._retried(job, cause, now)) is not None]

    # Time

    def waits(self, now: float) -> None:
        """Say that the caller waits for a result from now on: what nobody asked for is not late."""
        self._moved = max(self._moved, now)

    def reads(self, flight: Flight, now: float, *, is_read: bool) -> None:
        """Say whether somebody waits for what comes on a stream."""
        flight.is_read, flight.moved = is_read, now

    def overdue(self, now: float) -> SealserveError | None:
        """Return why to give up: nothing has got through for too long, or nothing can in the time that is left."""
        if not self._has_work:
            return None
        moved = [flight.moved for flight in self._flights.values() if flight.items]
        end = max(self._moved, *moved, 0.0) + self._timeout_seconds
        is_hopeless = not moved and all(lane.paused_until > end for lane in self.lanes)
        if now <= end and not is_hopeless:
            return None
        if self._last_failure is not None and not moved:
            return self._last_failure
        return DeadlineError("the answer did not come within timeout_seconds")

    def stalled(self, now: float) -> list[int]:
        """Return lanes on which nothing has moved for too long, while another has gone on: their streams are dead.

        What was on them has the time of an answer once more, unless nothing has got through since it had it before.
        """
        moved = {number: flight.moved for number, flight in self._flights.items()}
        found = [
            number
            for number, flight in self._flights.items()
            if flight.items
            and flight.is_read
            and now > flight.moved + self._timeout_seconds
            and max(moved.values()) > flight.moved
        ]
        if found and not self._has_stalled:
            self._has_stalled, self._moved = True, now
        return found

    @property
    def _has_work(self) -> bool:
        in_hand = any(lane.in_hand is not None for lane in self.lanes)
        return bool(self._again or self._fresh or in_hand or any(flight.items for flight in self._flights.values()))

    def _failed(self, flight: Flight, job: Job, error: SealserveError, now: float) -> End | None:
        """Judge the error of an item: a pause and another try, or the end."""
        if isinstance(error, CHANGED) and job.changes < MAX_CHANGES:
            job.changes += 1
            job.stale = error
            self._put_back(job)
            return None
        if isinstance(error, (*BUSY, ItemTimeoutError)):
            flight.is_draining |= isinstance(error, DrainingError)
            self._pause(flight.lane, error, now)
            return self._retried(job, error, now)
        self._got_through(flight.lane, now)
        return End(job.batch, error)

    def _retried(self, job: Job, error: SealserveError, now: float) -> End | None:
        """Let a job wait for another try, unless it has had enough."""
        job.failing_since = job.failing_since if job.failures else now
        job.failures += 1
        if job.failures > _MAX_FAILURES and now - job.failing_since > self._timeout_seconds:
            return End(job.batch, error)
        self._put_back(job)
        return None

    def _put_back(self, job: Job) -> None:
        self._returned += 1  # breaks ties, of jobs that cannot be compared
        heapq.heappush(self._again, (job.batch.first_index, self._returned, job))

    def _pause(self, lane: Lane, error: SealserveError | None, now: float) -> None:
        """Let a lane wait; many items that fail at once are one failure."""
        self._last_failure = error or self._last_failure
        lane.max_items = 1
        if now >= lane.paused_until:
            lane.failures += 1
            lane.paused_until = now + delay_seconds(error, lane.failures)

    def _got_through(self, lane: Lane, now: float) -> None:
        self._moved = now
        self._has_stalled = False
        self._last_failure = None
        lane.failures = 0
