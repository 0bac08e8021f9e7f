"""The allocator of a serving process keeps freed memory.

Otherwise each megabyte would go back to the system, and be zeroed for the next use. What loading a
model took is given back all the same.
"""

import contextlib
import itertools
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.client import Client
from sealserve_service.allocator import KEPT_BYTES
from tests.support.programs import Program, serve

ARENA_BYTES = 64 << 20  # glibc reserves as much for each but the first, at a multiple of it
_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="arenas are glibc's, and /proc is Linux's")


def further_arenas(pid: int) -> Iterator[int]:
    """The addresses of a process's arenas but the first.

    An arena is what is used, then the rest of the 64 MB that are reserved.
    """
    lines = map(_LINE.match, Path(f"/proc/{pid}/maps").read_text().splitlines())
    maps = [(int(line[1], 16), int(line[2], 16), line[3]) for line in lines if line]
    for (start, end, rights), (next_start, next_end, next_rights) in itertools.pairwise(maps):
        is_reserved = next_start == end and next_rights == "---p" and next_end - start == ARENA_BYTES
        if start % ARENA_BYTES == 0 and rights == "rw-p" and is_reserved:
            yield start


FAULTS = """
import resource, sys
from sealserve_service.allocator import KEPT_BYTES, keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def come_and_go():
    messages = [b"." * (1 << 20) for _ in range(KEPT_BYTES >> 21)]
for _ in range(3):  # what is mapped for itself at first comes from the heap later
    come_and_go()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    come_and_go()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """How many pages a process is given while half of KEPT_BYTES comes and goes, ten times."""
    found = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(found.stdout)


def test_megabytes_that_come_and_go_are_not_asked_for_anew() -> None:
    pages = KEPT_BYTES // 2 // resource.getpagesize()
    assert faults("as usual") > 5 * pages, "the C library keeps them by itself: nothing to do"
    assert faults("kept") < pages / 10


@contextlib.contextmanager
def served(directory: Path, weights: NDArray[np.float64]) -> Iterator[Program]:
    """Serve weights (classes, features), whatever the score error is."""
    path = directory / f"model-{weights.shape[1]}.npz"
    np.savez(path, coef=weights, intercept=np.zeros(len(weights)), classes=np.arange(len(weights)))
    with serve(f"--model={path}", "--input-range=0,1", "--max-score-error=1e6") as program:
        yield program


@pytest.mark.slow
def test_what_loading_a_model_took_goes_back(tmp_path: Path) -> None:
    """The service of a larger model holds some copies of the model more, and nothing else."""
    generator = np.random.default_rng(0)
    small, large = generator.normal(size=(10, 64)), generator.normal(size=(10, 65_536))
    with served(tmp_path, small) as program:
        least = program.resident_bytes
    with served(tmp_path, large) as program:
        # In a ring of 4096, which errors ask for here, SEAL holds one more than in one of 2048.
        assert program.resident_bytes - least < 7 * large.nbytes


def test_threads_share_one_arena(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = generator.random((300, 64))
    with served(tmp_path, generator.normal(size=(3, 64))) as program:
        with ThreadPoolExecutor(4) as pool, Client(program.address, layout="column") as client:
            list(pool.map(client.predict, [rows] * 8))
        assert not list(further_arenas(program.process.pid))
