"""The locks of the image: the versions that are tested, by hash, without developers' tools."""

import re
import tomllib

import pytest

from tests.support.serving import ROOT

LOCKS = ("requirements-service.lock", "requirements-build.lock")
FOR_DEVELOPERS = {"hatchling", "hypothesis", "matplotlib", "mypy", "pandas", "pip", "pytest", "ruff", "setuptools"}


def pins(name: str) -> dict[str, tuple[str, str]]:
    """What a lock installs: name and condition -> version and hashes, as text."""
    entry = re.compile(r"^([a-z0-9-]+)==(\S+)( ;[^\\\n]*)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)
    text = (ROOT / name).read_text()
    found = {match[1] + (match[3] or ""): (match[2], match[4]) for match in entry.finditer(text)}
    assert len(found) == len(re.findall(r"^[^\s#]", text, re.M)), "every line that is no comment belongs to a pin"
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_the_image_has_what_is_tested(name: str) -> None:
    tested = pins("requirements.lock")
    assert {package: pin for package, pin in pins(name).items() if tested.get(package) != pin} == {}


def test_the_image_has_what_the_service_needs_and_nothing_for_developers() -> None:
    packages = {package.partition(" ")[0] for package in pins("requirements-service.lock")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = project["dependencies"] + extras["service"] + extras["ei"] + extras["agent"] + extras["tracing"]
    wanted = {re.split(r"[^a-z0-9-]", entry)[0] for entry in needed}
    assert wanted <= packages
    assert not packages & FOR_DEVELOPERS


def test_the_tools_of_the_audit_are_nobody_elses() -> None:
    tools = {"pip-audit", "cyclonedx-bom"}
    assert tools <= {package.partition(" ")[0] for package in pins("requirements-audit.lock")}
    for name in ("requirements.lock", *LOCKS):
        assert not tools & {package.partition(" ")[0] for package in pins(name)}


def test_the_tools_of_the_documentation_are_nobody_elses() -> None:
    tools = {"mkdocs", "mkdocs-material", "mkdocstrings-python", "nbclient", "nbconvert"}
    assert tools <= {package.partition(" ")[0] for package in pins("requirements-docs.lock")}
    for name in ("requirements.lock", *LOCKS):
        assert not tools & {package.partition(" ")[0] for package in pins(name)}


def test_the_notebook_runs_with_what_is_tested() -> None:
    """The environment of the documentation's tools gets what the service needs, too."""
    tested, tools = pins("requirements.lock"), pins("requirements-docs.lock")
    common = {package for package in tools if package in tested}
    assert {package for package in common if tools[package][0] != tested[package][0]} == set()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-audit.lock", "requirements-docs.lock", *LOCKS])
def test_no_lock_names_an_index(name: str) -> None:
    assert not re.search(r"://|--(?:extra-)?index|--find-links", (ROOT / name).read_text())
