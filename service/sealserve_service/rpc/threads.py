"""The threads of a server: how many there may be, and pools of them that are complete at start.

gRPC's own serving thread hands each call to a pool. A pool of the standard library starts its
threads when they are first needed. If the system refuses one then, the error ends gRPC's serving
thread, and the server never answers again. Therefore all threads of a pool are started with it:
a system that has no room for them says so at start.
"""

import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sealserve.errors import SealserveError

STACK_BYTES = 1 << 20
"""Of address space for each thread. The system's 8 MB would add up to gigabytes."""
# Beside the two pools of a server: gRPC's own, those of the metrics, of uploads, and a few single
# ones.
_OTHER_THREADS = 64
_BASE_BYTES = 400 << 20  # of address space: Python, its libraries, and a small model
_PIDS_LIMITS = (Path("/sys/fs/cgroup/pids.max"), Path("/sys/fs/cgroup/pids/pids.max"))


class NoThreadError(SealserveError):
    """The system refuses the threads that a server needs; the text says what to do."""


def thread_limit(files: tuple[Path, ...] = _PIDS_LIMITS) -> int | None:
    """Return how many threads and processes this container may have; None if there is no limit."""
    for file in files:
        try:
            return int(file.read_text())
        except (OSError, ValueError):  # "max" is not a number
            continue
    return None


def pool_threads(limit: int | None, processes: int, wanted: int) -> int:
    """Return how many threads each of a process's two pools may have, at most as many as wanted."""
    if limit is None:
        return wanted
    return max(1, min(wanted, (limit // processes - _OTHER_THREADS) // 2))


def start_all(pool: ThreadPoolExecutor, thread_count: int) -> None:
    """Start all threads of a new pool, so that its `submit` starts none.

    Raises:
        NoThreadError: the system refuses a thread.
    """
    go_on = threading.Event()
    before = threading.stack_size(STACK_BYTES)
    try:
        for _ in range(thread_count):  # each task occupies a thread, so that the next one needs another
            pool.submit(go_on.wait)
    except (RuntimeError, MemoryError) as error:
        raise NoThreadError(
            f"the system refuses a thread: a serving process has two pools of {thread_count} threads, and needs "
            f"{2 * thread_count * STACK_BYTES >> 20} MB of address space for them; give it more threads (pids) or "
            "address space, or lower --max-concurrent-calls"
        ) from error
    finally:
        threading.stack_size(before)
        go_on.set()


def check_address_space() -> None:
    """Check the limit of this process's address space, before large libraries fail to load in it.

    Raises:
        NoThreadError: it is below what a service needs before it has any thread.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _BASE_BYTES:
        raise NoThreadError(
            f"the address space is limited to {limit >> 20} MB; a service needs {_BASE_BYTES >> 20} MB, and 2 MB for "
            "each call at once: raise the limit (ulimit -v), or limit the memory of the container instead"
        )
