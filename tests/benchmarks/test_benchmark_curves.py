"""Curves: what is said of measurements beside their model, and of straight lines."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import curves

SERVER = "row: server, us a row"


def points(series: str, measured: dict[int, float], modelled: float = 10.0) -> list[dict[str, Any]]:
    memory = {"resident_mb": 80.0, "grown_mb": 2.0, "weights_mb": 0.0}
    common = {"axis": "features", "series": series, "parameter_set": "row-2048-54", "modelled": modelled} | memory
    return [common | {"x": x, "measured": value} for x, value in measured.items()]


def test_a_straight_line_is_found() -> None:
    x = [1.0, 10.0, 100.0, 1e5]
    a, b, error = curves.straight(x, [3 + 0.5 * value for value in x])
    assert (a, b) == pytest.approx((3, 0.5))
    assert error < 1e-9


def test_errors_are_relative_to_what_was_measured() -> None:
    """A point that is small counts as much as one that is large, and no line comes closer."""
    a, b, error = curves.straight([1.0, 2.0, 3.0], [0.9, 2.2, 2.7])
    assert (a, b, error) == pytest.approx((0.0, 0.99, 0.1))


def test_where_measurement_and_model_part_most_and_why() -> None:
    said = curves.table(points(SERVER, {64: 11.0, 128: 40.0, 256: 9.0}))
    assert f"{SERVER}: furthest from its model at 128 features, 4.00 times as much: the model " in said
    quicker = curves.table(points(SERVER, {64: 11.0, 128: 1.0, 256: 9.0}))
    assert f"{SERVER}: furthest from its model at 128 features, 0.10 times as much." in quicker, "no reason is known"
    assert "| 128      | row: server, us a row | 40" in said
    low = curves.table(points("anything", {64: 1.0, 128: 9.0}))
    assert "anything: furthest from its model at 64 features, 0.10 times as much." in low


def test_how_straight_a_line_of_times_is() -> None:
    even = curves.table(points(SERVER, {1: 3.0, 2: 5.0, 4: 9.0}))
    assert "Within 0 % of a straight line from 1 to 4. The service's memory" in even
    bent = points(SERVER, {1: 50.0, 10: 10.0, 100: 100.0, 1000: 1000.0, 2000: 2000.0})
    said = curves.table(bent)
    assert "of a straight line from 1 to 2,000. The model's own is within 0 %: where a row leaves room in a " in said
    assert "Within 0 % from 10 on. The service's memory" in said
    as_bent = curves.table([{**point, "modelled": point["measured"]} for point in bent])
    found = re.search(r"Within (\d+) % of a straight line from 1 to 2,000. The model's own is within (\d+) %", as_bent)
    assert found
    assert found[1] == found[2]
    wild = curves.table(points(SERVER, {1: 50.0, 10: 10.0, 100: 1.0, 1000: 100.0, 2000: 9.0}))
    assert "From nowhere on within 20 %. The service's memory" in wild, "three points that are on a line say nothing"
    assert "straight" not in curves.table(points("row: rows/s", {1: 1.0, 2: 2.0, 4: 4.0})), "no time of the server"


def test_how_much_memory_the_service_has_along_an_axis() -> None:
    some = points("row: rows/s", {1: 1.0, 4: 2.0})
    some[1] |= {"resident_mb": 91.7, "grown_mb": -0.4}
    said = curves.table(some)
    assert said.endswith("The service's memory: 80 to 92 MB, and at most 2 MB more at work.")
    assert re.search(r"\| 92 +\| 0 +\|", said), "not -0"
    some[1]["weights_mb"] = 10.4
    assert "80 to 92 MB (0 to 10 MB of it weights), and at most" in curves.table(some)
    some[0]["resident_mb"] = 0.0
    assert "memory:" not in curves.table(some), "it was not looked at"


def test_each_axis_has_its_table_and_its_place_in_the_plot(tmp_path: Path) -> None:
    some = points(SERVER, {64: 11.0, 128: 40.0})
    both = [*some, *({**point, "axis": "classes"} for point in some)]
    assert curves.table(both).count("by the model") == 2
    curves.plot(both, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
