"""`sealserve serve` as a program of its own, with any options."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.serving import ROOT


@dataclass(frozen=True)
class Program:
    """A running service."""

    address: str
    process: "subprocess.Popen[str]"

    @property
    def resident_bytes(self) -> int:
        """What it has in memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextlib.contextmanager
def serve(*options: str, address: str = "127.0.0.1:0", log: str = "", **environment: str) -> Iterator[Program]:
    """Run `sealserve serve` with options and variables; it is killed at the end, if it has not ended before.

    What it says on stderr goes to the file `log`, without one to our own stderr.
    """
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", "--address", address, "--log-level", "warning"]
    with (
        Path(log).open("w") if log else contextlib.nullcontext() as stderr,
        subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | environment,
        ) as process,
    ):
        assert process.stdout
        try:
            line = process.stdout.readline()
            assert line, "the service did not start; what it says is above"
            yield Program(line.split()[-1], process)
        finally:
            process.kill()
