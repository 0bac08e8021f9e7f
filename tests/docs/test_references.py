"""What the pages name exists: options, variables, metrics, errors and names of the SDK."""

import ast
import re
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from sealserve import errors
from sealserve.cli.main import build_parser, commands
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import RINGS, ParameterSet
from sealserve.he.seal_format import CiphertextFormat
from sealserve_service.settings.options import OPTIONS
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.serving import ROOT

PAGES = {path.name: path.read_text() for path in [*(ROOT / "docs").glob("*.md"), ROOT / "examples/README.md"]}
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
GENERATED = {"benchmarks.md", "settings.md"}


def options(parser: ArgumentParser) -> Iterator[str]:
    """The options of a command and of its actions."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, _SubParsersAction):
            for inner in action.choices.values():
                yield from options(inner)


@pytest.fixture(scope="module")
def flags() -> set[str]:
    return {flag for command in commands() for flag in options(build_parser(command.name))}


@pytest.mark.parametrize("name", sorted(PAGES.keys() - GENERATED))
def test_options_exist(name: str, flags: set[str]) -> None:
    """Those in prose: blocks of code are run, and have options of other programs."""
    named = {
        flag for text in INLINE.findall(CODE.sub("", PAGES[name])) for flag in re.findall(r"(?<!\S)--[a-z-]+", text)
    }
    assert named - flags - {"--"} == set()


@pytest.mark.parametrize("name", sorted(PAGES.keys() - GENERATED))
def test_variables_exist(name: str) -> None:
    of_clients = {"CA_CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY", "SERVER_NAME", "TOKEN"}
    known = {option.variable for option in OPTIONS} | {f"SEALSERVE_{variable}" for variable in of_clients}
    named = set(re.findall(r"\b(?:SEALSERVE|AZUREML|AZURE)_[A-Z_]+\b", PAGES[name]))
    assert named - known == set()


def test_metrics_exist() -> None:
    telemetry = Telemetry()
    telemetry.publish_model("tumors", "1")
    telemetry.publish_certificate_expiry(datetime.now(UTC))
    published = {
        line.split()[2] for line in generate_latest(telemetry.registry).decode().splitlines() if line[:1] == "#"
    }
    table = [line.split("|")[1] for line in PAGES["operating.md"].splitlines() if line.startswith("| `sealserve_")]
    named = {text.partition("{")[0] for cell in table for text in INLINE.findall(cell)}
    assert len(named) > 15
    prefixes = {text.rstrip("*") for text in named if text.endswith("*")}
    assert {text for text in named if not text.endswith("*")} - published == set()
    is_named = re.compile("|".join([*(re.escape(text) + "$" for text in named), *map(re.escape, prefixes)]))
    values = {text for text in published if not text.endswith("_created")}
    assert {text for text in values if not is_named.match(text)} == set()


def test_every_error_is_on_its_page() -> None:
    named = set(INLINE.findall(PAGES["errors.md"]))
    assert set(errors.__all__) - named == set()
    assert {name for name in named if re.fullmatch(r"\w+Error", name)} <= {
        *errors.__all__,
        "ValueError",
        "AttributeError",
    }


def test_the_classes_that_are_served_are_on_their_page() -> None:
    from sealserve_service.models.folding import SUPPORTED_CLASSES

    table = PAGES["models.md"].partition("## What is served\n\n")[2].partition("\n\n")[0]
    assert set(INLINE.findall(table)) & SUPPORTED_CLASSES == SUPPORTED_CLASSES
    classes = {name for row in table.splitlines() if row.startswith("| ") for name in INLINE.findall(row)}
    from_pickles_only = {"ExplainableBoostingClassifier", "ExplainableBoostingRegressor"}
    assert classes - {'"passthrough"'} == SUPPORTED_CLASSES | from_pickles_only


HOLE = "\0"
VALUES = {
    "0.22": HOLE,
    "1.9": HOLE,
    "FILE": HOLE,
    "'x'": HOLE,
    "in plaintext": HOLE,
    "with TLS": HOLE,
    "-4..32": f"{HOLE}..{HOLE}",
}
"""What stands for a value in a text that a page quotes."""


def texts_of(path: Path) -> Iterator[str]:
    """The texts in a module, with holes where values go."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.replace("%s", HOLE)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values)


def test_texts_that_are_quoted_exist() -> None:
    sources = [*(ROOT / "client/python/sealserve").rglob("*.py"), *(ROOT / "service/sealserve_service").rglob("*.py")]
    known = "\n".join(text for path in sources for text in texts_of(path))
    page = PAGES["troubleshooting.md"]
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    lines = [line for line in page.splitlines() if re.match("`.* the model's ", line)]
    quoted = [text for cell in cells + [line.partition(". ")[0] for line in lines] for text in INLINE.findall(cell)]
    quoted = [text for text in quoted if text not in {"Connection refused", "sealserve: command not found"}]
    assert len(quoted) > 15
    missing = []
    for text in quoted:
        pattern = text
        for value, hole in VALUES.items():
            pattern = pattern.replace(value, hole)
        if pattern.strip(HOLE + " ") not in known:
            missing.append(text)
    assert missing == []


def test_the_table_of_parameter_sets_has_all_of_them_and_their_bytes() -> None:
    written = re.findall(
        r"^\| (\d+-\d+) \| ([a-z, ]+) \| .* \| ([\d,]+) \| ([\d,]+)(, packed)? \|$",
        PAGES["layouts_and_weights.md"],
        re.MULTILINE,
    )
    modes = {"open": LAYOUTS["row"].open_parameter_sets, "private": LAYOUTS["row"].private_parameter_sets}
    expected = []
    for name, ring in RINGS.items():
        form = CiphertextFormat(ParameterSet(f"row-{name}", *ring), bytes(32))
        of_modes = ", ".join(mode for mode, sets in modes.items() if f"row-{name}" in {s.name for s in sets})
        short = form.packed_bytes if form.packs else form.seeded_bytes
        expected.append((name, of_modes, f"{form.full_bytes:,}", f"{short:,}", ", packed" if form.packs else ""))
    assert written == expected
