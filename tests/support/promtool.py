"""promtool and Prometheus, which Debian's package `prometheus` brings."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.serving import ROOT

_INSTALL = "SEALSERVE_INSTALL_PROMTOOL"


def require() -> None:
    """Skip where promtool is not; in CI, or where a variable asks for it, install it or fail."""
    if shutil.which("promtool"):
        return
    if os.environ.get("CI") == "true" or os.environ.get(_INSTALL) == "1":
        subprocess.run([str(ROOT / ".ci/install_promtool")], check=True)
    else:
        pytest.skip(f"promtool is missing: `make promtool`, or {_INSTALL}=1")


def promtool(*arguments: str | Path, text: str = "") -> "subprocess.CompletedProcess[str]":
    """What promtool says, given a text on its standard input."""
    require()
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)
