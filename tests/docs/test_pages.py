"""The code and the commands of docs/*.md do what the pages say."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import joblib
import pandas as pd
import pytest
import skops.io

from tests.support.digits import digits
from tests.support.pages import LANGUAGES, Block, PageRun, blocks_of, page_run
from tests.support.serving import ROOT

PAGES = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
START = blocks_of(PAGES["getting_started.md"])


def until(title: str) -> list[Block]:
    """The blocks of "Get started" before a heading."""
    line = PAGES["getting_started.md"].splitlines().index(title) + 1
    return [block for block in START if block.line < line]


def alone(run: PageRun) -> None:
    """The page needs nothing."""


def trained(run: PageRun) -> None:
    """The page needs the model of "Get started"."""
    run.run(until("## 2. Look before you serve"))


def served(run: PageRun) -> None:
    """The page needs the service of "Get started"."""
    run.run(until("## 4. Predict"))
    run.names["rows"] = pd.read_csv("rows.csv")


def served_to_azure_users(run: PageRun) -> None:
    """The page needs the guide's service, of a model named mnist: digits take less time."""
    estimator, rows = digits()
    skops.io.dump(estimator, "mnist.skops")
    command = "$ sealserve serve --model mnist=mnist.skops --input-range 0,1 --weights open &\nserving mnist on ...\n"
    run.run([Block("console", "", command, 0)])
    run.names["X_test"] = rows


def pickled(run: PageRun) -> None:
    """The page needs a pickle."""
    joblib.dump(digits()[0], "old.pkl")


NEEDS: dict[str, Callable[[PageRun], None]] = {
    "agent.md": served,
    "calling.md": served,
    "capacity.md": served,
    "coming_from_azure_ml.md": served_to_azure_users,
    "getting_started.md": alone,
    "index.md": served,
    "keys.md": served,
    "layouts_and_weights.md": served,
    "models.md": alone,
    "operating.md": trained,
    "ranges.md": alone,
    "rollouts.md": alone,
    "tables.md": alone,
    "troubleshooting.md": pickled,
    "typescript.md": alone,
    "verdicts.md": trained,
}


def test_every_page_with_code_is_run() -> None:
    elsewhere = {"go.md"}  # the Go client's own tests compile it
    assert {name for name, page in PAGES.items() if blocks_of(page)} == set(NEEDS) | elsewhere
    assert {block.language for page in PAGES.values() for block in blocks_of(page)} <= LANGUAGES


@pytest.mark.parametrize(
    "name", [name if name == "getting_started.md" else pytest.param(name, marks=pytest.mark.slow) for name in NEEDS]
)
def test_a_page_does_what_it_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with page_run(tmp_path) as run:
        NEEDS[name](run)
        run.run(blocks_of(PAGES[name]))


def test_commands_for_other_machines_are_bash() -> None:
    bash = shutil.which("bash")
    assert bash
    for page in PAGES.values():
        for block in blocks_of(page):
            if block.language == "sh":
                assert subprocess.run([bash, "-n"], input=block.text, text=True, check=False).returncode == 0, block


CONSOLE = "```console\n$ echo one \\\n    two\none two\n$ {}\n{}\n```\n"


@pytest.mark.parametrize(
    ("command", "output", "is_true"),
    [
        ("echo 3 rows in 0.1 s", "3 rows in ... s", True),
        ("echo 3 rows in 0.1 s", "4 rows in ... s", False),
        ("false", "...", False),
        ("false | true", "...", False),
        ("exit 1", "sealserve: error: a text", False),
        ("echo sealserve: error: a text; exit 1", "sealserve: error: ...", True),
        (
            "sealserve models list --timeout 1",
            "sealserve: error: the service at 127.0.0.1:... cannot be reached",
            False,
        ),
        ("sealserve models list --timeout 1", "sealserve: error: the service at 127.0.0.1:... cannot be ...", True),
        ("python -c 'print(1)' &", "1", True),
        ("python -c 'print(1)' &", "2", False),
        ("python -c 'exit(1)' &", "serving", False),
    ],
)
def test_a_page_that_lies_is_found(command: str, output: str, is_true: bool, tmp_path: Path) -> None:
    with page_run(tmp_path) as run:
        if is_true:
            run.run(blocks_of(CONSOLE.format(command, output)))
        else:
            with pytest.raises(AssertionError):
                run.run(blocks_of(CONSOLE.format(command, output)))


def test_blocks_of_python_share_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, third = (
        'title="one.py"\nprint(50051)',
        '\nfrom pathlib import Path\nx = Path("one.py").read_text()',
        "\nassert x",
    )
    page = f"```python {first}\n```\n```python{second}\n```\n```python{third}\n```\n"
    with page_run(tmp_path) as run:
        run.run(blocks_of(page))
        assert run.names["x"].startswith("print(")
        assert "50051" not in run.names["x"]


def test_fences_without_an_end_are_found() -> None:
    with pytest.raises(AssertionError):
        blocks_of("```python\nx = 1\n")
