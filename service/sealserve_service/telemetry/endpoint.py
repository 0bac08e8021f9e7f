"""The endpoint of operators: plain HTTP, on loopback unless the operator changes it.

GET /metrics is for Prometheus. It shows numbers and names of models to anyone who can reach it. GET
/livez and GET /readyz are for the probes of an orchestrator, and show one word.
"""

import contextlib
import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sealserve_service.telemetry.metrics import MODEL_INFO, MODEL_VERDICT

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_CONNECTIONS = 16
MAX_SCRAPES = 4
"""How many answers with metrics are made at a time."""
_SILENCE_SECONDS = 5.0
_OF_MODELS = {MODEL_INFO, MODEL_VERDICT}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServiceState:
    """What operators ask of a service, beside its metrics.

    Attributes:
        is_alive: whether the service answers; if it does not, it is to be started again.
        is_ready: whether calls are to be sent to it: it serves, and has not been told to stop.
        process_ids: the ids of its processes, by their names.
    """

    is_alive: Callable[[], bool]
    is_ready: Callable[[], bool]
    process_ids: Callable[[], Mapping[str, int]] = dict


_ALWAYS = ServiceState(is_alive=lambda: True, is_ready=lambda: True)


@contextlib.contextmanager
def metrics_endpoint(host: str, port: int, source: Collector, state: ServiceState = _ALWAYS) -> Iterator[str]:
    """Serve what the source collects, and the state, in threads of its own; yield /metrics' URL.

    Raises:
        OSError: the server cannot listen on the address.
    """
    with _Server(host, port, Published(source, ProcessMetrics(state.process_ids)), state) as server:
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            shown = f"[{host}]" if ":" in host else host
            yield f"http://{shown}:{server.server_address[1]}/metrics"
        finally:
            server.shutdown()
            thread.join()


class SharedMetrics(Collector):
    """The sums of the numbers that processes write into a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        # While a process creates a file, the file is empty, and the library cannot read it.
        files = [str(path) for path in self._directory.glob("*.db") if _size(path)]
        metrics: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return metrics


class ProcessMetrics(Collector):
    """What the system knows of processes: time, memory, open files; `process` is a process's name.

    Args:
        process_ids: returns their ids, by their names.
    """

    def __init__(self, process_ids: Callable[[], Mapping[str, int]]) -> None:
        self._process_ids = process_ids

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; a process that has just died has none."""
        found: dict[str, Metric] = {}
        for name, process_id in self._process_ids().items():
            for metric in ProcessCollector(pid=partial(int, process_id), registry=None).collect():
                kept = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                kept.samples += [sample._replace(labels={"process": name}) for sample in metric.samples]
        return found.values()


class Published(CollectorRegistry):
    """The metrics that the endpoint shows: the same for one process as for several.

    Models that are no longer served are left out.
    """

    def __init__(self, *sources: Collector) -> None:
        super().__init__()
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for metric in itertools.chain.from_iterable(source.collect() for source in self._sources):
            metric.samples = [
                sample
                for sample in metric.samples
                if not sample.name.endswith("_created") and (sample.name not in _OF_MODELS or sample.value)
            ]
            yield metric


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, published: CollectorRegistry, state: ServiceState) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.published = published
        self.probes = {"/livez": state.is_alive, "/readyz": state.is_ready}
        self.scrapes = threading.BoundedSemaphore(MAX_SCRAPES)
        self._lock = threading.Lock()
        self._open: dict[Any, None] = {}  # in the order of their arrival
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Accept a connection. If there are as many as there may be, the oldest one ends.

        Silent connections of a stranger would otherwise keep a probe out, and have the service
        started again.
        """
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._open[request] = None
        return True

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the failure of a connection: usually it broke."""
        _logger.info("a connection for metrics failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE_SECONDS
    server_version, sys_version = "sealserve", ""

    def do_GET(self) -> None:  # named by http.server
        """Answer a request."""
        path = self.path.partition("?")[0]
        if (probe := self.server.probes.get(path)) is not None:
            is_good = probe()
            self._answer(b"ok\n" if is_good else b"not now\n", "text/plain", is_good=is_good)
        elif path != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
        elif self.server.scrapes.acquire(blocking=False):
            try:
                body = generate_latest(self.server.published)
            finally:
                self.server.scrapes.release()
            self._answer(body, CONTENT_TYPE)
        else:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)

    def _answer(self, body: bytes, content_type: str, *, is_good: bool = True) -> None:
        self.send_response(HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # named by http.server
        """Log nothing: there is a request every few seconds."""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # its process has just died
        return 0
