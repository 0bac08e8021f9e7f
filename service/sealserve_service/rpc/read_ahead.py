"""The messages of a stream, the next one read while the one before is worked on."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Generic, TypeVar

M = TypeVar("M")


class Inbox(Generic[M]):
    """Reads one message ahead, and no more: what is not read, gRPC holds back from the sender.

    Args:
        messages: the stream; waits for what has not come.
        readers: has a thread for it.
    """

    def __init__(self, messages: Iterator[M], readers: Executor) -> None:
        self._messages = messages
        self._changed = threading.Condition()
        self._ahead: list[M | Exception | None] = []
        self._woken = self._closed = False
        readers.submit(self._read)

    def get(self, timeout_seconds: float | None) -> M | None:
        """Return the next message, or None at the end of the stream.

        Raises:
            queue.Empty: the time is up, or somebody called `wake`.
            Exception: what the stream raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ahead or self._woken, timeout_seconds)
            self._woken = False
            if not self._ahead:
                raise queue.Empty
            message = self._ahead.pop()
            self._changed.notify_all()
        if isinstance(message, Exception):
            raise message
        return message

    def wake(self) -> None:
        """Let who waits for a message look around."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """Read no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _read(self) -> None:
        message: M | Exception | None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or not self._ahead)
                if self._closed:
                    return
            try:
                message = next(self._messages, None)
            except Exception as error:
                message = error
            with self._changed:
                self._ahead.append(message)
                self._changed.notify_all()
            if message is None or isinstance(message, Exception):
                return
