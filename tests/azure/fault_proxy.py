"""A TCP proxy that stands between a client and a server, and misbehaves on request."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

Fault = Callable[[socket.socket, int], None]
"""What is done with a client's connection, given the port of the server."""

_BLOCK_BYTES = 1 << 16


def relay(client: socket.socket, port: int) -> None:
    """No fault."""
    _relay(client, port, reply_bytes=None)


def break_off_after(reply_bytes: int) -> Fault:
    """Relay, but only so many bytes of what the server says."""
    return lambda client, port: _relay(client, port, reply_bytes)


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
    """Not even read what the client says."""
    while client.fileno() >= 0:
        time.sleep(0.05)


def drip(client: socket.socket, port: int) -> None:
    """Answer a byte at a time, each well within the time-out of a wait, and never come to an end."""
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
        """Drop all connections, and treat new ones so: for good, or so many of them before relaying again."""
        with self._lock:
            self._fault, self._times = fault, times
            for connection in self._connections:
                _shut(connection)
                connection.close()

    def __enter__(self) -> "FaultProxy":
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


def _relay(client: socket.socket, port: int, reply_bytes: int | None) -> None:
    with socket.create_connection(("127.0.0.1", port)) as server:
        upward = threading.Thread(target=_pump, args=(client, server, None), daemon=True)
        upward.start()
        _pump(server, client, reply_bytes)
        _shut(client)
        upward.join()


def _pump(source: socket.socket, sink: socket.socket, byte_count: int | None) -> None:
    left = byte_count
    with contextlib.suppress(OSError):
        while data := source.recv(_BLOCK_BYTES):
            sink.sendall(data[:left])
            if left is not None:
                left -= len(data)
                if left <= 0:
                    break
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
