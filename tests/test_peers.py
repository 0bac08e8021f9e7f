"""What the benchmark of the peers says: a worker's answers, and the arithmetic on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.benchmarks import peers, systems
from tests.benchmarks.systems import Sample, System, Workload
from tests.serving import linear


@pytest.fixture
def workload() -> Workload:
    generator = np.random.default_rng(0)
    model = linear(generator.normal(size=(3, 8)), generator.normal(size=3))
    return Workload(Path("nowhere"), model, generator.random((5, 8)))


@pytest.mark.parametrize("worker", ["scikit-learn", "tenseal-dot", "tenseal-mm"])
def test_a_worker_scores_as_the_model_does(workload: Workload, worker: str) -> None:
    with systems.peer(workload, "peer", worker) as peer:
        sample = peer.measure(7)  # the rows begin anew after the last
        assert peer.resident_bytes() > 1e6
    np.testing.assert_allclose(sample.scores, workload.model.decision(workload.rows[2:3]), atol=1e-4)
    assert set(sample.steps) == {"encrypt", "server", "decrypt"}
    assert sample.total_seconds == pytest.approx(sum(sample.steps.values()))
    is_encrypted = worker != "scikit-learn"
    assert (sample.request_bytes > 0, sample.reply_bytes > 0, peer.key_bytes > 0) == (is_encrypted,) * 3


def test_a_worker_that_does_not_start_is_an_error(workload: Workload) -> None:
    with pytest.raises(RuntimeError, match="nix did not start"), systems.peer(workload, "peer", "nix"):
        pytest.fail("it started")


@pytest.mark.parametrize("a_call", [1, 3])
def test_plaintext_says_what_its_arithmetic_took(workload: Workload, a_call: int) -> None:
    with systems.plaintext(workload, "plain", a_call) as plain:
        sample = plain.measure(1)
    rows = workload.rows[np.arange(1, 1 + plain.rows) % len(workload.rows)]
    np.testing.assert_allclose(sample.scores, workload.model.decision(rows), atol=1e-5)
    assert set(sample.steps) == {"server"}
    assert 0 < sample.steps["server"] < sample.total_seconds


def test_repetitions_are_summed_up(workload: Workload) -> None:
    classes: Any = SimpleNamespace(
        decision=workload.model.decision,
        output=SimpleNamespace(predict=lambda scores: scores.argmax(axis=1)),
    )
    scores = workload.model.decision(workload.rows[:2])
    wrong = scores.copy()
    wrong[1] = -wrong[1]
    samples = [
        (0, Sample(scores, 0.004, {"server": 0.001}, 10, 20)),
        (5, Sample(wrong, 0.002, {"server": 0.003}, 10, 20)),
        (0, Sample(scores, 0.008, {"server": 0.002}, 10, 20)),
    ]
    labels = scores.argmax(axis=1)[[0, 1, 0, 1, 0]]
    system = System("one", "gRPC", lambda _: samples[0][1], 2, lambda: 3_000_000, 4)
    found = peers.summed_up(system, samples, Workload(Path(), classes, workload.rows), labels)
    assert found["server_ms"] == {"median": 2.0, "least": 1.0, "most": 3.0}
    assert found["total_ms"]["median"] == 4.0
    assert found["rows_per_second"] == pytest.approx(250)
    assert found["agreement"] == pytest.approx(5 / 6)
    assert (found["rows_compared"], found["resident_mb"], found["key_bytes"]) == (2, 3.0, 4)


def result(name: str, server: float, total: float) -> dict[str, Any]:
    return {
        "name": name,
        "network": "none" if name.startswith("TenSEAL") else "gRPC",
        "server_ms": {"median": server, "least": server, "most": server},
        "total_ms": {"median": total, "least": total, "most": total},
        "rows_per_second": 1e3 / total,
        "request_bytes": 1.0,
        "reply_bytes": 2.0,
        "key_bytes": 3,
        "resident_mb": 4.0,
        "accuracy": 1.0,
        "agreement": 1.0,
        "rows_compared": 5,
    }


def test_ratios_compare_with_the_best_peer(tmp_path: Path) -> None:
    names = ("row", "row, private weights", "column", "column, private weights", "EI slots", "encrypted-inference")
    results = [result(name, 2.0**number, 3.0**number) for number, name in enumerate(names)]
    results += [result("TenSEAL, mm", 500.0, 500.0), result("TenSEAL, dot by class", 100.0, 100.0)]
    results.append(result("plaintext, a row", 0.0, 0.5))
    found = peers.ratios(results)
    assert found["server: encrypted-inference over row"] == 32
    assert found["server: best other peer over row"] == 100
    assert found["server: column, private over open weights"] == 2
    assert found["whole: row over plaintext, a row"] == 2
    assert "| sealserve, row " in peers.table(results)
    assert "| TenSEAL, mm " in peers.table(results)
    peers.plot(results, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
