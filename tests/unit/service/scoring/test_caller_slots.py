"""The slots that callers share: a bound for each, and shorter waits while they are scarce."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealserve.errors import QuotaExceededError
from sealserve_service.scoring.caller_slots import (
    CONCURRENT_UPLOADS,
    OPEN_STREAMS,
    WAITING_CALLS,
    CallerSlots,
    shortened,
)
from sealserve_service.tenants.caller import Caller
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant

ALICE, BOB = (Caller(Tenant(name), name) for name in ("alice", "bob"))


def most(slots: CallerSlots, caller: Caller) -> int:
    """How many slots a caller gets."""
    with ExitStack() as stack:
        for count in range(1000):
            try:
                stack.enter_context(slots.hold(caller))
            except QuotaExceededError:
                return count
    raise AssertionError("there is no bound")


@pytest.mark.parametrize("kind", [WAITING_CALLS, OPEN_STREAMS, CONCURRENT_UPLOADS])
def test_the_bound_is_the_tenants_or_the_services_or_a_quarter(kind: str) -> None:
    own = Caller(Tenant("carol", quota=Quota(**{kind: 3.0})), "carol")
    of_rows = Caller(Tenant("dave", quota=Quota(rows_per_minute=1.0)), "dave")
    assert [most(CallerSlots(kind, 40, Quota()), caller) for caller in (ALICE, own, of_rows)] == [10, 3, 10]
    assert [most(CallerSlots(kind, 40, Quota(**{kind: 7})), caller) for caller in (ALICE, own, of_rows)] == [7, 3, 7]
    assert most(CallerSlots(kind, 1, Quota()), ALICE) == 1
    assert most(CallerSlots(kind, 5, Quota(**{kind: 100})), ALICE) == 5
    assert most(CallerSlots(kind, 5, Quota(**{kind: 0.5})), ALICE) == 1


def test_a_refusal_names_the_kind_and_a_delay() -> None:
    slots = CallerSlots(WAITING_CALLS, 4, Quota())
    with slots.hold(ALICE), pytest.raises(QuotaExceededError) as caught, slots.hold(ALICE):
        pass
    assert (caught.value.quota, caught.value.retry_delay_seconds) == ("waiting_calls", 1.0)


def test_callers_have_slots_of_their_own_and_addresses_are_callers() -> None:
    slots = CallerSlots(WAITING_CALLS, 8, Quota())
    here, there = Caller(ANONYMOUS, "address 192.0.2.1"), Caller(ANONYMOUS, "address 192.0.2.2")
    with slots.hold(ALICE), slots.hold(ALICE):
        assert [most(slots, caller) for caller in (ALICE, BOB, here, there)] == [0, 2, 2, 2]
        with slots.hold(here), slots.hold(here), slots.hold(there), slots.hold(BOB):
            assert [most(slots, caller) for caller in (here, there, BOB)] == [0, 1, 1]
            assert slots.held_count == 6
            with slots.hold(there), slots.hold(BOB):
                assert most(slots, Caller(Tenant("carol"), "carol")) == 0
    assert slots.held_count == 0
    assert slots._held == {}, "what nobody holds takes no memory"


def test_threads_never_hold_more_than_the_bound() -> None:
    slots, together = CallerSlots(WAITING_CALLS, 12, Quota()), threading.Barrier(16)

    def holds(_: int) -> bool:
        together.wait()
        try:
            with slots.hold(ALICE):
                together.wait()
                return True
        except QuotaExceededError:
            together.wait()
            return False

    with ThreadPoolExecutor(16) as threads:
        for _ in range(20):
            assert sum(threads.map(holds, range(16))) == 3
    assert slots.held_count == 0


@given(st.floats(0.01, 1e6), st.integers(1, 300))
def test_waits_are_whole_until_half_of_the_slots_are_held_and_then_fall(seconds: float, slot_count: int) -> None:
    waits = [shortened(seconds, held, slot_count) for held in range(1, slot_count + 1)]
    assert waits == sorted(waits, reverse=True)
    assert all(wait == seconds for wait in waits[: slot_count // 2])
    assert min(waits) >= min(seconds, 2.0)
    assert shortened(60.0, 256, 256) == 2.0
    assert shortened(60.0, 8, 8) == pytest.approx(3.75)
