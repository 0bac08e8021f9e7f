"""Signals, turned into a socket that can be waited for beside other sockets and processes."""

import contextlib
import os
import signal
import socket
import threading
import time
from types import FrameType, TracebackType
from typing import Self

STOP = frozenset({signal.SIGTERM, signal.SIGINT})
RELOAD = signal.SIGHUP
_MANY_BYTES = 1 << 16


class Signals:
    """While this context lasts, STOP and RELOAD only make `socket` readable.

    It is for the main thread only. The interpreter itself writes to the socket when a signal
    arrives (`signal.set_wakeup_fd`). A handler in Python could not do that in time: it runs in the
    main thread, which may already be about to wait and would not notice.

    Args:
        end_seconds: after so long from the first of STOP the process ends, whatever it is doing.
            None: it need not end. The thread that ends it is started with the context, since
            later there may be none.
    """

    def __init__(self, end_seconds: float | None = None) -> None:
        self._end_seconds = end_seconds
        self._until_stop = threading.Lock()
        self.socket, self._writer = socket.socketpair()
        self.socket.setblocking(False)
        self._writer.setblocking(False)
        self._arrived = set[signal.Signals]()
        self._restoring = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if self._end_seconds is not None:
            self._until_stop.acquire()
            threading.Thread(target=self._end, args=(self._end_seconds,), name="end", daemon=True).start()
        for number in (*STOP, RELOAD):
            self._restoring.callback(signal.signal, number, signal.signal(number, self._note))
        # Many unread bytes may fill the socket. It is readable then, and the signals are noted.
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
        """Return the signals that have arrived since the last call, and forget them."""
        with contextlib.suppress(BlockingIOError):
            self.socket.recv(_MANY_BYTES)
        arrived, self._arrived = self._arrived, set()
        return arrived

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._arrived.add(signal.Signals(number))
        if number in STOP:
            with contextlib.suppress(RuntimeError):  # it is released already, or nothing waits
                self._until_stop.release()

    def _end(self, seconds: float) -> None:
        self._until_stop.acquire()
        time.sleep(seconds)
        os._exit(1)
