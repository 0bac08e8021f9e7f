"""Markdown files and the protos' comments: lines that fit, and links that lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.publish import BEGIN, END
from tests.support.serving import ROOT

COLUMNS = 100
LINK = re.compile(r"\]\(([^)\s]+)\)")
URL = re.compile(r"https?://\S+")
GENERATED = ROOT / "docs/benchmarks.md"
FOLDERS = ("", "docs/", "deploy/**/", "examples/", "client/go/", "client/typescript/", "tests/vectors/")
DOCUMENTS = [path for folder in FOLDERS for path in sorted(ROOT.glob(f"{folder}*.md"))]
PROTOS = sorted(ROOT.glob("protos/sealserve/v1/*.proto"))


def by_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_lines(document: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines that are neither code nor generated: prose, tables and headings."""
    is_fenced = is_generated = is_code = False
    was_blank = True
    for number, line in enumerate(document.splitlines(), 1):
        if line.startswith("```"):
            is_fenced = not is_fenced
        is_generated = (is_generated or line == BEGIN) and line != END
        is_code = line.startswith("    ") and (was_blank or is_code)
        was_blank = not line.strip()
        if not (is_fenced or is_generated or is_code):
            yield number, line


def too_long(document: str) -> list[int]:
    """The numbers of the lines of prose that are too long, targets of links not counted."""
    prose = ((number, URL.sub("", LINK.sub("", line))) for number, line in text_lines(document) if line[:1] != "|")
    return [number for number, line in prose if len(line) > COLUMNS]


def anchors(document: str) -> set[str]:
    """The anchors of the headings, by GitHub's rule."""
    headings = [line.lstrip("#").strip() for _, line in text_lines(document) if re.match("#+ ", line)]
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path != GENERATED], ids=by_name)
def test_lines_of_prose_fit(path: Path) -> None:
    assert too_long(path.read_text()) == []


@pytest.mark.parametrize("path", PROTOS, ids=by_name)
def test_comments_of_protos_fit(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [number for number, line in enumerate(lines, 1) if "//" in line and len(line) > COLUMNS] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=by_name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        if URL.match(link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_checks_find_what_they_look_for() -> None:
    assert {by_name(path) for path in DOCUMENTS} >= {"README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    assert len(PROTOS) == 6
    long = "x" * (COLUMNS + 1)
    spared = (
        f"```\n{long}\n```\n\n    {long}\n\n| {long} |\n{BEGIN}\n{long}\n{END}\n[a link](docs/{long}) <https://{long}>"
    )
    assert too_long(spared) == []
    assert too_long(f"{spared}\n{long}\n- {long}\n  {long}\n    {long}") == [12, 13, 14, 15]
    assert anchors("# One heading\n## 2. `Code`, too\n```\n# code\n```") == {"one-heading", "2-code-too"}
