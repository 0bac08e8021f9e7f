"""How a serving process asks its C library for memory."""

import ctypes
import sys

_M_ARENA_MAX = -8  # malloc.h


def share_one_arena() -> None:
    """Let all threads have their memory from one arena of glibc's malloc; with another C library, do nothing.

    Messages of a megabyte come and go in many threads. Of an arena of its own a thread gives the pages back to the
    system with each message that is freed, and has them zeroed anew for the next. The price is a lock that all share.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_ARENA_MAX, 1)
