"""A proxy that resets the connections to a server after a number of bytes."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: what is closed is reset


class ResettingProxy:
    """Passes connections on to an address; each is reset after its number of bytes.

    Args:
        target: HOST:PORT.
        limit: returns how many bytes from the client the n-th connection, from 0, may carry; None
            for any number.
    """

    def __init__(self, target: str, limit: Callable[[int], int | None]) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._limit = limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = self.resets = self.stalls = 0
        self._lock = threading.Lock()  # connections that are due at once: one has the stall
        self._stall: tuple[int, float] | None = None
        self._open = set[socket.socket]()
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self, at_bytes: int, seconds: float) -> None:
        """Hold back, once, what a client sends beyond a number of bytes of a connection."""
        self._stall = at_bytes, seconds

    def close(self) -> None:
        """Reset all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in list(self._open):
            _reset(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                limit, self.connections = self._limit(self.connections), self.connections + 1
                try:
                    far = socket.create_connection(self._target)
                except OSError:
                    _reset(near)
                    continue
                self._open |= {near, far}
                for arguments in ((near, far, limit), (far, near, None)):
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                count += len(data)
                if limit is not None and count > limit:
                    self.resets += 1
                    break
                if sink.getpeername() == self._target:
                    time.sleep(self._take_stall(count))
                sink.sendall(data)
        for end in (source, sink):
            self._open.discard(end)
            _reset(end)

    def _take_stall(self, count: int) -> float:
        """Return for how long to hold back.

        The first connection that has carried enough bytes takes the stall; all others go on.
        """
        with self._lock:
            if self._stall is None or count <= self._stall[0]:
                return 0.0
            seconds, self._stall = self._stall[1], None
            self.stalls += 1
            return seconds


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def resetting_proxy(target: str, limit: Callable[[int], int | None]) -> Iterator[ResettingProxy]:
    """Run a proxy."""
    proxy = ResettingProxy(target, limit)
    try:
        yield proxy
    finally:
        proxy.close()
