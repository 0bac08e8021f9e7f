"""The Go module, as far as Python can tell without Go: its tables, its pins and its page."""

import re

import pytest

from sealserve.steps import unicode_tables
from tests.support.go import MODULE
from tests.support.serving import ROOT

SUMMED = re.compile(r"(\S+) (v\S+?)(/go\.mod)? h1:[A-Za-z0-9+/]{43}=")


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("words.txt", unicode_tables._WORD_CHARACTERS),
        ("unassigned.txt", unicode_tables._UNASSIGNED_CHARACTERS),
    ],
)
def test_characters_are_those_of_the_python_sdk(name: str, table: str) -> None:
    found = (MODULE / "internal/steps" / name).read_text().split()
    assert found == table.split()
    assert len(found) > 600


def test_modules_are_pinned_by_their_digests_and_from_nowhere_else() -> None:
    lines = (MODULE / "go.sum").read_text().splitlines()
    assert all(SUMMED.fullmatch(line) for line in lines)
    required = re.findall(r"^\t(?:require )?(\S+) (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    assert {f"{name} {version}" for name, version in required} <= {line.rpartition(" h1:")[0] for line in lines} | {
        line.rpartition("/go.mod h1:")[0] for line in lines
    }
    assert "replace" not in (MODULE / "go.mod").read_text()


def test_the_page_names_every_option_and_error() -> None:
    page = (ROOT / "docs/go.md").read_text()
    options = re.findall(r"^func (With\w+)\(", (MODULE / "options.go").read_text(), re.MULTILINE)
    assert len(options) == 10
    assert [name for name in options if f"`{name}(" not in page] == []
    errors = (MODULE / "errors.go").read_text()
    own = set(re.findall(r"^type (\w+Error) struct", errors, re.MULTILINE))
    of_service = set(re.findall(r"^func \(\w* ?\*(\w+Error)\) Detail\(\)", errors, re.MULTILINE))
    assert len(of_service) == 18
    assert [name for name in own - of_service if f"`*{name}`" not in page] == []
