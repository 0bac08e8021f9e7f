"""Admission: quotas of tenants, room for bytes, and a wait that is short or refused."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from sealserve.errors import QuotaExceededError
from sealserve.protocol.item import ItemHeader
from sealserve_service.engines.base import Scoring
from sealserve_service.scoring.admission import MIN_RETRY_SECONDS, Admission
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.caller import Caller
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant

ALICE, BOB = Tenant("alice"), Tenant("bob")
GIB = 1 << 30


class Engine:
    """An engine that says how long it takes."""

    holds_gil = True

    def __init__(self, seconds: float) -> None:
        self.offer: Any = SimpleNamespace(cost=SimpleNamespace(server_seconds=seconds))

    def begin(self, header: ItemHeader, owner: str) -> Scoring:
        raise AssertionError("nothing is scored here")


class Elsewhere(Engine):
    holds_gil = False


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(action: Any) -> QuotaExceededError:
    with pytest.raises(QuotaExceededError) as caught:
        action()
    return caught.value


def enter(context: Any) -> Any:
    with context:
        return None


def test_a_minutes_worth_of_rows_and_then_as_time_goes_by() -> None:
    clock = Clock()
    admission = Admission(GIB, Quota(rows_per_minute=60), clock=clock)
    admission.charge(ALICE, 50)
    error = refusal(lambda: admission.charge(ALICE, 20))
    assert error.quota == "rows_per_minute"
    assert error.retry_delay_seconds == pytest.approx(10.0)
    admission.charge(ALICE, 10)
    clock.now += 19.5
    assert refusal(lambda: admission.charge(ALICE, 20)).retry_delay_seconds == pytest.approx(0.5)
    clock.now += 0.5
    admission.charge(ALICE, 20)
    clock.now += 1e6
    admission.charge(ALICE, 60)
    assert refusal(lambda: admission.charge(ALICE, 1)).quota == "rows_per_minute"


def test_an_item_of_more_than_a_minutes_rows_waits_for_a_full_minute() -> None:
    clock = Clock()
    admission = Admission(GIB, Quota(rows_per_minute=60), clock=clock)
    admission.charge(ALICE, 600)
    assert refusal(lambda: admission.charge(ALICE, 1)).retry_delay_seconds == pytest.approx(541.0)


def test_what_is_refused_is_not_charged() -> None:
    admission = Admission(GIB, Quota(rows_per_minute=10, requests_per_minute=3), clock=Clock())
    admission.charge(ALICE, 10)
    for _ in range(5):
        assert refusal(lambda: admission.charge(ALICE, 1)).quota == "rows_per_minute"
    for _ in range(2):  # of the three requests one is used up
        admission.charge(dataclasses.replace(ALICE, quota=Quota(requests_per_minute=3)), 1)
    assert refusal(lambda: admission.charge(ALICE, 1)).quota == "requests_per_minute"


def test_tenants_have_quotas_of_their_own() -> None:
    admission = Admission(GIB, Quota(requests_per_minute=1), clock=Clock())
    admission.charge(ALICE, 1)
    admission.charge(BOB, 1)
    refusal(lambda: admission.charge(ALICE, 1))
    rich = Tenant("carol", quota=Quota())
    for _ in range(100):
        admission.charge(rich, 1000)


def test_bytes_are_held_and_let_go() -> None:
    admission = Admission(100, Quota(bytes_in_flight=60))
    admission.hold(ALICE, 60)
    assert refusal(lambda: admission.hold(ALICE, 1)).quota == "bytes_in_flight"
    admission.hold(BOB, 40)
    assert refusal(lambda: admission.hold(BOB, 1)).quota == "server_bytes"
    admission.release(ALICE, 60)
    admission.hold(BOB, 20)
    assert refusal(lambda: admission.hold(BOB, 1)).quota == "bytes_in_flight"
    admission.hold(ALICE, 40)


def test_one_item_waits_for_the_second_half_of_another_and_the_next_is_refused() -> None:
    clock, engine = Clock(), Engine(0.5)
    admission = Admission(GIB, clock=clock)
    with ThreadPoolExecutor(1) as pool:
        with admission.turn(engine, None):
            error = refusal(lambda: enter(admission.turn(engine, None)))
            assert (error.quota, error.retry_delay_seconds) == ("server_seconds", 1.0)
            clock.now += 0.3
            waiting = pool.submit(enter, admission.turn(engine, None))
            while admission._backlog_seconds < 1.0:
                pass
            error = refusal(lambda: enter(admission.turn(engine, None)))
            assert error.retry_delay_seconds == pytest.approx(1.4)
            assert not waiting.done()
        waiting.result(10)
    enter(admission.turn(engine, None))
    assert admission._backlog_seconds == pytest.approx(0.0)


def test_short_items_may_wait_for_each_other_a_little() -> None:
    admission, engine = Admission(GIB, clock=Clock()), Engine(0.0025)
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        stack.enter_context(admission.turn(engine, None))
        waiting = [pool.submit(enter, admission.turn(engine, None)) for _ in range(4)]
        while admission._backlog_seconds < 0.01249:
            pass
        assert refusal(lambda: enter(admission.turn(engine, None))).retry_delay_seconds == MIN_RETRY_SECONDS
        stack.close()
        for future in waiting:
            future.result(10)


def test_a_slow_spell_lets_nobody_wait_longer() -> None:
    clock, engine = Clock(), Engine(0.5)
    admission = Admission(GIB, clock=clock)
    for _ in range(200):
        admission.learn(engine, 2.0)
    with admission.turn(engine, None):
        clock.now += 1.7
        refusal(lambda: enter(admission.turn(engine, None)))


def test_a_call_is_refused_unread_while_no_item_would_be_let_wait() -> None:
    clock, engine, slower = Clock(), Engine(0.5), Engine(0.9)
    admission = Admission(GIB, clock=clock)
    admission.check_wait(lambda: [engine])
    with admission.turn(engine, None):
        error = refusal(lambda: admission.check_wait(lambda: [engine, slower]))
        assert (error.quota, error.retry_delay_seconds) == ("server_seconds", 1.0)
        clock.now += 0.1
        admission.check_wait(lambda: [engine, slower])  # it may be for the slower one
        assert refusal(lambda: admission.check_wait(lambda: [engine])).retry_delay_seconds == pytest.approx(0.8)
        clock.now += 0.2
        admission.check_wait(lambda: [engine])
    admission.check_wait(lambda: [engine])


def test_no_call_is_refused_unread_that_may_need_no_turn() -> None:
    admission, engine = Admission(GIB, clock=Clock()), Engine(0.5)
    with admission.turn(engine, None):
        refusal(lambda: admission.check_wait(lambda: [engine]))
        admission.check_wait(lambda: [engine, Elsewhere(0.001)])


def test_short_items_are_not_refused_unread_while_they_may_wait_a_little() -> None:
    admission, engine = Admission(GIB, clock=Clock()), Engine(0.0025)
    with admission.turn(engine, None):
        admission.check_wait(lambda: [engine])


def test_a_deadline_that_cannot_be_met_is_refused_early() -> None:
    clock, engine = Clock(), Engine(0.5)
    admission = Admission(GIB, clock=clock)
    assert refusal(lambda: enter(admission.turn(engine, 0.4))).quota == "deadline"
    enter(admission.turn(engine, 0.6))
    with admission.turn(engine, 0.6):
        clock.now += 0.3
        assert refusal(lambda: enter(admission.turn(engine, 0.6))).quota == "deadline"


def test_streams_wait_and_are_counted() -> None:
    admission, engine, held = Admission(GIB, clock=Clock()), Engine(0.5), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with admission.turn(engine, may_wait_long=True):
            waiting = pool.submit(enter, admission.turn(engine, may_wait_long=True))
            while admission._backlog_seconds < 1.0:
                pass
            assert refusal(lambda: enter(admission.turn(engine, None))).quota == "server_seconds"
            assert not held.is_set()
        waiting.result(10)
    enter(admission.turn(engine, None))


def test_who_waits_and_what_is_held_is_counted() -> None:
    telemetry = Telemetry()
    admission, engine = Admission(GIB, telemetry=telemetry), Engine(0.5)

    def measured(name: str) -> float | None:
        return telemetry.registry.get_sample_value(f"sealserve_{name}")

    with ThreadPoolExecutor(2) as pool:
        with admission.turn(engine, may_wait_long=True):
            assert measured("items_waiting") == 0
            waiting = [pool.submit(enter, admission.turn(engine, may_wait_long=True)) for _ in range(2)]
            end = time.monotonic() + 10
            while measured("items_waiting") != 2:
                assert time.monotonic() < end
        for future in waiting:
            future.result(10)
    assert measured("items_waiting") == 0
    admission.hold(ALICE, 60)
    admission.hold(BOB, 40)
    assert measured("held_bytes") == 100
    admission.release(ALICE, 60)
    assert measured("held_bytes") == 40


def test_what_is_computed_elsewhere_takes_no_turn() -> None:
    admission = Admission(GIB)
    with admission.turn(Engine(0.5), None), admission.turn(Elsewhere(100.0), 0.1):
        assert admission._backlog_seconds == pytest.approx(0.5)


def test_the_time_an_item_takes_is_learnt() -> None:
    admission, engine = Admission(GIB), Engine(1.0)
    for _ in range(200):
        admission.learn(engine, 0.01)
    enter(admission.turn(engine, 0.02))


def test_calls_in_vain_are_charged_to_their_caller() -> None:
    clock = Clock()
    admission = Admission(GIB, Quota(requests_per_minute=2), clock=clock)
    alice, bob = Caller(ALICE, "alice"), Caller(BOB, "bob")
    for _ in range(2):
        admission.charge_in_vain(alice)
        admission.check_requests(alice)  # which charges nothing
    assert refusal(lambda: admission.charge(ALICE, 1)).quota == "requests_per_minute"
    admission.charge_in_vain(alice)
    owed = refusal(lambda: admission.check_requests(alice))
    assert owed.quota == "requests_per_minute"
    assert owed.retry_delay_seconds == pytest.approx(30.0)
    admission.check_requests(bob)
    admission.charge(BOB, 1)
    clock.now += 30.0
    admission.check_requests(alice)


def test_an_address_that_owes_requests_owes_them_alone() -> None:
    admission = Admission(GIB, Quota(requests_per_minute=1), clock=Clock())
    hostile, other = Caller(ANONYMOUS, "address 192.0.2.1"), Caller(ANONYMOUS, "address 192.0.2.2")
    for _ in range(2):
        admission.charge_in_vain(hostile)
    assert refusal(lambda: admission.check_requests(hostile)).quota == "requests_per_minute"
    admission.check_requests(other)
    admission.charge(ANONYMOUS, 1)


def test_without_a_quota_nothing_is_owed() -> None:
    admission, alice = Admission(GIB), Caller(ALICE, "alice")
    admission.charge_in_vain(alice)
    admission.check_requests(alice)
