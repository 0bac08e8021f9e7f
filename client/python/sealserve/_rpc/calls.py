"""Calls: one attempt each, with gRPC's failures as errors of `sealserve.errors`."""

from collections.abc import Iterable, Iterator

import grpc

from sealserve._rpc.methods import Methods
from sealserve._rpc.status import FailedCall, typed_error
from sealserve.errors import DeadlineError, ReplyError
from sealserve.protocol.item import EncryptedReply, EncryptedScores, ItemHeader
from sealserve.protocol.wire import error_from_proto, scores_from_proto
from sealserve.v1 import prediction_pb2


def send_item(
    methods: Methods,
    requests: Iterable[bytes],
    timeout_seconds: float,
    *,
    header: ItemHeader,
    piece_count: int,
    max_piece_bytes: int,
    in_one_message: bool,
) -> EncryptedReply:
    """Send an item in a call of its own and return the reply.

    Args:
        methods: those of the connection to use.
        requests: the serialized messages of the item.
        timeout_seconds: how long the reply may take.
        header: the item's.
        piece_count: the number of pieces of the reply.
        max_piece_bytes: the most bytes of such a piece.
        in_one_message: whether the item and its reply travel in one message each way.

    Raises:
        ReplyError: the reply has another number of pieces, or a piece is too long.
        SealserveError: the call or the item failed.
    """
    if timeout_seconds <= 0:
        raise late()
    sent = _SentItem(header, piece_count, max_piece_bytes)
    counted = sent.count(requests)
    try:
        if in_one_message:
            sent.receive(methods.predict_serialized(next(counted), timeout=timeout_seconds))
            return sent.reply
        call = methods.stream_predict_serialized(counted, timeout=timeout_seconds)
        try:
            for response in call:
                sent.receive_part(response)
        finally:
            call.cancel()  # an item that was refused is not sent to its end
    except grpc.RpcError as error:
        raise typed_error(error, methods.endpoint) from FailedCall(error)
    return sent.reply


async def send_item_async(
    methods: Methods,
    requests: Iterable[bytes],
    timeout_seconds: float,
    *,
    header: ItemHeader,
    piece_count: int,
    max_piece_bytes: int,
    in_one_message: bool,
) -> EncryptedReply:
    """Do what `send_item` does, for asyncio."""
    if timeout_seconds <= 0:
        raise late()
    sent = _SentItem(header, piece_count, max_piece_bytes)
    counted = sent.count(requests)
    try:
        if in_one_message:
            sent.receive(await methods.predict_serialized(next(counted), timeout=timeout_seconds))
            return sent.reply
        call = methods.stream_predict_serialized(counted, timeout=timeout_seconds)
        try:
            async for response in call:
                sent.receive_part(response)
        finally:
            call.cancel()
    except grpc.RpcError as error:
        raise typed_error(error, methods.endpoint) from FailedCall(error)
    return sent.reply


def late() -> DeadlineError:
    """Return the error of a call that has no time left. gRPC might still make it."""
    return DeadlineError("the answer did not come within timeout_seconds")


class _SentItem:
    """An item in a call of its own: the bytes of its messages, and its reply so far."""

    def __init__(self, header: ItemHeader, piece_count: int, max_piece_bytes: int) -> None:
        self._header = header
        self._piece_count = piece_count
        self._max_piece_bytes = max_piece_bytes
        self._request_bytes = self._reply_bytes = 0
        self._server_seconds = 0.0
        self._scores: list[EncryptedScores] = []

    def count(self, requests: Iterable[bytes]) -> Iterator[bytes]:
        """Yield messages and count their bytes."""
        for request in requests:
            self._request_bytes += len(request)
            yield request

    def receive_part(self, response: prediction_pb2.StreamPredictResponse) -> None:
        """Add a response of a stream.

        Raises:
            ServiceError: the item failed.
            ReplyError: there are more pieces than there should be.
        """
        if response.HasField("error"):
            raise error_from_proto(response.error)
        self.receive(response)

    def receive(self, response: prediction_pb2.PredictResponse | prediction_pb2.StreamPredictResponse) -> None:
        """Add a response.

        Raises:
            ReplyError: there are more pieces than there should be, or one is too long.
        """
        self._reply_bytes += response.ByteSize()
        self._server_seconds += response.done.server_seconds
        pieces = scores_from_proto(response.scores)
        self._scores += pieces
        # A malicious service might never stop.
        if len(self._scores) > self._piece_count or any(p.byte_count > self._max_piece_bytes for p in pieces):
            raise ReplyError

    @property
    def reply(self) -> EncryptedReply:
        """The whole reply.

        Raises:
            ReplyError: pieces are missing.
        """
        if len(self._scores) != self._piece_count:
            raise ReplyError
        return EncryptedReply(
            header=self._header,
            scores=self._scores,
            request_bytes=self._request_bytes,
            reply_bytes=self._reply_bytes,
            server_seconds=self._server_seconds,
        )
