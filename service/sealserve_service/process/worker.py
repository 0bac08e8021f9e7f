"""A worker: a serving process, the program's own or one of several under a supervisor."""

import contextlib
import logging
import math
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from prometheus_client.registry import Collector

from sealserve.cli.log import log_to_stderr
from sealserve.errors import SealserveError
from sealserve_service.allocator import keep_freed_memory, reserve_address_space
from sealserve_service.app import service
from sealserve_service.process.heartbeat import Pulse, heartbeat
from sealserve_service.process.signals import RELOAD, STOP, Signals
from sealserve_service.settings import Settings
from sealserve_service.settings.errors import AddressError
from sealserve_service.settings.values import split_address
from sealserve_service.telemetry.endpoint import ServiceState, metrics_endpoint
from sealserve_service.telemetry.metrics import MetricsFiles

# gRPC's and BLAS's threads do not survive a fork.
_SPAWN = multiprocessing.get_context("spawn")
# A thread that wants the GIL asks for it after this time, whenever SEAL's call has ended. To answer
# one request takes several turns. Python's own 5 ms for each would add up while another request is
# scored.
SWITCH_SECONDS = 0.0005
# After the grace period. The last replies have a second, and gRPC another one to end.
_END_SECONDS = 3.0
_LOOK_SECONDS = 1.0
WEDGED = 70
"""The exit code of a process that no longer answers: EX_SOFTWARE of sysexits.h."""

_logger = logging.getLogger(__name__)


class StartError(SealserveError):
    """A worker could not start; the text is that of its own error."""


@contextlib.contextmanager
def published_metrics(address: str, source: Collector, state: ServiceState) -> Iterator[None]:
    """Publish metrics and the state at an address while the context lasts; do nothing if it is "".

    Raises:
        AddressError: the address is malformed or in use.
    """
    if not address:
        yield
        return
    host, port = split_address(address)
    with contextlib.ExitStack() as closing:
        try:
            url = closing.enter_context(metrics_endpoint(host, port, source, state))
        except OSError as error:
            raise AddressError(f"cannot listen on {address}: {error.strerror}") from error
        _logger.info("metrics on %s", url)
        yield


def serve_alone(settings: Settings, announce: Callable[[int], None], directory: Path | None) -> None:
    """Serve in this process, without a supervisor. If it no longer answers, it ends with WEDGED.

    Args:
        settings: the service's.
        announce: called with the port once the service listens.
        directory: the run directory; without it there is no heartbeat.
    """
    socket_path, pulse = _socket_path(directory, 0), Pulse()

    def serves(port: int) -> None:
        closing.enter_context(heartbeat(socket_path, settings.heartbeat_seconds, end, pulse))
        announce(port)

    def end() -> None:
        _logger.critical(
            "this process has answered none of its own calls for %g s: it ends", settings.heartbeat_seconds
        )
        os._exit(WEDGED)

    with contextlib.ExitStack() as closing:
        serve(settings, serves, socket_path, is_alive=lambda: pulse.is_felt)


def serve(
    settings: Settings,
    announce: Callable[[int], None],
    heartbeat_socket: Path | None,
    parent_sentinel: int | None = None,
    metrics_files: MetricsFiles | None = None,
    is_alive: Callable[[], bool] = lambda: True,
) -> None:
    """Serve in this process until SIGTERM or SIGINT; load changed models on SIGHUP.

    After SIGTERM or SIGINT calls are served for another lame_duck seconds. The process ends soon
    after the grace period that follows, whatever it is doing.

    Args:
        settings: the service's.
        announce: called with the port once the service listens.
        heartbeat_socket: where to listen for the calls of the heartbeat, if there is one.
        parent_sentinel: becomes readable when the supervisor has died, which ends the service too.
        metrics_files: where to keep metrics; in memory without it.
        is_alive: whether the heartbeat is answered.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_freed_memory()
    with (
        Signals(settings.lame_duck + settings.grace_seconds + _END_SECONDS) as signals,
        service(settings, metrics_files) as (server, reloader),
        published_metrics(
            settings.metrics_address,
            server.telemetry.registry,
            ServiceState(is_alive, server.is_ready, lambda: {"0": os.getpid()}),
        ),
    ):
        port = server.start(heartbeat_socket)
        reserve_address_space()
        announce(port)
        sentinels = [] if parent_sentinel is None else [parent_sentinel]
        end = math.inf
        while (seconds_left := end - time.monotonic()) > 0:
            readable = wait([signals.socket, *sentinels], min(_LOOK_SECONDS, seconds_left))
            if not server.is_serving:
                _logger.critical("gRPC's own thread has died: this process ends")
                os._exit(WEDGED)
            if parent_sentinel in readable:
                break
            arrived = signals.take() if readable else set()
            if arrived & STOP and end == math.inf:
                _logger.info("stopping: calls are served for another %g s", settings.lame_duck)
                server.retire()
                end = time.monotonic() + settings.lame_duck
            elif RELOAD in arrived:
                reloader.reload()
        _logger.info("stopping: work in flight finishes, new work is refused")
        server.stop()


def _socket_path(directory: Path | None, number: int) -> Path | None:
    return None if directory is None else directory / f"{number}.sock"


def _run(settings: Settings, socket_path: Path | None, metrics_files: MetricsFiles | None, started: Connection) -> None:
    """Serve in a process of its own.

    Args:
        settings: the service's.
        socket_path: where to listen for the calls of the heartbeat, in the run directory.
        metrics_files: where to keep metrics.
        started: gets None once the worker listens, or a text that says why it does not.
    """
    log_to_stderr(settings.log_level, settings.log_format)
    parent = multiprocessing.parent_process()
    sentinel = parent.sentinel if parent else None
    try:
        serve(settings, lambda _: started.send(None), socket_path, sentinel, metrics_files)
    except SealserveError as error:
        started.send(str(error))
        sys.exit(1)
    finally:
        # A supervisor that was killed has removed nothing.
        if socket_path and parent and not parent.is_alive():
            shutil.rmtree(socket_path.parent, ignore_errors=True)  # other workers may do the same


class Worker:
    """A serving process, as its supervisor sees it. If it no longer answers, it is killed.

    Args:
        settings: the service's.
        number: the worker's, from 0; a worker that replaces another has the same.
        directory: the run directory, if there is one.
        metrics_files: where it keeps its metrics, if they are published.

    Attributes:
        started: the end of a pipe that becomes readable when the worker listens or has failed.
        is_ready: whether it is known to listen.

    Raises:
        StartError: the system refuses a process or a pipe.
    """

    def __init__(
        self, settings: Settings, number: int, directory: Path | None, metrics_files: MetricsFiles | None
    ) -> None:
        self.number = number
        self._metrics_files = metrics_files
        self._socket_path = _socket_path(directory, number)
        self._silence_seconds = settings.heartbeat_seconds
        self._heartbeat = contextlib.ExitStack()
        try:
            self.started, theirs = _SPAWN.Pipe(duplex=False)
            self.process = _SPAWN.Process(
                target=_run, args=(settings, self._socket_path, metrics_files, theirs), name="sealserve-worker"
            )
            self.process.start()
        except OSError as error:
            raise StartError(f"the system refuses a process: {error.strerror}") from error
        theirs.close()  # so that the pipe ends with the worker
        self.is_ready = False
        self._reload_when_ready = False

    def reload(self) -> None:
        """Have the worker load changed models, once it is ready."""
        if not self.is_ready:
            self._reload_when_ready = True
        elif self.process.is_alive() and self.process.pid:
            os.kill(self.process.pid, RELOAD)

    def wait_until_ready(self) -> None:
        """Wait until the worker listens.

        Raises:
            StartError: it has failed or died instead, or the system refuses a thread to watch it.
        """
        try:
            failure = self.started.recv()
        except EOFError:
            failure = "a serving process died while it started; its log has the cause"
        if failure is not None:
            raise StartError(failure)
        try:
            self._heartbeat.enter_context(heartbeat(self._socket_path, self._silence_seconds, self._kill))
        except RuntimeError as error:
            raise StartError(str(error)) from error
        self.is_ready = True
        if self._reload_when_ready:
            self.reload()

    def clean_up(self) -> None:
        """Remove the gauges of the worker, which has died, or kill it first if it is not ready."""
        self._heartbeat.close()
        self.process.kill()
        self.process.join()
        if self._metrics_files is not None:
            self._metrics_files.remove_gauges()

    def _kill(self) -> None:
        _logger.error(
            "process %s has answered none of its own calls for %g s: it is killed",
            self.process.pid,
            self._silence_seconds,
        )
        self.process.kill()
