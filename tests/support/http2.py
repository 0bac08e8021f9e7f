"""HTTP/2 frames of calls that no gRPC client would make.

The frames are those of RFC 9113, the header literals those of RFC 7541.
"""

import socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
END_STREAM, END_HEADERS = 1, 4


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


def opening(path: bytes, count: int = 1, **metadata: str) -> bytes:
    """What a connection with calls sends before their requests, which may never come."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    fields |= {name.replace("_", "-").encode(): value.encode() for name, value in metadata.items()}
    headers = b"".join(literal(name, value) for name, value in fields.items())
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
