"""The benchmark of callers: its rounds, and its tables."""

from benchmarks import callers


def test_cases_take_turns_and_their_medians_count() -> None:
    measured: list[int] = []

    def measure(case: int) -> dict[str, float]:
        measured.append(case)
        return {"answered": 100.0 * case + len(measured)}

    found = callers.in_rounds([1, 2], 3, measure, "")
    assert measured == [1, 2, 1, 2, 1, 2]
    assert found == {1: {"answered": 103.0}, 2: {"answered": 204.0}}


def test_its_tables_say_how_much_of_the_best_is_answered() -> None:
    figures = {"answered": 200.0, "refused": 0.0, "cpu_ms": 4.5, "p99_ms": 40.0}
    said = callers.table(
        {
            "closed": {"private rows, calls": {8: figures, 64: figures | {"answered": 190.0, "refused": 60.0}}},
            "fair": {"private rows, calls": {"share_ms": 300.0, "p99_ms": 330.0, "ratio": 1.1}},
            "open": {
                "private rows": {
                    "capacity": 200.0,
                    "answered": 180.0,
                    "share": 0.9,
                    "p99_ms": 110.0,
                    "refusal_p99_ms": 12.0,
                }
            },
            "client": {"private rows, tasks of an AsyncClient": {8: {"answered": 50.0}, 500: {"answered": 49.0}}},
        }
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in said.splitlines()]
    assert ["private rows, calls", "64", "190", "95 %", "60", "4.50", "40"] in cells
    assert ["private rows, calls", "300", "330", "1.10"] in cells
    assert ["private rows", "200", "180", "90 %", "110", "12"] in cells
    assert ["private rows, tasks of an AsyncClient", "500", "49", "98 %"] in cells
