"""How a serving process asks its C library for memory, and gives it back."""

import ctypes
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8

KEPT_BYTES = 32 << 20
"""What is free at the heap's end goes back to the system when it is more."""
_STEP_BYTES = 8 << 20  # by which the heap grows at least; what is larger than a step is mapped for itself, and unmapped


def keep_what_is_freed() -> None:
    """Let glibc's malloc keep freed memory for the next message; with another C library, do nothing.

    Messages of a megabyte come and go in many threads. Pages that go back to the system with each of them are zeroed
    anew for the next: as a rule where each thread has an arena of its own, and in a single one, for which all share a
    lock, by luck: whatever lies last on the heap decides. Hence one arena, which keeps up to KEPT_BYTES.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TOP_PAD, _STEP_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _STEP_BYTES)


def give_back_what_is_free() -> None:
    """Let glibc's malloc return all that is free, wherever it lies; with another C library, do nothing.

    For after what is done rarely and takes much, as loading a model does: what is kept of it lies behind what is freed,
    which would stay for good, beyond KEPT_BYTES too.
    """
    if sys.platform == "linux" and (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        malloc_trim(0)
