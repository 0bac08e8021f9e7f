"""Signals wake the thread that waits, whenever they come."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import wait

import pytest

from sealserve_service.process.signals import RELOAD, STOP, Signals
from tests.support.serving import HANG_SECONDS


def test_what_has_come_is_taken_once() -> None:
    with Signals() as signals:
        assert wait([signals.socket], 0) == []
        for number in (RELOAD, RELOAD, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert wait([signals.socket], HANG_SECONDS) == [signals.socket]
        assert signals.take() == {RELOAD, signal.SIGTERM}
        assert wait([signals.socket], 0) == []
        assert signals.take() == set()


def test_a_signal_that_another_thread_takes_wakes_the_one_that_waits() -> None:
    """A signal that comes just before the main thread waits wakes it, too.

    Python's handlers run only after the wait.
    """

    def send() -> None:
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), RELOAD)

    with Signals() as signals:
        thread = threading.Thread(target=send)
        thread.start()
        assert wait([signals.socket], HANG_SECONDS) == [signals.socket]
        assert signals.take() == {RELOAD}
        thread.join()


def test_no_number_of_signals_hides_another() -> None:
    with Signals() as signals:
        for _ in range(2000):
            signal.raise_signal(RELOAD)
        signal.raise_signal(signal.SIGTERM)
        assert wait([signals.socket], HANG_SECONDS) == [signals.socket]
        assert signals.take() == {RELOAD, signal.SIGTERM}


@pytest.mark.parametrize("number", [*STOP, RELOAD])
def test_handlers_are_put_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Signals():
        assert signal.getsignal(number) != before
    assert signal.getsignal(number) == before
    assert signal.set_wakeup_fd(-1) == -1


HANGING = """
import signal, threading
from sealserve_service.process.signals import Signals
with Signals({end_seconds}):
    print("ready", flush=True)
    threading.Thread(target=threading.Event().wait).start()
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
    threading.Event().wait(3.0)
"""


@pytest.mark.parametrize(("end_seconds", "is_ended"), [(0.1, True), (None, False)])
def test_a_process_that_does_not_end_is_ended(end_seconds: float | None, is_ended: bool) -> None:
    code = HANGING.format(end_seconds=end_seconds)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        if is_ended:
            assert process.wait(HANG_SECONDS) == 1
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
        process.kill()
