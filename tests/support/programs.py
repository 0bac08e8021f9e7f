"""`sealserve serve` as a program of its own, with any options."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.serving import ROOT


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far, in all its threads.

    It is finer than psutil, whose clock ticks 100 times a second.
    """
    return time.clock_gettime(~pid << 3 | 2)  # Linux's clock of another process, as clock_getcpuclockid makes it


@dataclass(frozen=True)
class Program:
    """A running service."""

    address: str
    process: "subprocess.Popen[str]"
    log: Path

    @property
    def said(self) -> list[str]:
        """The lines that it has logged so far."""
        return self.log.read_text().splitlines()

    @property
    def resident_bytes(self) -> int:
        """How much memory it has."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def peak_bytes(self) -> int:
        """The most that it had in memory since forget_peak, or since it began."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))

    def forget_peak(self) -> None:
        """Reset peak_bytes to what it has in memory now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    @property
    def cpu_seconds(self) -> float:
        """The processor time of all its processes so far."""
        main = psutil.Process(self.process.pid)
        return sum(cpu_seconds(process.pid) for process in (main, *main.children(recursive=True)))


@contextlib.contextmanager
def serve(*options: str, address: str = "127.0.0.1:0", log: Path | str = "", **environment: str) -> Iterator[Program]:
    """Run `sealserve serve` with options and variables; kill it at the end, if it still runs.

    Its weights are open unless an option says otherwise: most tests are about what is the same in
    either mode.

    Args:
        options: of `serve`.
        address: to listen on.
        log: a file for its log; this process's stderr if empty.
        environment: variables.
    """
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", "--address", address, "--log-level", "warning"]
    command += ["--weights", "open"]
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
            yield Program(line.split()[-1], process, Path(log))
        finally:
            process.kill()
