"""HTTP/2 frames of calls that no gRPC client would make.

The frames are those of RFC 9113, the header literals those of RFC 7541.
"""

import socket

import grpc

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
ACK = 1
ERROR_NAMES = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)
_STATUS_NAMES = {str(code.value[0]).encode(): code.name for code in grpc.StatusCode}


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing and Huffman coding; both parts are below 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def goaway(text: bytes) -> bytes:
    """The frame with which a peer says, in a text of its own, that it makes no more calls."""
    return frame(GOAWAY, 0, 0, bytes(4) + (2).to_bytes(4, "big") + text)


def call(path: bytes, body: bytes) -> bytes:
    """All that a connection with one unary call sends."""
    return opening(path) + frame(DATA, END_STREAM, 1, b"\0" + len(body).to_bytes(4, "big") + body)


def literal_preface() -> bytes:
    """The beginning of a connection on which a server has to send header fields as literals."""
    return PREFACE + frame(SETTINGS, 0, 0, b"\0\1" + bytes(4))


def header_fields(path: bytes, **metadata: str) -> dict[bytes, bytes]:
    """The header fields of a call."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    return fields | {name.replace("_", "-").encode(): value.encode() for name, value in metadata.items()}


def header_block(fields: dict[bytes, bytes]) -> bytes:
    """The block of header fields."""
    return b"".join(literal(name, value) for name, value in fields.items())


def request(stream_id: int, headers: bytes, body: bytes) -> bytes:
    """The frames of a whole unary call."""
    data = b"\0" + len(body).to_bytes(4, "big") + body
    return frame(HEADERS, END_HEADERS, stream_id, headers) + frame(DATA, END_STREAM, stream_id, data)


def opening(path: bytes, count: int = 1, **metadata: str) -> bytes:
    """What a connection with calls sends before their requests, which may never come."""
    headers = header_block(header_fields(path, **metadata))
    opened = b"".join(frame(HEADERS, END_HEADERS, 2 * number + 1, headers) for number in range(count))
    return PREFACE + frame(SETTINGS, 0, 0, b"") + opened


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """The frames that have come whole: kind, flags, stream and payload of each."""
    found = []
    while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3], "big")):
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def connected(address: str, patience_seconds: float) -> socket.socket:
    """A connection without a gRPC client."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), patience_seconds)


def answer(connection: socket.socket) -> list[tuple[int, int, int, bytes]]:
    """Wait for the end of the first call and return its frames.

    They are empty if the server closes the connection first.
    """
    received = b""
    while part := connection.recv(1 << 16):
        received += part
        of_call = [found for found in frames(received) if found[2] == 1]
        if any(kind == HEADERS and flags & END_STREAM for kind, flags, _, _ in of_call):
            return of_call
    return []


class Ends:
    """How the calls of a connection end, if it began with `literal_preface`.

    Attributes:
        by_stream: the name of the status of each call that has ended, or RST_STREAM and the name of
            its error. That of stream 0 is how the connection ended: GOAWAY and the name of its
            error, or "closed".
        with_request_id: the streams of the calls that ended with a request id.
    """

    def __init__(self) -> None:
        self.by_stream: dict[int, str] = {}
        self.with_request_id = set[int]()
        self._received = b""

    def receive(self, data: bytes) -> None:
        """Take bytes that the server has sent, which are empty at the end of the connection."""
        self._received += data
        for kind, flags, stream_id, payload in frames(self._received):
            self._received = self._received[9 + len(payload) :]
            if kind == GOAWAY:
                self.by_stream[0] = f"GOAWAY {_error_name(payload[4:8])}"
            elif kind == RST_STREAM:
                self.by_stream.setdefault(stream_id, f"RST_STREAM {_error_name(payload)}")
            elif kind == HEADERS and flags & END_STREAM:
                self.by_stream.setdefault(stream_id, _status_name(payload))
                if b"x-request-id" in payload:
                    self.with_request_id.add(stream_id)
        if not data:
            self.by_stream.setdefault(0, "closed")

    def receive_until(self, connection: socket.socket, stream_id: int) -> None:
        """Receive until the call of a stream has ended, or the connection; of stream 0, the latter.

        Raises:
            TimeoutError: nothing comes.
        """
        while stream_id not in self.by_stream or not stream_id:
            try:
                part = connection.recv(1 << 16)
            except ConnectionError:
                part = b""
            self.receive(part)
            if not part:
                return


def _error_name(code: bytes) -> str:
    number = int.from_bytes(code, "big")
    return ERROR_NAMES[number] if number < len(ERROR_NAMES) else str(number)


def _status_name(headers: bytes) -> str:
    _, found, rest = headers.partition(b"grpc-status")
    return _STATUS_NAMES.get(rest[1 : 1 + rest[0]], "an unknown status") if found else "no status"


def exchange(address: str, data: bytes, patience_seconds: float = 0.2) -> bytes:
    """Send bytes on a connection of their own.

    Returns:
        What comes back until the server closes the connection or falls silent.
    """
    received = b""
    with connected(address, patience_seconds) as connection:
        try:
            connection.sendall(data)
            while part := connection.recv(1 << 16):
                received += part
        except (TimeoutError, ConnectionError):
            pass
    return received
