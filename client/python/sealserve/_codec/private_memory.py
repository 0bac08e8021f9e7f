"""Private memory: it holds plaintext and a secret key, and is kept from dumps and from others."""

import contextlib
import ctypes
import sys
from pathlib import Path

_PR_SET_DUMPABLE = 4


def keep_private() -> None:
    """Let the system write no core dump of this process, nor of those that it starts.

    A limit of 0 is not enough: programs that take core dumps through a pipe get them regardless.
    On Linux other processes of the same user can also no longer read the memory of this one. A
    program that it starts does not inherit that, and calls this function itself.
    """
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # inherited, also by programs: dump no mapping
            Path("/proc/self/coredump_filter").write_text("0")
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
