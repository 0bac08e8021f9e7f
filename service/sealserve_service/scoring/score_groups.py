"""Groups of scores: the pieces of a reply, gathered into messages of a useful size."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from sealserve.protocol.item import EncryptedScores
from sealserve.protocol.wire import scores_to_proto
from sealserve.v1 import prediction_pb2

GROUP_BYTES = 1 << 20


def grouped(
    scores: Iterable[EncryptedScores],
    message: Callable[[int, Sequence[EncryptedScores]], prediction_pb2.ScoreGroup] = scores_to_proto,
) -> Iterator[prediction_pb2.ScoreGroup]:
    """Gather pieces of a reply into messages of about GROUP_BYTES.

    Args:
        scores: the pieces, in order.
        message: makes a message of consecutive pieces and the index of the first one.
    """
    first_index, group, byte_count = 0, list[EncryptedScores](), 0
    for piece in scores:
        if group and byte_count + piece.byte_count > GROUP_BYTES:
            yield message(first_index, group)
            first_index, group, byte_count = first_index + len(group), [], 0
        group.append(piece)
        byte_count += piece.byte_count
    yield message(first_index, group)
