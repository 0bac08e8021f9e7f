"""LoadItems: items of rows, which are encrypted for each call, or once and replayed."""

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.client import Client, EncryptedItem
from sealserve.errors import InputError
from sealserve.he.quantization import InputGrid
from sealserve.protocol.item import EncryptedReply

# Items that are encrypted for each call are taken in turn. There are fewer of large batches, whose
# rows would fill the memory.
_MAX_ITEMS = 16
_MAX_FEATURES = 1 << 22
_MAX_FEATURES_AN_ITEM = 1 << 28  # of 8 bytes; a hostile service may publish any numbers


def random_rows(grid: InputGrid, count: int, seed: int) -> NDArray[np.int64]:
    """Draw quantized rows, int64 (count, grid.feature_count), uniform over the grid.

    They are rows on the grid, not rows that a user hands in: a model may compute its features from
    those. One feature of each group is at its maximum.
    """
    random = np.random.default_rng(seed)
    rows = random.integers(0, grid.levels + 1, size=(count, grid.feature_count))
    if grid.has_groups:
        groups = grid.constraints.checked
        rows[:, groups.members] = 0
        chosen = groups.members[
            random.integers(groups.starts, groups.starts + groups.sizes, (count, len(groups.sizes)))
        ]
        np.put_along_axis(rows, chosen, grid.levels[chosen], axis=1)
    return rows


class LoadItems:
    """Sends items of rows, and checks the replies. Threads may share it.

    Args:
        client: encrypts, sends and decrypts the items. Its key must be registered.
        row_count: the number of rows in an item.
        replay: how many items to encrypt beforehand and send in turn. 0: encrypt an item for each
            call, and decrypt its reply.
        seed: the seed of the random rows.
        rows: rows (rows, column_count) to send instead of random ones, at least one. They are taken
            from the first on, and again from there where they are too few.

    Raises:
        InputError: an item would have more features than fit into memory.
    """

    def __init__(
        self, client: Client, row_count: int, *, replay: int = 0, seed: int = 0, rows: NDArray[Any] | None = None
    ) -> None:
        self.client = client
        self.row_count = row_count
        self.is_replayed = replay > 0
        grid = client.model.grid
        if row_count * grid.feature_count > _MAX_FEATURES_AN_ITEM:
            raise InputError(f"an item of {row_count} rows of {grid.feature_count} features is too large: use fewer")
        item_count = replay or max(1, min(_MAX_ITEMS, _MAX_FEATURES // (row_count * grid.feature_count)))
        indices = np.arange(row_count * item_count).reshape(item_count, row_count)
        if rows is None:
            quantized, encrypt = random_rows(grid, indices.size, seed), client.encrypt_quantized
            self.items = [encrypt(quantized[part], keep=self.is_replayed) for part in indices]
        else:
            self.items = [client.encrypt(rows[part % len(rows)], keep=self.is_replayed) for part in indices]
        self._next_items: Iterator[EncryptedItem] = cycle(self.items)

    @property
    def refusal(self) -> InputError | None:
        """The error of the first item of which the model's grid refused a row; None if of none.

        Such rows travel as dummies, so ask for it after the load, not before.
        """
        refused = (item.refused for item in self.items)
        return next((rows.error() for rows in refused if rows is not None and rows.places.any()), None)

    def send(self, timeout_seconds: float, connection: int = 0) -> EncryptedReply:
        """Send the next item, and return its reply.

        Args:
            timeout_seconds: how long the reply may take.
            connection: the number of the client's connection to use.

        Raises:
            ReplyError: the reply has missing or surplus pieces, or, unless items are replayed,
                cannot be decrypted.
            SealserveError: the service refused, or cannot be reached.
        """
        reply = self.client.send(next(self._next_items), timeout_seconds=timeout_seconds, connection=connection)
        if not self.is_replayed:
            self.client.decrypt(reply)
        return reply
