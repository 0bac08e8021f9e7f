"""The soak: its slopes, and what it finds of a service in a few seconds."""

import numpy as np
import pytest

from benchmarks import soak
from tests.support import envoy


def samples(memory: "np.typing.NDArray[np.float64]") -> dict[str, list[float]]:
    count = len(memory)
    return {
        "seconds": list(map(float, range(count))),
        "resident_mb": list(memory),
        "descriptors": [12.0] * count,
        "threads": [717.0] * count,
    }


def test_growth_that_ends_and_growth_that_does_not() -> None:
    seconds = np.arange(1000.0)
    steady = soak.summary(samples(100 + seconds / 3600))["resident_mb"]
    assert steady["first_slope_per_hour"] == pytest.approx(1.0)
    assert steady["second_slope_per_hour"] == pytest.approx(1.0)
    assert steady["at_start"] == 100
    assert steady["after_warm_up"] == pytest.approx(100 + 300 / 3600)
    ending = soak.summary(samples(200 - 100 * np.exp(-seconds / 200)))["resident_mb"]
    assert ending["first_slope_per_hour"] > 3 * ending["second_slope_per_hour"] > 0
    flat = soak.summary(samples(100 + seconds))["threads"]
    assert flat["first_slope_per_hour"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_service_has_the_threads_and_descriptors_that_it_had() -> None:
    result, _ = soak.measure(0.5)
    assert set(result["done"]) == {"row items", "column items", "keys registered", "bad requests"}
    assert min(result["done"].values()) > 0
    threads, descriptors = (result["quantities"][name] for name in ("threads", "descriptors"))
    assert threads["most"] <= threads["at_start"] + 16, "gRPC's own core may add a few"
    assert descriptors["most"] <= descriptors["at_start"] + 32
    table = soak.table(result)
    assert "| resident memory, MB |" in table
    assert "bytes of log" in table


@pytest.mark.long
def test_growth_by_envoy_ends() -> None:
    """A busy machine bends slopes of so short a time by 15 MB/h."""
    envoy.require()
    result, samples = soak.measure(20.0, with_envoy=True)
    print(soak.table(result))
    warm = int(soak.WARM_SHARE * len(samples["seconds"]))
    for name in ("resident_mb", "envoy_resident_mb"):
        slope = soak.slope_per_hour(np.array(samples["seconds"][warm:]), np.array(samples[name][warm:]))
        assert slope <= 20.0, name
    for name in ("descriptors", "threads", "envoy_descriptors"):
        figures = result["quantities"][name]
        assert figures["most"] <= figures["after_warm_up"] + 32, name
