"""Batches of rows through one or several streams at once, in coroutines: `_stream` for asyncio, on the same Transfer.

A feeder takes batches from the source; a reader of each lane opens its streams and receives; a sender of each stream
asks for a batch, has it encrypted in a thread and sends it. Everything else happens between two awaits, so that there
is no lock.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio

from sealserve._codec.batches import Batch, Result
from sealserve._codec.messages import SIGN_OF_LIFE, messages, sign_of_life_seconds
from sealserve._rpc.retry import ELSEWHERE
from sealserve._rpc.status import translated
from sealserve._streaming.schedule import End, Flight, Job, Lane, Transfer, result_of
from sealserve._streaming.threads import LAST_SECONDS, MAX_RESULTS, look_seconds
from sealserve.errors import SealserveError, ServiceError, TransportError, UnavailableError
from sealserve.protocol.model import Limits


class AsyncLine(NamedTuple):
    """A connection to open streams on.

    Attributes:
        call: returns the call, to read from and write to.
        replace: has the next stream use another connection.
    """

    call: Callable[[], Any]
    replace: Callable[[], None]


class _Signal:
    """Wakes those who wait for it."""

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
    """Iterate, once, to get (batch, scores or the batch's error), in the order in which they finish.

    Args and Raises: those of ScoreStream, but that `batches` and `renewed` are asynchronous.
    """

    def __init__(
        self,
        line: Callable[[int], contextlib.AbstractContextManager[AsyncLine]],
        lanes: int,
        batches: AsyncIterator[Batch],
        limits: Limits,
        renewed: Callable[[Batch, ServiceError], Awaitable[Sequence[Batch]]],
        timeout_seconds: float,
    ) -> None:
        self._line = line
        self._limits = limits
        self._renewed = renewed
        self._source = batches
        self._source_error: Exception | None = None
        self._sign_of_life_seconds = sign_of_life_seconds(limits.idle_timeout_seconds)
        self._look_seconds = look_seconds(timeout_seconds)
        self._transfer = Transfer(limits, lanes, timeout_seconds, time.monotonic())
        self._results: deque[Result] = deque()
        self._failure: Exception | None = None
        self._deliveries = 0
        self._calls: dict[int, Any] = {}
        # What lanes, the feeder, the caller and those who have results for it wait for.
        self._changed, self._wanted, self._delivered = _Signal(), _Signal(), _Signal()
        self._readers: list[asyncio.Task[None]] = []

    async def __aiter__(self) -> AsyncGenerator[Result, None]:
        self._readers = [asyncio.create_task(self._run(lane)) for lane in self._transfer.lanes]
        tasks = [asyncio.create_task(self._feed()), *self._readers]
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
        self._transfer.waits(began)
        while not self._results:
            if self._failure is not None:
                raise self._failure
            now = time.monotonic()
            is_done = self._transfer.is_finished and not self._deliveries
            if all(reader.done() for reader in self._readers) or (is_done and now > began + LAST_SECONDS):
                return None
            for number in self._transfer.stalled(now):
                self._calls[number].cancel()
            if (error := self._transfer.overdue(now)) is not None:
                raise error
            await self._delivered.wait(self._look_seconds)
        self._delivered.send()
        return self._results.popleft()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._changed.send()
        self._delivered.send()

    def _due(self, ends: Iterable[End]) -> list[End]:
        """Count ends that are about to be delivered."""
        due = list(ends)
        self._deliveries += len(due)
        return due

    async def _deliver(self, ends: Iterable[End]) -> None:
        """Have replies decrypted and hand results to the caller, as soon as there is room for them."""
        for end in ends:
            result = await asyncio.to_thread(result_of, end)
            while len(self._results) >= MAX_RESULTS:
                await self._delivered.wait()
            self._results.append(result)
            self._deliveries -= 1
            self._delivered.send()

    # The feeder's task

    async def _feed(self) -> None:
        try:
            while True:
                while not self._transfer.wants_batch:
                    await self._wanted.wait()
                batch = await anext(self._source, None)
                if batch is None:
                    break
                if batch.error:
                    await self._deliver(self._due([End(batch, batch.error)]))
                else:
                    self._transfer.add(batch, time.monotonic())
                    self._changed.send()
        except Exception as error:  # the source's own, whatever it is
            self._source_error = error
        self._transfer.source_has_ended = True
        self._changed.send()

    def _ask_source(self) -> None:
        """Wake the feeder if there is something for it to do."""
        if self._transfer.wants_batch:
            self._wanted.send()

    # A reader's task

    async def _run(self, lane: Lane) -> None:
        try:
            while await self._has_job(lane):
                await self._fly(lane)
        except Exception as error:
            self._fail(error)
        finally:
            # Once it is done, which it is not yet.
            asyncio.get_running_loop().call_soon(self._delivered.send)

    async def _has_job(self, lane: Lane) -> bool:
        """Wait until there is a reason to open a stream; False when there will be none."""
        while not (self._transfer.is_finished or self._failure):
            now = time.monotonic()
            has_job = self._transfer.take(lane, now)
            self._ask_source()
            if has_job:
                return True
            await self._changed.wait(lane.paused_until - now if lane.paused_until > now else None)
        return False

    async def _fly(self, lane: Lane) -> None:
        """Open a stream and read it to its end."""
        with self._line(lane.number) as line:
            flight = self._transfer.begin(lane, time.monotonic())
            call = self._calls[lane.number] = line.call()
            sender = asyncio.create_task(self._send(flight, call))
            try:
                error = await self._read(flight, call)
                ends = self._due(self._transfer.broken(flight, error, time.monotonic()))
            finally:
                flight.has_ended = True
                self._changed.send()
                sender.cancel()
                call.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            if flight.is_draining or isinstance(error, ELSEWHERE):
                line.replace()
        await self._deliver(ends)

    async def _read(self, flight: Flight, call: Any) -> SealserveError | None:
        """Receive until the stream ends; returns why, if not because all is done."""
        try:
            while (response := await call.read()) is not grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
                end = self._transfer.receive(flight, response, time.monotonic())
                self._changed.send()
                if end is not None:
                    self._transfer.reads(flight, time.monotonic(), is_read=False)
                    await self._deliver(self._due([end]))
                    self._transfer.reads(flight, time.monotonic(), is_read=True)
        except grpc.RpcError as error:
            return translated(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return UnavailableError("the stream had stalled")
        return None

    # A sender's task

    async def _send(self, flight: Flight, call: Any) -> None:
        try:
            heard = time.monotonic()
            while not (flight.has_ended or flight.is_draining or self._transfer.is_finished or self._failure):
                now = time.monotonic()
                job = self._transfer.next(flight, now)
                self._ask_source()
                if job is None:
                    heard = await self._rest(flight, call, heard)
                elif job.stale is not None:
                    await self._renew(flight, job.batch, job.stale)
                else:
                    await self._send_item(flight, call, job)
                    heard = time.monotonic()
            with contextlib.suppress(Exception):  # the stream may have ended before
                await call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):  # the stream has ended; its reader knows why
            return
        except Exception as error:
            self._fail(error)

    async def _rest(self, flight: Flight, call: Any, heard: float) -> float:
        """Wait until something has changed or it is time to say something; returns when that was done last."""
        now = time.monotonic()
        times = [flight.lane.paused_until - now] if flight.lane.paused_until > now else []
        silence = self._sign_of_life_seconds
        if silence is not None:
            times.append(max(0.0, heard + silence - now))
        await self._changed.wait(min(times, default=None))
        if silence is None or time.monotonic() < heard + silence:
            return heard
        await call.write(SIGN_OF_LIFE)
        return time.monotonic()

    async def _send_item(self, flight: Flight, call: Any, job: Job) -> None:
        """Have an item encrypted and send it, for as long as it is wanted."""
        item_id = self._transfer.send(flight, time.monotonic())
        parts = enumerate(messages(item_id, job.batch.exchange.encrypt(job.batch.quantized), self._limits))
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            number, message = part
            if not self._transfer.goes_on(flight, item_id, time.monotonic(), is_long=number > 0):
                return
            self._ask_source()
            await call.write(message)

    async def _renew(self, flight: Flight, batch: Batch, stale: ServiceError) -> None:
        try:
            batches = await self._renewed(batch, stale)
        except TransportError:
            raise
        except SealserveError as error:
            ends = self._due(self._transfer.drop(flight, error))
        else:
            ends = self._due(self._transfer.renew(flight, batches))
        self._changed.send()
        await self._deliver(ends)
