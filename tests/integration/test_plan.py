"""`sealserve plan` with a service, and with the figures of a run."""

import json
from pathlib import Path

import pytest

from sealserve.cli.main import main
from sealserve.client import Client
from tests.support.command_line import fails

PLAN = ("plan", "--rows-per-second", "5000")


def test_the_costs_of_a_service(digits_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--address", digits_server, "--layout", "column", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    with Client(digits_server, layout="column") as client:
        offer = client.offer()
    assert found["cost"]["rows"] == offer.rows_per_item == 2048
    assert found["cost"]["seconds"] > offer.cost.server_seconds, "and gRPC"
    assert found["cost"]["held_bytes"] == offer.cost.held_bytes
    assert found["received_gbits"] == pytest.approx(8e-9 * 5000 / 2048 * offer.cost.request_bytes)


def test_it_says_that_a_full_item_costs_more(digits_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--address", digits_server]) == 0
    said = capsys.readouterr().out
    assert "of 1 rows" in said
    assert "rows: fewer take less" in said
    assert "calls of the key store             none" in said


def test_the_figures_of_a_run(digits_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    load = ("--replay", "--concurrency", "4", "--seconds", "0.5", "--warm-up", "0.2")
    assert main(["bench", "--address", digits_server, *load, "--json", str(file)]) == 0
    capsys.readouterr()
    figures = json.loads(file.read_text())
    assert main([*PLAN, "--bench", str(file), "--json", "--envoy", "--address", "127.0.0.1:1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cost"]["seconds"] == pytest.approx(1 / figures["answered_per_second"])
    assert found["cost"]["held_bytes"] == figures["held_bytes"] > 0
    assert found["proxy_cores"] >= 1


def test_a_run_that_left_the_service_idle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    figures = {"rows_an_item": 1, "answered_per_second": 10.0, "request_bytes_a_row": 1.0, "reply_bytes_a_row": 1.0}
    file.write_text(json.dumps(figures | {"latency_ms": {"p50": 2.0}, "refused": {}}))
    assert main([*PLAN, "--bench", str(file)]) == 0
    assert "did not give the service as much as it could do" in capsys.readouterr().out
    assert main(["plan", "--rows-per-second", "1", "--bench", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["replicas"], found["utilization_without_one"]) == (1, None)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"answered_per_second": Infinity}', "\x1b[2J"])
def test_a_file_that_is_no_run_is_one_line(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    assert str(file) in fails(capsys, *PLAN, "--bench", file)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--utilization", "1"], "below 1"),
        (["--bench", "/nowhere.json"], "/nowhere.json"),
        (["--bench", "/dev/zero"], "too long"),
        (["--bench", "x", "--bench-processes", "0"], "at least 1"),
        (["--rows", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_planned(
    options: list[str], said: str, digits_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in fails(capsys, *PLAN, "--address", digits_server, *options)
