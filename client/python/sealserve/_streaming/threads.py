"""Batches of rows through one or several streams at once, in threads.

Four kinds of thread share the work: a feeder takes batches from the source; gRPC's own thread of each stream asks for
one, encrypts and sends it; a reader of each lane opens its streams and decrypts replies; the caller's takes results
from a bounded queue. So a live source may block without holding back replies, or the signs of life that keep a service
from ending an idle stream; and a slow caller slows the readers, through gRPC's flow control the service, and in the end
the source. What they share is a Transfer, behind one lock.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import grpc

from sealserve._codec.batches import Batch, Result
from sealserve._codec.messages import SIGN_OF_LIFE, messages, sign_of_life_seconds
from sealserve._rpc.retry import ELSEWHERE
from sealserve._rpc.status import translated
from sealserve._streaming.schedule import End, Flight, Job, Lane, Transfer, result_of
from sealserve.errors import SealserveError, ServiceError, TransportError
from sealserve.protocol.model import Limits
from sealserve.v1 import prediction_pb2

MAX_RESULTS = 64
_LOOK_SECONDS = 1.0
LAST_SECONDS = 2.0  # for the service to end streams of which nothing is wanted any more


def look_seconds(timeout_seconds: float) -> float:
    """Return how often to look whether the caller waits in vain."""
    return min(_LOOK_SECONDS, timeout_seconds / 4)


class Line(NamedTuple):
    """A connection to open streams on.

    Attributes:
        call: takes an iterator of requests, returns the call.
        replace: has the next stream use another connection.
    """

    call: Callable[[Iterator[prediction_pb2.StreamPredictRequest]], Any]
    replace: Callable[[], None]


class ScoreStream:
    """Iterate, once, to get (batch, scores or the batch's error), in the order in which they finish.

    Args:
        line: gives a lane's connection for as long as a stream on it lasts.
        lanes: how many streams at a time.
        batches: the source; what it raises is raised to the caller, after the results of what it gave before.
        limits: the service's.
        renewed: makes a batch anew after the service found its configuration stale, or had its key no longer.
        timeout_seconds: how long nothing may get through.

    Raises (when iterated):
        TransportError, QuotaExceededError, DrainingError: nothing got through for timeout_seconds.
        ServiceError: the service refuses every stream.
        ReplyError: it breaks the protocol.
    """

    def __init__(
        self,
        line: Callable[[int], AbstractContextManager[Line]],
        lanes: int,
        batches: Iterator[Batch],
        limits: Limits,
        renewed: Callable[[Batch, ServiceError], Sequence[Batch]],
        timeout_seconds: float,
    ) -> None:
        self._line = line
        self._limits = limits
        self._renewed = renewed
        self._source = batches
        self._source_error: BaseException | None = None
        self._sign_of_life_seconds = sign_of_life_seconds(limits.idle_timeout_seconds)
        self._look_seconds = look_seconds(timeout_seconds)
        # Of one lock: what lanes, the feeder, the caller and those who have results for it wait for.
        lock = threading.RLock()
        self._changed, self._wanted, self._delivered = (threading.Condition(lock) for _ in range(3))
        self._transfer = Transfer(limits, lanes, timeout_seconds, time.monotonic())
        self._results: deque[Result] = deque()
        self._failure: BaseException | None = None
        self._is_closed = False
        self._deliveries = 0
        self._calls: dict[int, Any] = {}
        self._readers = [
            threading.Thread(target=self._run, args=(lane,), name="sealserve-reader", daemon=True)
            for lane in self._transfer.lanes
        ]
        self._running = lanes

    def __iter__(self) -> Iterator[Result]:
        feeder = threading.Thread(target=self._feed, name="sealserve-feeder", daemon=True)
        for thread in (feeder, *self._readers):
            thread.start()
        try:
            while (result := self._next_result()) is not None:
                yield result
            if self._source_error:
                raise self._source_error
        finally:
            self._close()

    def _next_result(self) -> Result | None:
        """Wait for a result; None after the last."""
        with self._changed:
            began = time.monotonic()
            self._transfer.waits(began)
            while not self._results:
                if self._failure is not None:
                    raise self._failure
                now = time.monotonic()
                is_done = self._transfer.is_finished and not self._deliveries
                if not self._running or (is_done and now > began + LAST_SECONDS):
                    return None
                for number in self._transfer.stalled(now):
                    self._calls[number].cancel()
                if (error := self._transfer.overdue(now)) is not None:
                    raise error
                self._delivered.wait(self._look_seconds)
            self._delivered.notify_all()
            return self._results.popleft()

    def _close(self) -> None:
        with self._changed:
            self._is_closed = True
            calls = list(self._calls.values())
            self._wake_all()
        for call in calls:
            call.cancel()
        for reader in self._readers:
            reader.join()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._wake_all()

    def _wake_all(self) -> None:
        for condition in (self._changed, self._wanted, self._delivered):
            condition.notify_all()

    def _due(self, ends: Iterable[End]) -> list[End]:
        """Count ends that are about to be delivered; under the lock."""
        due = list(ends)
        self._deliveries += len(due)
        return due

    def _deliver(self, ends: Iterable[End]) -> None:
        """Decrypt replies and hand results to the caller, as soon as there is room for them."""
        for end in ends:
            result = result_of(end)
            with self._changed:
                self._delivered.wait_for(lambda: self._is_closed or len(self._results) < MAX_RESULTS)
                self._results.append(result)
                self._deliveries -= 1
                self._delivered.notify_all()

    # The feeder's thread

    def _feed(self) -> None:
        try:
            while self._is_wanted() and (batch := next(self._source, None)) is not None:
                with self._changed:
                    refused = self._due([End(batch, batch.error)] if batch.error else [])
                    if not refused:
                        self._transfer.add(batch, time.monotonic())
                    self._changed.notify_all()
                self._deliver(refused)
        except BaseException as error:  # the source's own, whatever it is
            self._source_error = error
        with self._changed:
            self._transfer.source_has_ended = True
            self._changed.notify_all()

    def _ask_source(self) -> None:
        """Wake the feeder if there is something for it to do; under the lock."""
        if self._transfer.wants_batch:
            self._wanted.notify_all()

    def _is_wanted(self) -> bool:
        """Wait until a lane has use for a batch; False when there will be none."""
        with self._changed:
            self._wanted.wait_for(lambda: self._is_closed or self._transfer.wants_batch)
            return not self._is_closed

    # A reader's thread

    def _run(self, lane: Lane) -> None:
        try:
            while self._has_job(lane):
                self._fly(lane)
        except BaseException as error:
            self._fail(error)
        finally:
            with self._changed:
                self._running -= 1
                self._delivered.notify_all()

    def _has_job(self, lane: Lane) -> bool:
        """Wait until there is a reason to open a stream; False when there will be none."""
        with self._changed:
            while not (self._is_closed or self._transfer.is_finished or self._failure):
                now = time.monotonic()
                has_job = self._transfer.take(lane, now)
                self._ask_source()
                if has_job:
                    return True
                self._changed.wait(lane.paused_until - now if lane.paused_until > now else None)
            return False

    def _fly(self, lane: Lane) -> None:
        """Open a stream and read it to its end."""
        with self._line(lane.number) as line:
            with self._changed:
                flight = self._transfer.begin(lane, time.monotonic())
            error = self._read(flight, line)
            with self._changed:
                ends = [] if self._is_closed else self._due(self._transfer.broken(flight, error, time.monotonic()))
                flight.has_ended = True
                self._changed.notify_all()
            if flight.is_draining or isinstance(error, ELSEWHERE):
                line.replace()
        self._deliver(ends)

    def _read(self, flight: Flight, line: Line) -> SealserveError | None:
        """Receive until the stream ends; returns why, if not because all is done."""
        call = line.call(self._requests(flight))
        try:
            with self._changed:
                self._calls[flight.lane.number] = call
                is_closed = self._is_closed
            if is_closed:
                call.cancel()
            for response in call:
                with self._changed:
                    end = self._transfer.receive(flight, response, time.monotonic())
                    self._transfer.reads(flight, time.monotonic(), is_read=end is None)
                    ends = self._due([] if end is None else [end])
                    self._changed.notify_all()
                if ends:
                    self._deliver(ends)
                    with self._changed:
                        self._transfer.reads(flight, time.monotonic(), is_read=True)
        except grpc.RpcError as error:
            return translated(error)
        except BaseException:
            call.cancel()
            raise
        return None

    # gRPC's sending thread

    def _requests(self, flight: Flight) -> Iterator[prediction_pb2.StreamPredictRequest]:
        try:
            heard = time.monotonic()
            while not self._is_over(flight):
                job = self._next_job(flight, heard)
                if job is None:
                    if time.monotonic() - heard >= (self._sign_of_life_seconds or float("inf")):
                        heard = time.monotonic()
                        yield SIGN_OF_LIFE
                elif job.stale is not None:
                    self._renew(flight, job.batch, job.stale)
                else:
                    yield from self._item(flight, job)
                    heard = time.monotonic()
        except Exception as error:  # gRPC would swallow it
            self._fail(error)

    def _is_over(self, flight: Flight) -> bool:
        with self._changed:
            is_over = flight.has_ended or flight.is_draining or self._transfer.is_finished
            return is_over or self._is_closed or self._failure is not None

    def _next_job(self, flight: Flight, heard: float) -> Job | None:
        """Return what to send, or None after waiting until something has changed or it is time to say something."""
        with self._changed:
            now = time.monotonic()
            if self._is_over(flight):
                return None
            job = self._transfer.next(flight, now)
            self._ask_source()
            if job is not None:
                return job
            times = [flight.lane.paused_until - now] if flight.lane.paused_until > now else []
            if self._sign_of_life_seconds is not None:
                times.append(max(0.0, heard + self._sign_of_life_seconds - now))
            self._changed.wait(min(times, default=None))
            return None

    def _item(self, flight: Flight, job: Job) -> Iterator[prediction_pb2.StreamPredictRequest]:
        """Encrypt and yield an item, for as long as it is wanted."""
        with self._changed:
            if flight.has_ended:
                return
            item_id = self._transfer.send(flight, time.monotonic())
        item = job.batch.exchange.encrypt(job.batch.quantized)
        for number, message in enumerate(messages(item_id, item, self._limits)):
            with self._changed:
                now = time.monotonic()
                if self._is_closed or not self._transfer.goes_on(flight, item_id, now, is_long=number > 0):
                    return
                self._ask_source()
            yield message

    def _renew(self, flight: Flight, batch: Batch, stale: ServiceError) -> None:
        try:
            batches = self._renewed(batch, stale)
        except TransportError:
            raise
        except SealserveError as error:
            with self._changed:
                ends = self._due(self._transfer.drop(flight, error))
                self._changed.notify_all()
        else:
            with self._changed:
                ends = self._due(self._transfer.renew(flight, batches))
                self._changed.notify_all()
        self._deliver(ends)
