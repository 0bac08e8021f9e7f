"""A serving process has one arena: with one a thread, each megabyte that is freed goes back to the system."""

import itertools
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sealserve.client import Client
from tests.programs import serve

ARENA_BYTES = 64 << 20  # glibc reserves as much for each but the first, at a multiple of it
_LINE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="arenas are glibc's, and /proc is Linux's")


def further_arenas(pid: int) -> Iterator[int]:
    """Addresses of a process's arenas but the first: what is used, then the rest of the 64 MB that are reserved."""
    lines = map(_LINE.match, Path(f"/proc/{pid}/maps").read_text().splitlines())
    maps = [(int(line[1], 16), int(line[2], 16), line[3]) for line in lines if line]
    for (start, end, rights), (next_start, next_end, next_rights) in itertools.pairwise(maps):
        is_reserved = next_start == end and next_rights == "---p" and next_end - start == ARENA_BYTES
        if start % ARENA_BYTES == 0 and rights == "rw-p" and is_reserved:
            yield start


def test_threads_share_one_arena(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "model.npz"
    np.savez(path, coef=generator.normal(size=(3, 64)), intercept=np.zeros(3), classes=np.arange(3))
    rows = generator.random((300, 64))
    with serve(f"--model={path}", "--input-range=0,1") as program:
        with ThreadPoolExecutor(4) as pool, Client(program.address, layout="column") as client:
            list(pool.map(client.predict, [rows] * 8))
        assert not list(further_arenas(program.process.pid))
