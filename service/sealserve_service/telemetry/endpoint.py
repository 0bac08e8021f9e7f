"""The endpoint GET /metrics for Prometheus: plain HTTP, on loopback unless the operator changes it.

It shows numbers and names of models to anyone who can reach it.
"""

import contextlib
import logging
import socket
import threading
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from sealserve_service.telemetry.metrics import MODEL_INFO

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_CONNECTIONS = 16
_SILENCE_SECONDS = 5.0

_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def metrics_endpoint(host: str, port: int, source: Collector) -> Iterator[str]:
    """Serve what the source collects, in threads of its own; yield the URL.

    Raises:
        OSError: the server cannot listen on the address.
    """
    with _Server(host, port, Published(source)) as server:
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


class Published(CollectorRegistry):
    """The metrics that the endpoint shows: the same for one process as for several.

    Models that are no longer served are left out.
    """

    def __init__(self, source: Collector) -> None:
        super().__init__()
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for metric in self._source.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if not sample.name.endswith("_created") and (sample.name != MODEL_INFO or sample.value)
            ]
            yield metric


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, published: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.published = published
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Accept a connection, or drop it if there are as many as there may be."""
        return self._slots.acquire(blocking=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, if there is one for it."""
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the failure of a connection: usually it broke."""
        _logger.info("a connection for metrics failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SILENCE_SECONDS
    server_version, sys_version = "sealserve", ""

    def do_GET(self) -> None:  # named by http.server
        """Answer a request."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = generate_latest(self.server.published)
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
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
