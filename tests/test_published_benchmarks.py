"""The figures in README and docs are those of docs/benchmarks.json, and those are of one run."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import overload, publish
from tests.benchmarks.publish import BEGIN, END, PublishError

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
    readme = publish.README.read_text()
    assert publish.with_section(readme, publish.readme_section(results)) == readme, "make bench-publish"
    assert publish.DOCUMENT.read_text() == publish.document(results), "make bench-publish"
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
    assert "commit abc" in said
    assert "At 4.0 times its capacity" in said
    assert "a p99 of 2.5 times" in said
    assert "EIServer" not in said


def test_the_document_has_a_table_of_each_part() -> None:
    said = publish.document(DESCRIPTION | {"parts": {"overload": OVERLOAD}})
    assert "## Overload" in said
    assert overload.table(OVERLOAD) in said
    assert "## The row layout" not in said
