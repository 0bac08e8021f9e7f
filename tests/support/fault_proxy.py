"""A TCP proxy that stands between a client and a server, and misbehaves on request."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

Fault = Callable[[socket.socket, int], None]
"""What is done with a client's connection, given the port of the server."""

_BLOCK_BYTES = 1 << 16


def relay(client: socket.socket, port: int) -> None:
    """Relay without a fault."""
    _relay(client, port, lambda data: data, lambda data: data)


def break_off_after(reply_bytes: int) -> Fault:
    """Relay, but only so many bytes of what the server says."""

    def fault(client: socket.socket, port: int) -> None:
        left = reply_bytes

        def downward(data: bytes) -> bytes | None:
            nonlocal left
            passed, left = data[:left], left - len(data)
            return passed or None

        _relay(client, port, lambda data: data, downward)

    return fault


def lose_answer_to(method: bytes) -> Fault:
    """Relay up to a request of that method: it arrives, and its answer does not."""

    def fault(client: socket.socket, port: int) -> None:
        is_asked = threading.Event()

        def upward(data: bytes) -> bytes:
            if data.startswith(method + b" "):
                is_asked.set()
            return data

        _relay(client, port, upward, lambda data: None if is_asked.is_set() else data)

    return fault


def answer(reply: bytes) -> Fault:
    """Give every request the same answer, and close."""

    def fault(client: socket.socket, port: int) -> None:
        _read_request(client)
        client.sendall(reply)

    return fault


def say_nothing(client: socket.socket, port: int) -> None:
    """Read everything and never answer."""
    while client.recv(_BLOCK_BYTES):
        pass


def read_nothing(client: socket.socket, port: int) -> None:
    """Do not even read what the client sends."""
    while client.fileno() >= 0:
        time.sleep(0.05)


def drip(client: socket.socket, port: int) -> None:
    """Answer a byte at a time, each well within the time-out of a wait, without an end."""
    client.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while True:
        client.sendall(b"x")
        time.sleep(0.1)


def hang_up(client: socket.socket, port: int) -> None:
    """Close at once."""


class FaultProxy:
    """A proxy on a free port of this machine; relays until `use` says otherwise."""

    def __init__(self, port: int) -> None:
        self._target_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._fault: Fault = relay
        self._times: int | None = None
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self.port: int = self._listener.getsockname()[1]
        self.connection_count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def use(self, fault: Fault, times: int | None = None) -> None:
        """Drop all connections, and treat new ones by a fault.

        Args:
            fault: what is done with them.
            times: how many are treated so before the proxy relays again; all, if None.
        """
        with self._lock:
            self._fault, self._times = fault, times
            for connection in self._connections:
                _shut(connection)
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _shut(self._listener)
        self._listener.close()
        self.use(hang_up)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, self._registered(client) as fault, contextlib.suppress(OSError):
            fault(client, self._target_port)

    @contextlib.contextmanager
    def _registered(self, client: socket.socket) -> Iterator[Fault]:
        with self._lock:
            self.connection_count += 1
            self._connections.add(client)
            fault = self._fault
            if self._times is not None:
                self._times -= 1
                if self._times <= 0:
                    self._fault, self._times = relay, None
        try:
            yield fault
        finally:
            with self._lock:
                self._connections.discard(client)


_Filter = Callable[[bytes], bytes | None]
"""What is passed on of what has come; None breaks off."""


def _relay(client: socket.socket, port: int, upward: _Filter, downward: _Filter) -> None:
    with socket.create_connection(("127.0.0.1", port)) as server:
        up = threading.Thread(target=_pump, args=(client, server, upward), daemon=True)
        up.start()
        _pump(server, client, downward)
        _shut(client)
        up.join()


def _pump(source: socket.socket, sink: socket.socket, passed_on: _Filter) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(_BLOCK_BYTES)) and (passed := passed_on(data)) is not None:
            sink.sendall(passed)
    _shut(sink)


def _read_request(client: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(_BLOCK_BYTES)
        if not more:
            return
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        more = client.recv(_BLOCK_BYTES)
        if not more:
            return
        body += more


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
