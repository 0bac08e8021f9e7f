"""The heartbeat: real calls that show whether a serving process still answers.

A process may live and serve nothing: because a thread of gRPC's died, because it is paused, or for
a reason that nobody has thought of. The calls go to a socket that the process has for them alone,
since its port may be shared with others.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SILENT = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
_CALLS_PER_SILENCE = 6

_logger = logging.getLogger(__name__)


@dataclass
class Pulse:
    """What the heartbeat has found lately.

    Attributes:
        is_felt: false once the process has been silent for half of the time that it may be.
    """

    is_felt: bool = True


@contextlib.contextmanager
def heartbeat(
    socket_path: Path | None, silence_seconds: float, on_silence: Callable[[], None], pulse: Pulse | None = None
) -> Iterator[None]:
    """Ask a process for its health from time to time, in a thread, while the context lasts.

    Args:
        socket_path: where it listens for these calls; None: none are made.
        silence_seconds: how long it may answer none of them; 0: none are made.
        on_silence: called once, in the thread, when it has been silent for so long.
        pulse: is kept up to date.
    """
    if socket_path is None or not silence_seconds:
        yield
        return
    ended = threading.Event()
    arguments = socket_path, silence_seconds, on_silence, ended, pulse or Pulse()
    threading.Thread(target=_watch, args=arguments, name="heartbeat", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _watch(
    socket_path: Path,
    silence_seconds: float,
    on_silence: Callable[[], None],
    ended: threading.Event,
    pulse: Pulse,
) -> None:
    # A call may wait for all of the time. A process that has little of a processor answers late,
    # and if it were replaced for that, the next one would be slower still. Silence is counted in
    # intervals, because time also passes while this process is paused itself.
    interval_seconds = silence_seconds / _CALLS_PER_SILENCE
    if ended.wait(interval_seconds):
        return
    with grpc.insecure_channel(f"unix:{socket_path}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        calls: list[grpc.Future[object]] = []
        silent_intervals = 0
        while silent_intervals < _CALLS_PER_SILENCE:
            if call := _begin(check, silence_seconds):
                calls.append(call)
            if ended.wait(interval_seconds):
                return
            is_silent = call is not None and not any(map(_is_answered, calls))
            silent_intervals = silent_intervals + 1 if is_silent else 0
            pulse.is_felt = silent_intervals < _CALLS_PER_SILENCE // 2
            calls = [call for call in calls if not call.done()]
    on_silence()


def _begin(check: Any, timeout_seconds: float) -> "grpc.Future[object] | None":
    """Begin a call; return None if this process has no memory or thread for it."""
    try:
        call: grpc.Future[object] = check.future(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
    except (MemoryError, RuntimeError):
        _logger.warning("a call that asks a serving process for its health failed", exc_info=True)
        return None
    return call


def _is_answered(call: Any) -> bool:
    """Whether a call has been answered, be it with a refusal."""
    return bool(call.done() and call.code() not in _SILENT)
