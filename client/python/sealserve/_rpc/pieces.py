"""Pieces: bytes that a service streams, such as steps, up to a size that is known."""

from collections.abc import Callable
from typing import Any, NamedTuple

from sealserve.errors import ParameterError


class PiecesRequest(NamedTuple):
    """Asks for bytes that come in pieces.

    Attributes:
        message: the request.
        byte_count: the number of bytes that have to come.
    """

    message: Any
    byte_count: int


class _Pieces:
    """The pieces that have come so far. A malicious service might never stop."""

    def __init__(self, byte_count: int) -> None:
        self._bytes_left = byte_count
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Add a piece.

        Raises:
            ParameterError: it is empty, or there are too many bytes.
        """
        self._bytes_left -= len(piece)
        if not piece or self._bytes_left < 0:
            raise ParameterError("the service sent steps of another size than its description says")
        self._pieces.append(piece)

    def joined(self) -> bytes:
        """Return all bytes.

        Raises:
            ParameterError: some are missing.
        """
        if self._bytes_left:
            raise ParameterError("the service sent steps of another size than its description says")
        return b"".join(self._pieces)


def read_pieces(method: Callable[..., Any], request: PiecesRequest, timeout: float) -> bytes:
    """Call a method that streams pieces, and return the bytes.

    Raises:
        ParameterError: there are more or fewer bytes than there have to be.
        grpc.RpcError: the call failed.
    """
    pieces = _Pieces(request.byte_count)
    call = method(request.message, timeout=timeout)
    try:
        for response in call:
            pieces.add(response.piece)
    finally:
        call.cancel()
    return pieces.joined()


async def read_pieces_async(method: Callable[..., Any], request: PiecesRequest, timeout: float) -> bytes:
    """Do what `read_pieces` does, for asyncio."""
    pieces = _Pieces(request.byte_count)
    call = method(request.message, timeout=timeout)
    try:
        async for response in call:
            pieces.add(response.piece)
    finally:
        call.cancel()
    return pieces.joined()
