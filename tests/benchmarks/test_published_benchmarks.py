"""The published figures in README and docs are those of docs/benchmarks.json, of one run."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import callers, overload, private, publish, repeat
from benchmarks.publish import BEGIN, END, PublishError
from benchmarks.report import render, undisturbed

DESCRIPTION = {
    "commit": "abc",
    "machine": {"processor": "Any", "cores": 2, "memory_gb": 8},
    "versions": {"sealserve": "1.0"},
}
OVERLOAD = {
    "capacity_per_second": 50.0,
    "offered_per_second": 200.0,
    "accepted_per_second": 45.0,
    "other_ends": {},
    "unloaded_p99_ms": 30.0,
    "accepted_p99_ms": 75.0,
    "ratio": 2.5,
    "refused_p95_ms": 12.0,
}


def part(directory: Path, name: str, results: Any, **changes: Any) -> Path:
    path = directory / f"{name}.json"
    path.write_text(json.dumps(DESCRIPTION | changes | {name: results}))
    return path


def test_readme_and_document_say_what_was_measured() -> None:
    if not publish.RESULTS.exists():
        pytest.skip("nothing is published yet: `make bench bench-publish`")
    results = json.loads(publish.RESULTS.read_text())
    assert results["parts"].keys() == publish.SECTIONS.keys(), "some part was not measured"
    readme = publish.README.read_text()
    assert publish.with_section(readme, publish.readme_section(results)) == readme, "make bench-publish"
    assert publish.DOCUMENT.read_text() == publish.document(results), "make bench-publish"
    capacity = publish.CAPACITY.read_text()
    assert publish.with_section(capacity, publish.capacity_section(results)) == capacity, "make bench-publish"
    for name in publish.PLOTS.keys() & results["parts"].keys():
        assert (publish.DOCS / f"benchmarks_{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_readme_has_a_place_for_the_figures() -> None:
    assert "figures" in publish.with_section(publish.README.read_text(), "figures")


def test_parts_are_merged(tmp_path: Path) -> None:
    files = [part(tmp_path, "overload", OVERLOAD), part(tmp_path, "scaling", [])]
    assert publish.merged(files) == DESCRIPTION | {"parts": {"overload": OVERLOAD, "scaling": []}}


@pytest.mark.parametrize("changes", [{"commit": "abd"}, {"machine": {"cores": 3}}, {"versions": {"sealserve": "1.1"}}])
def test_parts_of_different_runs_are_not_merged(tmp_path: Path, changes: dict[str, Any]) -> None:
    files = [part(tmp_path, "overload", OVERLOAD), part(tmp_path, "scaling", [], **changes)]
    with pytest.raises(PublishError, match="another machine or version"):
        publish.merged(files)


def test_nothing_is_no_run() -> None:
    with pytest.raises(PublishError, match="make bench"):
        publish.merged([])


def test_a_section_is_put_between_the_markers_and_nothing_else_changes() -> None:
    text = f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n"
    found = publish.with_section(text, "new")
    assert found == f"# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nrest\n"
    assert publish.with_section(found, "new") == found
    for broken in ("", BEGIN, END):
        with pytest.raises(PublishError, match="no lines"):
            publish.with_section(broken, "new")


def test_the_readme_is_rendered_from_the_results() -> None:
    said = publish.readme_section(DESCRIPTION | {"parts": {"overload": OVERLOAD}})
    assert "commit abc on 2 cores (Any)" in said
    assert "| slower (p99 of accepted calls) at 4 times its capacity than when idle, open weights | 2.5   |" in said
    assert "EIServer" not in said
    assert "![" not in said


def test_the_readme_has_the_eight_ratios_to_remember_and_one_picture() -> None:
    peers = {"ratios": dict.fromkeys(publish.HEADLINES, 1234.5) | {"server: row over plaintext, a row": 17.5}}
    said = publish.readme_section(DESCRIPTION | {"parts": {"overload": OVERLOAD, "peers": peers}})
    assert sum(line.startswith("|") for line in said.splitlines()) == 2 + 8
    assert said.count("| 1,234 |") == 7
    assert said.count("![") == 1
    assert "17.5" not in said


def test_prose_is_wrapped_and_nothing_else() -> None:
    long, heading = "word " * 30 + "end", "# " + "word " * 30
    table = render([("a" * 120, "b"), ("1", "2")])
    found = publish.wrapped(f"{heading}\n\n{long}\n\n{table}\n\n- one\n- two")
    assert found.split("\n\n")[0] == heading
    assert found.endswith(f"{table}\n\n- one\n- two")
    assert max(map(len, found.split("\n\n")[1].splitlines())) <= publish.COLUMNS
    assert " ".join(found.split("\n\n")[1].splitlines()) == long


def test_the_document_has_a_table_of_each_part() -> None:
    said = publish.document(DESCRIPTION | {"parts": {"overload": OVERLOAD}})
    assert "## Overload" in said
    assert overload.table(OVERLOAD) in said
    assert "## The row layout" not in said


def ratio(name: str, first: float, second: float) -> dict[str, Any]:
    return {"part": "a", "name": name, "first": first, "second": second, "apart": repeat.apart(first, second)}


def test_it_is_the_same_which_of_two_figures_is_the_greater() -> None:
    assert repeat.apart(2.0, 2.5) == repeat.apart(2.5, 2.0) == pytest.approx(0.25)
    assert repeat.apart(3.0, 3.0) == 0


def test_ratios_of_two_runs_are_compared_where_both_have_them() -> None:
    rates = {"served": 10.0, "drained": 20.0, "plain": 50.0}
    column = [{"parameter_set": "s", "undisturbed": rates}]
    slower = [column[0] | {"undisturbed": rates | {"plain": 40.0}}]
    found = repeat.compared({"column": column, "overload": OVERLOAD}, {"column": slower, "ei": {"ratio": 1.0}})
    assert [(one["part"], one["first"], one["second"]) for one in found] == [("column", 2, 2), ("column", 5, 4)]
    assert found[1]["name"] == "s: server of plaintext rows over service"
    assert found[1]["apart"] == pytest.approx(0.25)
    of_more = [*column, column[0] | {"parameter_set": "other"}]
    assert len(repeat.compared({"column": of_more}, {"column": column})) == 2


def test_private_weights_are_compared_with_open_ones() -> None:
    results = [
        {"weights": weights, "undisturbed_server_ms": ms, "undisturbed_column_row_ms": row}
        for weights, ms, row in (("open", 2.0, 0.02), ("private", 8.0, 0.05))
    ]
    assert private.ratios(results) == {
        "row: server's time, private over open": 4.0,
        "column: a row, private over open": 2.5,
    }


def test_results_of_a_run_are_read_as_far_as_there_are(tmp_path: Path) -> None:
    part(tmp_path, "overload", OVERLOAD)
    part(tmp_path, "scaling", [])  # which has no ratios
    assert repeat.measured(tmp_path) == {"overload": OVERLOAD}


def test_it_is_said_which_ratios_do_not_agree() -> None:
    found = [ratio("b", 100.0, 114.0), ratio("c", 3.0, 2.5), ratio("d", 1.0, 1.0)]
    said = repeat.table(found)
    assert "| a: c  | 3     | 2.5    | 20 %  |" in said
    assert '2 of 3 ratios agree within 15 %, all but "a: c". The' in said
    assert said.endswith('The farthest apart, by 20 %, is "a: c".')
    assert "2 of 2 ratios agree within 15 %. The" in repeat.table(found[::2])


def test_the_document_says_how_far_apart_two_runs_are() -> None:
    repeated = {"repeat": [ratio("b", 10.0, 11.0), ratio("c", 1.0, 1.0)]}
    said = publish.document(DESCRIPTION | {"parts": repeated})
    assert "## Measured twice" in said
    assert '2 of 2 ratios agree within 15 %. The farthest apart, by 10 %, is "a: b".' in said
    assert "Measured twice" not in publish.document(DESCRIPTION | {"parts": {"overload": OVERLOAD}})


def test_programs_that_are_run_apart_say_where_and_leave_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RESULTS", "DOCUMENT", "CAPACITY", "README"):
        monkeypatch.setattr(publish, name, tmp_path / name)
    monkeypatch.setattr(publish, "OUTPUT", tmp_path)
    publish.RESULTS.write_text(json.dumps(DESCRIPTION | {"parts": {"overload": OVERLOAD}}))
    for path in (publish.README, publish.CAPACITY):
        path.write_text(f"{BEGIN}\n{END}\n")
    fair = {"fair": {"private calls": {"share_ms": 300.0, "p99_ms": 330.0, "ratio": 1.1}}}
    part(tmp_path, "callers", fair, commit="abd")
    for arguments in (["callers"], ["--render"]):
        monkeypatch.setattr("sys.argv", ["publish", *arguments])
        publish.main()
        said = publish.DOCUMENT.read_text()
        assert "## Many callers" in said
        assert "Measured at commit abd" in said
        assert callers.table(fair) in said
        assert said.startswith(publish.document(DESCRIPTION | {"parts": {"overload": OVERLOAD}}))
    monkeypatch.setattr("sys.argv", ["publish", "overload"])
    with pytest.raises(SystemExit, match="no such programs: overload"):
        publish.main()


@pytest.mark.parametrize("commit", ["", "abc-dirty"])
def test_what_is_in_no_commit_is_not_published(tmp_path: Path, commit: str) -> None:
    with pytest.raises(PublishError, match="at no commit"):
        publish.merged([part(tmp_path, "overload", OVERLOAD, commit=commit)])


def test_what_is_undisturbed_is_neither_luck_nor_what_others_add() -> None:
    assert undisturbed([5.0, 1.0, 1.1, 1.2, 1.3, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]) == 1.1
    assert undisturbed([3.0]) == 3.0


def test_rounds_are_summed_up() -> None:
    rounds = [{"server_ms": float(number), "bytes": 7.0} for number in range(11)]
    assert private.summed_up(rounds) == {"server_ms": 5.0, "bytes": 7.0, "undisturbed_server_ms": 1.0}
