"""The architecture: what may import what, and where things are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import ROOT

TESTS, SUPPORT, BENCHMARKS = ROOT / "tests", ROOT / "tests/support", ROOT / "benchmarks"
PACKAGES = {"client": ROOT / "client/python/sealserve", "service": ROOT / "service/sealserve_service"}


def sources(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.py"))


def imported(source: Path) -> Iterator[str]:
    """The full names of all that a file imports anywhere: modules, and names in them."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = ".".join(source.relative_to(ROOT).parts[: -node.level]) if node.level else ""
            module = ".".join(filter(None, (folder, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_of_test_module(name: str) -> bool:
    """Whether a name of `tests` is that of a test module or a conftest, or of something in one."""
    package, *parts = name.split(".")
    return package == "tests" and any(part.startswith("test_") or part == "conftest" for part in parts)


@pytest.mark.parametrize("directory", [TESTS, BENCHMARKS], ids=["tests", "benchmarks"])
def test_no_test_module_or_conftest_is_imported(directory: Path) -> None:
    found = {
        source.relative_to(ROOT).as_posix(): [name for name in imported(source) if is_of_test_module(name)]
        for source in sources(directory)
    }
    assert not {source: names for source, names in found.items() if names}


def test_imports_of_test_modules_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "tests/unit/test_a.py"
    source.parent.mkdir(parents=True)
    source.write_text("from tests.conftest import X\nfrom tests.unit import test_b\nfrom . import test_c\nimport os\n")
    monkeypatch.setattr("tests.unit.test_architecture.ROOT", tmp_path)
    names = list(imported(source))
    assert names == ["tests.conftest.X", "tests.unit.test_b", "tests.unit.test_c", "os"]
    assert [is_of_test_module(name) for name in names] == [True, True, True, False]


def test_what_tests_share_holds_no_test() -> None:
    for source in sources(SUPPORT):
        assert not source.name.startswith("test_"), source
        assert source.name != "conftest.py", source
        names = [node.name for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.FunctionDef)]
        assert not [name for name in names if name.startswith("test_")], source


def test_of_tests_the_benchmarks_use_only_what_tests_share() -> None:
    for source in sources(BENCHMARKS):
        names = [name for name in imported(source) if name.split(".")[0] == "tests"]
        assert all(name.startswith("tests.support") for name in names), source
    for source in sources(SUPPORT):
        assert not any(name.split(".")[0] == "benchmarks" for name in imported(source)), source


def module_names(package: Path, folders: tuple[str, ...]) -> set[str]:
    """The names of the modules and packages in a package's folder, without leading underscores."""
    found = package
    for folder in folders:
        private = found / f"_{folder}"
        found = private if private.is_dir() else found / folder
    return {path.stem.lstrip("_") for path in found.glob("*") if path.suffix == ".py" or path.is_dir()}


@pytest.mark.parametrize("side", PACKAGES)
def test_unit_tests_mirror_the_packages(side: str) -> None:
    """A unit test is named for what it tests.

    tests/unit/SIDE/A/B/test_X.py, or test_X_TOPIC.py, is about the module or package X in A/B of
    SIDE's package.
    """
    for source in sorted((TESTS / "unit" / side).rglob("test_*.py")):
        names = module_names(PACKAGES[side], source.relative_to(TESTS / "unit" / side).parts[:-1])
        words = source.stem.removeprefix("test_").split("_")
        assert {"_".join(words[:count]) for count in range(1, len(words) + 1)} & names, source
