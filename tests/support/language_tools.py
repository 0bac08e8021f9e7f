"""Tools of other languages: where they are, and what is to be done where they are missing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import ROOT

GO = ROOT / "build/go/bin"
BUILD_SECONDS = 1800.0
"""How long a build may take that first fetches what it needs."""


def require(*programs: str, installs: str) -> None:
    """Skip the test where a program is missing; in CI, install it or fail.

    Args:
        programs: on the PATH.
        installs: the target of make that installs them.
    """
    if any(shutil.which(program, path=_path()) is None for program in programs):
        reason = f"{' or '.join(programs)} is missing: `make {installs}`"
        if os.environ.get("CI") != "true":
            pytest.skip(reason)
        run("make", "--no-print-directory", installs)


def run(*command: str | Path, folder: Path = ROOT) -> str:
    """Run a program, with these tools on its PATH; return what it prints."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=os.environ | {"PATH": _path()},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def make_stubs(language: str, folder: Path) -> str:
    """Generate the code of a language; return what `make stubs` prints.

    The tools of this Python's environment are used, and nothing in it is installed anew.
    """
    tools = Path(sys.executable).parent
    return run(
        "make",
        "-o",
        "setup",
        "stubs",
        f"LANGUAGE={language}",
        f"STUBS={folder}",
        f"BIN={tools}",
        f"PYTHON={sys.executable}",
    )


def _path() -> str:
    """Prefer the tools of this Python's environment, such as Node, to others."""
    return os.pathsep.join((str(Path(sys.executable).parent), str(GO), os.environ.get("PATH", "")))
