"""Connections: the numbered ones of a client. A new one replaces one that is broken or silent.

A connection may die without a word: a router forgets it, its peer is paused. A call over it ends at
its deadline, and so would the next. Hence a connection over which nothing has come since a call
began is replaced when the call's deadline passes.
"""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import grpc

from sealserve._rpc.calls import late
from sealserve._rpc.cancellation import Cancellation
from sealserve._rpc.forks import call_in_child
from sealserve._rpc.methods import Methods
from sealserve._rpc.retry import ON_ANOTHER_CONNECTION, RetryBudget
from sealserve._rpc.status import FailedCall, typed_error
from sealserve._rpc.transfer_time import LOOK_CALLS, TransferTime
from sealserve.errors import ClientClosedError, DeadlineError, SealserveError, ServiceError

C = TypeVar("C")

# How long a connection may be silent before a deadline says anything about it. It is time for a new
# connection to open. It doubles with each that is replaced, in case none can open so quickly.
_PATIENCE_SECONDS, _MAX_DOUBLINGS = 0.1, 4


class Connections(Generic[C]):
    """Opens each connection on its first use, and closes a replaced one after its last use.

    Args:
        open_one: opens a connection.
        close_one: closes a connection.
        transfer_time: what notes how long their predictions take; by default a new one.

    Attributes:
        is_closed: whether `close` has been called.
        transfer_time: as given.
    """

    def __init__(
        self,
        open_one: Callable[[], C],
        close_one: Callable[[C], None],
        transfer_time: TransferTime | None = None,
    ) -> None:
        self._open_one = open_one
        self._close_one = close_one
        self.transfer_time = transfer_time or TransferTime()
        self.is_closed = False
        self._inherited: list[C] = []
        self._forget_all()
        call_in_child(self._begin_child)

    def _forget_all(self) -> None:
        self._lock = threading.Lock()
        self._current: dict[int, C] = {}
        self._uses: Counter[C] = Counter()
        self._silent_since: dict[C, float] = {}
        self._silences = 0

    def _begin_child(self) -> None:
        """Leave the parent's connections alone. To close them, or to collect them, might block."""
        self._inherited += {*self._current.values(), *self._uses}
        self._forget_all()

    @contextmanager
    def use(self, number: int) -> Iterator[C]:
        """Use the connection of a number, which is opened if there is none.

        If a SealserveError leaves the context and another connection may help, the next use opens
        another.

        Raises:
            ClientClosedError: `close` has been called.
        """
        with self._lock:
            if self.is_closed:
                raise ClientClosedError
            if number not in self._current:
                self._current[number] = self._open_one()
            connection = self._current[number]
            self._uses[connection] += 1
            self._silent_since.setdefault(connection, time.monotonic())
        try:
            yield connection
            self._silent_since.pop(connection, None)
            self._silences = 0
        except SealserveError as error:
            if isinstance(error, ON_ANOTHER_CONNECTION) or (
                isinstance(error, DeadlineError) and self._has_been_silent(connection)
            ):
                self.replace(connection)
            elif isinstance(error, ServiceError):
                self.note_answer(connection)
            raise
        finally:
            with self._lock:
                self._uses[connection] -= 1
                if self._current.get(number) is not connection:
                    self._close_unused()

    def note_answer(self, connection: C) -> None:
        """Note that something has come over a connection, which is alive."""
        self._silent_since.pop(connection, None)
        self._silences = 0

    def _has_been_silent(self, connection: C) -> bool:
        """Tell whether nothing has come over a connection for longer than is usual."""
        since = self._silent_since.get(connection)
        patience = _PATIENCE_SECONDS * 2 ** min(self._silences, _MAX_DOUBLINGS)
        return since is not None and time.monotonic() - since >= patience

    def replace(self, connection: C) -> None:
        """Let the next use of the connection's number open another connection."""
        with self._lock:
            if self._silent_since.pop(connection, None) is not None:
                self._silences += 1
            self._current = {number: kept for number, kept in self._current.items() if kept is not connection}
            self._close_unused()

    def close(self) -> None:
        """Close all connections, and open no more."""
        with self._lock:
            self.is_closed = True
            for connection in {*self._current.values(), *self._uses}:
                self._close_one(connection)
            self._current.clear()
            self._uses.clear()
            self._silent_since.clear()

    def _close_unused(self) -> None:
        """Close the replaced connections that have no user."""
        current = set(map(id, self._current.values()))
        for connection in [c for c, uses in self._uses.items() if not uses and id(c) not in current]:
            del self._uses[connection]
            self._close_one(connection)


def call(
    connections: Connections[Methods],
    method: str,
    request: Any,
    timeout_seconds: float,
    unanswered_seconds: float | None = None,
    cancellation: Cancellation | None = None,
) -> Any:
    """Call a method of `Methods`, with retries, on another connection if the first one is dead.

    Args:
        connections: the client's.
        method: the method's name.
        request: its request.
        timeout_seconds: the time for all attempts together.
        unanswered_seconds: the time for all attempts while nothing answers; None: a failure to
            reach the service is not retried.
        cancellation: what may end the call from another thread; None: nothing does.

    Raises:
        SealserveError: what `RetryBudget.spend` raises.
        CancelledError: it was cancelled.
    """
    budget = RetryBudget(timeout_seconds, time.monotonic(), unanswered_seconds)
    seconds_left = timeout_seconds
    while True:
        try:
            with connections.use(0) as connection:
                if seconds_left <= 0:
                    raise late()
                try:
                    times = connections.transfer_time
                    began, carried, computed = time.monotonic(), times.carried_bytes, times.computed_seconds
                    begin = None if cancellation is None else connection.cancellable.get(method)
                    if cancellation is not None and begin is not None:
                        response = cancellation.call(begin, request, seconds_left)
                    else:
                        response = getattr(connection, method)(request, timeout=seconds_left)
                    if method == "predict_serialized":
                        # As `note` has it, without another call on the way of a single row.
                        times.carried_bytes += len(request) + response.ByteSize()
                        times.computed_seconds += max(0.0, response.done.server_seconds)
                        seconds = time.monotonic() - began
                        times.noted.append((times.carried_bytes - carried, seconds, times.computed_seconds - computed))
                        if len(times.noted) >= LOOK_CALLS:
                            times.look()
                    return response
                except grpc.RpcError as error:
                    raise typed_error(error, connection.endpoint) from FailedCall(error)
        except SealserveError as error:
            failure = error
        (time.sleep if cancellation is None else cancellation.sleep)(budget.spend(failure))
        seconds_left = budget.seconds_left


async def call_async(
    connections: Connections[Methods],
    method: str,
    request: Any,
    timeout_seconds: float,
    unanswered_seconds: float | None = None,
) -> Any:
    """Do what `call` does, for asyncio."""
    budget = RetryBudget(timeout_seconds, time.monotonic(), unanswered_seconds)
    seconds_left = timeout_seconds
    while True:
        try:
            with connections.use(0) as connection:
                if seconds_left <= 0:
                    raise late()
                try:
                    times = connections.transfer_time
                    began, carried, computed = time.monotonic(), times.carried_bytes, times.computed_seconds
                    response = await getattr(connection, method)(request, timeout=seconds_left)
                    if method == "predict_serialized":
                        # As `note` has it, without another call on the way of a single row.
                        times.carried_bytes += len(request) + response.ByteSize()
                        times.computed_seconds += max(0.0, response.done.server_seconds)
                        seconds = time.monotonic() - began
                        times.noted.append((times.carried_bytes - carried, seconds, times.computed_seconds - computed))
                        if len(times.noted) >= LOOK_CALLS:
                            times.look()
                    return response
                except grpc.RpcError as error:
                    raise typed_error(error, connection.endpoint) from FailedCall(error)
        except SealserveError as error:
            failure = error
        await asyncio.sleep(budget.spend(failure))
        seconds_left = budget.seconds_left
