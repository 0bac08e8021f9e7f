"""The heartbeat: real calls that show whether a serving process still answers.

A process may live and serve nothing: because a thread of gRPC's died, because it is paused, or for
a reason that nobody has thought of. The calls go to a socket that the process has for them alone,
since its port may be shared with others.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SILENT = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
_LEAST_FAILURES = 3
_CALLS_PER_SILENCE = 6

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def heartbeat(socket_path: Path | None, silence_seconds: float, on_silence: Callable[[], None]) -> Iterator[None]:
    """Ask a process for its health from time to time, in a thread, while the context lasts.

    Args:
        socket_path: where it listens for these calls; None: none are made.
        silence_seconds: how long it may answer none of them; 0: none are made.
        on_silence: called once, in the thread, when it has been silent for so long.
    """
    if socket_path is None or not silence_seconds:
        yield
        return
    ended = threading.Event()
    arguments = socket_path, silence_seconds, on_silence, ended
    threading.Thread(target=_watch, args=arguments, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(socket_path: Path, silence_seconds: float, on_silence: Callable[[], None], ended: threading.Event) -> None:
    interval_seconds = silence_seconds / _CALLS_PER_SILENCE
    with grpc.insecure_channel(f"unix:{socket_path}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        answered, failures = time.monotonic(), 0
        while not ended.wait(interval_seconds):
            if _answers(check, interval_seconds):
                answered, failures = time.monotonic(), 0
                continue
            # Several calls: the time alone may have passed while this process was paused itself.
            failures += 1
            if failures >= _LEAST_FAILURES and time.monotonic() - answered >= silence_seconds:
                on_silence()
                return


def _answers(check: Callable[..., object], timeout_seconds: float) -> bool:
    """Whether a call is answered, be it with a refusal."""
    try:
        check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
    except grpc.RpcError as error:
        return error.code() not in _SILENT
    except (MemoryError, RuntimeError):  # of this process
        _logger.warning("a call that asks a serving process for its health failed", exc_info=True)
    return True
