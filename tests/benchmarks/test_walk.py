"""The walk of one private row: no longer than it is, and counted as its program says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import walk
from benchmarks.walk import Call, Recorder, Walk

# The most calls and changes of file of one private row. Lower them where the walk becomes shorter.
CEILINGS = {
    # At either end two calls are the two polynomials of a pair, which are packed or unpacked.
    "client": {"calls": 30, "changes": 17},
    # Two calls, and the changes of file about them, hand a call to a thread: see CallThreads. The
    # standard library's pool, which is not counted, woke threads whose memory was cold.
    "service": {"calls": 44, "changes": 36},
    "after_reply": {"calls": 1, "changes": 0},
}


@pytest.fixture(scope="module")
def measured() -> Walk:
    return walk.measure()


def test_the_walk_of_one_private_row_is_not_longer(measured: Walk) -> None:
    found = walk.counts(measured)
    assert found.keys() == CEILINGS.keys()
    for part, ceilings in CEILINGS.items():
        assert found[part]["calls"] > 0
        for name, ceiling in ceilings.items():
            assert found[part][name] <= ceiling, f"{part}: {name}"


def test_a_walk_begins_with_the_callers_own_call_and_goes_through_both_packages(measured: Walk) -> None:
    assert measured.client[0] == Call("sealserve/client.py", "Client.predict", 0)
    assert {call.file.partition("/")[0] for call in measured.client} == {"sealserve"}
    assert {call.file.partition("/")[0] for call in measured.service} == {"sealserve", "sealserve_service"}
    assert not any("/v1/" in call.file for part in vars(measured).values() for call in part), "generated code"


def test_what_is_shown_has_a_line_a_call(measured: Walk) -> None:
    lines = [line for line in walk.shown(measured).splitlines() if line.startswith(" ")]
    assert len(lines) == sum(count["calls"] for count in walk.counts(measured).values())
    assert lines[0] == "  sealserve/client.py Client.predict"


def test_changes_are_of_neighbours() -> None:
    calls = [Call(file, "f", 0) for file in ("a", "a", "b", "a")]
    assert walk.changes(calls) == 2
    assert walk.changes([]) == 0


def test_a_frame_counts_once_and_a_comprehension_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of this file are counted as if they were the client's."""
    monkeypatch.setattr(walk, "SDK", Path(__file__).parent)

    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    def total() -> int:
        return sum([number for number in numbers()]) + sum(number for number in (1, 2))  # noqa: C416

    found = Recorder().record(total)
    assert [call.function.rpartition(".")[2] for call in found.client] == ["total", "numbers", "<genexpr>"]
    depths = [call.depth for call in found.client]
    assert depths == [depths[0], depths[0] + 1, depths[0] + 1]
    assert not found.service


def test_the_command_prints_counts_or_calls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(walk, "measure", lambda: Walk([Call("a", "f", 0), Call("b", "g", 1)]))
    monkeypatch.setattr("sys.argv", ["walk", "--json"])
    walk.main()
    assert json.loads(capsys.readouterr().out)["client"] == {"calls": 2, "changes": 1}
    monkeypatch.setattr("sys.argv", ["walk", "--show"])
    walk.main()
    shown = capsys.readouterr().out
    assert "  a f\n    b g\n" in shown
    assert "| client                          | 2     | 1               |" in shown
