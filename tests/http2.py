"""HTTP/2 by hand: the frames of a call that no gRPC client would make (RFC 9113; header literals of RFC 7541)."""

import socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing and without Huffman coding; both parts shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call(path: bytes, body: bytes) -> bytes:
    """All that a connection with one unary call sends."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    headers = b"".join(literal(name, value) for name, value in fields.items())
    return b"".join(
        (
            PREFACE,
            frame(SETTINGS, 0, 0, b""),
            frame(HEADERS, END_HEADERS, 1, headers),
            frame(DATA, END_STREAM, 1, b"\0" + len(body).to_bytes(4, "big") + body),
        )
    )


def exchange(address: str, data: bytes, patience_seconds: float = 0.2) -> bytes:
    """Send bytes on a connection of their own; returns what comes back until the server closes it or falls silent."""
    host, _, port = address.rpartition(":")
    received = b""
    with socket.create_connection((host, int(port)), patience_seconds) as connection:
        try:
            connection.sendall(data)
            while part := connection.recv(1 << 16):
                received += part
        except (TimeoutError, ConnectionError):
            pass
    return received
