"""Connections: the numbered connections of a client. A new one replaces one that is broken."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import grpc

from sealserve._rpc.methods import Methods
from sealserve._rpc.retry import ON_ANOTHER_CONNECTION, RetryBudget
from sealserve._rpc.status import FailedCall, typed_error
from sealserve.errors import ClientClosedError, SealserveError

C = TypeVar("C")


class Connections(Generic[C]):
    """Opens each connection on its first use, and closes a replaced one after its last use.

    Args:
        open_one: opens a connection.
        close_one: closes a connection.
    """

    def __init__(self, open_one: Callable[[], C], close_one: Callable[[C], None]) -> None:
        self._open_one = open_one
        self._close_one = close_one
        self._lock = threading.Lock()
        self._current: dict[int, C] = {}
        self._uses: Counter[C] = Counter()
        self._is_closed = False

    @contextmanager
    def use(self, number: int) -> Iterator[C]:
        """Use the connection of a number, which is opened if there is none.

        Raises:
            ClientClosedError: `close` has been called.
        """
        with self._lock:
            if self._is_closed:
                raise ClientClosedError
            if number not in self._current:
                self._current[number] = self._open_one()
            connection = self._current[number]
            self._uses[connection] += 1
        try:
            yield connection
        finally:
            with self._lock:
                self._uses[connection] -= 1
                if self._current.get(number) is not connection:
                    self._close_unused()

    def replace(self, connection: C) -> None:
        """Let the next use of the connection's number open another connection."""
        with self._lock:
            self._current = {number: kept for number, kept in self._current.items() if kept is not connection}
            self._close_unused()

    def close(self) -> None:
        """Close all connections, and open no more."""
        with self._lock:
            self._is_closed = True
            for connection in {*self._current.values(), *self._uses}:
                self._close_one(connection)
            self._current.clear()
            self._uses.clear()

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
) -> Any:
    """Call a method of `Methods`, with retries, on another connection if the first one is dead.

    Args:
        connections: the client's.
        method: the method's name.
        request: its request.
        timeout_seconds: the time for all attempts together.
        unanswered_seconds: the time for all attempts while nothing answers; None: a failure to
            reach the service is not retried.

    Raises:
        SealserveError: what `RetryBudget.spend` raises.
    """
    budget = RetryBudget(timeout_seconds, time.monotonic(), unanswered_seconds)
    seconds_left = timeout_seconds
    while True:
        with connections.use(0) as connection:
            try:
                return getattr(connection, method)(request, timeout=seconds_left)
            except grpc.RpcError as error:
                failure = _handle_failure(connections, connection, error)
        time.sleep(budget.spend(failure))
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
        with connections.use(0) as connection:
            try:
                return await getattr(connection, method)(request, timeout=seconds_left)
            except grpc.RpcError as error:
                failure = _handle_failure(connections, connection, error)
        await asyncio.sleep(budget.spend(failure))
        seconds_left = budget.seconds_left


def _handle_failure(connections: Connections[Methods], connection: Methods, error: grpc.RpcError) -> SealserveError:
    """Replace the connection of a failed call if another may help, and return the typed error."""
    failure = typed_error(error)
    failure.__cause__ = FailedCall(error)
    if isinstance(failure, ON_ANOTHER_CONNECTION):
        connections.replace(connection)
    return failure
