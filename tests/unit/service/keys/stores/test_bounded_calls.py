"""Bounded calls that hang, fail or come too late, without a clock that matters.

They hang until they are told not to.
"""

import threading

import pytest

from sealserve_service.keys.stores.bounded_calls import BoundedCalls, refuse_late
from tests.support.serving import HANG_SECONDS


def test_a_call_returns_or_raises_as_it_would_by_itself() -> None:
    calls = BoundedCalls(HANG_SECONDS)
    assert calls.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        calls.run(lambda: 1 // 0)


def test_a_call_that_hangs_is_given_up_and_does_nothing_more() -> None:
    may_go_on, has_ended = threading.Event(), threading.Event()
    steps = []

    def call() -> None:
        try:
            refuse_late()
            steps.append("first")
            may_go_on.wait(HANG_SECONDS)
            refuse_late()
            steps.append("second")
        finally:
            has_ended.set()

    with pytest.raises(TimeoutError):
        BoundedCalls(0.05).run(call)
    may_go_on.set()
    assert has_ended.wait(HANG_SECONDS)
    assert steps == ["first"]
    refuse_late()  # nobody has given up this thread


def test_calls_that_hang_take_the_room_of_others_until_they_end() -> None:
    calls, may_end = BoundedCalls(0.5, max_calls=2), threading.Event()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            calls.run(may_end.wait)
    with pytest.raises(TimeoutError):
        calls.run(lambda: pytest.fail("there was no room for it"))
    may_end.set()
    for _ in range(5):
        assert calls.run(lambda: 7) == 7
