"""Rows over real links: the tables, and the whole program."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import links
from benchmarks.report import OUTPUT
from tests.support import mnist


def result(form: str, p50_ms: float, **changes: Any) -> dict[str, Any]:
    measured = {
        "p50_ms": p50_ms,
        "p99_ms": 60.0,
        "up_bytes": 65866,
        "down_bytes": 43091,
        "stream_rows_per_second": 90.0,
    }
    return {"mode": "private", "link": "20 ms, 100 Mbit/s", "form": form} | measured | changes


def test_what_is_saved_is_of_the_client_that_chooses_by_itself() -> None:
    results = [result("before", 50.0), result("full", 10.0), result("by itself", 30.0)]
    ((mode, link, share),) = links.shorter(results)
    assert (mode, link) == ("private", "20 ms, 100 Mbit/s")
    assert share == pytest.approx(0.4)
    said = links.table(results)
    assert "| private | 20 ms, 100 Mbit/s | 40 %" in said
    assert "| by itself | 30.0 " in said


def test_batches_may_be_left_out() -> None:
    results = [result("before", 50.0), result("by itself", 30.0)]
    batches = {"batch_rows_per_second": 321.0, "batch_up_bytes": 6000.0, "batch_down_bytes": 108.0}
    assert "321" not in links.table(results)
    assert "321" in links.table([one | batches for one in results])


@pytest.mark.slow
@pytest.mark.skipif(
    any(mnist.find(name) is None for name in (mnist.IMAGES, mnist.LABELS, mnist.MODEL)),
    reason="MNIST is not here: `make data`",
)
def test_fewer_bytes_travel_than_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["links", "--rows", "3", "--no-batches"])
    links.main()
    assert "written: build/bench/links.json" in capfd.readouterr().out
    found = json.loads((OUTPUT / "links.json").read_text())["links"]
    assert len(found) == len(links.MODES) * len(links.LINKS) * len(links.FORMS)
    by_form = {(one["mode"], one["link"], one["form"]): one for one in found}
    for mode, link, form in by_form:
        before, now = by_form[mode, link, "before"], by_form[mode, link, form]
        assert (now["down_bytes"] < 0.7 * before["down_bytes"]) is (form != "before")
        assert (now["up_bytes"] < 0.6 * before["up_bytes"]) is (form in ("seeded", "by itself"))
