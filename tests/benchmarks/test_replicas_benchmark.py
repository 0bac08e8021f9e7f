"""The benchmark of replicas: its tables."""

from benchmarks import replicas


def test_its_tables_compare_with_the_capacity_and_with_a_tenant_alone_and_show_the_longest_pauses() -> None:
    figures = {
        "capacity": 200.0,
        "sent": 800.0,
        "answered": 190.0,
        "share": 0.95,
        "refused": 610.0,
        "failed": 0.0,
        "p99_ms": 120.0,
        "most_ms": 145.0,
    }
    beside = {"alone": {"p50_ms": 3.0, "p99_ms": 10.0}, "strangers": {"p50_ms": 4.0, "p99_ms": 15.0}}
    pauses = {"kill -9": {"stream": [100.0, 140.0, 110.0], "row": [20.0, 30.0, 70.0]}}
    said = replicas.table({"overload": figures, "hostile": beside, "pauses": pauses})
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines()]
    assert ["200", "800", "190", "95 %", "610", "0", "120", "145"] in cells
    assert ["strangers", "4.0", "15.0", "1.50"] in cells
    assert ["kill -9", "110", "140", "30", "70"] in cells
