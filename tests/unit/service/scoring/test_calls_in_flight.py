"""Calls in flight: counted, bounded, and waited for when the server stops."""

import threading
import time
from contextlib import ExitStack

import pytest

from sealserve.errors import DrainingError, QuotaExceededError
from sealserve_service.scoring.caller_slots import WAITING_CALLS, CallerSlots
from sealserve_service.scoring.calls_in_flight import CallsInFlight
from sealserve_service.tenants.caller import Caller
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import ANONYMOUS


def test_a_limited_number_of_calls_is_admitted() -> None:
    calls = CallsInFlight(2)
    with calls.admit():
        for _ in range(3):
            calls.check()  # which counts nothing
        with calls.admit():
            for refused in (calls.check, calls.admit().__enter__):
                with pytest.raises(QuotaExceededError) as caught:
                    refused()
                assert caught.value.quota == "concurrent_calls"
        calls.check()
    calls.wait_until_none(0.0)


def test_a_call_that_fails_is_no_longer_in_flight() -> None:
    calls = CallsInFlight(1)
    with pytest.raises(ZeroDivisionError), calls.admit():
        raise ZeroDivisionError
    calls.check()


def test_none_is_admitted_once_the_server_stops() -> None:
    calls = CallsInFlight(2)
    with calls.admit():
        calls.stop_admitting()
        assert calls.stopping.is_set()
        for refused in (calls.check, calls.admit().__enter__):
            with pytest.raises(DrainingError):
                refused()
    calls.stop_admitting()  # again


def test_the_end_of_the_last_call_is_waited_for() -> None:
    calls, waiting = CallsInFlight(2), threading.Event()

    def wait() -> None:
        waiting.set()
        calls.wait_until_none(30.0)

    with calls.admit():
        start = time.monotonic()
        calls.wait_until_none(0.05)
        assert time.monotonic() - start >= 0.05, "the time is up"
        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        assert thread.is_alive()
    thread.join(10.0)
    assert not thread.is_alive()


def test_actions_are_called_once_when_the_server_stops() -> None:
    calls, called = CallsInFlight(2), list[str]()
    with calls.calling_on_stop(lambda: called.append("gone before")):
        pass
    with calls.calling_on_stop(lambda: called.append("there")):
        assert called == []
        calls.stop_admitting()
        calls.stop_admitting()
        assert called == ["there"]
    with calls.calling_on_stop(lambda: called.append("came after")):
        assert called == ["there", "came after"]


def test_calls_that_wait_for_their_request_take_room_and_are_not_waited_for() -> None:
    waiting = CallerSlots(WAITING_CALLS, 2, Quota(waiting_calls=2))
    calls, caller = CallsInFlight(2, waiting), Caller(ANONYMOUS, "address 192.0.2.1")
    with waiting.hold(caller, calls.count):
        calls.wait_until_none(0.0)
        with waiting.hold(caller, calls.count):
            for refused in (calls.check, calls.admit().__enter__, waiting.hold(caller, calls.count).__enter__):
                with pytest.raises(QuotaExceededError):
                    refused()
        with calls.admit():
            pass
    with calls.admit(), calls.admit(), pytest.raises(QuotaExceededError):
        waiting.hold(caller, calls.count).__enter__()


def test_waits_are_shorter_while_there_is_little_room() -> None:
    waiting = CallerSlots(WAITING_CALLS, 4, Quota(waiting_calls=4))
    calls, caller = CallsInFlight(4, waiting), Caller(ANONYMOUS, "address 192.0.2.1")
    with ExitStack() as stack:
        assert calls.shortened(60.0) == 60.0
        seconds = []
        for count in range(4):
            stack.enter_context(waiting.hold(caller, calls.count) if count % 2 else calls.admit())
            seconds.append(calls.shortened(60.0))
    assert seconds == [60.0, 60.0, 60.0, 15.0]
