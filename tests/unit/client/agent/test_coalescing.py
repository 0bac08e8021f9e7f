"""Coalescing: who waits, who shares a call, and what each caller is told."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from sealserve._rpc.cancellation import Cancellation, CancelledError
from sealserve.agent.coalescing import CALLS, Coalescer
from sealserve.errors import DeadlineError, OutOfRangeError, UnavailableError
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until


class Service:
    """Scores rows when it is let: a row's score is its value, and a negative one is refused."""

    def __init__(self) -> None:
        self.calls = list[list[float]]()
        self.cancellations = list[Cancellation]()
        self.let = threading.Semaphore(0)
        self.failure: Exception | None = None

    def score(self, rows: Any, seconds: float, cancellation: Cancellation) -> list[Any]:
        values = np.asarray(rows)[:, 0].tolist()
        self.calls.append(values)
        self.cancellations.append(cancellation)
        assert self.let.acquire(timeout=HANG_SECONDS)
        if self.failure:
            raise self.failure
        return [OutOfRangeError("out of range") if value < 0 else value for value in values]


class Callers:
    """Threads that ask for single rows."""

    def __init__(self, service: Service, pool: ThreadPoolExecutor) -> None:
        self.coalescer = Coalescer(service.score)
        self._pool = pool
        self._service = service

    def ask(
        self, value: float, *, capacity: int = 4, seconds: float = HANG_SECONDS, width: int = 2
    ) -> tuple[Future[Any], Cancellation]:
        """Ask, and wait until the row is under way or waits."""
        cancellation, row = Cancellation(), np.full((1, width), value)
        deadline = time.monotonic() + seconds
        before = self._count()
        future = self._pool.submit(self.coalescer.score, row, capacity, deadline, cancellation)
        wait_until(lambda: self._count() > before)
        return future, cancellation

    def _count(self) -> int:
        return len(self._service.calls) + len(self.coalescer._waiting)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def callers(service: Service) -> Any:
    with ThreadPoolExecutor(32) as pool:
        yield Callers(service, pool)
        service.let.release(100)


def test_so_many_callers_do_not_wait(service: Service, callers: Callers) -> None:
    for value in range(CALLS):
        callers.ask(value)
    assert service.calls == [[0.0], [1.0]]


def test_rows_that_wait_share_the_next_call(service: Service, callers: Callers) -> None:
    asked = [callers.ask(value)[0] for value in range(7)]
    assert service.calls == [[0.0], [1.0]]
    service.let.release()
    wait_until(lambda: len(service.calls) == 3)
    assert service.calls[2] == [2.0, 3.0, 4.0, 5.0], "as many as an item holds, in order"
    service.let.release(9)
    assert [future.result(HANG_SECONDS) for future in asked] == [0, 1, 2, 3, 4, 5, 6]
    assert service.calls[3:] == [[6.0]]


def test_rows_of_other_shapes_go_apart(service: Service, callers: Callers) -> None:
    asked = [callers.ask(value, width=2 + value % 2)[0] for value in range(6)]
    service.let.release(9)
    assert [future.result(HANG_SECONDS) for future in asked] == [0, 1, 2, 3, 4, 5]
    assert sorted(service.calls[2:]) == [[2.0, 4.0], [3.0, 5.0]]


def test_a_row_that_is_refused_fails_alone(service: Service, callers: Callers) -> None:
    asked = [callers.ask(value)[0] for value in (0, 1, 2, -3, 4)]
    service.let.release(9)
    with pytest.raises(OutOfRangeError):
        asked[3].result(HANG_SECONDS)
    assert [asked[place].result(HANG_SECONDS) for place in (0, 1, 2, 4)] == [0, 1, 2, 4]


def test_a_call_that_fails_fails_each_of_its_callers(service: Service, callers: Callers) -> None:
    asked = [callers.ask(value)[0] for value in range(4)]
    service.failure = UnavailableError("gone")
    service.let.release(9)
    for future in asked:
        with pytest.raises(UnavailableError):
            future.result(HANG_SECONDS)
    service.failure = None
    assert callers.coalescer._under_way == 0
    assert callers.ask(5)[0].result(HANG_SECONDS) == 5, "it goes on"


@pytest.mark.parametrize("leave", [lambda cancellation: cancellation.cancel(), lambda _: None], ids=["cancels", "late"])
def test_a_caller_that_waits_may_leave(
    service: Service, callers: Callers, leave: Callable[[Cancellation], None]
) -> None:
    for value in range(2):
        callers.ask(value)
    future, cancellation = callers.ask(2, seconds=0.05)
    leave(cancellation)
    with pytest.raises((CancelledError, DeadlineError)):
        future.result(HANG_SECONDS)
    service.let.release(9)
    assert callers.ask(3)[0].result(HANG_SECONDS) == 3
    assert [2.0] not in service.calls, "its row was not sent"


def test_a_shared_call_ends_when_all_its_callers_have_left(service: Service, callers: Callers) -> None:
    asked = [callers.ask(value) for value in range(4)]
    service.let.release()
    wait_until(lambda: len(service.calls) == 3)
    assert service.calls[2] == [2.0, 3.0]
    asked[2][1].cancel()
    assert not service.cancellations[2].is_cancelled, "one of them waits still"
    asked[3][1].cancel()
    assert service.cancellations[2].is_cancelled
