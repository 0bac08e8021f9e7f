"""The upload of a key: a header, the bytes in order, then the key, checked against its header."""

import hashlib

from sealserve.errors import (
    InputMismatchError,
    KeyFault,
    LimitExceededError,
    MalformedKeyError,
    OutOfSequenceError,
)
from sealserve.protocol.key_record import KeyHeader
from sealserve_service.keys.stores.record_format import is_key_id

MAX_CHUNK_BYTES = 1 << 20


class Upload:
    """A key of which some bytes have arrived.

    Args:
        header: what the client declares of the key.
        max_key_bytes: the most bytes that such a key may have.

    Raises:
        InputMismatchError, LimitExceededError: no key can have such a header.
    """

    def __init__(self, header: KeyHeader, max_key_bytes: int) -> None:
        if not is_key_id(header.key_id):
            raise InputMismatchError("key_id", 64, len(header.key_id))
        if header.byte_count > max_key_bytes:
            raise LimitExceededError("max_key_bytes", max_key_bytes, header.byte_count)
        if header.ttl_seconds is not None and not header.ttl_seconds > 0:
            raise InputMismatchError("ttl", 1, 0)
        self.header = header
        self._data = bytearray()

    @property
    def received_bytes(self) -> int:
        """How many bytes have arrived."""
        return len(self._data)

    def add_chunk(self, offset: int, data: bytes) -> None:
        """Take the next chunk of an upload in chunks.

        Raises:
            OutOfSequenceError, LimitExceededError, MalformedKeyError: the upload has failed.
        """
        if offset != len(self._data):
            raise OutOfSequenceError(len(self._data), offset)
        if len(data) > MAX_CHUNK_BYTES:
            raise LimitExceededError("key_chunk_bytes", MAX_CHUNK_BYTES, len(data))
        self.add(data)

    def add(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            MalformedKeyError: there are more than the header declares.
        """
        if len(self._data) + len(data) > self.header.byte_count:
            raise MalformedKeyError(KeyFault.LENGTH)
        self._data += data

    def finish(self) -> bytes:
        """Return the whole key.

        Raises:
            MalformedKeyError: the key does not have the declared length, or the declared digest.
        """
        data = bytes(self._data)
        if len(data) != self.header.byte_count:
            raise MalformedKeyError(KeyFault.LENGTH)
        if hashlib.sha256(data).hexdigest() != self.header.key_id:
            raise MalformedKeyError(KeyFault.DIGEST)
        return data
