"""The benchmark of models with published steps: what is kept, compared, promised and said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import convolutions, steps, trained_models
from benchmarks.trained_models import Fitted, Recipe, UnavailableError

SPREAD = {"median": 5.0, "least": 4.0, "most": 9.0, "undisturbed": 4.1}


def result(name: str, **changes: Any) -> dict[str, Any]:
    found = {
        "name": name,
        "features": 3000,
        "steps_bytes": 70_000,
        "score_error_bound": 0.0005,
        "server_ms": 1.5,
        "steps_ms": SPREAD | {"median": 0.04},
        "steps_rows_per_second": 12_000.0,
        "whole_ms": SPREAD,
        "request_bytes": 34_000,
        "reply_bytes": 40_000,
        "key_bytes": 60_000,
        "rows_per_second": 1234.0,
        "accuracy": 0.9,
        "agreement": 1.0,
        "rows_compared": 2000,
    }
    return found | changes


def test_ratios_are_of_servers_that_were_measured() -> None:
    results = [result("LightGBM, 100 x 31"), result("Concrete ML, XGBoost", server_ms=600.0)]
    assert steps.ratios(results) == {"server: Concrete ML, XGBoost over LightGBM, 100 x 31": 400.0}
    assert steps.ratios(results[:1]) == {}


def test_promises_are_kept_or_missed() -> None:
    kept = {promise: holds for promise, _, holds in steps.bounds([result("LightGBM, 100 x 31")])}
    assert kept == {
        "LightGBM, 100 x 31: a whole row in 6 ms": True,
        "LightGBM, 100 x 31: steps of a row in 0.1 ms": True,
        "LightGBM, 100 x 31: steps of 10,000 rows/s on a core": True,
        "LightGBM, 100 x 31: labels equal 99.9%": True,
    }
    slow = {"whole_ms": SPREAD | {"median": 6.1}, "steps_ms": SPREAD, "steps_rows_per_second": 9_999.0}
    missed = result("LightGBM, 100 x 31", agreement=0.998, **slow)
    assert [holds for *_, holds in steps.bounds([missed])] == [False] * 4
    digits = [result("MNIST, convolutions", accuracy=accuracy) for accuracy in (0.969, 0.97)]
    assert [holds for promise, _, holds in steps.bounds(digits) if "accuracy" in promise] == [False, True]
    for milliseconds, accuracy, measured in (
        (149.0, 0.9, ("99.3 times, 90.00% beside 90.00%", False)),
        (150.0, 0.9, ("100 times, 90.00% beside 90.00%", True)),
        (150.0, 0.909, ("100 times, 90.00% beside 90.90%", True)),
        (150.0, 0.92, ("100 times, 90.00% beside 92.00%", False)),
    ):
        theirs = result("Concrete ML, XGBoost", server_ms=milliseconds, accuracy=accuracy)
        assert list(steps.bounds([result("LightGBM, 100 x 31"), theirs]))[-1][1:] == measured


def test_the_table_says_what_is_missing() -> None:
    text = steps.table([result("one"), {"name": "two", "why": "its library is not installed"}])
    assert "| one " in text
    assert "| 3,000 " in text
    assert "| two " in text
    assert "its library is not installed" in text
    assert "labels equal 99.9%" in text


def test_a_model_is_trained_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = list[int]()

    class Constant:
        def predict(self, X: Any) -> np.ndarray[Any, Any]:
            return np.zeros(len(X), int)

    def train() -> Fitted:
        calls.append(1)
        rows = np.arange(12.0).reshape(6, 2)
        return Fitted(Constant(), rows[:4], rows[4:], np.ones(2, int), lambda path: path.write_text("model"))

    monkeypatch.setattr(trained_models, "KEPT", tmp_path)
    monkeypatch.setitem(trained_models.MODELS, "one", Recipe(train, "structure", suffix=".npz", calibration=".npy"))
    for _ in range(2):
        found = trained_models.trained("one")
        np.testing.assert_array_equal(found.X, [[8, 9], [10, 11]])
        assert (found.y.tolist(), found.expected.tolist()) == ([1, 1], [0, 0])
    assert calls == [1]
    options = dict(option.split("=", 1) for option in found.options)
    assert options["--publish"] == "structure"
    assert Path(options["--model"].removeprefix("model=")).read_text() == "model"
    assert np.load(options["--calibration"]).shape == (4, 2)


@pytest.mark.parametrize("changes", [{"library": "no_such_library"}, {"suffix": ".nix"}])
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    def train() -> Fitted:
        raise AssertionError("it was trained")

    monkeypatch.setitem(trained_models.MODELS, "one", Recipe(train, "steps", **changes))
    with pytest.raises(UnavailableError, match=r"no_such_library is not installed|reads no \.nix files"):
        trained_models.trained("one")


def test_convolutions_are_those_of_plain_arithmetic() -> None:
    images = np.random.default_rng(3).random((4, convolutions.SIDE**2))
    pipeline = convolutions.features(images)
    weights = pipeline[0].transformers_[0][1].components_
    size, stride, regions = convolutions.SIZE, convolutions.STRIDE, convolutions.REGIONS
    planes = images.reshape(-1, convolutions.SIDE, convolutions.SIDE)
    windows = np.lib.stride_tricks.sliding_window_view(planes, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    side = windows.shape[1]
    found = np.abs(windows.reshape(len(images), side, side, -1) @ weights.T)
    place = np.arange(side) * regions // side
    averages = [
        found[:, place == row][:, :, place == column].mean(axis=(1, 2))
        for row in range(regions)
        for column in range(regions)
    ]
    expected = np.stack(averages, axis=2).reshape(len(images), -1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(pipeline.transform(images), expected, rtol=1e-9)
