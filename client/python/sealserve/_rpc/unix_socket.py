"""Unix sockets that a process listens on: for the user that runs it, and for nobody else."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from sealserve.errors import InputError

_FOR_OTHERS = 0o177
_CHECK_SECONDS = 1.0


@contextlib.contextmanager
def private_socket(path: str) -> Iterator[None]:
    """Let what is bound in this context have mode 0600, from its first moment on.

    A socket that a dead process has left is removed.

    Raises:
        InputError: the path is in use, or cannot be one of a socket.
    """
    _remove_leftover(path)
    directory = Path(path).parent
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"cannot listen on unix:{path}: make the directory {directory}, and let this user write in it")
    before = os.umask(_FOR_OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def _remove_leftover(path: str) -> None:
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise InputError(f"cannot listen on unix:{path}: it is a file of another kind; name another path")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_CHECK_SECONDS)
            probe.connect(path)
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        Path(path).unlink(missing_ok=True)
        return
    except OSError as error:
        raise InputError(f"cannot listen on unix:{path}: {error.strerror or 'it is in use'}") from error
    raise InputError(f"cannot listen on unix:{path}: it is in use")
