"""Runs the service: in this process, or in several that share the port, each replaced when it dies.

SEAL's Python binding holds the GIL: a machine's cores are used by processes, not threads. The kernel spreads
connections over the processes (SO_REUSEPORT); nothing is shared between them but the port and the model files.
"""

import contextlib
import dataclasses
import logging
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from sealserve.protocol.address import is_loopback
from sealserve_service.process.log import log_to_stderr
from sealserve_service.process.signals import STOP, Signals
from sealserve_service.process.worker import StartError, Worker, published, serve, split_address
from sealserve_service.rpc.server import AddressError, refuse_plaintext
from sealserve_service.settings import Settings
from sealserve_service.telemetry.endpoint import SharedMetrics

_MIN_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.25, 8.0
_STOP_MARGIN_SECONDS = 5.0

_logger = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Prints `serving NAMES on HOST:PORT` once it listens.

    On SIGHUP every process loads the models whose files have changed.

    Raises:
        ModelError, PlanError: a model cannot be served.
        KeyStoreSettingsError: the keys' place cannot be used so.
        AddressError: the address is malformed, in use, or open to others in plaintext.
        UnusableFileError: a certificate, its key or the file of identities cannot be used.
        StartError: one of several processes could not start, for one of these reasons.
    """
    log_to_stderr(settings.log_level, settings.log_format)
    host, _ = split_address(settings.address)
    refuse_plaintext(settings)
    if not is_loopback(host):
        _warn(settings)
    if settings.processes == 1:
        serve(settings, lambda port: _announce(settings, port))
    else:
        with _reserved_port(settings.address) as port, _shared_metrics(settings.metrics_address) as directory:
            address = f"{settings.address.rpartition(':')[0]}:{port}"
            limits = dataclasses.replace(settings.limits, suggested_connections=settings.processes)
            shared = dataclasses.replace(settings, address=address, limits=limits, share_port=True, metrics_address="")
            _Supervisor(shared, directory).run(lambda: _announce(settings, port))
    return 0


def _warn(settings: Settings) -> None:
    """Say what is unsafe about serving other machines so."""
    if settings.tls_certificate is None:
        _logger.warning("serving in plaintext on %s: put TLS in front of it (SECURITY.md)", settings.address)
    if settings.identities is None and settings.tls_client_ca is None:
        _logger.warning("whoever can reach %s may use every model: give --identities FILE", settings.address)


def _announce(settings: Settings, port: int) -> None:
    names = ", ".join(source.name for source in settings.models)
    print(f"serving {names} on {settings.address.rpartition(':')[0]}:{port}", flush=True)  # noqa: T201


@contextlib.contextmanager
def _shared_metrics(address: str) -> Iterator[Path | None]:
    """Publish what workers leave in a directory, and yield that; None without an address."""
    if not address:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="sealserve-metrics-") as name:
        directory = Path(name)
        with published(address, SharedMetrics(directory)):
            yield directory


@contextlib.contextmanager
def _reserved_port(address: str) -> Iterator[int]:
    """Hold the port, without listening, for as long as workers share it.

    Raises:
        AddressError: it is in use, if only by a service that shares it too.
    """
    host, port = split_address(address)
    try:
        family, *_, target = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            target = probe.getsockname()
        with socket.socket(family, socket.SOCK_STREAM) as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(target)
            yield target[1]
    except OSError as error:
        raise AddressError(f"cannot listen on {address}: {error.strerror}") from error


class _Supervisor:
    """Keeps settings.processes workers alive.

    Args:
        directory: where they leave what they count, if that is published.
    """

    def __init__(self, settings: Settings, directory: Path | None) -> None:
        self._settings = settings
        self._directory = directory
        self._workers: list[Worker] = []
        self._signals = Signals()

    def run(self, announce: Callable[[], None]) -> None:
        """Start the workers, replace those that die, pass SIGHUP on, stop all on SIGTERM or SIGINT.

        Raises:
            StartError: a worker could not start at first. Later ones are tried again, ever more slowly.
        """
        with self._signals:
            try:
                if self._start():
                    announce()
                    self._keep_alive()
            finally:
                self._stop()

    def _start(self) -> bool:
        """Start the workers; false if a signal to stop came first."""
        self._workers = [self._worker(number) for number in range(self._settings.processes)]
        while waiting := [worker for worker in self._workers if not worker.is_ready]:
            heard = self._wait([worker.started for worker in waiting])
            if heard is None:
                return False
            for worker in waiting:
                if worker.started in heard:
                    worker.hear()
        return True

    def _keep_alive(self) -> None:
        backoff_seconds = 0.0
        while True:
            if self._wait([worker.process.sentinel for worker in self._workers]) is None:
                return
            for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
                _logger.error("process %s died (exit code %s)", worker.process.pid, worker.process.exitcode)
                self._workers.remove(worker)
                worker.leave()
            while len(self._workers) < self._settings.processes:
                if self._wait([], backoff_seconds) is None:
                    return
                taken = {worker.number for worker in self._workers}
                replacement = self._worker(min(set(range(self._settings.processes)) - taken))
                self._workers.append(replacement)
                if self._wait([replacement.started]) is None:
                    return
                try:
                    replacement.hear()
                    backoff_seconds = 0.0
                    _logger.info("process %s took its place", replacement.process.pid)
                except StartError as error:
                    self._workers.remove(replacement)
                    replacement.leave()
                    backoff_seconds = min(_MAX_BACKOFF_SECONDS, 2 * backoff_seconds or _MIN_BACKOFF_SECONDS)
                    _logger.error("it could not be replaced: %s; next try in %g s", error, backoff_seconds)

    def _wait(
        self, awaited: Sequence[Connection | int], timeout_seconds: float | None = None
    ) -> Sequence[object] | None:
        """Wait as multiprocessing does; None when it is time to stop. What is to be reloaded meanwhile is."""
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            heard = wait([*awaited, self._signals.socket], None if end is None else max(0.0, end - time.monotonic()))
            if self._signals.socket not in heard:
                return heard
            if self._signals.take() & STOP:
                return None
            for worker in self._workers:
                worker.reload()

    def _worker(self, number: int) -> Worker:
        return Worker(self._settings, number, self._directory)

    def _stop(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + self._settings.grace_seconds + _STOP_MARGIN_SECONDS
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
