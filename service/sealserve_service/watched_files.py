"""Files that may change while the service runs: read again when they have, and passed over when they turn bad."""

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
    """A file that the service was told to use cannot be used; the text says which and why, and holds no secret."""


class WatchedFiles(Generic[T]):
    """What some files say, as of their last good contents.

    They are compared whole, not by their times: a file may change twice within a clock tick, and a mounted secret is a
    link to another file.

    Args:
        paths: the files.
        parse: makes something of their contents, in order; raises UnusableFileError.
        interval_seconds: look for changes that often at most, and only when somebody asks.

    Raises:
        UnusableFileError: they cannot be read, or not be used, at the start.
    """

    def __init__(
        self, paths: Sequence[Path], parse: Callable[[list[bytes]], T], *, interval_seconds: float = 1.0
    ) -> None:
        self._paths = paths
        self._parse = parse
        self._interval_seconds = interval_seconds
        self._lock = threading.Lock()
        self._seen = _contents(paths)
        self._value = parse(_readable(self._seen))
        self._next_look = time.monotonic() + interval_seconds

    def current(self) -> T:
        """Return what the files say. If they have turned bad, that is logged as an error once, and the old stands."""
        if time.monotonic() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()
        return self._value

    def _look(self) -> None:
        self._next_look = time.monotonic() + self._interval_seconds
        contents = _contents(self._paths)
        if contents == self._seen:
            return
        self._seen, names = contents, ", ".join(map(str, self._paths))
        try:
            self._value = self._parse(_readable(contents))
            _logger.info("%s: read again", names)
        except UnusableFileError as error:
            _logger.error("%s; what was read before stays in force", error)


def _contents(paths: Sequence[Path]) -> list[bytes | str]:
    """Read files: bytes, or why a file cannot be read."""
    return [_read(path) for path in paths]


def _read(path: Path) -> bytes | str:
    try:
        return path.read_bytes()
    except OSError as error:
        return f"{path}: {error.strerror}"


def _readable(contents: list[bytes | str]) -> list[bytes]:
    """Return the contents.

    Raises:
        UnusableFileError: a file could not be read.
    """
    data = []
    for content in contents:
        if isinstance(content, str):
            raise UnusableFileError(content)
        data.append(content)
    return data
