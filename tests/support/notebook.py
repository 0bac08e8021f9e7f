"""Runs a notebook and saves it with its output.

`build/docs/bin/python -m tests.support.notebook [FROM [TO]]`, after `make notebook-tools`. Without
arguments it is the notebook of the documentation.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

_NOTEBOOK = Path(__file__).parents[2] / "docs" / "azure_ml_guide.ipynb"


def run(source: Path, target: Path) -> None:
    """Run the notebook in a folder of its own, and save it.

    Raises:
        CellExecutionError: a cell raises an error.
    """
    notebook = nbformat.read(source, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # when it ran
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, target)


if __name__ == "__main__":
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else _NOTEBOOK
    run(source, Path(sys.argv[2]) if len(sys.argv) > 2 else source)
