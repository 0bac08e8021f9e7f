"""SECURITY.md names the test that shows each claim: each test exists, and each attack is named."""

import re
from pathlib import Path

from tests.support.serving import ROOT

PAGE = Path(ROOT, "SECURITY.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(tests/[^`]+)`", PAGE))
    assert len(named) > 20
    assert [path for path in sorted(named) if not Path(ROOT, path).exists()] == []


def test_every_attack_is_on_the_page() -> None:
    attacks = {f"tests/attacks/{path.name}" for path in Path(ROOT, "tests", "attacks").glob("test_*.py")}
    assert len(attacks) > 15
    assert [path for path in sorted(attacks) if f"`{path}`" not in PAGE] == []
