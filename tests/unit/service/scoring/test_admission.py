"""Admission: quotas of tenants, room for bytes, and calls that are refused unread."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from sealserve.errors import QuotaExceededError
from sealserve.protocol.item import ItemHeader
from sealserve_service.engines.base import Scoring
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.turns import CallEnd, Waiter
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


WAITER = Waiter("alice", CallEnd().call_back)


def refusal(action: Any) -> QuotaExceededError:
    with pytest.raises(QuotaExceededError) as caught:
        action()
    return caught.value


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


def test_what_is_held_is_counted() -> None:
    telemetry = Telemetry()
    admission = Admission(GIB, telemetry=telemetry)
    admission.hold(ALICE, 60)
    admission.hold(BOB, 40)
    assert telemetry.registry.get_sample_value("sealserve_held_bytes") == 100
    admission.release(ALICE, 60)
    assert telemetry.registry.get_sample_value("sealserve_held_bytes") == 40


def test_a_call_is_refused_unread_while_items_of_every_engine_would_wait_for_too_long() -> None:
    admission, engine, elsewhere = Admission(GIB, clock=Clock()), Engine(0.5), Elsewhere(0.5)
    caller = Caller(ALICE, "alice")
    admission.check_wait(lambda: [engine], caller)
    with admission.turns[True].take(engine, WAITER):
        error = refusal(lambda: admission.check_wait(lambda: [engine], caller))
        assert (error.quota, error.retry_delay_seconds) == ("server_seconds", 0.45)
        admission.check_wait(lambda: [engine, elsewhere], caller)
        with admission.turns[False].take(elsewhere, WAITER):
            refusal(lambda: admission.check_wait(lambda: [engine, elsewhere], caller))
            refusal(lambda: admission.check_wait(lambda: [elsewhere], caller))
        admission.check_wait(lambda: [elsewhere], caller)


def test_without_engines_nothing_is_refused_unread() -> None:
    admission = Admission(GIB, clock=Clock())
    with admission.turns[True].take(Engine(0.5), WAITER):
        admission.check_wait(list, Caller(ALICE, "alice"))


def test_items_that_do_not_hold_the_gil_have_a_turn_for_each_core() -> None:
    admission = Admission(GIB, core_count=3)
    with admission.turns[True].take(Engine(0.5), WAITER):
        assert admission.turns[True].free_slots == 0
        assert admission.turns[False].free_slots == 3


def test_it_is_idle_while_items_of_neither_kind_are_computed() -> None:
    clock = Clock()
    admission = Admission(GIB, clock=clock, core_count=3)
    for holds_gil, engine in ((True, Engine(0.5)), (False, Elsewhere(0.5))):
        clock.now += 1.0
        with admission.turns[holds_gil].take(engine, WAITER):
            clock.now += 1.0
            assert admission.idle_seconds() == 0.0
        clock.now += 0.25
        assert admission.idle_seconds() == 0.25


def test_the_longest_wait_is_the_operators() -> None:
    admission, engine = Admission(GIB, clock=Clock(), max_wait_seconds=2.0), Engine(0.5)
    with admission.turns[True].take(engine, WAITER):
        admission.check_wait(lambda: [engine], Caller(ALICE, "alice"))


def test_calls_in_vain_are_charged_to_their_caller() -> None:
    clock = Clock()
    admission = Admission(GIB, Quota(requests_per_minute=2), clock=clock)
    alice, bob = Caller(ALICE, "alice"), Caller(BOB, "bob")
    for _ in range(2):
        admission.charge_in_vain(alice)
        admission.check_debt(alice)  # which charges nothing
    assert refusal(lambda: admission.charge(ALICE, 1)).quota == "requests_per_minute"
    admission.charge_in_vain(alice)
    owed = refusal(lambda: admission.check_debt(alice))
    assert owed.quota == "requests_per_minute"
    assert owed.retry_delay_seconds == pytest.approx(30.0)
    admission.check_debt(bob)
    admission.charge(BOB, 1)
    clock.now += 30.0
    admission.check_debt(alice)


def test_an_address_that_owes_requests_owes_them_alone() -> None:
    admission = Admission(GIB, Quota(requests_per_minute=1), clock=Clock())
    hostile, other = Caller(ANONYMOUS, "address 192.0.2.1"), Caller(ANONYMOUS, "address 192.0.2.2")
    for _ in range(2):
        admission.charge_in_vain(hostile)
    assert refusal(lambda: admission.check_debt(hostile)).quota == "requests_per_minute"
    admission.check_debt(other)
    admission.charge(ANONYMOUS, 1)


def test_a_caller_of_too_many_empty_calls_is_refused_then_ignored_then_forgiven() -> None:
    clock = Clock()
    admission = Admission(GIB, Quota(empty_calls_per_minute=6), clock=clock)
    alice, bob = Caller(ALICE, "alice"), Caller(BOB, "bob")
    for _ in range(6):
        admission.count_empty(alice)
        admission.check_debt(alice)
    admission.count_empty(alice)
    for asked in range(3):  # each is charged
        assert not admission.is_ignored(alice)
        owed = refusal(lambda: admission.check_debt(alice))
        assert owed.quota == "empty_calls_per_minute"
        assert owed.retry_delay_seconds == pytest.approx(10.0 * (1 + asked))
    assert admission.is_ignored(alice)
    assert not admission.is_ignored(bob)
    admission.check_debt(bob)
    admission.charge(ALICE, 1)  # what goes on already
    clock.now += 10.0
    assert not admission.is_ignored(alice)
    clock.now += 30.0
    admission.check_debt(alice)
    assert "alice" not in admission.charged_in_vain


def test_a_caller_never_owes_more_than_a_minute() -> None:
    clock = Clock()
    admission, alice = Admission(GIB, Quota(empty_calls_per_minute=6), clock=clock), Caller(ALICE, "alice")
    for _ in range(1000):
        admission.count_empty(alice)
    clock.now += 60.0
    admission.check_debt(alice)


def test_empty_calls_are_bounded_by_a_tenants_own_quota_or_else_by_the_services() -> None:
    admission = Admission(GIB, Quota(empty_calls_per_minute=1), clock=Clock())
    own = Caller(dataclasses.replace(ALICE, quota=Quota(empty_calls_per_minute=5)), "alice")
    other = Caller(dataclasses.replace(BOB, quota=Quota(rows_per_minute=5)), "bob")
    for caller in (own, other):
        admission.charge_in_vain(caller)
        admission.charge_in_vain(caller)
    admission.check_debt(own)
    assert refusal(lambda: admission.check_debt(other)).quota == "empty_calls_per_minute"


def test_without_a_quota_nothing_is_owed() -> None:
    admission, alice = Admission(GIB), Caller(ALICE, "alice")
    admission.charge_in_vain(alice)
    admission.check_debt(alice)
