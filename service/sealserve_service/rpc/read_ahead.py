"""The read-ahead of a stream: its next message is read while the current one is worked on."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Generic, TypeVar

M = TypeVar("M")


class ReadAhead(Generic[M]):
    """Reads one message ahead and no more, so that gRPC's flow control holds back the sender.

    Args:
        messages: the stream. It blocks until the next message arrives.
        readers: has a thread for the stream.
    """

    def __init__(self, messages: Iterator[M], readers: Executor) -> None:
        self._messages = messages
        self._changed = threading.Condition()
        self._ahead: list[M | Exception | None] = []
        self._is_interrupted = self._is_closed = False
        readers.submit(self._read)

    def receive(self, timeout_seconds: float | None) -> M | None:
        """Return the next message, or None at the end of the stream.

        Raises:
            queue.Empty: the time is up, or `interrupt` was called.
            Exception: what the stream raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ahead or self._is_interrupted, timeout_seconds)
            self._is_interrupted = False
            if not self._ahead:
                raise queue.Empty
            message = self._ahead.pop()
            self._changed.notify_all()
        if isinstance(message, Exception):
            raise message
        return message

    def interrupt(self) -> None:
        """End the current wait for a message, or else the next one."""
        with self._changed:
            self._is_interrupted = True
            self._changed.notify_all()

    def close(self) -> None:
        """Read no more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _read(self) -> None:
        message: M | Exception | None
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or not self._ahead)
                if self._is_closed:
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
