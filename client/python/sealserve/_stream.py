"""Batches of rows through one or several streams at once, bounded in flight.

Four kinds of thread share the work: a feeder takes batches from the source; gRPC's own thread of each stream asks it
for one, encrypts and sends it; a reader of each stream decrypts replies; the caller's takes results from a bounded
queue. So a live source may block without holding back replies, or the signs of life that keep a service from ending an
idle stream; and a slow caller slows the readers, through gRPC's flow control the service, and in the end the source.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from sealserve._calls import BUSY, messages, translated
from sealserve._exchange import Exchange
from sealserve.errors import (
    DeadlineError,
    InputError,
    KeyNotFoundError,
    ReplyError,
    SealserveError,
    ServiceError,
    StaleConfigError,
)
from sealserve.item import Scores
from sealserve.model import Limits
from sealserve.output import Output
from sealserve.v1 import prediction_pb2
from sealserve.wire import error_from_proto, scores_from_proto

# A cancel of no item, which says nothing else: see Limits.idle_timeout.
_SIGN_OF_LIFE = prediction_pb2.StreamPredictRequest(cancel=True)
_MIN_SIGN_OF_LIFE_SECONDS, _MAX_SIGN_OF_LIFE_SECONDS = 0.01, 3600.0  # whatever a service says


class Scored(NamedTuple):
    """Scores (rows, score_count) with their meaning, which may change between two items as the model does."""

    output: Output
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Rows that travel as one item, or a row that does not because it was refused.

    Attributes:
        first_index: of the first row, in the caller's count.
        rows: float64 (rows, feature_count), kept in case they must be quantized anew.
        exchange: encrypts them, as `quantized`.
        error: why the row was refused.
    """

    first_index: int
    rows: NDArray[np.float64]
    exchange: Exchange
    quantized: NDArray[np.int64]
    error: InputError | None = None

    @classmethod
    def refused(cls, index: int, exchange: Exchange, error: InputError) -> "Batch":
        """Stand for one row that was refused."""
        return cls(index, np.empty((1, 0)), exchange, np.empty((1, 0), np.int64), error)


@dataclass
class _Pending:
    """An item that has been sent and has no end yet."""

    batch: Batch
    held_bytes: int
    sent: float
    reply: list[Scores] = field(default_factory=list)


class ScoreStream:
    """Iterate to get (batch, scores or the batch's error), in the order in which they finish.

    Args:
        calls: one a stream: takes an iterator of requests, returns the call.
        batches: the source; what it raises is raised to the caller, after the results of what it gave before.
        limits: the service's.
        rescored: scores rows again after the service found their configuration stale, had their key no longer, or was
            busy.
        timeout_seconds: how long an item may have no end after it was sent.
    """

    def __init__(
        self,
        calls: Sequence[Callable[[Iterator[prediction_pb2.StreamPredictRequest]], Any]],
        batches: Iterator[Batch],
        limits: Limits,
        rescored: Callable[[NDArray[np.float64], ServiceError], Scored],
        timeout_seconds: float,
    ) -> None:
        self.limits = limits
        self.rescored = rescored
        self.closed = threading.Event()
        self._source = batches
        self._source_error: Exception | None = None
        self._wanted = threading.Semaphore(0)  # as many as lanes wait for a batch: none is taken ahead of its time
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._timeout_seconds = timeout_seconds
        self._results: queue.Queue[tuple[Batch, Scored | SealserveError] | BaseException | None] = queue.Queue(64)
        threading.Thread(target=self._feed, args=(len(calls),), name="sealserve-feeder", daemon=True).start()
        self._lanes = [_Lane(self, call) for call in calls]

    def __iter__(self) -> Iterator[tuple[Batch, Scored | SealserveError]]:
        running = len(self._lanes)
        try:
            while running:
                try:
                    result = self._results.get(timeout=self._timeout_seconds)
                except queue.Empty:
                    if any(lane.oldest() < time.monotonic() - self._timeout_seconds for lane in self._lanes):
                        raise DeadlineError("the answer did not come within timeout_seconds") from None
                    continue
                if result is None:
                    running -= 1
                elif isinstance(result, BaseException):
                    raise result
                else:
                    yield result
            if self._source_error:
                raise self._source_error
        finally:
            self._close()

    def want(self) -> None:
        """Ask for a batch; `take` returns it."""
        self._wanted.release()

    def take(self, timeout_seconds: float | None) -> Batch | None:
        """Return a batch that was asked for, or None at the source's end.

        Raises:
            queue.Empty: none has come yet.
        """
        batch = self._batches.get(timeout=timeout_seconds)
        return None if self.closed.is_set() or self._source_error else batch

    def end_source(self, error: Exception) -> None:
        """Take nothing more from the source, which raised the error."""
        self._source_error = error

    def put(self, result: tuple[Batch, Scored | SealserveError] | BaseException | None) -> None:
        """Hand a result, the failure of everything, or the end of a lane (None) to the caller."""
        self._results.put(result)

    def _feed(self, lane_count: int) -> None:
        """Take what is wanted from the source, which may block, and tell every lane of its end."""
        try:
            while self._wanted.acquire() and not (self.closed.is_set() or self._source_error):
                batch = next(self._source, None)
                if batch is None:
                    break
                self._batches.put(batch)
        except Exception as error:
            self.end_source(error)
        for _ in range(lane_count):
            self._batches.put(None)

    def _close(self) -> None:
        self.closed.set()
        self._wanted.release()
        for _ in self._lanes:  # the feeder may be waiting for its source
            self._batches.put(None)
        for lane in self._lanes:
            lane.cancel()
        while any(lane.reader.is_alive() for lane in self._lanes):
            try:  # a reader may be waiting for room in the queue
                self._results.get(timeout=0.01)
            except queue.Empty:
                continue


class _Lane:
    """One stream."""

    def __init__(self, owner: ScoreStream, stream_call: Callable[[Iterator[Any]], Any]) -> None:
        self._owner = owner
        self._pending: dict[int, _Pending] = {}
        self._in_flight_bytes = 0
        self._window_bytes = owner.limits.window_bytes
        self._sign_of_life_seconds = _sign_of_life_seconds(owner.limits.idle_timeout_seconds)
        self._changed = threading.Condition()
        self._call = stream_call(self._requests())
        self.reader = threading.Thread(target=self._read, name="sealserve-reader", daemon=True)
        self.reader.start()

    def oldest(self) -> float:
        """When the oldest item without an end was sent, in time.monotonic() seconds."""
        with self._changed:
            return next((pending.sent for pending in self._pending.values()), time.monotonic())

    def cancel(self) -> None:
        """Give the stream up."""
        self._call.cancel()
        with self._changed:
            self._changed.notify_all()

    def _requests(self) -> Iterator[prediction_pb2.StreamPredictRequest]:
        item_id = 0
        try:
            while (batch := (yield from self._next_batch())) is not None:
                if batch.error:
                    self._owner.put((batch, batch.error))
                    continue
                item = batch.exchange.encrypt(batch.quantized)
                item_id += 1
                held_bytes = item.cost.held_bytes
                while not self._has_room(held_bytes):
                    yield _SIGN_OF_LIFE
                if not self._admit(item_id, _Pending(batch, held_bytes, time.monotonic())):
                    return
                yield from messages(item_id, item, self._owner.limits)
        except Exception as error:  # gRPC would swallow it
            self._owner.end_source(error)

    def _next_batch(self) -> Generator[prediction_pb2.StreamPredictRequest, None, Batch | None]:
        """Wait for a batch, yielding signs of life; returns None at the source's end."""
        self._owner.want()
        while True:
            try:
                return self._owner.take(self._sign_of_life_seconds)
            except queue.Empty:
                yield _SIGN_OF_LIFE

    def _has_room(self, held_bytes: int) -> bool:
        """Wait until the window has room, or the stream ends; False when it is time for a sign of life."""
        max_open_items = self._owner.limits.max_open_items

        def may_go_on() -> bool:
            fits = self._in_flight_bytes + held_bytes <= self._window_bytes
            has_room = not self._pending or (fits and len(self._pending) < max_open_items)
            return has_room or self._owner.closed.is_set()

        with self._changed:
            return self._changed.wait_for(may_go_on, self._sign_of_life_seconds)

    def _admit(self, item_id: int, pending: _Pending) -> bool:
        """Count an item as sent; False when the stream has ended."""
        with self._changed:
            if self._owner.closed.is_set():
                return False
            self._pending[item_id] = pending
            self._in_flight_bytes += pending.held_bytes
            return True

    def _read(self) -> None:
        try:
            for response in self._call:
                self._receive(response)
            if self._pending:  # the service ended the stream, but not its items
                raise ReplyError
        except grpc.RpcError as error:
            self._owner.put(translated(error))
        except Exception as error:
            self._owner.put(error)
        self._owner.put(None)

    def _receive(self, response: prediction_pb2.StreamPredictResponse) -> None:
        if response.HasField("window"):
            self._window_bytes = response.window.max_bytes_in_flight
        pending = self._pending.get(response.item_id)
        if pending is None:
            return
        if response.HasField("scores"):
            if response.scores.first_index != len(pending.reply):
                raise ReplyError
            pending.reply += scores_from_proto(response.scores)
        end = response.WhichOneof("end")
        if end is None:
            return
        with self._changed:
            del self._pending[response.item_id]
            self._in_flight_bytes -= pending.held_bytes
            self._changed.notify()
        self._owner.put((pending.batch, self._result(pending, response)))

    def _result(self, pending: _Pending, response: prediction_pb2.StreamPredictResponse) -> Scored | SealserveError:
        try:
            if response.HasField("error"):
                error = error_from_proto(response.error)
                if isinstance(error, (StaleConfigError, KeyNotFoundError, *BUSY)):
                    return self._owner.rescored(pending.batch.rows, error)
                return error
            exchange = pending.batch.exchange
            return Scored(exchange.model.output, exchange.decrypt(len(pending.batch.rows), pending.reply))
        except SealserveError as error:
            return error


def _sign_of_life_seconds(idle_timeout_seconds: float) -> float | None:
    """How long to be silent on a stream: None for as long as one likes."""
    if idle_timeout_seconds <= 0:
        return None
    return min(max(_MIN_SIGN_OF_LIFE_SECONDS, idle_timeout_seconds / 3), _MAX_SIGN_OF_LIFE_SECONDS)
