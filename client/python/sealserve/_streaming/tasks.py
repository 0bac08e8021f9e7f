"""AsyncScoreStream: batches of rows through one or several streams at once, in asyncio's tasks.

The source reader takes batches from the source. A reader for each slot opens its streams and
receives. A sender for each stream asks for a batch, encrypts it in a thread and sends it. The tasks
share a Schedule, as the threads of `sealserve._streaming.threads` do. They change it only between
two awaits, so that it needs no lock.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio

from sealserve._codec.batches import Batch, FinishedBatch, Result, decrypt_reply
from sealserve._codec.messages import KEEP_ALIVE, item_messages, keep_alive_seconds
from sealserve._rpc.connections import Connections
from sealserve._rpc.methods import Methods
from sealserve._rpc.status import typed_error
from sealserve._streaming.schedule import CLOSING_SECONDS, MAX_RESULTS, Schedule
from sealserve._streaming.slots import PendingBatch, Slot, Stream
from sealserve.errors import SealserveError, ServiceError, TransportError, UnavailableError, UnexpectedModelError
from sealserve.protocol.model import Limits


class _Signal:
    """Wakes the tasks that wait for it."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def send(self) -> None:
        """Wake all."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until it is sent, or for so many seconds."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            self._waiting.discard(waiting)


class AsyncScoreStream:
    """An iterable of the batches and their outcomes, in the order in which batches finish.

    It can be iterated once.

    Args and Raises: those of ScoreStream, but `batches` and `renew` are asynchronous.
    """

    def __init__(
        self,
        connections: Connections[Methods],
        slots: int,
        batches: AsyncIterator[Batch],
        limits: Limits,
        renew: Callable[[Batch, ServiceError], Awaitable[Sequence[Batch]]],
        timeout_seconds: float,
    ) -> None:
        self._connections = connections
        self._renew_batch = renew
        self._source = batches
        self._source_error: Exception | None = None
        self._keep_alive_seconds = keep_alive_seconds(limits.idle_timeout_seconds)
        self._schedule = Schedule(limits, slots, timeout_seconds, time.monotonic(), connections.transfer_time)
        self._results: deque[Result] = deque()
        self._failure: Exception | None = None
        self._undelivered = 0
        self._calls: dict[int, Any] = {}
        # Slots and senders wait for `_changed`, the source reader for `_wanted`. The caller and the
        # tasks with results for it wait for `_delivered`.
        self._changed, self._wanted, self._delivered = _Signal(), _Signal(), _Signal()
        self._readers: list[asyncio.Task[None]] = []

    async def __aiter__(self) -> AsyncGenerator[Result, None]:
        self._readers = [asyncio.create_task(self._run_slot(slot)) for slot in self._schedule.slots]
        tasks = [asyncio.create_task(self._read_source()), *self._readers]
        try:
            while (result := await self._next_result()) is not None:
                yield result
            if self._source_error:
                raise self._source_error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _next_result(self) -> Result | None:
        """Wait for a result; None after the last."""
        began = time.monotonic()
        self._schedule.expect_result(began)
        while not self._results:
            if self._failure is not None:
                raise self._failure
            now = time.monotonic()
            is_done = self._schedule.is_finished and not self._undelivered
            if all(reader.done() for reader in self._readers) or (is_done and now > began + CLOSING_SECONDS):
                return None
            self._cancel_stalled(now)
            if (error := self._schedule.timeout_error(now)) is not None:
                raise error
            await self._delivered.wait(self._schedule.check_seconds(now))
        self._delivered.send()
        return self._results.popleft()

    def _cancel_stalled(self, now: float) -> None:
        if stalled := self._schedule.stalled_slots(now):
            self._schedule.extend_timeout(now)
            for number in stalled:
                self._calls[number].cancel()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._changed.send()
        self._delivered.send()

    def _count(self, finished: Iterable[FinishedBatch]) -> list[FinishedBatch]:
        """Count batches that are about to be delivered."""
        counted = list(finished)
        self._undelivered += len(counted)
        return counted

    async def _deliver(self, finished: Iterable[FinishedBatch]) -> None:
        """Decrypt replies in threads and pass results to the caller, as soon as there is room."""
        for each in finished:
            result = await asyncio.to_thread(decrypt_reply, each)
            while len(self._results) >= MAX_RESULTS:
                await self._delivered.wait()
            self._results.append(result)
            self._undelivered -= 1
            self._delivered.send()

    # The source reader's task

    async def _read_source(self) -> None:
        try:
            while True:
                while not self._schedule.wants_batch:
                    await self._wanted.wait()
                batch = await anext(self._source, None)
                if batch is None:
                    break
                if batch.error:
                    await self._deliver(self._count([FinishedBatch(batch, batch.error)]))
                else:
                    self._schedule.add(batch, time.monotonic())
                    self._changed.send()
        except Exception as error:  # the source's own, whatever it is
            self._source_error = error
        self._schedule.source_has_ended = True
        self._changed.send()

    def _wake_source_reader(self) -> None:
        """Wake the source reader if a batch is wanted."""
        if self._schedule.wants_batch:
            self._wanted.send()

    # A reader's task

    async def _run_slot(self, slot: Slot) -> None:
        try:
            while await self._wait_for_batch(slot):
                await self._run_stream(slot)
        except Exception as error:
            self._fail(error)
        finally:
            # The caller checks whether this task is done. It is done only after this line.
            asyncio.get_running_loop().call_soon(self._delivered.send)

    async def _wait_for_batch(self, slot: Slot) -> bool:
        """Wait until there is a batch to send; False if there will be none."""
        while not (self._schedule.is_finished or self._failure):
            now = time.monotonic()
            self._schedule.assign(slot, now)
            self._wake_source_reader()
            if slot.is_ready(now):
                return True
            await self._changed.wait(slot.paused_until - now if slot.paused_until > now else None)
        return False

    async def _run_stream(self, slot: Slot) -> None:
        """Open a stream and read it to its end."""
        with self._connections.use(slot.number) as connection:
            stream = self._schedule.open_stream(slot, time.monotonic())
            call = self._calls[slot.number] = connection.stream_predict()
            sender = asyncio.create_task(self._send(stream, call))
            try:
                error = await self._read(stream, call, connection)
                finished = self._count(self._schedule.end_stream(stream, error, time.monotonic()))
            finally:
                stream.has_ended = True
                self._changed.send()
                sender.cancel()
                call.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            if stream.needs_another_connection(error):
                self._connections.replace(connection)
        await self._deliver(finished)

    async def _read(self, stream: Stream, call: Any, connection: Methods) -> SealserveError | None:
        """Receive until the stream ends; return its error, or None if it ended without one."""
        try:
            while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
                self._connections.note_answer(connection)
                finished = self._schedule.receive(stream, response, time.monotonic())
                self._changed.send()
                if finished is not None:
                    self._schedule.set_reading(stream, time.monotonic(), is_read=False)
                    await self._deliver(self._count([finished]))
                    self._schedule.set_reading(stream, time.monotonic(), is_read=True)
        except grpc.RpcError as error:
            return typed_error(error, connection.endpoint)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                if stream.items or stream.slot.next_batch:  # no answer: perhaps the connection is dead
                    self._connections.replace(connection)
                raise
            return UnavailableError("the stream had stalled")
        return None

    # A sender's task

    async def _send(self, stream: Stream, call: Any) -> None:
        try:
            last_sent = time.monotonic()
            while not (stream.has_ended or stream.is_draining or self._schedule.is_finished or self._failure):
                now = time.monotonic()
                self._schedule.assign_to_stream(stream, now)
                pending = self._schedule.sendable(stream, now)
                self._wake_source_reader()
                if pending is None:
                    last_sent = await self._wait_to_send(stream, call, last_sent)
                elif (change := self._schedule.change(stream, pending)) is not None:
                    await self._renew(stream, pending.batch, change)
                else:
                    await self._send_item(stream, call, pending)
                    last_sent = time.monotonic()
            with contextlib.suppress(Exception):  # the stream may have ended before
                await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):  # the stream has ended; its reader knows why
            return
        except Exception as error:
            self._fail(error)

    async def _wait_to_send(self, stream: Stream, call: Any, last_sent: float) -> float:
        """Wait for a change, or send a keep-alive; return when a message was last sent."""
        now = time.monotonic()
        times = [stream.slot.paused_until - now] if stream.slot.paused_until > now else []
        silence = self._keep_alive_seconds
        if silence is not None:
            times.append(max(0.0, last_sent + silence - now))
        await self._changed.wait(min(times, default=None))
        if silence is None or time.monotonic() < last_sent + silence:
            return last_sent
        await call.write(KEEP_ALIVE)
        return time.monotonic()

    async def _send_item(self, stream: Stream, call: Any, pending: PendingBatch) -> None:
        """Encrypt an item in threads and send it, until the rest of it is no longer needed."""
        item_id = self._schedule.begin_item(stream, time.monotonic())
        parts = enumerate(item_messages(item_id, pending.batch.codec.encrypt(pending.batch.quantized)))
        began = time.monotonic()
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            number, message = part
            encrypted = time.monotonic()
            stream.computed_seconds += encrypted - began
            self._schedule.continue_item(stream, item_id, encrypted, is_long=number > 0)
            if not stream.is_open(item_id):
                return
            self._wake_source_reader()
            await call.write(message)
            began = time.monotonic()

    async def _renew(self, stream: Stream, batch: Batch, stale: ServiceError) -> None:
        try:
            renewed = await self._renew_batch(batch, stale)
        except (TransportError, UnexpectedModelError):  # another batch would meet it, too
            raise
        except SealserveError as error:
            finished = self._count(self._schedule.fail(stream, error))
        else:
            finished = self._count(self._schedule.renew(stream, renewed))
        self._changed.send()
        await self._deliver(finished)
