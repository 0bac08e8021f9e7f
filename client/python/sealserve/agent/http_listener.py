"""HTTP listener: a server on 127.0.0.1 for an application.

Requests and replies stay in memory: waitress would otherwise write long ones into files. The body
of a request that the application refuses by its headers is not kept, because other users of this
machine can connect: they would fill the memory. What a caller has asked for ends when it hangs up.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import waitress
from waitress import wasyncore
from waitress.buffers import BytesIOBasedBuffer
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import WSGITask

from sealserve._rpc.cancellation import Cancellation
from sealserve.agent.listener import MAX_MESSAGE_BYTES
from sealserve.errors import InputError

HOST = "127.0.0.1"
CANCELLATION = "sealserve.cancellation"
"""In the environ of a request: what its caller cancels by hanging up."""

_THREADS = 16
_MAX_HEADER_BYTES = 16 << 10
_SILENCE_SECONDS = 30
_SEND_SECONDS = 1.0
_POLL_SECONDS = 0.01

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Application(Protocol):
    """A WSGI application that can judge a request by its headers.

    Attributes:
        port: where it is served.
    """

    port: int

    def __call__(self, environ: Mapping[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""

    def takes(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request with these headers is answered; names are as in HTTP_HOST."""


class _Discarded(BytesIOBasedBuffer):  # type: ignore[misc]
    """A body that nobody reads."""

    def append(self, data: bytes) -> None:
        """Forget the data."""


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """Reads a request, and its body if the application takes the headers.

    Otherwise a body of known length is read and forgotten, so that the caller reads why it is
    refused. One in chunks is not read: the connection ends with the refusal.
    """

    body_rcv: Any

    def __init__(self, application: Application, adjustments: Any) -> None:
        super().__init__(adjustments)
        self._application = application

    def parse_header(self, header_plus: bytes) -> None:
        """Read the headers."""
        super().parse_header(header_plus)
        if self.body_rcv is None or self._application.takes(self.headers):
            return
        if self.chunked:
            # Chunks are not read. Waitress keeps a line of theirs without an end, or trailers, and
            # searches all of it again for every few kilobytes that come.
            self.body_rcv, self.expect_continue = None, False
            self.headers["CONNECTION"] = "close"
        else:
            self.body_rcv.buf = _Discarded()


class _Task(WSGITask):  # type: ignore[misc]
    """A request that is answered. It ends when its caller hangs up."""

    def get_environment(self) -> dict[str, Any]:
        """Return the environ for the application."""
        environ: dict[str, Any] = super().get_environment()
        return environ | {CANCELLATION: self.channel.cancellation}


class _Connection(HTTPChannel):  # type: ignore[misc]
    """A connection.

    Attributes:
        cancellation: cancelled when the caller hangs up.
    """

    task_class = _Task
    logger = logging.Logger("silent", logging.CRITICAL + 1)  # waitress would log paths, which callers write

    def __init__(self, application: Application, *arguments: Any, **options: Any) -> None:
        self.cancellation = Cancellation()
        self.parser_class = partial(_Parser, application)
        super().__init__(*arguments, **options)

    def handle_close(self) -> None:
        """Note that the caller has hung up, or that the connection is to be closed."""
        self.cancellation.cancel()
        super().handle_close()

    @property
    def is_busy(self) -> bool:
        """Whether there is a reply to make or to send."""
        return bool(self.requests or self.total_outbufs_len)


@contextlib.contextmanager
def serving(application: Application, port: int, grace_seconds: float) -> Iterator[int]:
    """Serve the application on 127.0.0.1 while the context lasts; give the port.

    Args:
        application: the application.
        port: 0 for one that the system chooses.
        grace_seconds: for requests that are under way at the end.

    Raises:
        InputError: the port is in use.
    """
    try:
        server = waitress.create_server(
            application,
            host=HOST,
            port=port,
            threads=_THREADS,
            ident="",
            max_request_header_size=_MAX_HEADER_BYTES,
            max_request_body_size=MAX_MESSAGE_BYTES,
            inbuf_overflow=2 * MAX_MESSAGE_BYTES,
            outbuf_overflow=2 * MAX_MESSAGE_BYTES,
            outbuf_high_watermark=2 * MAX_MESSAGE_BYTES,
            channel_timeout=_SILENCE_SECONDS,
            channel_request_lookahead=1,  # else nothing is read during a request, and no end is seen
            clear_untrusted_proxy_headers=True,
            log_socket_errors=False,
        )
    except OSError as error:
        raise InputError(f"cannot listen on {HOST}:{port}: {error.strerror}") from error
    server.channel_class = partial(_Connection, application)
    application.port = int(server.effective_port)
    stopping = threading.Event()
    thread = threading.Thread(target=_run, args=(server, stopping), name="rest", daemon=True)
    thread.start()
    try:
        yield application.port
    finally:
        server.task_dispatcher.shutdown(timeout=grace_seconds)
        end = time.monotonic() + _SEND_SECONDS
        while any(each.is_busy for each in list(server.active_channels.values())) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        stopping.set()
        server.pull_trigger()
        thread.join()
        wasyncore.close_all(server._map, ignore_all=True)


def _run(server: Any, stopping: threading.Event) -> None:
    """Answer requests until the event is set and the trigger is pulled."""
    while server._map and not stopping.is_set():
        wasyncore.loop(timeout=server.adj.asyncore_loop_timeout, map=server._map, count=1)
