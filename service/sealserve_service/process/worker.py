"""A serving process."""

import contextlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path

from prometheus_client.registry import Collector

from sealserve.errors import SealserveError
from sealserve.protocol.address import host_of
from sealserve_service.allocator import keep_what_is_freed
from sealserve_service.app import service
from sealserve_service.process.log import log_to_stderr
from sealserve_service.process.signals import RELOAD, STOP, Signals
from sealserve_service.rpc.server import AddressError
from sealserve_service.settings import Settings
from sealserve_service.telemetry.endpoint import metrics_endpoint
from sealserve_service.telemetry.metrics import SharedPlace

_SPAWN = multiprocessing.get_context("spawn")  # a fork would share gRPC's and BLAS's threads, which do not survive one
# A thread that wants the GIL asks for it after so long, whenever SEAL's call has ended: to answer one request takes
# several turns, and Python's own 5 ms for each would add up while another request is scored.
SWITCH_SECONDS = 0.0005

_logger = logging.getLogger(__name__)


class StartError(SealserveError):
    """A serving process could not start; the text is its own."""


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT; an IPv6 host stands in brackets.

    Raises:
        AddressError: it is malformed.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise AddressError(f"{address!r} is not HOST:PORT, with a port below 65536")
    return host_of(address), int(port)


@contextlib.contextmanager
def published(address: str, source: Collector) -> Iterator[None]:
    """Publish metrics, if there is an address to do so.

    Raises:
        AddressError: it is malformed or in use.
    """
    if not address:
        yield
        return
    host, port = split_address(address)
    with contextlib.ExitStack() as closing:
        try:
            url = closing.enter_context(metrics_endpoint(host, port, source))
        except OSError as error:
            raise AddressError(f"cannot listen on {address}: {error.strerror}") from error
        _logger.info("metrics on %s", url)
        yield


def serve(
    settings: Settings,
    announce: Callable[[int], None],
    parent_sentinel: int | None = None,
    place: SharedPlace | None = None,
) -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_what_is_freed()
    with (
        Signals() as signals,
        service(settings, place) as (server, watch),
        published(settings.metrics_address, server.telemetry.registry),
    ):
        announce(server.start())
        ends = [] if parent_sentinel is None else [parent_sentinel]  # readable once the supervisor is dead
        while wait([signals.socket, *ends]) == [signals.socket] and not signals.take() & STOP:
            watch.reload()
        _logger.info("stopping: work in flight finishes, new work is refused")
        server.stop()


def _work(settings: Settings, place: SharedPlace | None, started: Connection) -> None:
    """Serve in a process of its own; say on `started` that it listens (None) or why it does not (a text)."""
    log_to_stderr(settings.log_level, settings.log_format)
    parent = multiprocessing.parent_process()
    try:
        serve(settings, lambda _: started.send(None), parent.sentinel if parent else None, place)
    except SealserveError as error:
        started.send(str(error))
        sys.exit(1)
    finally:
        if place and parent and not parent.is_alive():  # it was killed, so that it removed nothing
            place.demolish()


class Worker:
    """A serving process and the end of the pipe on which it says that it listens.

    Args:
        number: its place among the workers.
        directory: where it leaves what it counts, if that is published.
    """

    def __init__(self, settings: Settings, number: int, directory: Path | None) -> None:
        self.number = number
        self._place = None if directory is None else SharedPlace(directory, number)
        self.started, theirs = _SPAWN.Pipe(duplex=False)
        self.process = _SPAWN.Process(target=_work, args=(settings, self._place, theirs), name="sealserve-worker")
        self.process.start()
        theirs.close()  # so that the pipe ends with the worker
        self.is_ready = False
        self._is_outdated = False

    def reload(self) -> None:
        """Have the worker load what has changed; one that is still starting does so when it is ready."""
        if not self.is_ready:
            self._is_outdated = True
        elif self.process.is_alive() and self.process.pid:
            os.kill(self.process.pid, RELOAD)

    def hear(self) -> None:
        """Wait until the worker listens.

        Raises:
            StartError: it has died instead; the text is its own, if it left one.
        """
        try:
            failure = self.started.recv()
        except EOFError:
            failure = "a serving process died while it started; its log has the cause"
        if failure is not None:
            raise StartError(failure)
        self.is_ready = True
        if self._is_outdated:
            self.reload()

    def leave(self) -> None:
        """Make its place free, now that it has died."""
        if self._place is not None:
            self._place.vacate()
