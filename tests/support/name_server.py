"""A name server: one name with the IPv4 addresses that a test wants it to have now."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator

NAME = "replicas.test"
_A, _IN = 1, 1
_RESPONSE, _POINTER_TO_NAME = 0x8580, 0xC00C  # authoritative, recursion available; offset 12


class NameServer:
    """Answers questions over UDP (RFC 1035).

    Attributes:
        hosts: the addresses of the name.
    """

    def __init__(self, *hosts: str) -> None:
        self.hosts = list(hosts)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._answer_all, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return int(self._socket.getsockname()[1])

    def target(self, port: int) -> str:
        """The address of a service at the name, which gRPC looks up here."""
        return f"dns://127.0.0.1:{self.port}/{NAME}:{port}"

    def close(self) -> None:
        """Answer no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _answer_all(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                question, peer = self._socket.recvfrom(512)
                if not question:
                    return
                self._socket.sendto(self._answer(question), peer)

    def _answer(self, question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 5
        kind = struct.unpack("!H", question[end - 4 : end - 2])[0]
        hosts = list(self.hosts) if kind == _A else []
        header = question[:2] + struct.pack("!HHHHH", _RESPONSE, 1, len(hosts), 0, 0)
        records = (struct.pack("!HHHIH", _POINTER_TO_NAME, _A, _IN, 0, 4) + socket.inet_aton(host) for host in hosts)
        return header + question[12:end] + b"".join(records)


@contextlib.contextmanager
def name_server(*hosts: str) -> Iterator[NameServer]:
    """Run a name server."""
    server = NameServer(*hosts)
    try:
        yield server
    finally:
        server.close()
