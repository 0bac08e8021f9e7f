"""The run directory: where the processes of one service have sockets and metrics in common.

A service that is killed leaves its directory behind. The next service that starts on the machine
removes it. A lock on a file in it tells that its service lives; the system releases the lock with
the process that holds it, whatever its id is and in whichever container it runs.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sealserve.errors import SealserveError

PREFIX = "sealserve-run-"
_LOCK = "lock"
_NEW_LOCK = "lock.new"
# Of a directory in which a socket's path has its place in a sockaddr_un, 108 bytes.
_MAX_PATH_BYTES = 76

_logger = logging.getLogger(__name__)


class RunDirectoryError(SealserveError):
    """There is no place for the run directory; the text names the places that were tried."""


@contextlib.contextmanager
def run_directory(*, is_needed: bool) -> Iterator[Path | None]:
    """Make a run directory, which only this user can enter, and remove it at the end.

    Args:
        is_needed: if it is not, and there is no place for it, the log says so and None is yielded.

    Raises:
        RunDirectoryError: it is needed, and there is no place for it.
    """
    try:
        directory = _make()
    except RunDirectoryError as error:
        if is_needed:
            raise
        _logger.warning("no heartbeat: %s", error)
        yield None
        return
    try:
        # A name that `sweep` does not look for: it would take the directory before it is locked.
        with (directory / _NEW_LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (directory / _NEW_LOCK).rename(directory / _LOCK)
            sweep(directory.parent)
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove the run directories of dead services of this user."""
    for lock_path in parent.glob(f"{PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock_path.open("rb") as lock:
            if os.fstat(lock.fileno()).st_uid == os.getuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its service lives
                shutil.rmtree(lock_path.parent, ignore_errors=True)


def _make() -> Path:
    tried = dict.fromkeys([os.environ.get("TMPDIR") or "/tmp", "/tmp", "/var/tmp", "/dev/shm"])  # noqa: S108
    reasons = []
    for place in tried:
        if len(os.fsencode(place)) > _MAX_PATH_BYTES:
            reasons.append(f"{place}: the path is too long for a socket in it")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        except OSError as error:
            reasons.append(f"{place}: {error.strerror}")
    raise RunDirectoryError(
        f"no directory for temporary files can be used ({'; '.join(reasons)}): mount one that can be written at /tmp, "
        "or name one in TMPDIR"
    )
