"""Run files: where the agent keeps its socket and its token by default, for its user only."""

import os
import stat
from pathlib import Path

from sealserve.errors import InputError

SOCKET = "agent.sock"
TOKEN = "agent.token"  # noqa: S105  # the name of a file
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def run_directory() -> Path:
    """Return the directory for these files: systemd's, or one in that of the user's session."""
    if given := os.environ.get("RUNTIME_DIRECTORY"):  # of a unit with RuntimeDirectory=
        return Path(given.partition(":")[0])
    session = os.environ.get("XDG_RUNTIME_DIR")
    return Path(session) / "sealserve" if session else Path.home() / ".sealserve"


def make_private(directory: Path) -> None:
    """Make a directory of mode 0700, or check that one that is there is this user's alone.

    Raises:
        InputError: others may enter it, or it is another user's.
        OSError: it cannot be made.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "posix":
        return
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & _FOR_OTHERS:
        raise InputError(f"{directory}: it has to be a directory of this user, with mode 0700: chmod 700")
