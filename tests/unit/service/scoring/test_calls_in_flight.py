"""Calls in flight: counted, bounded, and waited for when the server stops."""

import threading
import time

import pytest

from sealserve.errors import DrainingError, QuotaExceededError
from sealserve_service.scoring.calls_in_flight import CallsInFlight


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
