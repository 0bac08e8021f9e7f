"""LoadItems: items of random rows, encrypted anew for each call, or once and replayed."""

from collections.abc import Iterator
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from sealserve.client import Client, EncryptedItem
from sealserve.he.quantization import InputGrid
from sealserve.protocol.item import EncryptedReply

_FRESH_ITEMS, _FRESH_FEATURES = 16, 1 << 22  # of rows, taken in turn: fewer items of batches, which would fill memory


def random_rows(grid: InputGrid, count: int, seed: int) -> NDArray[np.int64]:
    """Draw quantized rows, int64 (count, grid.feature_count), uniform over the grid.

    They are drawn on the grid, not among the rows that a user hands in: those the model may compute
    features of.
    """
    return np.random.default_rng(seed).integers(0, grid.levels + 1, size=(count, grid.feature_count))


class LoadItems:
    """Sends items of random rows, and checks the replies. Threads may share it.

    Args:
        client: encrypts, sends and decrypts the items; its key is registered.
        row_count: rows an item.
        replay: how many items to encrypt beforehand, to be sent in turn; 0 to encrypt each while it
            is sent, and to decrypt its reply.
        seed: of the rows.
    """

    def __init__(self, client: Client, row_count: int, *, replay: int = 0, seed: int = 0) -> None:
        self.client = client
        self.row_count = row_count
        self.is_replayed = replay > 0
        grid = client.model.grid
        fresh = max(1, min(_FRESH_ITEMS, _FRESH_FEATURES // (row_count * grid.feature_count)))
        rows = random_rows(grid, row_count * (replay or fresh), seed)
        self.items: list[EncryptedItem] = [
            client.encrypt_quantized(part, keep=self.is_replayed) for part in np.split(rows, len(rows) // row_count)
        ]
        self._next_items: Iterator[EncryptedItem] = cycle(self.items)

    def send(self, timeout_seconds: float, connection: int = 0) -> EncryptedReply:
        """Send the next item, and return its reply.

        Args:
            timeout_seconds: how long the reply may take.
            connection: the number of the client's connection to use.

        Raises:
            ReplyError: the reply is not whole or, of a fresh item, cannot be decrypted.
            SealserveError: the item has no answer.
        """
        reply = self.client.send(next(self._next_items), timeout_seconds=timeout_seconds, connection=connection)
        if not self.is_replayed:
            self.client.decrypt(reply)
        return reply
