"""The turns of items: a bounded number is computed at once, and the others wait in a fair order.

Callers take turns, not items (start-time fair queueing: Goyal, Vin and Cheng, SIGCOMM 1996). An
item starts, in a time that only turns advance, where the item before it of the same caller ends.
Of the items that wait, the one that starts first is next. So the items of a caller keep their
order, and a caller with few items does not wait behind all those of a caller with many.

An item that would wait for longer than max_wait_seconds is refused at once. How long it would wait
is the time that the items before it are expected to take, and that is what such items have taken
lately. A refused item is told to come back when those before it will have had their turn. If many
items of a caller are refused, they are told later and later times: refusals take time, too, and
must not take it from the items that are answered.

A thread that waits is blocked by a lock of its own, which the thread before it releases.
"""

import heapq
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from weakref import WeakKeyDictionary

from sealserve.errors import QuotaExceededError
from sealserve_service.engines.base import Engine
from sealserve_service.telemetry.metrics import Telemetry

MIN_RETRY_SECONDS = 0.1
MAX_RETRY_SECONDS = 5.0
"""The longest delay that is due to other refusals, and not to the items before."""
# Between two returns of one caller. A refusal takes up to half a millisecond of a core.
RETURN_SECONDS = 0.025
_MAX_RETURNS = 1000
_LEARNING_RATE = 0.1


class CallOverError(Exception):
    """The call of a waiting item is over: its client is gone, or its deadline has passed."""


class CallEnd:
    """The end of a call with many items, of which one at a time waits and has to know of it."""

    def __init__(self) -> None:
        self._is_over = False
        self._action: Callable[[], None] | None = None

    def call_back(self, action: Callable[[], None]) -> bool:
        """Have `action` called at the end, and no other; return false if the end was before."""
        self._action = action
        return not self._is_over

    def happen(self) -> None:
        """Say that the call is over."""
        self._is_over = True
        if self._action is not None:
            self._action()


@dataclass(frozen=True)
class Waiter:
    """A call whose items wait for turns, one after the other.

    Attributes:
        caller: the name of the caller whose call it is.
        call_back: has a function called when the call is over; false if it is over already.
    """

    caller: str
    call_back: Callable[[Callable[[], None]], bool]


@dataclass(eq=False, slots=True)
class _Turn:
    """The turn of an item, or of a part of it.

    Attributes:
        start: in the time that only turns advance.
        seconds: how long it is expected to take.
        began: when it began, by the clock; infinity while the item waits.
        may_go_on: locked while the item waits.
    """

    start: float
    seconds: float
    began: float = math.inf
    may_go_on: threading.Lock = field(default_factory=threading.Lock)


class Turns:
    """The turns of all items of a process that need the same thing, such as the GIL.

    Args:
        slot_count: how many items are computed at once.
        max_wait_seconds: how long an item may wait for its turn.
        telemetry: the metrics.
        clock: returns the time in seconds; for tests.

    Attributes:
        free_slots: how many more items could be computed now. No item waits while there are any.
    """

    def __init__(
        self, slot_count: int, max_wait_seconds: float, telemetry: Telemetry, clock: Callable[[], float]
    ) -> None:
        self.free_slots = self._slot_count = slot_count
        self._max_wait_seconds = max_wait_seconds
        self._telemetry = telemetry
        self._clock = clock
        self._lock = threading.Lock()
        self._running = set[_Turn]()
        self._waiting: list[tuple[float, int, _Turn]] = []  # a heap, by start and order of arrival
        self._waiting_seconds = 0.0
        self._arrivals = 0
        self._now = 0.0  # the time that only turns advance
        self._ended = clock()  # the last turn
        self._ends: dict[str, float] = {}  # in that time, of the last item of each caller
        self._returns: dict[str, float] = {}  # when each caller was told last to come back
        self._seconds: WeakKeyDictionary[Engine, dict[str, float]] = WeakKeyDictionary()

    @property
    def idle_seconds(self) -> float:
        """For how long no item has been computed and none has waited; 0 while one is or does."""
        return self._clock() - self._ended if self.free_slots == self._slot_count else 0.0

    def makes_wait(self, caller: str) -> bool:
        """Whether an item of a caller would wait for too long now."""
        with self._lock:
            return self._wait_seconds(caller) > self._max_wait_seconds

    def refusal(self, caller: str) -> QuotaExceededError:
        """Return the error of an item that would wait for too long."""
        with self._lock:
            return self._refusal("server_seconds", caller)

    @contextmanager
    def take(
        self,
        engine: Engine,
        waiter: Waiter,
        seconds_left: float | None = None,
        *,
        part: str = "",
        may_wait_long: bool = False,
    ) -> Iterator[float]:
        """Wait for the turn of an item, or of a part of it, and have the turn in the context.

        Yield the seconds of the wait.

        Args:
            engine: scores the item. Its offer tells how long that takes, until turns have shown it.
            waiter: the item's call.
            seconds_left: until its client's deadline, if it has one.
            part: the kind of the part, whose time is learnt apart; "" for a whole item.
            may_wait_long: whether it may wait for any time, as the items of streams may.

        Raises:
            QuotaExceededError: it would wait for too long, or end after its deadline.
            CallOverError: the call ended while it waited.
        """
        caller, waits = waiter.caller, False
        with self._lock:
            learnt = self._seconds.setdefault(engine, {})
            seconds = learnt.get(part, engine.offer.cost.server_seconds)
            wait = 0.0 if self.free_slots else self._wait_seconds(caller)
            if wait > self._max_wait_seconds and not may_wait_long:
                raise self._refusal("server_seconds", caller)
            if seconds_left is not None and wait + seconds > seconds_left:
                raise self._refusal("deadline", caller)
            arrived, start = self._clock(), max(self._now, self._ends.get(caller, 0.0))
            turn = _Turn(start, seconds)
            self._ends[caller] = start + seconds
            if self.free_slots:
                self.free_slots -= 1
                self._running.add(turn)
                turn.began = arrived
            else:
                turn.may_go_on.acquire()
                self._arrivals += 1
                self._waiting_seconds += seconds
                heapq.heappush(self._waiting, (start, self._arrivals, turn))
                waits = True
        try:
            if waits:
                self._wait(turn, waiter)
            yield turn.began - arrived
            took, known = self._clock() - turn.began, learnt.get(part, seconds)
            learnt[part] = known + _LEARNING_RATE * (took - known)
        finally:
            with self._lock:
                if turn.began == math.inf:
                    self._remove(turn)
                else:
                    self._running.remove(turn)
                    self._ended = self._clock()
                    self.free_slots += 1
                    if self._waiting:
                        self._begin_next()
                    else:
                        self._ends.clear()

    def _wait(self, turn: _Turn, waiter: Waiter) -> None:
        self._telemetry.items_waiting.inc()
        try:
            if waiter.call_back(partial(self._give_up, turn)):
                turn.may_go_on.acquire()
        finally:
            self._telemetry.items_waiting.dec()
        if turn.began == math.inf:
            raise CallOverError

    def _give_up(self, turn: _Turn) -> None:
        """Let the thread of a turn go on without it, as its call is over."""
        with self._lock:
            if self._remove(turn):
                turn.may_go_on.release()

    def _remove(self, turn: _Turn) -> bool:
        """Take a turn out of those that wait, if it is among them, and say so. The lock is held."""
        others = [entry for entry in self._waiting if entry[-1] is not turn]
        has_waited = len(others) < len(self._waiting)
        if has_waited:
            heapq.heapify(others)
            self._waiting = others
            self._waiting_seconds -= turn.seconds
        return has_waited

    def _begin_next(self) -> None:
        """Begin the next turn. The lock is held, a slot is free, and a turn waits."""
        self._now, _, turn = heapq.heappop(self._waiting)
        self.free_slots -= 1
        self._waiting_seconds -= turn.seconds
        self._running.add(turn)
        turn.began = self._clock()
        turn.may_go_on.release()

    def _wait_seconds(self, caller: str) -> float:
        """Return how long the next item of a caller would wait. The lock is held."""
        if self.free_slots:
            return 0.0
        now, start = self._clock(), max(self._now, self._ends.get(caller, 0.0))
        seconds = self._waiting_seconds
        for turn in self._running:
            seconds += max(0.0, turn.seconds - (now - turn.began))
        if self._ends.keys() != {caller}:  # the items of one caller are all before its next one
            seconds -= sum(turn.seconds for other_start, _, turn in self._waiting if other_start > start)
        return seconds / self._slot_count

    def _refusal(self, quota: str, caller: str) -> QuotaExceededError:
        """Return an error that says when to come back. The lock is held."""
        now, wait = self._clock(), self._wait_seconds(caller)
        pace = max([RETURN_SECONDS, *(turn.seconds / self._slot_count for turn in self._running)])
        first = now + max(MIN_RETRY_SECONDS, wait - self._max_wait_seconds / 2)
        after_others = min(self._returns.get(caller, 0.0) + pace, now + MAX_RETRY_SECONDS)
        if len(self._returns) >= _MAX_RETURNS:
            self._returns.clear()
        self._returns[caller] = max(first, after_others)
        # Rounded up: how long items take exactly is no business of those who wait.
        return QuotaExceededError(quota, math.ceil(100 * (self._returns[caller] - now) - 1e-6) / 100)
