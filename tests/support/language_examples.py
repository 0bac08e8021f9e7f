"""The examples in client/examples: how each is built, in a copy, and how it is run."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.support.language_tools import make_stubs, run
from tests.support.serving import ROOT

EXAMPLES = ROOT / "client/examples"


class Built(NamedTuple):
    """An example.

    Attributes:
        language: its name.
        program: the command that runs it.
        folder: where it has been built.
    """

    language: str
    program: list[str]
    folder: Path

    def command(self, address: str, token_file: str, command: str, model: str, rows: Path) -> list[str]:
        """Return a command line; rows are a CSV file, and an empty token file is none."""
        options = (
            [f"--address={address}", f"--token-file={token_file}"] if self.language == "go" else [address, token_file]
        )
        return [*self.program, *options, command, model, str(rows)]


def _build_go(example: Path) -> list[str]:
    assert run("gofmt", "-l", "main.go", "agent.go", "table.go", folder=example) == ""
    run("go", "vet", ".", folder=example)
    run("go", "build", "-o", "example", ".", folder=example)
    return [str(example / "example")]


def _build_java(example: Path) -> list[str]:
    run("mvn", "--quiet", "--batch-mode", "package", folder=example)
    return ["java", "-jar", str(example / "target/example.jar")]


def _build_node(example: Path) -> list[str]:
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", folder=example)
    return ["node", str(example / "main.js")]


class Language(NamedTuple):
    """How an example is built, the programs that it needs, and what of make installs them."""

    build: Callable[[Path], list[str]]
    needs: tuple[str, ...]
    installs: str


LANGUAGES = {
    "go": Language(_build_go, ("go",), "go-tools"),
    "java": Language(_build_java, ("javac", "mvn"), "java"),
    "node": Language(_build_node, ("node", "npm"), "setup"),
}


def build(language: str, folder: Path) -> Built:
    """Build an example, with its stubs, in a folder."""
    ignored = shutil.ignore_patterns("stubs", "target", "node_modules")
    example = Path(shutil.copytree(EXAMPLES / language, folder / language, ignore=ignored))
    make_stubs(language, example / "stubs")
    return Built(language, LANGUAGES[language].build(example), example)
