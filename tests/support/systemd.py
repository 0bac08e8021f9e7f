"""Units of systemd: what they say, and what systemd says of them."""

import os
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.serving import HANG_SECONDS

MOST_EXPOSURE = 2.0
"""Of 10: systemd calls it OK."""


def directives(path: Path) -> dict[str, list[str]]:
    """What a unit says, by directive."""
    found = defaultdict[str, list[str]](list)
    for line in path.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def analyze(path: Path, folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Have systemd judge a unit, whose program need not be installed here.

    Without systemd the test is skipped; in CI that is a failure.
    """
    program = shutil.which("systemd-analyze")
    if program is None:
        reason = "systemd-analyze is missing: install systemd"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    unit = folder / "unit.service"
    (command,) = directives(path)["ExecStart"]
    unit.write_text(path.read_text().replace(shlex.split(command)[0], sys.executable))
    return subprocess.run(
        [program, *words, str(unit)],
        env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def exposure(path: Path, folder: Path) -> "subprocess.CompletedProcess[str]":
    """What systemd says of a unit's exposure; the exit code is 0 up to MOST_EXPOSURE."""
    return analyze(path, folder, "security", "--offline=true", f"--threshold={int(10 * MOST_EXPOSURE)}")
