"""HTTP/2 frames that no peer would send: some a server ignores, some end a call, some a connection.

What a server does about a frame is for RFC 9113 to say, and for those who ask to find out.
"""

import random

from tests.support.http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    header_block,
)
from tests.support.mutations import damaged

_MAX_LITERAL = 126


def ignored_frame(ended_stream_id: int, source: random.Random) -> bytes:
    """A frame that has no effect: of an unknown kind, about a call that has ended, or outdated."""
    stream_id = source.choice((0, ended_stream_id))
    match source.randrange(6):
        case 0:
            return frame(source.randrange(0x20, 0x100), source.randrange(0x100), stream_id, _some(64, source))
        case 1:
            return frame(PRIORITY, 0, ended_stream_id, bytes(4) + source.randbytes(1))
        case 2:
            return frame(WINDOW_UPDATE, 0, stream_id, source.randrange(1, 1000).to_bytes(4, "big"))
        case 3:
            unknown = source.randrange(0x100, 0x8000).to_bytes(2, "big")
            return frame(SETTINGS, 0, 0, unknown + source.randbytes(4))
        case 4:
            return frame(RST_STREAM, 0, ended_stream_id, source.randrange(20).to_bytes(4, "big"))
    return frame(PING, ACK, 0, source.randbytes(8))


def odd_call(stream_id: int, fields: dict[bytes, bytes], source: random.Random) -> bytes:
    """The headers of a call of which one field is damaged, missing, or one too many."""
    changed, name = dict(fields), source.choice(list(fields))
    match source.randrange(4):
        case 0:
            del changed[name]
        case 1:
            changed[name] = damaged(fields[name], source)[:_MAX_LITERAL]
        case 2:
            changed[damaged(name, source)[:_MAX_LITERAL]] = changed.pop(name)
        case 3:
            names = (b"grpc-timeout", b"grpc-encoding", b"content-length", b"x-any-bin", b"x-request-id", b"host")
            changed[source.choice(names)] = _some(_MAX_LITERAL, source)
    return frame(HEADERS, END_HEADERS | END_STREAM, stream_id, header_block(changed))


def fatal_frame(stream_id: int, fields: dict[bytes, bytes], source: random.Random) -> bytes:
    """A frame after which a connection cannot go on.

    Args:
        stream_id: of the next call.
        fields: of a good call.
        source: chooses.
    """
    headers, any_bytes = header_block(fields), _some(64, source)
    return source.choice(
        (
            frame(DATA, 0, 0, any_bytes),
            frame(DATA, PADDED, stream_id, b"\xff" + any_bytes),
            frame(HEADERS, END_HEADERS, 0, headers),
            frame(HEADERS, END_HEADERS, stream_id + 1, headers),
            frame(HEADERS, END_HEADERS, stream_id, damaged(headers, source)[: 1 << 14]),
            frame(HEADERS, END_HEADERS | PADDED, stream_id, b"\xff" + any_bytes),
            frame(HEADERS, 0, stream_id, headers) + frame(PING, 0, 0, bytes(8)),
            frame(CONTINUATION, END_HEADERS, stream_id, headers),
            frame(PUSH_PROMISE, END_HEADERS, stream_id, any_bytes),
            frame(RST_STREAM, 0, stream_id, any_bytes[:3]),
            frame(RST_STREAM, 0, 0, bytes(4)),
            frame(SETTINGS, 0, 0, any_bytes[:5] or b"\0"),
            frame(SETTINGS, 0, 0, b"\0\4" + b"\xff" * 4),
            frame(SETTINGS, ACK, 0, any_bytes or b"\0"),
            frame(SETTINGS, 0, stream_id, bytes(6)),
            frame(PING, 0, 0, any_bytes[:7]),
            frame(WINDOW_UPDATE, 0, 0, bytes(4)),
            frame(WINDOW_UPDATE, 0, 0, b"\x7f" + b"\xff" * 3),
            frame(GOAWAY, 0, 0, any_bytes[:7]),
            frame(DATA, 0, stream_id, bytes(1 << 17)),
            b"GET / HTTP/1.1\r\n\r\n" + any_bytes,
        )
    )


def _some(most: int, source: random.Random) -> bytes:
    return source.randbytes(source.randrange(most + 1))
