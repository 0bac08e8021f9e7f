"""Go, and the module of the Go client: its tests run in a process of their own."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.serving import ROOT

MODULE = ROOT / "client/go"
_INSTALLED = ROOT / "build/go/bin/go"


def go() -> str:
    """Find the executable of Go: that of `make go-tools`, or any other.

    Without one the test is skipped; in CI that is a failure.
    """
    found = str(_INSTALLED) if _INSTALLED.is_file() else shutil.which("go")
    if found:
        return found
    reason = "Go is not installed: `make go-tools`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def run(
    *arguments: str, variables: Mapping[str, str] | None = None, folder: Path = MODULE, seconds: float = 540.0
) -> "subprocess.CompletedProcess[str]":
    """Run a command of Go in the module, and return what it prints."""
    return subprocess.run(
        [go(), *arguments],
        cwd=folder,
        env={**os.environ, **(variables or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
