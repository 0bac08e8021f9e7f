"""The `sealserve` program, called in this process."""

from pathlib import Path

import pytest

from sealserve.cli.main import main


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Run the program, which must fail in one line on stderr, and return that line."""
    assert main(list(map(str, arguments))) == 1
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("sealserve: error: ")
    return last
