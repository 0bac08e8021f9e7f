"""The C library's memory allocator, set up for a serving process."""

import ctypes
import sys

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8

KEPT_BYTES = 32 << 20
"""Free memory at the heap's end goes back to the system when it is more than this."""
_STEP_BYTES = 8 << 20
"""The heap grows by at least this much. A larger block is mapped, and unmapped when it is freed."""


def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed memory for the next message; do nothing with another library.

    Messages of a megabyte come and go in many threads. The system zeroes pages anew for each
    message if they went back to it after the last one. With an arena for each thread that is the
    rule. With a single arena, which all threads share under one lock, it depends on which block
    happens to lie last on the heap. Hence there is one arena, and it keeps up to KEPT_BYTES.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_TOP_PAD, _STEP_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _STEP_BYTES)


def return_free_memory() -> None:
    """Let glibc's malloc return all free memory to the system; with another C library, do nothing.

    Call it after rare work that takes much memory, such as loading a model. On the heap,
    blocks that are kept lie behind the freed ones. Without this call the process would keep the
    freed memory for good, even beyond KEPT_BYTES.
    """
    if sys.platform == "linux" and (malloc_trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        malloc_trim(0)


def reserve_address_space() -> None:
    """Let glibc's malloc grow its heap ahead of need; with another C library, do nothing.

    Where the system gives no more address space for a while, small things still find room: a call,
    a refusal, a line of the log. Without room for them gRPC's core ends the process. The room takes
    no memory until it is used.
    """
    library = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(library, "mallopt"):
        library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        library.free(library.malloc(ctypes.c_size_t(_STEP_BYTES - (64 << 10))))
