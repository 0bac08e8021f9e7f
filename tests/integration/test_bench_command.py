"""`sealserve bench` against real services: idle, overloaded, stopping, dead."""

import dataclasses
import json
import re
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealserve.cli import bench
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import DeadlineError, QuotaExceededError, ReplyError
from sealserve.loadtest.driver import LoadDriver
from sealserve.loadtest.items import LoadItems, random_rows
from sealserve.loadtest.ledger import Ledger, due_times
from sealserve.protocol.item import EncryptedReply, ItemHeader
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.command_line import fails
from tests.support.digits import Digits
from tests.support.programs import serve
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    linear,
    running,
    running_server,
    served,
    with_limits,
)

SHORT = ("--seconds", "0.3", "--warm-up", "0", "--timeout", "20")


def benched(path: Path, *options: str) -> dict[str, Any]:
    """Run the command, which must succeed, and return its figures."""
    assert main(["bench", "--json", str(path / "bench.json"), *SHORT, *options]) == 0
    figures: dict[str, Any] = json.loads((path / "bench.json").read_text())
    return figures


@pytest.mark.parametrize("options", [["--rate", "40"], ["--rate", "40", "--poisson"], ["--concurrency", "3"]])
@pytest.mark.parametrize("replay", [[], ["--replay"]])
def test_rows(options: list[str], replay: list[str], digits_server: str, tmp_path: Path) -> None:
    with Client(digits_server) as client:
        cost, reply_bytes = client.offer().cost, client.offer().reply_bytes
    figures = benched(tmp_path, "--address", digits_server, *options, *replay)
    assert figures["answered"] == figures["sent"] > 0
    assert (figures["refused"], figures["failed"]) == ({}, {})
    assert figures["parameter_set"] == "row-2048-44"
    assert figures["replay"] == bool(replay)
    assert figures["request_bytes_a_row"] == pytest.approx(cost.request_bytes, rel=0.02)
    # A client that has found its calls slow asks for packed replies.
    assert any(figures["reply_bytes_a_row"] == pytest.approx(count, rel=0.02) for count in reply_bytes.values())
    latency = figures["latency_ms"]
    assert 0 < figures["server_ms"]["p50"] < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["p99.9"]


def test_an_open_loop_sends_what_is_due(digits_server: str, tmp_path: Path) -> None:
    assert benched(tmp_path, "--address", digits_server, "--rate", "20", "--seconds", "0.5")["sent"] == 10


@pytest.mark.parametrize("replay", [[], ["--replay"]])
def test_columns(replay: list[str], digits_server: str, tmp_path: Path) -> None:
    figures = benched(tmp_path, "--address", digits_server, "--layout", "column", *replay)
    assert figures["rows_an_item"] == 2048
    assert figures["rows_per_second"] == pytest.approx(2048 * figures["answered_per_second"])
    assert figures["answered"] == figures["sent"] > 0


def test_several_rows_an_item(digits_server: str, tmp_path: Path) -> None:
    figures = benched(tmp_path, "--address", digits_server, "--rows", "2", "--connections", "2", "--seeded")
    assert figures["rows_per_second"] == pytest.approx(2 * figures["answered_per_second"])
    assert figures["request_bytes_a_row"] < 6000, "a packed ciphertext has a third of the bytes; two rows share one"


def test_what_it_says(digits_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--address", digits_server, *SHORT, "--seconds", "1.2", "--progress"]) == 0
    captured = capsys.readouterr()
    assert re.search(r"^latency of answers, ms +p50 \d.* p99\.9 \d.*$", captured.out, re.MULTILINE)
    assert re.search(r"^failed +none$", captured.out, re.MULTILINE)
    assert re.search(r"\d answers/s, p50 \d.*0 refused, 0 failed", captured.err)


def test_an_overloaded_service(digits_model: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SETTINGS.with_changes(requests_per_minute=5)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        figures = benched(tmp_path, "--address", address, "--rate", "50", "--seconds", "0.4", "--replay")
        assert figures["answered"] == 5
        assert figures["refused"] == {"QuotaExceededError": 15}
        assert figures["refusal_ms"]["p50"] > 0
        assert re.search(r"^refused +15 QuotaExceededError$", capsys.readouterr().out, re.MULTILINE)
        said = fails(capsys, "bench", "--address", address, *SHORT, "--rate", "50", "--replay")
        assert "answered nothing: QuotaExceededError" in said


def test_a_refused_batch(digits_model: Digits, tmp_path: Path) -> None:
    """The delay that it asks for is longer than the run, which ends in time nevertheless."""
    settings = SETTINGS.with_changes(rows_per_minute=10)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        figures = benched(tmp_path, "--address", address, "--layout", "column", "--concurrency", "2")
        assert figures["answered"] == 1
        assert figures["refused"].keys() == {"QuotaExceededError"}


def test_a_service_that_stops_meanwhile(digits_model: Digits, tmp_path: Path) -> None:
    with running(digits_registry(digits_model.estimator)) as server:
        timer = threading.Timer(0.5, server.begin_stop)
        timer.start()
        figures = benched(tmp_path, "--address", server.address, "--seconds", "2", "--concurrency", "2")
        timer.join()
    assert figures["answered"] > 0
    assert set(figures["failed"]) | set(figures["refused"]) <= {"UnavailableError", "DrainingError"}
    assert figures["failed"]
    assert sum(figures["failed"].values()) < 100, "a caller that failed comes back after a pause"


def test_a_service_that_is_killed_meanwhile(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", coef=np.ones((2, 5)), intercept=np.zeros(2))
    with serve(f"--model={tmp_path / 'model.npz'}", "--input-range=-1,1") as program:
        timer = threading.Timer(0.5, program.process.kill)
        timer.start()
        figures = benched(tmp_path, "--address", program.address, "--seconds", "1.5", "--rate", "40")
        timer.join()
    assert figures["sent"] == 60
    assert figures["answered"] + figures["failed"]["UnavailableError"] == 60


def test_private_weights(digits_model: Digits, tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", coef=digits_model.estimator.coef_, intercept=digits_model.estimator.intercept_)
    with serve(f"--model={tmp_path / 'model.npz'}", "--input-range=0,1", "--weights=private") as program:
        for layout in ("row", "column"):
            figures = benched(tmp_path, "--address", program.address, "--layout", layout)
            assert figures["answered"] == figures["sent"] > 0


def test_a_dead_service(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert "cannot be reached" in fails(capsys, "bench", "--address", address, *SHORT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rate", "0"], "--rate must be above 0"),
        (["--seconds", "-1"], "--seconds must be above 0"),
        (["--warm-up", "-1"], "--warm-up must be at least 0"),
        (["--poisson"], "needs a --rate"),
        (["--rows", "100000"], "--rows must be at most"),
        (["--json", "/nowhere/at/all.json"], "no such directory"),
        (["--model", "nix"], "no model named 'nix'"),
    ],
)
def test_what_makes_no_sense(
    options: list[str], message: str, digits_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(capsys, "bench", "--address", digits_server, *options)


def test_an_interrupted_run_says_what_came(digits_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = LoadDriver.wait

    def interrupted(driver: LoadDriver, _: float) -> bool:
        wait(driver, 0.5)
        raise KeyboardInterrupt

    monkeypatch.setattr(LoadDriver, "wait", interrupted)
    figures = benched(tmp_path, "--address", digits_server, "--seconds", "1000")
    assert figures["answered"] > 0
    assert figures["seconds"] < 100


def test_random_rows_are_within_the_range_and_fill_it() -> None:
    grid = served("one", linear([[1.0, 2.0]]), input_range=(-2.0, 0.3), input_step=0.7).model.grid
    rows = random_rows(grid, 1000, 0)
    assert rows.shape == (1000, 2)
    assert set(map(tuple, rows)) == {(a, b) for a in range(4) for b in range(4)}
    np.testing.assert_array_equal(rows, random_rows(grid, 1000, 0))


def test_a_reply_that_is_not_whole_is_no_answer(client: Client) -> None:
    for replay in (0, 1):
        items = LoadItems(client, 1, replay=replay)
        items.items[0] = dataclasses.replace(items.items[0], piece_count=2)
        with pytest.raises(ReplyError):
            items.send(HANG_SECONDS)
    reply = client.send(client.encrypt_quantized(random_rows(client.model.grid, 1, 0)))
    with pytest.raises(ReplyError):
        client.decrypt(dataclasses.replace(reply, scores=[]))


def test_an_item_of_more_than_a_message_is_streamed() -> None:
    model = linear(np.ones((2, 40_000)))
    settings = with_limits(max_message_bytes=150_000)
    with (
        running_server(ModelRegistry([served("wide", model, limits=settings.limits)]), settings) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert not LoadItems(client, 1).items[0].fits_a_message
        assert main(["bench", "--address", address, *SHORT]) == 0


class TestDriver:
    """The threads alone, with calls that the test makes up."""

    answer = EncryptedReply(
        header=ItemHeader(model="", config_id="", layout=None, parameter_set="", row_count=1, ciphertext_count=1),
        scores=[],
        request_bytes=10,
        reply_bytes=20,
        server_seconds=0.0,
    )

    def run(self, calls: list[Any], seconds: float, **options: Any) -> dict[str, Any]:
        ledger = Ledger()
        driver = LoadDriver(calls, ledger, seconds, **options)
        assert driver.wait(HANG_SECONDS)
        return ledger.summary(seconds)

    def test_what_is_due_while_all_are_busy_is_sent_late_and_counts_from_its_due_time(self) -> None:
        held, calls = threading.Event(), list[None]()

        def call() -> EncryptedReply:
            calls.append(None)
            assert held.wait(0.3) or len(calls) == 1
            held.set()
            return self.answer

        summary = self.run([call], 0.1, due_times=due_times(100.0, 0.0, 0.1))
        assert summary["answered"] == 10
        assert summary["latency_ms"]["p50"] > 200
        assert summary["sent_late_ms"]["p50"] > 200

    def test_a_refused_caller_comes_back_after_the_delay(self) -> None:
        def call() -> EncryptedReply:
            raise QuotaExceededError("server_seconds", 60.0)

        assert self.run([call, call], 0.2)["refused"] == {"QuotaExceededError": 2}

    def test_failures_are_counted_by_type(self) -> None:
        def call() -> EncryptedReply:
            raise DeadlineError("late")

        summary = self.run([call], 0.05)
        assert summary["failed"] == {"DeadlineError": 1}

    def test_a_fault_of_the_driver_is_raised(self) -> None:
        def call() -> EncryptedReply:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            self.run([call, call], 5.0)


def test_the_report_names_every_reason() -> None:
    ledger = Ledger()
    summary = ledger.summary(1.0) | {"refused": {"DrainingError": 2}, "failed": {"A": 1, "B": 3}}
    lines = dict(bench.report(summary))
    assert lines["refused"] == "2 DrainingError"
    assert lines["failed"] == "1 A, 3 B"
    assert lines["latency of answers, ms"] == "none"
