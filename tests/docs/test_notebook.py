"""docs/azure_ml_guide.ipynb: it runs, and prints what is saved in it.

`build/docs/bin/python -m tests.support.notebook` saves what it prints now.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import ROOT

NOTEBOOK = ROOT / "docs/azure_ml_guide.ipynb"
PYTHON = ROOT / "build/docs/bin/python"
SECONDS = 300


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return found


def printed(path: Path) -> list[str]:
    """What the cells of code print."""
    return [
        "".join(text for output in cell["outputs"] for text in output.get("text", ()))
        for cell in cells(path)
        if cell["cell_type"] == "code"
    ]


@pytest.mark.long
def test_it_prints_what_is_saved_in_it(tmp_path: Path) -> None:
    if not (ROOT / "build/docs/.serves").exists():
        pytest.skip("what runs notebooks is not installed: `make notebook-tools`")
    done = subprocess.run(
        [str(PYTHON), "-m", "tests.support.notebook", str(NOTEBOOK), str(tmp_path / "done.ipynb")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert printed(tmp_path / "done.ipynb") == printed(NOTEBOOK)


def test_it_has_been_run() -> None:
    code = [cell for cell in cells(NOTEBOOK) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert printed(NOTEBOOK)[-1] == "exit code of the service: 0\n"


def test_its_steps_are_those_of_the_guide() -> None:
    titles = [line for cell in cells(NOTEBOOK) for line in cell["source"] if line.startswith("## ")]
    assert [title.split(". ")[1].strip() for title in titles] == [
        "Train and save the model",
        "Deploy",
        "Make keys",
        "Register the public keys",
        "Encrypt, call, decrypt",
        "The same without `encrypted-inference`",
        "Clean up",
    ]
