"""The memory of a serving process, and the part of it that ciphertexts may take."""

from pathlib import Path

_MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_BASE_BYTES = 300 << 20  # of an idle serving process
_MIN_WORK_BYTES, _MAX_WORK_BYTES = 32 << 20, 1 << 30


def memory_limit_bytes(files: tuple[Path, ...] = _MEMORY_LIMITS) -> int | None:
    """Return the memory limit of this container; None if there is none."""
    for file in files:
        try:
            limit = int(file.read_text())
        except (OSError, ValueError):  # "max" is not a number
            continue
        if limit < 1 << 50:  # cgroup v1 writes 2^63 if there is no limit
            return limit
    return None


def work_bytes(limit: int | None, processes: int) -> int:
    """Return how many bytes of ciphertexts a process may hold.

    That is a quarter of its memory beyond its own needs, since up to four copies of a ciphertext
    exist: as received, as bytes, as SEAL's object, and as the reply made of it.
    """
    if limit is None:
        return _MAX_WORK_BYTES
    return min(max((limit // processes - _BASE_BYTES) // 4, _MIN_WORK_BYTES), _MAX_WORK_BYTES)
