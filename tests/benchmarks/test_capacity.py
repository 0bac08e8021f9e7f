"""What `sealserve plan` predicts, beside what `sealserve bench` measures of one service."""

import json

import pytest

from benchmarks import capacity
from benchmarks.publish import RESULTS

FACTOR = 3.0
"""How far apart the measured p99 and the predicted one may be."""
ANSWERED_SHARE = 0.9


@pytest.mark.slow
def test_the_prediction_holds_at_three_loads() -> None:
    with capacity.served() as program:
        found = capacity.points(program.address, 6.0)
    assert found["is_saturated"]
    assert 1 / FACTOR <= found["offered_item_ms"] / found["item_ms"] <= FACTOR
    for point in found["points"]:
        assert point["replicas"] == 1, "as many as there are"
        assert point["failed"] == 0
        assert point["answered_per_second"] >= ANSWERED_SHARE * point["sent_per_second"], point
        assert 1 / FACTOR <= point["p99_ms"] / point["predicted_p99_ms"] <= FACTOR, point


def test_the_published_points_hold_too() -> None:
    measured = json.loads(RESULTS.read_text()).get("apart", {}).get("capacity")
    if measured is None:
        pytest.skip("nothing is published yet: python -m benchmarks.capacity && python -m benchmarks.publish capacity")
    found = measured["capacity"]
    assert [point["utilization"] for point in found["points"]] == list(capacity.UTILIZATIONS)
    for point in found["points"]:
        assert point["answered_per_second"] >= ANSWERED_SHARE * point["sent_per_second"]
        assert 1 / FACTOR <= point["p99_ms"] / point["predicted_p99_ms"] <= FACTOR
    assert found["envoy"]["call_seconds"] > 0
    assert found["envoy"]["byte_seconds"] > 0


def test_the_tables_of_the_page() -> None:
    """Envoy and the points are on it once they are published."""
    results = json.loads(RESULTS.read_text())
    published = capacity.page({"parts": results["parts"]})
    assert "| sealserve," in published
    assert "| processes, each with a core " in published
    assert "Envoy" not in published
    point = dict.fromkeys(("answered_per_second", "p50_ms", "p99_ms", "predicted_p99_ms"), 5.0)
    point |= {"utilization": 0.6, "refused_share": 0.01, "predicted_refused_share": 0.02}
    layout = {"rows": 1, "item_bytes": 1e5, "item_seconds": 2e-4}
    envoy = {"call_seconds": 1e-4, "byte_seconds": 1e-9, "p50_ms": 3.0, "direct_p50_ms": 2.5}
    envoy["layouts"] = {"row": layout, "column": layout}  # type: ignore[assignment]
    measured = {"item_ms": 2.0, "offered_item_ms": 2.5, "points": [point], "envoy": envoy}
    said = capacity.page({"parts": results["parts"], "apart": {"capacity": {"capacity": measured}}})
    assert "| cores of Envoy " in said
    assert "| 60 %        | 5.0     | 5.0     | 5.0     | 5.0               | 1 %     | 2 %" in said
    assert "0.100 ms a call and 1.00 ns a byte" in said
