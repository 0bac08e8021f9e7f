"""Watched files: read again when they change, and ignored while they are bad."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from sealserve.errors import SealserveError

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class UnusableFileError(SealserveError):
    """A file cannot be used; the text says which file and why, and holds no secret."""


class WatchedFiles(Generic[T]):
    """The value that some files have, as of their last good contents.

    The files are compared by their contents, not by their times. A file may change twice within a
    clock tick, and a mounted secret is a link to another file.

    Args:
        paths: the files.
        parse: makes the value of their contents, which are in the order of the paths; raises
            UnusableFileError.
        interval_seconds: the least time between two looks at the files. `read` looks; nothing
            else does.

    Raises:
        UnusableFileError: the files cannot be read or used at the start.
    """

    def __init__(
        self, paths: Sequence[Path], parse: Callable[[list[bytes]], T], *, interval_seconds: float = 1.0
    ) -> None:
        self._paths = paths
        self._parse = parse
        self._interval_seconds = interval_seconds
        self._lock = threading.Lock()
        self._contents = _contents(paths)
        self._value = parse(_readable(self._contents))
        self._is_bad = False
        self._next_look = time.monotonic() + interval_seconds

    def read(self) -> T:
        """Return the value.

        If the files have turned bad, that is logged once as an error, and the old value stays. They
        are parsed again at each look, as time may make them good: a certificate becomes valid.
        """
        if time.monotonic() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._value

    def _look(self) -> None:
        self._next_look = time.monotonic() + self._interval_seconds
        contents = _contents(self._paths)
        has_changed = contents != self._contents
        if not (has_changed or self._is_bad):
            return
        self._contents = contents
        names = ", ".join(map(str, self._paths))
        try:
            self._value = self._parse(_readable(contents))
            self._is_bad = False
            _logger.info("%s: read again", names)
        except UnusableFileError as error:
            self._is_bad = True
            if has_changed:
                _logger.error("%s; what was read before stays in force", error)


def _contents(paths: Sequence[Path]) -> list[bytes | str]:
    """Read files; in place of one that cannot be read there is a text that says why."""
    return [_read(path) for path in paths]


def _read(path: Path) -> bytes | str:
    try:
        return path.read_bytes()
    except OSError as error:
        return f"{path}: {error.strerror}"


def _readable(contents: list[bytes | str]) -> list[bytes]:
    """Return the contents if all files could be read.

    Raises:
        UnusableFileError: a file could not be read.
    """
    data = []
    for content in contents:
        if isinstance(content, str):
            raise UnusableFileError(content)
        data.append(content)
    return data
