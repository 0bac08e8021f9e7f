"""Signals as something to wait for, beside sockets and processes."""

import contextlib
import signal
import socket
from types import FrameType, TracebackType
from typing import Self

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
RELOAD = signal.SIGHUP
_MANY_BYTES = 1 << 16


class Signals:
    """While entered, STOP and RELOAD do nothing but make `socket` readable; for the main thread only.

    The interpreter writes to the socket as the signal comes (`signal.set_wakeup_fd`). A handler in Python could not: it
    waits for the main thread, which may be about to wait itself and would not notice.
    """

    def __init__(self) -> None:
        self.socket, self._writer = socket.socketpair()
        self.socket.setblocking(False)
        self._writer.setblocking(False)
        self._come = set[signal.Signals]()
        self._restoring = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in (*STOP, RELOAD):
            self._restoring.callback(signal.signal, number, signal.signal(number, self._note))
        # Unread bytes without number may fill the socket: it is readable then, and what has come is noted.
        before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._restoring.callback(signal.set_wakeup_fd, before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restoring.close()
        self.socket.close()
        self._writer.close()

    def take(self) -> set[signal.Signals]:
        """Return which have come since the last time."""
        with contextlib.suppress(BlockingIOError):
            self.socket.recv(_MANY_BYTES)
        come, self._come = self._come, set()
        return come

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._come.add(signal.Signals(number))
