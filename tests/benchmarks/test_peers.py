"""The benchmark of the peers: a worker's answers, and the arithmetic on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import peers, systems
from benchmarks.systems import Sample, System, Workload
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETERS
from sealserve.he.parameters import EncryptionParameters
from tests.support.serving import linear


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
    np.testing.assert_allclose(sample.scores, workload.model.decision(workload.rows[2:3]), atol=0.02)
    assert set(sample.steps) == {"encrypt", "server", "decrypt"}
    assert sample.total_seconds == pytest.approx(sum(sample.steps.values()))
    is_encrypted = worker != "scikit-learn"
    assert (sample.request_bytes > 0, sample.reply_bytes > 0, peer.key_bytes > 0) == (is_encrypted,) * 3


@pytest.mark.long
def test_concrete_ml_scores_in_an_environment_of_its_own(workload: Workload) -> None:
    """It is installed from the package index first: 6 GB."""
    python = peers.concrete_ml_python()
    if python is None:
        pytest.skip("Concrete ML cannot be installed; what pip says is above")
    with systems.peer(workload, "Concrete ML", "concrete-ml", python) as peer:
        sample = peer.measure(7)
    np.testing.assert_allclose(sample.scores, workload.model.decision(workload.rows[2:3]), atol=0.1)
    assert min(sample.request_bytes, sample.reply_bytes, peer.key_bytes) > 0


def test_a_worker_that_does_not_start_is_an_error(workload: Workload) -> None:
    with pytest.raises(RuntimeError, match="nix did not start"), systems.peer(workload, "peer", "nix"):
        pytest.fail("it started")


@pytest.mark.parametrize("a_call", [1, 3])
def test_plaintext_says_what_its_arithmetic_took(workload: Workload, a_call: int) -> None:
    with systems.plaintext(workload, "plain", a_call, calls=2) as plain:
        sample = plain.measure(1)
    assert plain.rows == 2 * a_call
    rows = workload.rows[np.arange(1, 1 + plain.rows) % len(workload.rows)]
    np.testing.assert_allclose(sample.scores, workload.model.decision(rows), atol=1e-5)
    assert set(sample.steps) == {"server", "process"}
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
    assert found["server_ms"] == {"median": 2.0, "least": 1.0, "most": 3.0, "undisturbed": pytest.approx(1.2)}
    assert found["total_ms"]["median"] == 4.0
    assert found["rows_per_second"] == pytest.approx(250)
    assert found["agreement"] == pytest.approx(5 / 6)
    assert (found["rows_compared"], found["resident_mb"], found["key_bytes"]) == (2, 3.0, 4)


@pytest.mark.parametrize(
    ("turns", "share", "chosen"),
    [
        (20, 0.2, [2, 7, 12, 17]),
        (20, 0.15, [3, 10, 16]),
        (4, 1, [0, 1, 2, 3]),
        (1, 1, [0]),
        (1, 0.2, [0]),
        (3, 0.1, [1]),
    ],
)
def test_what_is_slow_has_its_turns_all_over_the_run(turns: int, share: float, chosen: list[int]) -> None:
    assert peers.spread_over(turns, share) == chosen


def result(name: str, server: float, total: float) -> dict[str, Any]:
    return {
        "name": name,
        "network": "none" if name.startswith("TenSEAL") else "gRPC",
        "server_ms": {"median": 9 * server, "least": server, "most": server, "undisturbed": server},
        "process_ms": {"median": 2 * server, "least": server, "most": 3 * server, "undisturbed": server},
        "total_ms": {"median": total, "least": total, "most": total, "undisturbed": total},
        "rows_per_second": 1e3 / total,
        "request_bytes": 1.0,
        "reply_bytes": 2.0,
        "key_bytes": 3,
        "resident_mb": 4.0,
        "accuracy": 1.0,
        "agreement": 1.0,
        "rows_compared": 5,
        "parameters": f"those of {name}",
    }


@pytest.fixture
def results() -> list[dict[str, Any]]:
    names = ("row", "row, private weights", "column", "column, private weights", "EI slots", "encrypted-inference")
    results = [result(name, 2.0**number, 3.0**number) for number, name in enumerate(names)]
    results += [result("TenSEAL, mm", 500.0, 500.0), result("TenSEAL, dot by class", 100.0, 100.0)]
    return [*results, result("plaintext, a row", 0.25, 0.5), result("plaintext, batches", 0.5, 0.75)]


def test_ratios_compare_with_the_best_peer(results: list[dict[str, Any]]) -> None:
    found = peers.ratios(results)
    assert found["server: encrypted-inference over row"] == 32
    assert found["server: best other peer over row"] == 100
    assert found["server: column over plaintext, batches"] == 8
    assert found["server with gRPC: column over plaintext, batches"] == 8
    assert found["whole: row over plaintext, a row"] == 2
    faster = peers.ratios([*results, result("Concrete ML", 50.0, 900.0)])
    assert faster["server: best other peer over row, private weights"] == 25


def test_ratios_with_private_weights_are_below_those_with_open_ones(results: list[dict[str, Any]]) -> None:
    names = list(peers.ratios(results))
    twins = {name: names[number - 1] for number, name in enumerate(names) if "private" in name}
    assert twins == {name: name.replace(", private weights", "") for name in twins}
    assert set(names) - set(twins) - set(twins.values()) == {"server: encrypted-inference over EI slots"}


def test_the_table_says_how_far_the_repetitions_are_apart(results: list[dict[str, Any]]) -> None:
    results[0]["total_ms"] = {"median": 2.5, "least": 1.25, "most": 1234.5}
    del results[-1]["server_ms"]
    said = peers.table(results)
    assert "| 2.5      | 1.25 to 1,234" in said
    assert "| sealserve, row " in said
    assert "| TenSEAL, mm " in said


def test_every_system_says_its_parameters(results: list[dict[str, Any]]) -> None:
    results[5]["version"] = "encrypted-inference 0.9"
    said = peers.parameters(results)
    assert said.count("\n") == len(results) + 1
    assert "those of column" in said
    assert "| encrypted-inference 0.9 | those of encrypted-inference " in said
    assert systems.described(EI_PARAMETERS) == ("CKKS, N = 8192, primes of 60, 40, 40 and 60 bits, scale 2^40: ei-8192")
    one_prime = EncryptionParameters(LAYOUTS["row"].open_parameter_sets[1], 1 << 26)
    assert systems.described(one_prime) == "BFV, N = 2048, a prime of 54 bits, t = 2^26: row-2048-54"


def test_results_are_drawn(tmp_path: Path, results: list[dict[str, Any]]) -> None:
    peers.plot(results, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_environment_that_cannot_be_installed_is_emptied_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "_ENVIRONMENT", tmp_path)
    monkeypatch.setattr(peers, "CONCRETE_ML", "no requirement")
    half = tmp_path / "lib" / "half"
    half.mkdir(parents=True)
    assert peers.concrete_ml_python() is None
    assert "without Concrete ML" in capfd.readouterr().err
    assert not half.exists()
    assert not (tmp_path / "no requirement").exists()


def test_an_environment_that_is_installed_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_ENVIRONMENT", tmp_path)
    (tmp_path / peers.CONCRETE_ML).touch()
    assert peers.concrete_ml_python() == str(tmp_path / "bin" / "python")
