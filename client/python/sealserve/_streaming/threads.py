"""ScoreStream: batches of rows through one or several streams at once, in threads.

Four kinds of thread share the work. The source reader takes batches from the source. gRPC's own
thread of each stream asks for a batch, encrypts it and sends it. A reader for each slot opens its
streams and decrypts replies. The caller's thread takes results from a bounded queue. So a live
source may block without delaying replies, or the keep-alive messages that stop a service from
ending an idle stream. A slow caller slows the readers. Through gRPC's flow control the readers slow
the service, and in the end the source. The threads share a Schedule, which one lock guards.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextvars import copy_context
from typing import Any

import grpc

from sealserve._codec.batches import Batch, FinishedBatch, Result, decrypt_reply
from sealserve._codec.messages import KEEP_ALIVE, item_messages, keep_alive_seconds
from sealserve._rpc.cancellation import CancelledError
from sealserve._rpc.connections import Connections
from sealserve._rpc.methods import Methods
from sealserve._rpc.status import typed_error
from sealserve._streaming.schedule import CLOSING_SECONDS, MAX_RESULTS, Schedule
from sealserve._streaming.slots import PendingBatch, Slot, Stream
from sealserve.errors import SealserveError, ServiceError, TransportError, UnavailableError, UnexpectedModelError
from sealserve.protocol.model import Limits
from sealserve.v1 import prediction_pb2


class ScoreStream:
    """An iterable of the batches and their outcomes, in the order in which batches finish.

    It can be iterated once.

    Args:
        connections: the client's; the stream of a slot is on the connection of its number.
        slots: how many streams are open at a time.
        batches: the source. Its error is raised to the caller, after the results of the batches
            before it.
        limits: the service's.
        renew: makes a batch anew after the service no longer has its configuration or its key.
        timeout_seconds: how long the stream may make no progress.

    Raises (when iterated):
        TransportError, QuotaExceededError, DrainingError, KeyStoreUnavailableError: there was no
            progress for timeout_seconds.
        ServiceError: the service refuses every stream.
        ReplyError: the service breaks the protocol.
    """

    def __init__(
        self,
        connections: Connections[Methods],
        slots: int,
        batches: Iterator[Batch],
        limits: Limits,
        renew: Callable[[Batch, ServiceError], Sequence[Batch]],
        timeout_seconds: float,
    ) -> None:
        self._connections = connections
        self._renew_batch = renew
        self._source = batches
        self._source_error: BaseException | None = None
        self._keep_alive_seconds = keep_alive_seconds(limits.idle_timeout_seconds)
        # Three conditions share one lock. Slots and senders wait for `_changed`, the source reader
        # for `_wanted`. The caller and the threads with results for it wait for `_delivered`.
        lock = threading.RLock()
        self._changed, self._wanted, self._delivered = (threading.Condition(lock) for _ in range(3))
        self._schedule = Schedule(limits, slots, timeout_seconds, time.monotonic(), connections.transfer_time)
        self._results: deque[Result] = deque()
        self._failure: BaseException | None = None
        self._is_closed = False
        self._undelivered = 0
        self._calls: dict[int, Any] = {}
        # In the caller's context: the streams may belong to the span that the caller is in.
        self._readers = [
            threading.Thread(
                target=copy_context().run, args=(self._run_slot, slot), name="sealserve-reader", daemon=True
            )
            for slot in self._schedule.slots
        ]
        self._running = slots
        self._process_id = os.getpid()  # a forked child has neither the threads nor their locks

    def __iter__(self) -> Generator[Result, None, None]:
        source_reader = threading.Thread(target=self._read_source, name="sealserve-source", daemon=True)
        for thread in (source_reader, *self._readers):
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
        if os.getpid() != self._process_id:
            raise UnavailableError("the stream ended with a fork: in the child process, begin another")
        with self._changed:
            began = time.monotonic()
            self._schedule.expect_result(began)
            while not self._results:
                if self._failure is not None:
                    raise self._failure
                now = time.monotonic()
                is_done = self._schedule.is_finished and not self._undelivered
                if not self._running or (is_done and now > began + CLOSING_SECONDS):
                    return None
                self._cancel_stalled(now)
                if (error := self._schedule.timeout_error(now)) is not None:
                    raise error
                self._delivered.wait(self._schedule.check_seconds(now))
            self._delivered.notify_all()
            return self._results.popleft()

    def _cancel_stalled(self, now: float) -> None:
        if stalled := self._schedule.stalled_slots(now):
            self._schedule.extend_timeout(now)
            for number in stalled:
                self._calls[number].cancel()

    def cancel(self) -> None:
        """End the stream from another thread: the one that iterates gets a CancelledError."""
        self._fail(CancelledError())

    def _close(self) -> None:
        if os.getpid() != self._process_id:
            return
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

    def _count(self, finished: Iterable[FinishedBatch]) -> list[FinishedBatch]:
        """Count batches that are about to be delivered. The caller holds the lock."""
        counted = list(finished)
        self._undelivered += len(counted)
        return counted

    def _deliver(self, finished: Iterable[FinishedBatch]) -> None:
        """Decrypt replies and pass results to the caller, as soon as there is room for them."""
        for each in finished:
            result = decrypt_reply(each)
            with self._changed:
                self._delivered.wait_for(lambda: self._is_closed or len(self._results) < MAX_RESULTS)
                self._results.append(result)
                self._undelivered -= 1
                self._delivered.notify_all()

    # The source reader's thread

    def _read_source(self) -> None:
        try:
            while self._wait_until_wanted() and (batch := next(self._source, None)) is not None:
                with self._changed:
                    refused = self._count([FinishedBatch(batch, batch.error)] if batch.error else [])
                    if not refused:
                        self._schedule.add(batch, time.monotonic())
                    self._changed.notify_all()
                self._deliver(refused)
        except BaseException as error:  # the source's own, whatever it is
            self._source_error = error
        with self._changed:
            self._schedule.source_has_ended = True
            self._changed.notify_all()

    def _wake_source_reader(self) -> None:
        """Wake the source reader if a batch is wanted. The caller holds the lock."""
        if self._schedule.wants_batch:
            self._wanted.notify_all()

    def _wait_until_wanted(self) -> bool:
        """Wait until a slot wants a batch; False if the stream was closed."""
        with self._changed:
            self._wanted.wait_for(lambda: self._is_closed or self._schedule.wants_batch)
            return not self._is_closed

    # A reader's thread

    def _run_slot(self, slot: Slot) -> None:
        try:
            while self._wait_for_batch(slot):
                self._run_stream(slot)
        except BaseException as error:
            self._fail(error)
        finally:
            with self._changed:
                self._running -= 1
                self._delivered.notify_all()

    def _wait_for_batch(self, slot: Slot) -> bool:
        """Wait until there is a batch to send; False if there will be none."""
        with self._changed:
            while not (self._is_closed or self._schedule.is_finished or self._failure):
                now = time.monotonic()
                self._schedule.assign(slot, now)
                self._wake_source_reader()
                if slot.is_ready(now):
                    return True
                self._changed.wait(slot.paused_until - now if slot.paused_until > now else None)
            return False

    def _run_stream(self, slot: Slot) -> None:
        """Open a stream and read it to its end."""
        with self._connections.use(slot.number) as connection:
            with self._changed:
                stream = self._schedule.open_stream(slot, time.monotonic())
            error = self._read(stream, connection)
            with self._changed:
                now = time.monotonic()
                finished = [] if self._is_closed else self._count(self._schedule.end_stream(stream, error, now))
                stream.has_ended = True
                self._changed.notify_all()
            if stream.needs_another_connection(error):
                self._connections.replace(connection)
        self._deliver(finished)

    def _read(self, stream: Stream, connection: Methods) -> SealserveError | None:
        """Receive until the stream ends; return its error, or None if it ended without one."""
        call = connection.stream_predict(self._requests(stream))
        try:
            with self._changed:
                self._calls[stream.slot.number] = call
                is_to_end = self._is_closed or stream.has_stalled
            if is_to_end:
                call.cancel()
            for response in call:
                self._connections.note_answer(connection)
                self._receive(stream, response)
        except grpc.RpcError as error:
            return typed_error(error, connection.endpoint)
        except BaseException:
            call.cancel()
            raise
        return None

    def _receive(self, stream: Stream, response: prediction_pb2.StreamPredictResponse) -> None:
        with self._changed:
            finished = self._schedule.receive(stream, response, time.monotonic())
            self._schedule.set_reading(stream, time.monotonic(), is_read=finished is None)
            counted = self._count([] if finished is None else [finished])
            self._changed.notify_all()
        if counted:
            self._deliver(counted)
            with self._changed:
                self._schedule.set_reading(stream, time.monotonic(), is_read=True)

    # gRPC's sending thread

    def _requests(self, stream: Stream) -> Iterator[prediction_pb2.StreamPredictRequest]:
        try:
            last_sent = time.monotonic()
            while not self._is_over(stream):
                pending = self._wait_for_sendable(stream, last_sent)
                if pending is None:
                    if time.monotonic() - last_sent >= (self._keep_alive_seconds or float("inf")):
                        last_sent = time.monotonic()
                        yield KEEP_ALIVE
                elif (change := self._schedule.change(stream, pending)) is not None:
                    self._renew(stream, pending.batch, change)
                else:
                    yield from self._encrypt_item(stream, pending)
                    last_sent = time.monotonic()
        except Exception as error:  # gRPC would swallow it
            self._fail(error)

    def _is_over(self, stream: Stream) -> bool:
        with self._changed:
            is_over = stream.has_ended or stream.is_draining or self._schedule.is_finished
            return is_over or self._is_closed or self._failure is not None

    def _wait_for_sendable(self, stream: Stream, last_sent: float) -> PendingBatch | None:
        """Return the batch to send; None after a wait for a change or a keep-alive."""
        with self._changed:
            now = time.monotonic()
            if self._is_over(stream):
                return None
            self._schedule.assign_to_stream(stream, now)
            self._wake_source_reader()
            if (pending := self._schedule.sendable(stream, now)) is not None:
                return pending
            times = [stream.slot.paused_until - now] if stream.slot.paused_until > now else []
            if self._keep_alive_seconds is not None:
                times.append(max(0.0, last_sent + self._keep_alive_seconds - now))
            self._changed.wait(min(times, default=None))
            return None

    def _encrypt_item(self, stream: Stream, pending: PendingBatch) -> Iterator[prediction_pb2.StreamPredictRequest]:
        """Encrypt an item and yield its messages, until the rest of it is no longer needed."""
        with self._changed:
            if stream.has_ended:
                return
            item_id = self._schedule.begin_item(stream, time.monotonic())
        item = pending.batch.codec.encrypt(pending.batch.quantized)
        began = time.monotonic()
        for number, message in enumerate(item_messages(item_id, item)):
            encrypted = time.monotonic()
            with self._changed:
                if self._is_closed:
                    return
                stream.computed_seconds += encrypted - began
                self._schedule.continue_item(stream, item_id, encrypted, is_long=number > 0)
                if not stream.is_open(item_id):
                    return
                self._wake_source_reader()
            yield message
            began = time.monotonic()

    def _renew(self, stream: Stream, batch: Batch, stale: ServiceError) -> None:
        renewed: Sequence[Batch] = ()
        failure: SealserveError | None = None
        try:
            renewed = self._renew_batch(batch, stale)
        except (TransportError, UnavailableError, UnexpectedModelError):  # another batch would meet it, too
            raise
        except SealserveError as error:
            failure = error
        with self._changed:
            renew, fail = self._schedule.renew, self._schedule.fail
            finished = self._count(renew(stream, renewed) if failure is None else fail(stream, failure))
            self._changed.notify_all()
        self._deliver(finished)
