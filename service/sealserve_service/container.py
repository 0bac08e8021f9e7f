"""The container of this process: how many cores and threads and how much memory it gives."""

import os
from pathlib import Path

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_PIDS_LIMITS = (Path("/sys/fs/cgroup/pids.max"), Path("/sys/fs/cgroup/pids/pids.max"))
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
_CPU_QUOTA, _CPU_PERIOD = (Path(f"/sys/fs/cgroup/cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
PROCESS_BYTES = 300 << 20
"""The memory of an idle serving process."""


def memory_limit_bytes(files: tuple[Path, ...] = _MEMORY_LIMITS) -> int | None:
    """Return the memory limit of this container; None if there is none."""
    return _limit(files)


def thread_limit(files: tuple[Path, ...] = _PIDS_LIMITS) -> int | None:
    """Return how many threads and processes this container may have; None if there is no limit."""
    return _limit(files)


def _limit(files: tuple[Path, ...]) -> int | None:
    """Return the first limit that one of the files has, of cgroup v2 or v1."""
    for file in files:
        try:
            limit = int(file.read_text())
        except (OSError, ValueError):  # "max" is not a number
            continue
        if limit < 1 << 50:  # cgroup v1 writes 2^63 if there is no limit
            return limit
    return None


def core_count(cpu_max: Path = _CPU_MAX, quota: Path = _CPU_QUOTA, period: Path = _CPU_PERIOD) -> int:
    """Return how many whole cores this process may use, at least 1.

    They are those of its CPU affinity, and no more than the CPU quota of its container is worth.

    Args:
        cpu_max: the file of quota and period of cgroup v2.
        quota: that of the quota of cgroup v1.
        period: that of its period.
    """
    allowed = len(os.sched_getaffinity(0))
    for files in ((cpu_max,), (quota, period)):
        try:
            microseconds, of_microseconds = map(int, " ".join(file.read_text() for file in files).split())
        except (OSError, ValueError):  # "max" is not a number
            continue
        if microseconds > 0:  # cgroup v1 writes -1 if there is no quota
            return max(1, min(allowed, microseconds // of_microseconds))
    return allowed
