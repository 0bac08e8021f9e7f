"""Attack: a metrics endpoint that hangs `sealserve top`, fills its memory or drives its terminal.

Who runs `sealserve top` may name an address that is no longer a service's. Each attack succeeds
against the old behaviour: a page is read with urllib, parsed as it is, and shown as markup.
"""

import contextlib
import io
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from sealserve.cli import metrics_page
from sealserve.cli.main import main
from sealserve.cli.metrics_page import (
    MAX_LINE_CHARACTERS,
    MAX_PAGE_BYTES,
    MAX_SAMPLES,
    MetricsPage,
    Scraper,
    fetch_page,
    parse_page,
)
from sealserve.errors import SealserveError, TransportError
from sealserve.protocol.text import printable
from tests.support.serving import HANG_SECONDS

TIMEOUT_SECONDS = 0.5
ATTACK_SECONDS = 2.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
ROWS = 'sealserve_rows_total{model="digits",layout="row"} 5\n'
HOSTILE = b"\\x1b[2J\\x1b]0;owned\\x07\\u202e".decode("unicode_escape") + "[red]a[/red]"

Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def endpoint(answer: Answer) -> Iterator[str]:
    """Run an endpoint that answers each connection in its own way; give its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=talk, args=(connection,), daemon=True).start()

        def talk(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.recv(1 << 16)
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/metrics"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def repeated(data: bytes, pause: float = 0.0) -> Answer:
    """Send the same for as long as the attack lasts."""

    def answer(connection: socket.socket) -> None:
        end = time.monotonic() + ATTACK_SECONDS
        connection.sendall(HEAD[:17])
        while time.monotonic() < end:
            connection.sendall(data)
            time.sleep(pause)

    return answer


def saying(text: str) -> Answer:
    return lambda connection: connection.sendall(HEAD + text.encode())


def old_fetch(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> bytes:
    """The old behaviour: a timeout for each read, and as many reads as there are answers."""
    with urllib.request.urlopen(url, timeout=timeout_seconds) as response:  # noqa: S310
        body: bytes = response.read()
    return body


@pytest.mark.parametrize(
    ("data", "pause"),
    [(b"X: y\r\n", 0.1), (b"x", 0.05), (b"\r\n\r\n#", 0.05)],
    ids=["a head", "a line of the head", "a body"],
)
def test_a_page_that_drips(data: bytes, pause: float) -> None:
    with endpoint(repeated(data, pause)) as url:
        begin = time.monotonic()
        with pytest.raises(TransportError, match=r"does not answer within 0\.5 s"):
            fetch_page(url, TIMEOUT_SECONDS)
        assert time.monotonic() - begin < ATTACK_SECONDS
        begin = time.monotonic()
        with contextlib.suppress(OSError, HTTPException):
            old_fetch(url)
        assert time.monotonic() - begin >= ATTACK_SECONDS - 2 * pause


def test_heads_without_end() -> None:
    """http.client takes as many heads of status 100 as come."""

    def answer(connection: socket.socket) -> None:
        end = time.monotonic() + ATTACK_SECONDS
        while time.monotonic() < end:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.05)

    with endpoint(answer) as url:
        with pytest.raises(TransportError, match="does not answer within"):
            fetch_page(url, TIMEOUT_SECONDS)
        begin = time.monotonic()
        with contextlib.suppress(OSError, HTTPException):
            old_fetch(url)
        assert time.monotonic() - begin >= ATTACK_SECONDS - 0.1


def test_a_giant_body() -> None:
    size = 2 * MAX_PAGE_BYTES
    with endpoint(lambda connection: connection.sendall(HEAD + bytes(size))) as url:
        with pytest.raises(TransportError, match="more than 4 MiB"):
            fetch_page(url, HANG_SECONDS)
        assert len(old_fetch(url, HANG_SECONDS)) == size


def test_a_redirection_is_not_followed() -> None:
    visits = list[int]()

    def visited(connection: socket.socket) -> None:
        visits.append(1)
        saying(ROWS)(connection)

    with endpoint(visited) as inner:
        moved = f"HTTP/1.1 302 Found\r\nLocation: {inner}\r\nContent-Length: 0\r\n\r\n".encode()
        with endpoint(lambda connection: connection.sendall(moved)) as url:
            with pytest.raises(TransportError, match="HTTP status 302"):
                fetch_page(url, TIMEOUT_SECONDS)
            assert not visits
            old_fetch(url)
            assert visits


def test_labels_and_samples_without_end() -> None:
    """The library's time grows with the square of a line's length: it must not see a long one."""
    labels = ",".join(f'l{number}="x"' for number in range(20_000))
    many = "".join(f'sealserve_rows_total{{model="{number}"}} 1\n' for number in range(2 * MAX_SAMPLES))
    others = "".join(f"other_{number} 1\n" for number in range(1000))
    lengths = list[int]()

    def watched(text: str) -> Iterable[object]:
        lengths.extend(map(len, text.split("\n")))
        return text_string_to_metric_families(text)

    with patch("prometheus_client.parser.text_string_to_metric_families", watched):
        page = parse_page(f"{others}sealserve_rows_total{{{labels}}} 1\n{ROWS}{many}", 0.0)
    assert max(lengths) <= MAX_LINE_CHARACTERS
    assert len(lengths) == MAX_SAMPLES + 1
    assert len(page.samples) == MAX_SAMPLES
    old = [sample for family in text_string_to_metric_families(others + many) for sample in family.samples]
    assert len(old) == 2 * MAX_SAMPLES + 1000


def test_long_names_are_cut() -> None:
    page = parse_page(f'sealserve_rows_total{{model="{"x" * 1500}",layout="row"}} 1\n', 0.0)
    ((model, _),) = page.by("rows_total", "model", "layout")
    assert len(model) == metrics_page.MAX_LABEL_CHARACTERS


def run_top(text: str, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with endpoint(saying(text)) as url:
        assert main(["top", "--metrics", url, "--once", "--interval", "0.1", *options]) == 0
    return capsys.readouterr().out


def hostile_page() -> str:
    offer = f'model="{HOSTILE}",layout="{HOSTILE}"'
    refusal = f'reason="{HOSTILE}",limit="{HOSTILE}",tenant="{HOSTILE}"'
    return (
        f"sealserve_rows_total{{{offer}}} 1\nsealserve_items_total{{{offer}}} 1\n"
        f"sealserve_refusals_total{{{refusal}}} 1\n"
        f'sealserve_model_info{{model="{HOSTILE}",version="{HOSTILE}"}} 1\n'
        f'sealserve_model_verdict{{model="{HOSTILE}",verdict="{HOSTILE}"}} 1\n'
    )


def test_names_do_not_drive_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    said = run_top(hostile_page(), capsys)
    assert all(line.isprintable() for line in said.split("\n")), said
    assert "[red]a[/red]" in said, "no markup"
    described = json.loads(run_top(hostile_page(), capsys, "--json"))
    for name in (described["models"][0]["model"], described["refusals"][0]["tenant"]):
        assert name.isprintable()

    old = Console(file=io.StringIO(), width=300)
    table = Table()
    table.add_row(HOSTILE)
    old.print(table)
    assert isinstance(old.file, io.StringIO)
    assert "[red]" not in old.file.getvalue()

    def unchanged(text: str, max_characters: int = 0) -> str:
        return text

    monkeypatch.setattr(printable, "__code__", unchanged.__code__)
    assert "\x1b[2J" in run_top(hostile_page(), capsys)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e300"])
def test_numbers_that_no_service_has(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    bucket = f'sealserve_item_duration_seconds_bucket{{model="digits",layout="row",le="{value}"}} 1\n'
    rows = 'sealserve_rows_total{model="digits",layout="row"} ' + value + "\n"
    said = run_top(f"sealserve_items_waiting 1\nsealserve_held_bytes {value}\n{rows}{bucket}", capsys, "--json")
    described = json.loads(said, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert described["rows_per_second"] == 0
    assert described["replicas"][0]["held_bytes"] == 0


def test_one_that_hangs_does_not_keep_the_others_from_view() -> None:
    with endpoint(saying(ROWS)) as good, endpoint(lambda _: time.sleep(ATTACK_SECONDS)) as silent:
        scraper = Scraper([good, silent], TIMEOUT_SECONDS)
        answers = scraper.scrape()
    assert isinstance(answers[good], MetricsPage)
    assert "does not answer within" in str(answers[silent])


def test_threads_do_not_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint whose thread is still busy is not asked by another one."""
    asked, free = list[str](), threading.Event()

    def stuck(url: str, timeout_seconds: float) -> MetricsPage:
        asked.append(url)
        free.wait(20.0)
        return parse_page(ROWS, 1.0)

    monkeypatch.setattr(metrics_page, "fetch_page", stuck)
    scraper = Scraper(["http://a/metrics"], 0.05)
    for _ in range(3):
        assert isinstance(scraper.scrape()["http://a/metrics"], SealserveError)
    assert len(asked) == 1
    free.set()


@settings(max_examples=20, deadline=None)
@given(st.one_of(st.text(max_size=200), st.text('sealrv_ow{}"=,\\ 01\n#', max_size=80)))
def test_whatever_a_page_says_it_is_a_page_or_an_error(text: str) -> None:
    for said in (text, f"sealserve_rows_total{text}", f"sealserve_rows_total{{{text}}} 1", f'{ROWS}{text}"'):
        with contextlib.suppress(TransportError):
            assert parse_page(said, 0.0).samples


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_an_endpoint_sends_is_a_page_or_an_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        with contextlib.suppress(HTTPException):
            metrics_page._exchanged(ours, b"GET", time.monotonic() + 5)
