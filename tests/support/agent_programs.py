"""`sealserve agent` as a program of its own."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.serving import HANG_SECONDS, ROOT

PROGRAM = """\
import sys
from sealserve.agent.command import COMMAND
from sealserve.cli import main
main.commands = lambda name="": [COMMAND]
sys.exit(main.main())
"""
"""`sealserve agent`, also where the installed entry points are older than this command."""


@dataclass(frozen=True)
class Program:
    """A running agent: what it has printed, and its process."""

    line: str
    process: "subprocess.Popen[str]"
    log: Path


@contextlib.contextmanager
def running_program(target: str, folder: Path, *options: str) -> Iterator[Program]:
    """Run an agent whose files are in a folder."""
    log = folder / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "agent", "--target", target, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "RUNTIME_DIRECTORY"}
            | {"XDG_RUNTIME_DIR": str(folder)},
        ) as process,
    ):
        assert process.stdout
        try:
            line = process.stdout.readline()
            assert line, log.read_text()
            yield Program(line.strip(), process, log)
        finally:
            process.kill()


def run_agent(*options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run an agent that ends by itself."""
    command = [sys.executable, "-c", PROGRAM, "agent", *options]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * HANG_SECONDS,
        env=os.environ | environment,
        check=False,
    )
