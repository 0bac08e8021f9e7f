"""The processes of a service: one that supervises, and the workers that serve."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PROGRAM = """
import sys
from sealserve_service.settings import Settings
from sealserve_service.process.supervisor import run
path, address, processes = sys.argv[1:]
model, input_range = ("line=" + path,), ("0,1",)
sys.exit(run(Settings(address=address, processes=processes, model=model, input_range=input_range, weights="open")))
"""


def command(model_path: Path, address: str, processes: int) -> list[str]:
    """Return the command that serves a model, with open weights, from a number of processes."""
    return [sys.executable, "-c", PROGRAM, str(model_path), address, str(processes)]


@contextmanager
def running(model_path: Path, processes: int, address: str = "127.0.0.1:0") -> Iterator[tuple[str, psutil.Process]]:
    """Run the service; give its address and its first process.

    That process supervises the others, where there are several.
    """
    with subprocess.Popen(command(model_path, address, processes), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[-1], psutil.Process(process.pid)
        finally:
            process.kill()


def workers(supervisor: psutil.Process) -> set[int]:
    """The ids of the processes that serve."""
    return {child.pid for child in supervisor.children() if is_alive(child) and "spawn_main" in str(child.cmdline())}


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs: one that has ended may still be waited for by its parent."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
