"""Messages of items and keys: one message for a unary call, chunks for a stream or an upload."""

import hashlib
from collections.abc import Iterable, Iterator

from sealserve._codec.codec import EncryptedItem
from sealserve.protocol.key_record import KeyHeader, KeyKind
from sealserve.protocol.wire import key_header_to_proto
from sealserve.v1 import keys_pb2, prediction_pb2

CHUNK_BYTES = 1 << 20
_CIPHERTEXTS_A_CHUNK = 8
_PUBLIC_KEY_TTL_SECONDS = 3600.0

KEEP_ALIVE = prediction_pb2.StreamPredictRequest(cancel=True)
"""A cancellation without an item, which shows that the stream is in use.

See Limits.idle_timeout in model.proto.
"""
# Bounds, as a hostile service may publish any idle timeout.
_MIN_KEEP_ALIVE_SECONDS = 0.01
_MAX_KEEP_ALIVE_SECONDS = 3600.0


def item_messages(item_id: int, item: EncryptedItem) -> Iterator[prediction_pb2.StreamPredictRequest]:
    """Yield the messages of an item on a stream: a chunk in each, the header in the first.

    A chunk has CHUNK_BYTES or _CIPHERTEXTS_A_CHUNK ciphertexts, whichever is more, but no more than
    the service's limit. The service adds the products of each chunk to its sums, which are larger
    than the products of a few ciphertexts. Smaller chunks would make it read the sums more often.
    """
    header: prediction_pb2.ItemHeader | None = item.header_message
    least_bytes = _CIPHERTEXTS_A_CHUNK * item.byte_count // item.header.ciphertext_count
    chunk_bytes = min(max(CHUNK_BYTES, least_bytes), item.max_message_bytes)
    chunk, byte_count = prediction_pb2.Chunk(), 0
    for index, ciphertext in enumerate(item.ciphertexts):
        if byte_count and byte_count + len(ciphertext) > chunk_bytes:
            yield prediction_pb2.StreamPredictRequest(item_id=item_id, header=header, chunk=chunk)
            header, chunk, byte_count = None, prediction_pb2.Chunk(first_index=index), 0
        chunk.ciphertexts.append(ciphertext)
        byte_count += len(ciphertext)
    yield prediction_pb2.StreamPredictRequest(item_id=item_id, header=header, chunk=chunk)


def item_requests(item: EncryptedItem) -> Iterable[bytes]:
    """Return the serialized messages of an item in a call of its own.

    Unless the item keeps its messages, each is encrypted as the caller takes it.
    """
    if item.requests:
        return item.requests
    if item.fits_a_message:
        return iter([item.request()])
    return (message.SerializeToString() for message in item_messages(1, item))


def public_key_messages(data: bytes, parameter_set: str) -> list[keys_pb2.RegisterKeyRequest]:
    """Return the messages that register a public encryption key for an hour.

    It is no longer because most keys are of no use once their client has ended, and a store has no
    room for all of them. A client that runs for more than an hour gets KeyNotFoundError and
    registers its key again.

    Args:
        data: the key.
        parameter_set: the name of the offer's set.
    """
    header = KeyHeader(
        key_id=hashlib.sha256(data).hexdigest(),
        kind=KeyKind.PUBLIC_ENCRYPTION_KEY,
        parameter_set=parameter_set,
        byte_count=len(data),
        ttl_seconds=_PUBLIC_KEY_TTL_SECONDS,
    )
    return list(key_messages(header, data))


def key_messages(header: KeyHeader, data: bytes) -> Iterator[keys_pb2.RegisterKeyRequest]:
    """Yield the messages that register a key: its header, then its bytes in chunks."""
    yield keys_pb2.RegisterKeyRequest(header=key_header_to_proto(header))
    for offset in range(0, len(data), CHUNK_BYTES):
        chunk = keys_pb2.KeyChunk(offset=offset, data=data[offset : offset + CHUNK_BYTES])
        yield keys_pb2.RegisterKeyRequest(chunk=chunk)


def keep_alive_seconds(idle_timeout_seconds: float) -> float | None:
    """Return how long a stream may be silent before a keep-alive message is due; None: for ever."""
    if idle_timeout_seconds <= 0:
        return None
    return min(max(_MIN_KEEP_ALIVE_SECONDS, idle_timeout_seconds / 3), _MAX_KEEP_ALIVE_SECONDS)
