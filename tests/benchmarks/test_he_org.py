"""The workload of HomomorphicEncryption.org: phases, bounds, and what the tables say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import he_org


def result(**changes: Any) -> dict[str, Any]:
    seconds = {f"{phase}_seconds": 0.004 for phase in ("contact", "steps", *he_org.PHASES)}
    found = {
        "model": "convolutions",
        "weights": "private",
        "images": 1,
        "unseen": 1,
        "key_bytes": 65_000,
        "request_bytes": 66_000,
        "reply_bytes": 150_000,
        "accuracy": 0.975,
        "agreement": 1.0,
        "service_seconds": 4.0,
    }
    return found | seconds | changes


def test_private_convolutions_are_held_to_the_bounds() -> None:
    assert [holds for *_, holds in he_org.bounds([result()])] == [True, True]
    slow = [result(whole_seconds=0.0121, key_bytes=400_001), result(images=10_000, whole_seconds=7.1, accuracy=0.96)]
    assert [holds for *_, holds in he_org.bounds(slow)] == [False, False, False, True, False]


def test_others_are_not() -> None:
    assert not list(he_org.bounds([result(weights="open"), result(model="linear")]))


def test_the_tables_name_phases_published_rows_and_bounds() -> None:
    text = he_org.table([result(), result(images=1_000, whole_seconds=1.9, unseen=1_000)])
    for part in (
        "| keys ",
        "| encryption ",
        "| decryption ",
        "OpenFHE",
        "6,516",
        "| pass |",
        "convolutions private 4.0 s",
        "asked for 2,000: larger batches repeat them",
    ):
        assert part in text
    assert "miss" not in text


def test_large_batches_repeat_what_is_unseen() -> None:
    workload = he_org.Workload("one", (), np.zeros((3, 784)), np.arange(3), np.arange(3))
    assert workload.part(7).tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["open", "private"])
def test_each_phase_is_timed_through_a_live_service(
    weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(he_org, "TIMES", {1: 2, 15: 1})
    random = np.random.default_rng(20)
    images, coefficients = random.random((6, 784)), random.normal(size=(3, 784))
    np.savez(tmp_path / "model.npz", coef=coefficients, intercept=np.zeros(3), classes=np.arange(3))
    labels = (images @ coefficients.T).argmax(axis=1)
    options = (f"--model=model={tmp_path / 'model.npz'}", "--input-range=0,1")
    found = list(he_org.measure(he_org.Workload("linear", options, images, labels, labels), weights, (1, 15)))
    assert [(one["images"], one["unseen"]) for one in found] == [(1, 1), (15, 6)]
    for one in found:
        assert all(one[f"{phase}_seconds"] > 0 for phase in he_org.PHASES)
        assert (one["key_bytes"] > 0) == (weights == "private")
        assert min(one["request_bytes"], one["reply_bytes"]) > 0
        assert one["accuracy"] == one["agreement"] == one["equal_by_phases"] == 1.0
    assert "miss" not in he_org.table(found)
