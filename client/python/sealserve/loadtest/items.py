"""Items that load a service: random rows, encrypted anew for each call or once and sent over and over."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import grpc
import numpy as np
from numpy.typing import NDArray

from sealserve._codec.codec import Exchange
from sealserve._codec.messages import messages
from sealserve._rpc.status import translated
from sealserve.errors import ReplyError
from sealserve.he.quantization import InputGrid
from sealserve.protocol.item import Scores
from sealserve.protocol.wire import error_from_proto, header_to_proto, scores_from_proto
from sealserve.v1 import prediction_pb2

_PREDICT, _STREAM = (f"/sealserve.v1.PredictionService/{method}" for method in ("Predict", "StreamPredict"))
_ITEM_ID = 1  # each item has a call of its own
_FRESH_ITEMS, _FRESH_FEATURES = 16, 1 << 22  # of rows, taken in turn: fewer items of batches, which would fill memory


class Answered(NamedTuple):
    """An item's whole reply, and what it took."""

    row_count: int
    scores: list[Scores]
    request_bytes: int
    reply_bytes: int
    server_seconds: float


def random_rows(grid: InputGrid, count: int, seed: int) -> NDArray[np.int64]:
    """Draw quantized rows, int64 (count, grid.feature_count), uniform over the grid.

    They are drawn on the grid, not among the rows that a user hands in: what becomes of those is the model's.
    """
    return np.random.default_rng(seed).integers(0, grid.levels + 1, size=(count, grid.feature_count))


class LoadItems:
    """Makes items of random rows, and judges replies. Threads may share it.

    Args:
        exchange: encrypts and decrypts them.
        row_count: rows an item.
        replay: how many items to encrypt beforehand, to be sent in turn; 0 to encrypt each, and decrypt its reply,
            while it is sent.
        seed: of the rows.
    """

    def __init__(self, exchange: Exchange, row_count: int, *, replay: int = 0, seed: int = 0) -> None:
        self.exchange = exchange
        self.row_count = row_count
        limits, cost = exchange.model.limits, exchange.offer.cost
        grid = exchange.model.grid
        fresh = max(1, min(_FRESH_ITEMS, _FRESH_FEATURES // (row_count * grid.feature_count)))
        rows = random_rows(grid, row_count * (replay or fresh), seed)
        items = np.split(rows, len(rows) // row_count)
        first = exchange.encrypt(items[0])
        self.in_one_message = max(first.byte_count, cost.reply_bytes) <= limits.max_message_bytes
        self.is_replayed = replay > 0
        self._sources: Iterator[NDArray[np.int64] | list[bytes]]
        self._sources = cycle([list(self._encrypted(item)) for item in items] if replay else items)

    def take(self) -> Iterable[bytes]:
        """Return the messages of the next item, serialized; encrypted as they are taken, unless they are replayed."""
        source = next(self._sources)
        return source if isinstance(source, list) else self._encrypted(source)

    def _encrypted(self, rows: NDArray[np.int64]) -> Iterator[bytes]:
        item = self.exchange.encrypt(rows)
        if self.in_one_message:
            header = header_to_proto(item.header)
            yield prediction_pb2.PredictRequest(header=header, ciphertexts=item.ciphertexts).SerializeToString()
        else:
            for message in messages(_ITEM_ID, item, self.exchange.model.limits):
                yield message.SerializeToString()

    def check(self, reply: Sequence[Scores]) -> None:
        """Decrypt the reply of an item that was fresh; of one that is replayed, see that it is whole.

        Raises:
            ReplyError: it is not.
        """
        classes = self.exchange.model.output.score_count
        pairs = -(-classes // self.exchange.offer.classes_per_polynomial)
        if len(reply) != pairs:
            raise ReplyError
        if not self.is_replayed:
            self.exchange.decrypt(self.row_count, reply)


class LoadCall:
    """Sends items over one connection, each in a call of its own, and waits for the answer."""

    def __init__(self, items: LoadItems, channel: grpc.Channel, timeout_seconds: float) -> None:
        self._items = items
        self._timeout_seconds = timeout_seconds
        self._predict: Callable[..., Any] = channel.unary_unary(
            _PREDICT, bytes, prediction_pb2.PredictResponse.FromString
        )
        self._stream: Callable[..., Any] = channel.stream_stream(
            _STREAM, bytes, prediction_pb2.StreamPredictResponse.FromString
        )

    def __call__(self) -> Answered:
        """Send the next item.

        Raises:
            SealserveError: it has no answer.
        """
        try:
            answered = self._unary() if self._items.in_one_message else self._streamed()
        except grpc.RpcError as error:
            raise translated(error) from error
        self._items.check(answered.scores)
        return answered

    def _unary(self) -> Answered:
        (body,) = self._items.take()
        response = self._predict(body, timeout=self._timeout_seconds)
        scores = scores_from_proto(response.scores)
        return Answered(self._items.row_count, scores, len(body), response.ByteSize(), response.done.server_seconds)

    def _streamed(self) -> Answered:
        request_bytes = reply_bytes = 0
        server_seconds = 0.0
        scores = list[Scores]()

        def bodies() -> Iterator[bytes]:
            nonlocal request_bytes
            for body in self._items.take():
                request_bytes += len(body)
                yield body

        call = self._stream(bodies(), timeout=self._timeout_seconds)
        try:
            for response in call:
                if response.HasField("error"):
                    raise error_from_proto(response.error)
                reply_bytes += response.ByteSize()
                scores += scores_from_proto(response.scores)
                server_seconds += response.done.server_seconds
        finally:
            call.cancel()  # of an item that was refused, nothing more is sent
        return Answered(self._items.row_count, scores, request_bytes, reply_bytes, server_seconds)
