"""Imports point one way: down these lists, and never from the SDK into the service."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import ROOT

# From the top. A module imports only from its own package and from those further down.
SDK = """
    __main__
    agent
    cli
    loadtest
    client aio ei
    key_registry
    _streaming
    _codec
    _rpc
    secret_key
    he.secret
    credentials
    row_files
    protocol
    steps
    he
    secret_key_access
    errors
    v1 inference
"""
SERVICE = """
    commands
    process
    app
    rpc
    scoring
    catalog
    keys
    settings
    engines
    planning
    models
    tenants
    telemetry
    watched_files allocator container
"""
ROOTS = {"sealserve": ROOT / "client/python/sealserve", "sealserve_service": ROOT / "service/sealserve_service"}
FLOORS = {
    f"{root}.{package}": number
    for root, floors in (("sealserve", SDK), ("sealserve_service", SERVICE))
    for number, floor in enumerate(floors.strip().splitlines())
    for package in floor.split()
}


def modules(root: str) -> Iterator[tuple[str, Path]]:
    """The names and files of a package's modules, without generated ones."""
    for path in sorted(ROOTS[root].rglob("*.py")):
        name = ".".join((root, *path.relative_to(ROOTS[root]).with_suffix("").parts)).removesuffix(".__init__")
        if not name.startswith(("sealserve.v1", "sealserve.inference")) and name != root:
            yield name, path


def imported(path: Path) -> Iterator[str]:
    """Yield what a file imports, wherever in it; `from package import name` is package.name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(module: str) -> str:
    """The entry of the lists that a module belongs to; "" for a foreign one."""
    return max((name for name in FLOORS if f"{module}.".startswith(f"{name}.")), key=len, default="")


@pytest.mark.parametrize("root", ROOTS)
def test_every_module_has_its_floor(root: str) -> None:
    assert [name for name, _ in modules(root) if not package(name)] == []


@pytest.mark.parametrize("root", ROOTS)
def test_imports_point_down(root: str) -> None:
    wrong = [
        f"{name} imports {target}"
        for name, path in modules(root)
        for target in imported(path)
        if package(target).startswith(f"{root}.")
        and package(target) != package(name)
        and FLOORS[package(target)] <= FLOORS[package(name)]
    ]
    assert wrong == []


def test_the_sdk_does_not_know_the_service() -> None:
    assert [name for name, path in modules("sealserve") if any("sealserve_service" in t for t in imported(path))] == []


def test_only_one_module_imports_seal() -> None:
    importing = {
        name
        for root in ROOTS
        for name, path in modules(root)
        if any(t.startswith("seal.") or t == "seal" for t in imported(path))
    }
    assert importing == {"sealserve.he._seal"}
