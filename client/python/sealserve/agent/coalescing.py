"""Coalescer: scores single rows of one model, and lets those share an item that wait anyway.

A row waits only while two calls are under way: one for the time that this process encrypts and
decrypts, which holds the interpreter's lock, and one for the time that the service computes. A
third would wait for one of them. When a call ends, all rows that wait become the next call's, up to
what an item holds. Therefore a single caller never waits, and many callers share what a row costs.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from sealserve._rpc.cancellation import Cancellation, CancelledError
from sealserve.agent.rows import Rows, joined, key
from sealserve.errors import DeadlineError
from sealserve.protocol.output import Scored

CALLS = 2
"""How many calls may be under way before rows wait."""

Score = Callable[[Rows, float, Cancellation], list[Any]]
"""Scores rows within some seconds; returns for each a Scored or its error. It may also raise."""


class _Row:
    """A row that waits.

    Attributes:
        rows: the row.
        deadline: of its caller, by time.monotonic().
        cancellation: its caller's.
        woken: released when there is a result, or when the row's thread is to make the next call.
        group: the rows of that call, this one first; None if another thread makes it.
        result: a Scored, or an error.
    """

    def __init__(self, rows: Rows, deadline: float, cancellation: Cancellation) -> None:
        self.rows = rows
        self.deadline = deadline
        self.cancellation = cancellation
        self.woken = threading.Lock()
        self.woken.acquire()
        self.group: list[_Row] | None = None
        self.result: Any = None

    @property
    def seconds_left(self) -> float:
        """How long its caller waits still."""
        return max(0.0, self.deadline - time.monotonic())


class _Group(NamedTuple):
    """What ends a call of several rows: all of its callers have gone away."""

    rows: list[_Row]
    cancellation: Cancellation

    def cancel_if_all(self) -> None:
        """Cancel the call if no caller waits any more."""
        if all(row.cancellation.is_cancelled for row in self.rows):
            self.cancellation.cancel()


class Coalescer:
    """The rows of a model that are under way, and those that wait. Threads share it.

    Args:
        score: makes a call.
    """

    def __init__(self, score: Score) -> None:
        self._score = score
        self._lock = threading.Lock()
        self._under_way = 0
        self._waiting = deque[_Row]()

    def score(self, rows: Rows, capacity: int, deadline: float, cancellation: Cancellation) -> Scored:
        """Score one row, alone or with others.

        Args:
            rows: the row, as a client takes it.
            capacity: how many rows an item holds.
            deadline: by time.monotonic().
            cancellation: of the caller.

        Raises:
            SealserveError: of the row, or of the call.
        """
        mine = _Row(rows, deadline, cancellation)
        with self._lock:
            is_first = self._under_way < CALLS
            if is_first:
                self._under_way += 1
                mine.group = [mine]
            else:
                self._waiting.append(mine)
        if not is_first:
            self._wait(mine)
        if mine.group is not None:
            self._lead(mine.group, capacity)
        if isinstance(mine.result, BaseException):
            raise mine.result
        scored: Scored = mine.result
        return scored

    def _wait(self, mine: _Row) -> None:
        """Wait for a result, or for the turn to make a call.

        Raises:
            CancelledError, DeadlineError: the caller no longer waits.
        """
        with mine.cancellation.ending(lambda: self._leave(mine, CancelledError())):
            if not mine.woken.acquire(timeout=min(mine.seconds_left, threading.TIMEOUT_MAX)):
                self._leave(mine, DeadlineError("the answer did not come within the deadline"))
                mine.woken.acquire()

    def _leave(self, mine: _Row, error: Exception) -> None:
        """Take a row out of those that wait, if it still waits."""
        with self._lock:
            if mine not in self._waiting:
                return
            self._waiting.remove(mine)
        mine.result = error
        mine.woken.release()

    def _lead(self, group: list[_Row], capacity: int) -> None:
        """Make a call for a group, hand out its results, and let the next one begin."""
        try:
            results = self._results(group)
        except BaseException as error:
            results = [error] * len(group)
        finally:
            self._begin_next(capacity)
        for row, result in zip(group, results, strict=True):
            row.result = result
            if row is not group[0]:
                row.woken.release()

    def _results(self, group: list[_Row]) -> list[Any]:
        if len(group) == 1:
            return self._score(group[0].rows, group[0].seconds_left, group[0].cancellation)
        whole = _Group(group, Cancellation())
        seconds = max(row.seconds_left for row in group)
        with ExitStack() as leaving:
            for row in group:
                leaving.enter_context(row.cancellation.ending(whole.cancel_if_all))
            return self._score(joined([row.rows for row in group]), seconds, whole.cancellation)

    def _begin_next(self, capacity: int) -> None:
        """Wake the first row that waits, with all that may share an item with it."""
        with self._lock:
            if not self._waiting:
                self._under_way -= 1
                return
            first = self._waiting.popleft()
            shared = key(first.rows)
            first.group = [first]
            left = deque[_Row]()
            for row in self._waiting:
                fits = len(first.group) < capacity and key(row.rows) == shared
                (first.group if fits else left).append(row)
            self._waiting = left
        first.woken.release()
