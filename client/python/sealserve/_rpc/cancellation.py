"""Cancellation: ends the calls that a thread waits for, when another thread says so."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from sealserve.errors import CallError, SealserveError


class CancelledError(SealserveError):
    """The calls were cancelled. Nobody waits for an answer."""


class Cancellation:
    """Whether the one who waits for an answer has gone away, and what to end then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._ends = list[Callable[[], Any]]()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` has been called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End what is under way, and all that begins from now on."""
        with self._lock:
            self._cancelled.set()
            ends = list(self._ends)
        for end in ends:
            end()

    @contextmanager
    def ending(self, end: Callable[[], Any]) -> Iterator[None]:
        """Have a function called, from any thread, on cancellation while the context lasts."""
        with self._lock:
            if not (is_cancelled := self.is_cancelled):
                self._ends.append(end)
        if is_cancelled:
            end()
        try:
            yield
        finally:
            with self._lock:
                if not is_cancelled:
                    self._ends.remove(end)

    def call(self, begin: Any, request: Any, timeout_seconds: float) -> Any:
        """Call a method that returns a stream of one response, and return the response.

        Raises:
            CancelledError: it was cancelled.
            CallError: there is no response, or more than one.
            grpc.RpcError: it failed.
        """
        self.check()
        pending = begin(request, timeout=timeout_seconds)
        with self.ending(pending.cancel):
            try:
                (response,) = pending  # the response, and then the status
            except grpc.RpcError:
                self.check()
                raise
            except ValueError:
                raise CallError("the call ended with no response, or with several") from None
            return response

    def check(self) -> None:
        """Raise CancelledError if `cancel` has been called."""
        if self.is_cancelled:
            raise CancelledError

    def sleep(self, seconds: float) -> None:
        """Wait, but not after cancellation."""
        self._cancelled.wait(seconds)
