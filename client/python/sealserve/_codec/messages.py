"""The messages of items: one for a unary call, chunks for a stream."""

from collections.abc import Iterator

from sealserve._codec.codec import Item
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import header_to_proto
from sealserve.v1 import prediction_pb2

CHUNK_BYTES = 1 << 20
_CIPHERTEXTS_A_CHUNK = 8

SIGN_OF_LIFE = prediction_pb2.StreamPredictRequest(cancel=True)
"""A cancel of no item, which says nothing else: see Limits.idle_timeout."""
_MIN_SIGN_OF_LIFE_SECONDS, _MAX_SIGN_OF_LIFE_SECONDS = 0.01, 3600.0  # whatever a service says


def messages(item_id: int, item: Item, limits: Limits) -> Iterator[prediction_pb2.StreamPredictRequest]:
    """Yield the messages of an item, the first with its header, each with a chunk of it.

    A chunk has CHUNK_BYTES or some ciphertexts, whichever is more, within the limit: the products of few would be added
    to sums that take more memory than they do.
    """
    header: prediction_pb2.ItemHeader | None = header_to_proto(item.header)
    least_bytes = _CIPHERTEXTS_A_CHUNK * item.byte_count // item.header.ciphertext_count
    chunk_bytes = min(max(CHUNK_BYTES, least_bytes), limits.max_message_bytes)
    chunk, byte_count = prediction_pb2.Chunk(), 0
    for index, ciphertext in enumerate(item.ciphertexts):
        if byte_count and byte_count + len(ciphertext) > chunk_bytes:
            yield prediction_pb2.StreamPredictRequest(item_id=item_id, header=header, chunk=chunk)
            header, chunk, byte_count = None, prediction_pb2.Chunk(first_index=index), 0
        chunk.ciphertexts.append(ciphertext)
        byte_count += len(ciphertext)
    yield prediction_pb2.StreamPredictRequest(item_id=item_id, header=header, chunk=chunk)


def predict_request(item: Item) -> prediction_pb2.PredictRequest:
    """Encrypt an item into one message."""
    return prediction_pb2.PredictRequest(header=header_to_proto(item.header), ciphertexts=item.ciphertexts)


def fits_a_message(item: Item, limits: Limits) -> bool:
    """Whether an item and its reply may travel in one message each way."""
    return max(item.byte_count, item.cost.reply_bytes) <= limits.max_message_bytes


def sign_of_life_seconds(idle_timeout_seconds: float) -> float | None:
    """Return how long to be silent on a stream: None for as long as one likes."""
    if idle_timeout_seconds <= 0:
        return None
    return min(max(_MIN_SIGN_OF_LIFE_SECONDS, idle_timeout_seconds / 3), _MAX_SIGN_OF_LIFE_SECONDS)
