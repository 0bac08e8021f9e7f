"""MetricsPage: what the metrics endpoint of a service has answered.

An endpoint is not trusted. It has a time and a number of bytes for the whole answer; lines that are
too long, or of metrics that are not looked at, are not parsed; labels are made printable, and
numbers that no service can have are left out.
"""

import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from sealserve import __version__
from sealserve.errors import InputError, SealserveError, TransportError
from sealserve.protocol.text import printable

MAX_PAGE_BYTES = 4 << 20
MAX_LINE_CHARACTERS = 2000
MAX_SAMPLES = 20_000
MAX_LABEL_CHARACTERS = 60
MAX_VALUE = 1e18

COUNTERS = frozenset(
    f"sealserve_{name}"
    for name in (
        *("items_total", "rows_total", "item_seconds_total", "refusals_total"),
        *("item_duration_seconds_bucket", "wait_seconds_bucket"),
        *("key_cache_hits_total", "key_cache_misses_total"),
    )
)
GAUGES = frozenset(
    f"sealserve_{name}"
    for name in (
        *("items_waiting", "held_bytes", "key_cache_bytes", "model_info", "model_verdict"),
        *("ready", "stopping", "process_start_time_seconds"),
    )
)
_NAMES = COUNTERS | GAUGES
_LABELS = frozenset({"model", "layout", "le", "reason", "limit", "tenant", "process", "version", "verdict"})
_NAME = re.compile(r"[a-z_]+")
_URL = re.compile(r"[!-~]+")  # no blank and no line break, which would end a line of the request
_READ_BYTES = 1 << 16

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class MetricsPage:
    """The samples of one answer.

    Attributes:
        taken: when it was there, by time.monotonic().
        samples: values by name and labels.
    """

    taken: float
    samples: Mapping[tuple[str, Labels], float]

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the sums of a metric's samples, by the values of some labels."""
        return summed(self.samples, name, *labels)

    def sum(self, name: str) -> float:
        """Return the sum of a metric's samples; 0 if there are none."""
        return self.by(name).get((), 0.0)


def summed(samples: Mapping[tuple[str, Labels], float], name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Sum samples of a name by the values of some labels, "" for a missing one."""
    sums = defaultdict[tuple[str, ...], float](float)
    for (found, pairs), value in samples.items():
        if found == f"sealserve_{name}":
            given = dict(pairs)
            sums[tuple(given.get(label, "") for label in labels)] += value
    return dict(sums)


def metrics_url(text: str) -> str:
    """Return the URL of a metrics endpoint: that given, or http://HOST:PORT/metrics of HOST:PORT.

    Raises:
        InputError: it is neither.
    """
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_known = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        (parts.hostname or "").encode("idna")  # as a lookup does: a label has 1 to 63 characters
    except ValueError:  # the port, the brackets of an IPv6 address, or a label
        is_known = False
    if not (is_known and _URL.fullmatch(url) and "@" not in parts.netloc):
        raise InputError(f"{printable(text)!r} is not http://HOST:PORT/metrics, https://HOST/PATH or HOST:PORT")
    return parts._replace(path=parts.path.rstrip("/") or "/metrics", fragment="").geturl()


def fetch_page(url: str, timeout_seconds: float) -> MetricsPage:
    """Ask an endpoint, and follow no redirection.

    Raises:
        TransportError: it cannot be reached, or its answer is no page of metrics, is too long, or
            is not complete in time.
    """
    try:
        status, body = _answer(urlsplit(url), time.monotonic() + timeout_seconds)
    except TimeoutError:
        raise _silent(timeout_seconds) from None
    except OSError as error:
        raise TransportError(printable(f"cannot be reached: {error.strerror or error}", 200)) from None
    except http.client.HTTPException as error:
        raise TransportError(f"does not answer in HTTP ({type(error).__name__})") from None
    if status != http.client.OK:
        raise TransportError(f"answers with HTTP status {status}")
    return parse_page(body.decode(errors="replace"), time.monotonic())


def _answer(url: SplitResult, end: float) -> tuple[int, bytes]:
    """Return the status and the body of the answer to a GET."""
    host, is_tls = url.hostname or "", url.scheme == "https"
    shown = f"[{host}]" if ":" in host else host
    target = f"{url.path}?{url.query}" if url.query else url.path
    port = url.port or (http.client.HTTPS_PORT if is_tls else http.client.HTTP_PORT)
    lines = f"GET {target} HTTP/1.1", f"Host: {shown}:{port}", f"User-Agent: sealserve/{__version__}"
    request = "\r\n".join((*lines, "Accept: text/plain", "Connection: close", "", "")).encode("ascii")
    with socket.create_connection((host, port), _left(end)) as plain:
        if not is_tls:
            return _exchanged(plain, request, end)
        with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as encrypted:
            return _exchanged(encrypted, request, end)


def _exchanged(connection: socket.socket, request: bytes, end: float) -> tuple[int, bytes]:
    """Send a request, and read the answer until the connection ends.

    All is read before anything is parsed: http.client itself would read heads for as long as they
    come, and wait for each byte anew.
    """
    connection.settimeout(_left(end))
    connection.sendall(request)
    received = bytearray()
    while True:
        connection.settimeout(_left(end))
        if not (part := connection.recv(_READ_BYTES)):
            break
        received += part
        if len(received) > MAX_PAGE_BYTES:
            raise TransportError(f"answers with more than {MAX_PAGE_BYTES >> 20} MiB")
    response = http.client.HTTPResponse(_Received(bytes(received)))  # type: ignore[arg-type]  # makefile is all it calls
    response.begin()
    return response.status, response.read()


class _Received:
    """A connection from which everything has been read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _left(end: float) -> float:
    if (left := end - time.monotonic()) <= 0:
        raise TimeoutError
    return left


def _silent(timeout_seconds: float) -> TransportError:
    return TransportError(f"does not answer within {timeout_seconds:g} s")


def parse_page(text: str, taken: float) -> MetricsPage:
    """Parse a page in Prometheus' text format, as far as it is looked at.

    Raises:
        TransportError: it is no page of a service's metrics.
    """
    from prometheus_client.parser import text_string_to_metric_families

    samples = defaultdict[tuple[str, Labels], float](float)
    try:
        for family in text_string_to_metric_families("\n".join(_wanted_lines(text))):
            for sample in family.samples:
                if sample.name in _NAMES and 0 <= sample.value <= MAX_VALUE:  # nor is NaN
                    samples[sample.name, _printable_labels(sample.labels)] += sample.value
    except Exception:  # the library promises no type of error
        raise TransportError("answers with a page that is not in Prometheus' text format") from None
    if not samples:
        raise TransportError("answers with no metrics of sealserve")
    return MetricsPage(taken, dict(samples))


def _wanted_lines(text: str) -> Iterator[str]:
    """Yield the lines of samples that are looked at, at most MAX_SAMPLES of them, "" at the end.

    Lines that are too long are left out: the library's time grows with the square of a line's
    labels.
    """
    count = 0
    for line in text.split("\n"):
        name = _NAME.match(line)
        if name is not None and name[0] in _NAMES and len(line) <= MAX_LINE_CHARACTERS:
            yield line
            count += 1
            if count == MAX_SAMPLES:
                break
    yield ""


def _printable_labels(labels: Mapping[str, str]) -> Labels:
    return frozenset((name, printable(labels[name], MAX_LABEL_CHARACTERS)) for name in _LABELS & labels.keys())


class Scraper:
    """Asks several endpoints at once, each in a thread of its own.

    A thread that is still busy after its time, because its endpoint keeps it so, asks nothing else
    until it is free, and does not keep the program from its end.

    Args:
        urls: of the endpoints.
        timeout_seconds: for each whole answer.
    """

    def __init__(self, urls: Sequence[str], timeout_seconds: float) -> None:
        self.urls = tuple(urls)
        self._timeout_seconds = timeout_seconds
        self._asked: dict[str, Future[MetricsPage]] = {}

    def scrape(self) -> dict[str, MetricsPage | SealserveError]:
        """Return the page of each endpoint, or why there is none."""
        end = time.monotonic() + self._timeout_seconds
        for url in self.urls:
            if url not in self._asked or self._asked[url].done():
                self._asked[url] = self._ask(url)
        return {url: self._result(self._asked[url], end) for url in self.urls}

    def _ask(self, url: str) -> "Future[MetricsPage]":
        asked: Future[MetricsPage] = Future()

        def fetch() -> None:
            try:
                asked.set_result(fetch_page(url, self._timeout_seconds))
            except BaseException as error:
                asked.set_exception(error)

        threading.Thread(target=fetch, name="metrics", daemon=True).start()
        return asked

    def _result(self, asked: "Future[MetricsPage]", end: float) -> MetricsPage | SealserveError:
        try:
            return asked.result(max(0.0, end - time.monotonic()))
        except TimeoutError:
            return _silent(self._timeout_seconds)
        except SealserveError as error:
            return error
