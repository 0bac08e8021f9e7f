"""A link that delays and throttles what passes over it, byte for byte the same: for `FaultProxy`.

`python -m tests.support.slow_link PORT ROUND_TRIP_SECONDS BITS_PER_SECOND` is such a proxy, to a
port of this machine, in a process with a GIL of its own. It prints its port, and ends with its
standard input.

It simulates no loss, and none of TCP's slow start: what it shows of a link is the least that the
link costs.
"""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.serving import ROOT

# So much is sent at once: a record of TLS. On a link of 20 Mbit/s it takes 7 ms.
_BLOCK_BYTES = 1 << 14
# So much may wait for its turn, as in a router. The sender is held back then, and nothing is lost.
_WAITING_SECONDS = 0.05


class Direction:
    """One direction of a link, which all connections share: a token bucket and a delay.

    The bucket holds no tokens in store: an idle link does not send faster afterwards.

    Attributes:
        byte_count: how many bytes have been sent.
    """

    def __init__(self, bits_per_second: float, delay_seconds: float) -> None:
        self._seconds_a_byte = 8 / bits_per_second
        self._delay_seconds = delay_seconds
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.byte_count = 0

    def send(self, byte_count: int, now: float) -> float:
        """Send bytes after those before them; return when the last one arrives."""
        with self._lock:
            self.byte_count += byte_count
            self._free_at = max(now, self._free_at) + byte_count * self._seconds_a_byte
            return self._free_at + self._delay_seconds

    def waiting_seconds(self, now: float) -> float:
        """How long what was sent still waits for its turn."""
        return max(0.0, self._free_at - now)


@dataclass(frozen=True)
class SlowLink:
    """A link: its directions to the server and to the client."""

    up: Direction
    down: Direction

    @classmethod
    def of(cls, round_trip_seconds: float, bits_per_second: float) -> "SlowLink":
        """Make a link that is equally fast in both directions. Each has half the delay."""
        return cls(*(Direction(bits_per_second, round_trip_seconds / 2) for _ in range(2)))

    @property
    def fault(self) -> Fault:
        """What `FaultProxy` does with connections over it."""

        def carry(client: socket.socket, port: int) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                up = threading.Thread(target=_carry, args=(client, server, self.up), daemon=True)
                up.start()
                _carry(server, client, self.down)
                up.join()

        return carry


def _carry(source: socket.socket, sink: socket.socket, direction: Direction) -> None:
    """Carry bytes in one direction until one end closes; then close the other."""
    sink.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    arrivals: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
    arriving = threading.Thread(target=_arrive, args=(source, sink, arrivals), daemon=True)
    arriving.start()
    with contextlib.suppress(OSError):
        while data := source.recv(_BLOCK_BYTES):
            now = time.monotonic()
            arrivals.put((direction.send(len(data), now), data))
            time.sleep(max(0.0, direction.waiting_seconds(now) - _WAITING_SECONDS))
    arrivals.put((direction.send(0, time.monotonic()), b""))
    arriving.join()


def _arrive(source: socket.socket, sink: socket.socket, arrivals: "SimpleQueue[tuple[float, bytes]]") -> None:
    with contextlib.suppress(OSError):
        while True:
            at, data = arrivals.get()
            time.sleep(max(0.0, at - time.monotonic()))
            if not data:
                break
            sink.sendall(data)
    for end in (sink, source):  # after an error the source is read no more
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR if end is sink else socket.SHUT_RD)


@contextlib.contextmanager
def slow_link(port: int, round_trip_seconds: float, bits_per_second: float) -> Iterator[int]:
    """Run such a proxy in a process of its own; give its port."""
    command = [sys.executable, "-m", "tests.support.slow_link", *map(str, (port, round_trip_seconds, bits_per_second))]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _main() -> None:
    port, round_trip_seconds, bits_per_second = sys.argv[1:]
    with FaultProxy(int(port)) as proxy:
        proxy.use(SlowLink.of(float(round_trip_seconds), float(bits_per_second)).fault)
        print(proxy.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _main()
