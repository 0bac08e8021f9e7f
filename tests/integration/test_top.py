"""`sealserve top` with real services: rates, refusals, one that dies and comes back, a terminal."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealserve.cli.main import _EXTRAS, main
from sealserve.cli.metrics_page import Scraper, metrics_url
from sealserve.cli.service_view import ReplicaState, Watch
from sealserve.client import Client
from sealserve.errors import SealserveError
from tests.support.command_line import fails
from tests.support.metrics import free_address
from tests.support.programs import Program, serve
from tests.support.serving import HANG_SECONDS, ROOT


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.npz"
    np.savez(path, coef=np.ones((2, 5)), intercept=np.zeros(2), classes=np.arange(2))
    return path


@contextlib.contextmanager
def replica(model: Path, metrics: str, *options: str) -> Iterator[Program]:
    with serve(f"--model={model}", "--input-range=-1,1", f"--metrics-address={metrics}", *options) as program:
        yield program


@contextlib.contextmanager
def asked(*programs: Program) -> Iterator[None]:
    """Ask services for rows for as long as the context lasts."""
    is_over = threading.Event()

    def ask(address: str) -> None:
        with Client(address, layout="row", timeout_seconds=HANG_SECONDS) as client:
            while not is_over.is_set():
                with contextlib.suppress(SealserveError):
                    client.predict(np.zeros((1, 5)))

    threads = [threading.Thread(target=ask, args=(program.address,)) for program in programs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def viewed(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["top", "--once", "--json", "--interval", "1", "--timeout", "20", *options]) == 0
    view: dict[str, Any] = json.loads(capsys.readouterr().out)
    return view


def test_two_services(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = free_address(), free_address()
    with replica(model, first, "--requests-per-minute=60") as one, replica(model, second, "--processes=2") as two:
        with Client(two.address) as client:
            client.predict(np.zeros((1, 5)))
        with asked(one, two):
            view = viewed(capsys, "--metrics", first, f"http://{second}/metrics")
        (found,) = view["models"]
        assert (found["model"], found["layout"], found["verdicts"]) == ("m", "row", ["UNCHECKED"])
        assert list(found["versions"].values()) == [2]
        assert found["latency_ms"]["p99"] >= found["latency_ms"]["p50"] > 0
        assert found["wait_ms"].keys() == {"p50", "p99"}
        limited, free = view["replicas"]
        assert [each["state"] for each in view["replicas"]] == ["ready", "ready"]
        assert (limited["processes"], free["processes"], free["ready_processes"]) == (1, 2, 2)
        assert free["rows_per_second"] > 0
        assert 0 < free["busy_share"] < 2
        assert view["rows_per_second"] == pytest.approx(limited["rows_per_second"] + free["rows_per_second"])

        with asked(one):
            refusal = next(iter(viewed(capsys, "--metrics", first)["refusals"]))
        assert (refusal["reason"], refusal["limit"]) == ("QuotaExceededError", "requests_per_minute")
        assert refusal["count"] > 0
        assert main(["top", "--metrics", first, second, "--once", "--interval", "0.2"]) == 0
        assert "2 of 2 replicas ready" in capsys.readouterr().out


def test_one_that_dies_and_comes_back(model: Path) -> None:
    """It is never shown with a rate below 0, and others stay in view."""
    metrics, other = free_address(), free_address()
    urls = [metrics_url(metrics), metrics_url(other)]
    scraper, watch = Scraper(urls, HANG_SECONDS), Watch()
    with replica(model, other):
        with replica(model, metrics) as program, Client(program.address, layout="row") as client:
            for _ in range(5):
                client.predict(np.zeros((1, 5)))
            watch.next_view(scraper.scrape())
            assert [each.state for each in watch.next_view(scraper.scrape()).replicas] == [ReplicaState.READY] * 2
        gone, stays = watch.next_view(scraper.scrape()).replicas
        assert (gone.state, gone.rows_per_second) == (ReplicaState.NO_ANSWER, None)
        assert "cannot be reached" in gone.problem
        assert stays.rows_per_second == 0
        with replica(model, metrics):
            back = watch.next_view(scraper.scrape()).replicas[0]
            assert (back.state, back.rows_per_second, back.restarts) == (ReplicaState.RESTARTED, None, 1)
            assert watch.next_view(scraper.scrape()).replicas[0].rows_per_second == 0


def test_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(capsys, "top", "--metrics", free_address(), "--once", "--interval", "0.1")
    assert "no replica answers: http://127.0.0.1:" in said
    assert "cannot be reached" in said


def test_without_a_terminal_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert "use --once or --json" in fails(capsys, "top", "--metrics", "127.0.0.1:1")


@pytest.mark.parametrize("options", [[], ["--metrics"], ["--metrics", "a b"], ["--metrics", "h:1", "--interval", "0"]])
def test_a_wrong_command_line(options: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["top", *options])


def test_the_live_view_in_a_terminal(model: Path) -> None:
    """It takes the whole screen, shows views, and gives the screen back on Ctrl-C."""
    metrics = free_address()
    with replica(model, metrics) as program, asked(program):
        ours, theirs = pty.openpty()
        # What starts in the background of a script ignores SIGINT, and its children do.
        start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        start += "from sealserve.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", start, "top", "--metrics", metrics, "--interval", "0.3"]
        environment = os.environ | {"COLUMNS": "160", "LINES": "40", "TERM": "xterm-256color"}
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT
        ) as process:
            os.close(theirs)
            said, end = b"", time.monotonic() + HANG_SECONDS
            while said.count(b"1 of 1 replicas ready") < 2 and time.monotonic() < end:
                said += os.read(ours, 1 << 16)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
                while part := os.read(ours, 1 << 16):
                    said += part
            assert process.wait(HANG_SECONDS) == 0
        os.close(ours)
    text = said.decode()
    assert text.count("1 of 1 replicas ready") >= 2
    assert "UNCHECKED" in text
    assert text.index("\x1b[?1049h") < text.index("replicas ready") < text.rindex("\x1b[?1049l")
    assert "Traceback" not in text


@pytest.mark.parametrize("module", ["rich", "prometheus_client"])
def test_without_the_extra_it_says_what_to_install(module: str) -> None:
    hide = f"import sys; sys.modules[{module!r}] = None; from sealserve.cli.main import main; "
    if module == "prometheus_client":  # neither is there without the extra
        hide += "sys.modules['rich'] = None; "
    command = [sys.executable, "-c", hide + "sys.exit(main(sys.argv[1:]))", "top", "--metrics", "127.0.0.1:1", "--once"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr == (
        "sealserve: error: `sealserve top` needs packages that are not installed, such as rich: "
        "pip install 'sealserve[top]'\n"
    )
    assert _EXTRAS["rich"] == "top"
