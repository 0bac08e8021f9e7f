"""The supervisor: runs the service in this process, or in workers, and replaces dead workers.

SEAL's Python binding holds the GIL, so a service uses a machine's cores with processes, not
threads. The kernel spreads connections over the workers (SO_REUSEPORT). They share nothing but the
port and the model files.
"""

import contextlib
import io
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from sealserve.cli.log import log_to_stderr
from sealserve.protocol.address import is_local, path_of
from sealserve_service.app import model_sources
from sealserve_service.container import core_count
from sealserve_service.process.run_directory import run_directory
from sealserve_service.process.signals import STOP, Signals
from sealserve_service.process.worker import StartError, Worker, published_metrics, serve_alone
from sealserve_service.settings import Settings
from sealserve_service.settings.declarations import AUTO
from sealserve_service.settings.errors import AddressError
from sealserve_service.settings.values import split_address
from sealserve_service.telemetry.endpoint import ServiceState, SharedMetrics
from sealserve_service.telemetry.metrics import MetricsFiles

_MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.25, 8.0
_STOP_MARGIN_SECONDS = 5.0
# At these, gRPC's core logs nothing that its peer has written.
_SAFE_VERBOSITIES = {"none", "error"}

_logger = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    It prints `serving NAMES on HOST:PORT` once the service listens.

    On SIGHUP every process loads the models whose files have changed.

    Raises:
        InputError: there is no model, or an option names a model that is not there.
        ModelError, PlanError: a model cannot be served.
        KeyStoreSettingsError: the key store cannot be opened.
        AddressError: the address is in use, or no address of this machine.
        UnusableFileError: a certificate, its key or the file of identities cannot be used.
        StartError: one of several workers could not start, for one of these reasons.
    """
    log_to_stderr(settings.log_level, settings.log_format)
    names = [source.name for source in model_sources(settings)]
    settings.check_names(names)
    if os.environ["GRPC_VERBOSITY"].lower() not in _SAFE_VERBOSITIES:
        _logger.warning(
            "GRPC_VERBOSITY is set: gRPC writes texts of strangers to stderr, unescaped, as lines of any form"
        )
    if not is_local(settings.address):
        _warn(settings)

    def announce(port: int) -> None:
        _print(f"serving {', '.join(names)} on {_with_port(settings.address, port)}")

    settings = _with_processes(settings)
    publishes_shared = settings.process_count > 1 and settings.metrics_address
    with run_directory(is_needed=bool(publishes_shared)) as directory:
        if settings.process_count == 1:
            serve_alone(settings, announce, directory)
        else:
            with _reserved_port(settings.address) as port:
                shared = settings.with_changes(address=_with_port(settings.address, port), metrics_address="")
                supervisor = _Supervisor(shared, directory, bool(publishes_shared))
                # A worker that does not answer is replaced. That says nothing of this process.
                state = ServiceState(lambda: True, supervisor.is_ready, supervisor.process_ids)
                with published_metrics(settings.metrics_address, SharedMetrics(directory or Path()), state):
                    supervisor.run(lambda: announce(port))
    return 0


def _print(line: str) -> None:
    """Print a line, as far as stdout can take it: a service does not depend on who reads it."""
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        print(line, flush=True)  # noqa: T201
    except (OSError, ValueError) as error:
        _logger.warning("%s; stdout cannot be written to: %s", line, error)
        # What is left in the buffer would fail again when the process ends.
        with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _with_port(address: str, port: int) -> str:
    return address if path_of(address) else f"{address.rpartition(':')[0]}:{port}"


def _with_processes(settings: Settings) -> Settings:
    """Say how many processes serve if that is left to the service, and return settings with it."""
    if settings.processes != AUTO:
        return settings
    count, reason = settings.process_count, settings.needs_one_process
    if reason:
        _logger.info("1 serving process (--processes auto): %s", reason)
    else:
        _logger.info("%d serving processes (--processes auto), for %d cores", count, core_count())
    return settings.with_changes(processes=count)


def _warn(settings: Settings) -> None:
    """Log what is unsafe about serving other machines in this way."""
    if settings.tls_certificate is None:
        _logger.warning("serving in plaintext on %s: put TLS in front of it (SECURITY.md)", settings.address)
    if settings.identities is None and settings.tls_client_ca is None:
        _logger.warning("anyone who can reach %s may use every model: give --identities FILE", settings.address)


@contextlib.contextmanager
def _reserved_port(address: str) -> Iterator[int]:
    """Reserve the port while the context lasts, without listening, so that workers can share it.

    Raises:
        AddressError: it is in use, be it by a service that shares it too.
    """
    host, port = split_address(address)
    with contextlib.ExitStack() as closing:
        try:
            family, *_, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(target)
                target = probe.getsockname()
            reserved = closing.enter_context(socket.socket(family, socket.SOCK_STREAM))
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.bind(target)
        except OSError as error:
            raise AddressError(f"cannot listen on {address}: {error.strerror}") from error
        # Outside the block above: an error of the run is none of listening.
        yield target[1]


class _Supervisor:
    """Keeps settings.process_count workers alive.

    Args:
        settings: the workers'.
        directory: the run directory, if there is one.
        publishes_metrics: whether they keep their metrics there.
    """

    def __init__(self, settings: Settings, directory: Path | None, publishes_metrics: bool) -> None:
        self._settings = settings
        self._directory = directory
        self._publishes_metrics = publishes_metrics
        self._workers: list[Worker] = []
        self._is_stopping = False

    def is_ready(self) -> bool:
        """Tell whether any worker serves, and none has been told to stop."""
        return not self._is_stopping and any(worker.is_ready for worker in self._workers)

    def process_ids(self) -> dict[str, int]:
        """Return the ids of this process and its workers."""
        workers = {str(worker.number): worker.process.pid for worker in list(self._workers)}
        return {"supervisor": os.getpid()} | {name: pid for name, pid in workers.items() if pid is not None}

    def run(self, announce: Callable[[], None]) -> None:
        """Start the workers, replace those that die, pass SIGHUP on, stop all on SIGTERM or SIGINT.

        Raises:
            StartError: a worker could not start at first. Later ones are tried again, with longer
                and longer pauses.
        """
        settings = self._settings
        end_seconds = settings.lame_duck + settings.grace_seconds + 2 * _STOP_MARGIN_SECONDS
        with Signals(end_seconds) as self._signals:
            try:
                if self._start_all():
                    announce()
                    self._replace_dead()
            finally:
                self._stop_all()

    def _start_all(self) -> bool:
        """Start the workers and wait until they listen; false if a signal to stop came first."""
        self._workers = [self._start(number) for number in range(self._settings.process_count)]
        while waiting := [worker for worker in self._workers if not worker.is_ready]:
            readable = self._wait([worker.started for worker in waiting])
            if readable is None:
                return False
            for worker in waiting:
                if worker.started in readable:
                    worker.wait_until_ready()
        return True

    def _replace_dead(self) -> None:
        """Replace workers that die, until it is time to stop."""
        backoff_seconds = 0.0
        while True:
            if self._wait([worker.process.sentinel for worker in self._workers]) is None:
                return
            for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
                _logger.error("process %s died (exit code %s)", worker.process.pid, worker.process.exitcode)
                self._remove(worker)
            while len(self._workers) < self._settings.process_count:
                if self._wait([], backoff_seconds) is None:
                    return
                numbers = set(range(self._settings.process_count)) - {worker.number for worker in self._workers}
                replacement = None
                try:
                    replacement = self._start(min(numbers))
                    self._workers.append(replacement)
                    if self._wait([replacement.started]) is None:
                        return
                    replacement.wait_until_ready()
                    backoff_seconds = 0.0
                    _logger.info("process %s replaces it", replacement.process.pid)
                except StartError as error:
                    if replacement is not None:
                        self._remove(replacement)
                    backoff_seconds = min(_MAX_BACKOFF_SECONDS, 2 * backoff_seconds or _MIN_BACKOFF_SECONDS)
                    _logger.error("its replacement did not start: %s; next try in %g s", error, backoff_seconds)

    def _wait(
        self, awaited: Sequence[Connection | int], timeout_seconds: float | None = None
    ) -> Sequence[object] | None:
        """Wait as multiprocessing does, and return what is readable; None when it is time to stop.

        A SIGHUP that comes meanwhile is passed on to the workers.
        """
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            remaining = None if end is None else max(0.0, end - time.monotonic())
            readable = wait([*awaited, self._signals.socket], remaining)
            if self._signals.socket not in readable:
                return readable
            if self._signals.take() & STOP:
                return None
            for worker in self._workers:
                worker.reload()

    def _start(self, number: int) -> Worker:
        files = MetricsFiles(self._directory, number) if self._directory and self._publishes_metrics else None
        return Worker(self._settings, number, self._directory, files)

    def _remove(self, worker: Worker) -> None:
        self._workers.remove(worker)
        worker.clean_up()

    def _stop_all(self) -> None:
        self._is_stopping = True
        for worker in self._workers:
            worker.process.terminate()
        settings = self._settings
        deadline = time.monotonic() + settings.lame_duck + settings.grace_seconds + _STOP_MARGIN_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
