"""Turns: who computes, who waits and in which order, who is refused, and who leaves."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from sealserve.errors import QuotaExceededError
from sealserve.protocol.item import ItemHeader
from sealserve_service.engines.base import Scoring
from sealserve_service.scoring.turns import (
    MAX_RETRY_SECONDS,
    MIN_RETRY_SECONDS,
    RETURN_SECONDS,
    CallEnd,
    CallOverError,
    Turns,
    Waiter,
)
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.waiting import wait_until

HANG_SECONDS = 30.0
MAX_WAIT = 0.1


class Engine:
    """An engine that says how long it takes."""

    holds_gil = True

    def __init__(self, seconds: float) -> None:
        self.offer: Any = SimpleNamespace(cost=SimpleNamespace(server_seconds=seconds))

    def begin(self, header: ItemHeader, owner: str) -> Scoring:
        raise AssertionError("nothing is scored here")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Process:
    """The turns of a process whose clock stands still unless the test moves it.

    Items that are computed go on until `end`.
    """

    def __init__(self, seconds: float = 0.01, *, slot_count: int = 1, max_wait_seconds: float = MAX_WAIT) -> None:
        self.engine, self.clock, self.telemetry = Engine(seconds), Clock(), Telemetry()
        self.turns = Turns(slot_count, max_wait_seconds, self.telemetry, self.clock)
        self.begun: list[str] = []
        self.waits: list[float] = []
        self._ends: dict[str, threading.Event] = {}
        self._pool = ThreadPoolExecutor(64)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *failure: object) -> None:
        for end in self._ends.values():
            end.set()
        self._pool.shutdown()

    def wants(self, name: str, caller: str = "alice", **how: Any) -> "Future[None]":
        """Have an item ask for its turn, in a thread; return once it has it, waits or failed."""
        self._ends[name] = threading.Event()
        before = self.waiting
        call_back = how.pop("call_back", CallEnd().call_back)
        asked = self._pool.submit(self._compute, name, Waiter(caller, call_back), how)
        wait_until(lambda: name in self.begun or self.waiting > before or asked.done())
        return asked

    def _compute(self, name: str, waiter: Waiter, how: dict[str, Any]) -> None:
        with self.turns.take(how.pop("engine", self.engine), waiter, **how) as waited:
            self.waits.append(waited)
            self.begun.append(name)
            assert self._ends[name].wait(HANG_SECONDS)

    def end(self, name: str, *, begins: str = "") -> None:
        """End an item that is computed, and wait until another begins."""
        self._ends[name].set()
        wait_until(lambda: not begins or begins in self.begun)

    @property
    def waiting(self) -> int:
        return len(self.turns._waiting)

    def measured(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(f"sealserve_{name}", labels)


def refusal(asked: "Future[None]") -> QuotaExceededError:
    error = asked.exception(HANG_SECONDS)
    assert isinstance(error, QuotaExceededError), error
    return error


# Who computes, and in which order


def test_one_item_is_computed_at_a_time_and_those_of_a_caller_in_their_order() -> None:
    with Process() as process:
        asked = [process.wants(name) for name in "abcd"]
        assert process.begun == ["a"]
        assert process.waiting == 3
        for name, following in zip("abc", "bcd", strict=True):
            process.end(name, begins=following)
        process.end("d")
        for item in asked:
            item.result(HANG_SECONDS)
        assert process.begun == list("abcd")
        assert process.turns.free_slots == 1


def test_as_many_are_computed_as_there_are_slots() -> None:
    with Process(slot_count=2) as process:
        for name in "abc":
            process.wants(name)
        assert process.begun == ["a", "b"]
        process.end("b", begins="c")
        assert process.turns.free_slots == 0


def test_it_is_idle_since_the_last_item_and_never_while_one_is_computed() -> None:
    with Process(slot_count=2) as process:
        process.clock.now += 3.0
        assert process.turns.idle_seconds == 3.0
        asked = [process.wants(name) for name in "ab"]
        process.clock.now += 1.0
        assert process.turns.idle_seconds == 0.0
        process.end("a")
        asked[0].result(HANG_SECONDS)
        process.clock.now += 1.0
        assert process.turns.idle_seconds == 0.0, "the other core is still busy"
        process.end("b")
        asked[1].result(HANG_SECONDS)
        assert process.turns.idle_seconds == 0.0
        process.clock.now += 2.0
        assert process.turns.idle_seconds == 2.0


def test_a_caller_with_one_item_does_not_wait_behind_all_those_of_another() -> None:
    with Process() as process:
        for name in "abcd":
            process.wants(name, "greedy")
        process.wants("modest", "modest")
        process.wants("e", "greedy")
        process.end("a", begins="modest")
        process.end("modest", begins="b")
        process.end("b", begins="c")
        assert process.begun == ["a", "modest", "b", "c"]


def test_callers_share_time_and_not_items() -> None:
    with Process(max_wait_seconds=10.0) as process:
        process.wants("first")
        for name in ("long 1", "long 2"):
            process.wants(name, "of long items", engine=Engine(0.03))
        for number in range(1, 7):
            process.wants(f"short {number}", "of short items")
        for _ in range(8):
            before = len(process.begun)
            process.end(process.begun[-1])
            wait_until(lambda before=before: len(process.begun) > before)  # type: ignore[misc]
        order = process.begun
        assert order.index("long 2") == 5, order  # beside three short ones, which take as long as a long one


# Who is refused


def test_what_would_wait_for_too_long_is_refused_at_once() -> None:
    with Process(0.03) as process:
        for name in "abcd":
            process.wants(name)  # 30 ms each: the fourth waits for 90
        error = refusal(process.wants("e"))
        assert error.quota == "server_seconds"
        assert process.turns.makes_wait("alice")
        process.clock.now += 0.021  # of the first item's time
        assert not process.turns.makes_wait("alice")
        assert not process.wants("e").done()


def test_the_wait_is_that_of_the_caller() -> None:
    with Process(0.03) as process:
        for name in "abcd":
            process.wants(name, "greedy")
        assert process.turns.makes_wait("greedy")
        assert not process.turns.makes_wait("modest")
        refusal(process.wants("e", "greedy"))
        assert not process.wants("e", "modest").done()


def test_several_slots_share_the_wait() -> None:
    with Process(0.03, slot_count=2) as process:
        asked = [process.wants(name) for name in "abcdefg"]
        assert not any(item.done() for item in asked)
        refusal(process.wants("h"))


def test_no_wait_at_all() -> None:
    with Process(max_wait_seconds=0.0) as process:
        process.wants("a")
        refusal(process.wants("b"))
        process.clock.now += 1.0  # it should have ended by now
        assert not process.wants("b").done()


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    with Process(0.03) as process:
        assert refusal(process.wants("a", seconds_left=0.02)).quota == "deadline"
        process.wants("a", seconds_left=0.04)
        assert refusal(process.wants("b", seconds_left=0.05)).quota == "deadline"
        assert not process.wants("b", seconds_left=0.07).done()


def test_items_of_streams_wait_for_any_time() -> None:
    with Process(0.03) as process:
        asked = [process.wants(str(number), may_wait_long=True) for number in range(10)]
        assert not any(item.done() for item in asked)
        refusal(process.wants("row"))


# When to come back


def test_a_refused_item_is_told_when_those_before_it_have_had_their_turn() -> None:
    with Process(0.5) as process:
        process.wants("a")
        error = refusal(process.wants("b"))
        assert error.retry_delay_seconds == pytest.approx(0.5 - MAX_WAIT / 2)
        process.clock.now += error.retry_delay_seconds
        assert not process.wants("b").done()


def test_refused_items_of_a_caller_come_back_one_after_the_other() -> None:
    with Process(0.02) as process:
        for number in range(6):
            process.wants(str(number), "greedy")
        delays = [process.turns.refusal("greedy").retry_delay_seconds for _ in range(10)]
        assert delays[0] == MIN_RETRY_SECONDS
        assert min(later - earlier for earlier, later in pairwise(delays)) == pytest.approx(0.02)
        for _ in range(1000):
            last = process.turns.refusal("greedy").retry_delay_seconds
        assert last == MAX_RETRY_SECONDS
        assert process.turns.refusal("modest").retry_delay_seconds == MIN_RETRY_SECONDS
        process.clock.now += MAX_RETRY_SECONDS
        assert process.turns.refusal("greedy").retry_delay_seconds == MIN_RETRY_SECONDS


def test_short_items_come_back_no_faster_than_refusals_may_cost() -> None:
    with Process(0.001) as process:
        process.wants("a")
        delays = [process.turns.refusal("alice").retry_delay_seconds for _ in range(11)]
        assert delays[10] - delays[0] == pytest.approx(10 * RETURN_SECONDS, abs=0.01)


def test_the_callers_that_are_to_come_back_are_bounded() -> None:
    with Process() as process:
        process.wants("a")
        for number in range(5000):
            process.turns.refusal(f"address {number}")
        assert len(process.turns._returns) <= 1000


# Who leaves


def test_a_call_that_is_over_frees_its_place() -> None:
    with Process(0.03) as process:
        for name in "ab":
            process.wants(name)
        end = CallEnd()
        left = process.wants("c", call_back=end.call_back)
        waits = process.wants("d")
        assert refusal(process.wants("e"))
        end.happen()
        assert isinstance(left.exception(HANG_SECONDS), CallOverError)
        assert not process.wants("e").done()
        process.end("a", begins="b")
        process.end("b", begins="d")
        assert not waits.done()
        assert "c" not in process.begun


def test_a_call_that_was_over_before_does_not_wait() -> None:
    with Process() as process:
        process.wants("a")
        end = CallEnd()
        end.happen()
        asked = process.wants("b", call_back=end.call_back)
        assert isinstance(asked.exception(HANG_SECONDS), CallOverError)
        assert process.waiting == 0


def test_a_call_that_ends_in_its_turn_ends_nothing_else() -> None:
    with Process() as process:
        end = CallEnd()
        process.wants("a")
        process.wants("b", call_back=end.call_back)
        process.end("a", begins="b")
        process.wants("c")
        end.happen()
        assert process.begun == ["a", "b"]
        process.end("b", begins="c")


def test_a_call_that_cannot_be_watched_leaves_no_place_behind() -> None:
    def broken(_: Callable[[], None]) -> bool:
        raise MemoryError

    with Process() as process:
        process.wants("a")
        assert isinstance(process.wants("b", call_back=broken).exception(HANG_SECONDS), MemoryError)
        process.wants("c")
        process.end("a", begins="c")


def test_an_item_that_fails_ends_its_turn() -> None:
    process = Process()
    for _ in range(3):
        with pytest.raises(ValueError, match="malformed"), turn(process):
            raise ValueError("malformed")
        assert process.turns.free_slots == 1


@contextmanager
def turn(process: Process, seconds: float = 0.0, **how: Any) -> Iterator[None]:
    """The turn of an item that takes so long."""
    with process.turns.take(process.engine, Waiter("alice", CallEnd().call_back), **how):
        yield
        process.clock.now += seconds


def test_whatever_happens_every_slot_is_free_in_the_end() -> None:
    """Items of several callers end, fail, are refused and leave, in any order."""
    turns = Turns(2, 0.05, Telemetry(), time.monotonic)
    engine, failures = Engine(0.001), list[BaseException]()

    def use(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(50):
            end = CallEnd()
            timer = threading.Timer(chance.random() * 0.002, end.happen)
            timer.start()
            try:
                with turns.take(
                    engine, Waiter(f"caller {seed % 3}", end.call_back), may_wait_long=chance.random() < 0.5
                ):
                    if chance.random() < 0.2:
                        raise ValueError
            except (ValueError, CallOverError, QuotaExceededError):
                pass
            except BaseException as error:
                failures.append(error)
                raise
            finally:
                timer.join()

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
        assert not thread.is_alive()
    assert not failures
    assert turns.free_slots == 2
    assert not turns._waiting
    assert not turns._running


# What is learnt and counted


def test_the_time_that_items_take_is_learnt() -> None:
    process = Process(1.0)
    for _ in range(200):
        with turn(process, 0.01):
            pass
    with turn(process, seconds_left=0.02):
        pass


def test_what_fails_teaches_nothing() -> None:
    """Otherwise garbage, which fails early, would let other items wait for longer than they may."""
    process = Process(0.03)
    for _ in range(200):
        with pytest.raises(ValueError, match="garbage"), turn(process):
            raise ValueError("garbage")
    with process:
        for name in "abcd":
            process.wants(name)
        refusal(process.wants("e"))


def test_parts_of_items_are_learnt_apart() -> None:
    process = Process(0.03)
    for _ in range(200):
        with turn(process, 0.001, part="piece"):
            pass
    with process:
        for number in range(50):
            process.wants(str(number), may_wait_long=True, part="piece")
        assert not process.turns.makes_wait("alice")
        refusal(process.wants("row", seconds_left=0.06))


def test_waits_are_counted() -> None:
    with Process() as process:
        process.wants("a")
        assert process.measured("items_waiting") == 0
        process.wants("b")
        process.wants("c")
        assert process.measured("items_waiting") == 2
        process.clock.now += 0.5
        process.end("a", begins="b")
        process.end("b", begins="c")
        wait_until(lambda: process.measured("items_waiting") == 0)
        wait_until(lambda: len(process.waits) == 3)
        assert process.waits == pytest.approx([0.0, 0.5, 0.5])
