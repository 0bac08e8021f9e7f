"""The SDK's public names: those of docs/api.md, and no others."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sealserve
from tests.support.serving import ROOT

ROOT_MODULES = {
    "aio",
    "client",
    "credentials",
    "ei",
    "errors",
    "key_registry",
    "secret_key",
    "secret_key_access",
}
PACKAGES = {"_codec", "_rpc", "_streaming", "agent", "cli", "he", "inference", "loadtest", "protocol", "row_files"} | {
    "steps",
    "v1",
}
_HEADING = re.compile(r"^## `(sealserve(?:\.\w+)*)`$")
_ROW = re.compile(r"^\| `(\w+)` \|")


def documented() -> dict[str, list[str]]:
    """The names that docs/api.md lists, by module."""
    names = dict[str, list[str]]()
    for line in (ROOT / "docs" / "api.md").read_text().splitlines():
        if heading := _HEADING.match(line):
            names[heading[1]] = []
        elif row := _ROW.match(line):
            names[list(names)[-1]].append(row[1])
    return names


DOCUMENTED = documented()


@pytest.mark.parametrize("module", DOCUMENTED)
def test_a_module_exports_what_the_page_lists(module: str) -> None:
    exported = importlib.import_module(module).__all__
    assert sorted(exported) == sorted(DOCUMENTED[module])
    assert len(set(exported)) == len(exported)


def test_every_module_in_the_root_is_on_the_page() -> None:
    assert {f"sealserve.{name}" for name in ROOT_MODULES} <= set(DOCUMENTED)


def test_the_root_holds_the_public_modules_and_nothing_else() -> None:
    root = Path(sealserve.__file__).parent
    assert {path.stem for path in root.glob("*.py")} == ROOT_MODULES | {"__init__", "__main__"}
    folders = {path.name for path in root.iterdir() if path.is_dir() and any(path.glob("**/*.py"))}
    assert folders == PACKAGES


def test_every_public_class_of_a_module_is_exported() -> None:
    """Each name without an underscore that a public module defines is public, but for functions."""
    for module in DOCUMENTED:
        loaded = importlib.import_module(module)
        defined = {
            name
            for name, value in vars(loaded).items()
            if isinstance(value, type) and value.__module__ == module and not name.startswith("_")
        }
        assert defined <= set(loaded.__all__), module


def test_names_of_the_package_are_loaded_on_first_use() -> None:
    program = (
        "import sys, sealserve; print('sealserve.client' in sys.modules, 'sealserve.secret_key' in sys.modules); "
        "print(set(sealserve.__all__) <= set(dir(sealserve)), hasattr(sealserve, 'Server')); "
        "from sealserve import AsyncClient, Client; import sealserve.aio, sealserve.client; "
        "print(Client is sealserve.client.Client is sealserve.Client, AsyncClient is sealserve.aio.AsyncClient)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines() == ["False False", "True False", "True True"]
