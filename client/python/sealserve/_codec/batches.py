"""Batches: rows that travel as one item. Rows of any origin are gathered into them, each checked alone."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.codec import Exchange
from sealserve.errors import InputError, SealserveError
from sealserve.protocol.output import Output

_BLOCK_ROWS = 256  # of an array, quantized at once however few of them travel together


@dataclass(frozen=True)
class Batch:
    """Rows that travel as one item, or a row that does not because it was refused.

    Attributes:
        first_index: of the first row, in the caller's count.
        rows: float64 (rows, column_count), kept in case they must be quantized anew.
        exchange: encrypts them, as `quantized`.
        error: why the row was refused.
    """

    first_index: int
    rows: NDArray[np.float64]
    exchange: Exchange
    quantized: NDArray[np.int64]
    error: InputError | None = None

    @classmethod
    def refused(cls, index: int, exchange: Exchange, error: InputError) -> "Batch":
        """Stand for one row that was refused."""
        return cls(index, np.empty((1, 0)), exchange, np.empty((1, 0), np.int64), error)

    @property
    def held_bytes(self) -> int:
        """What it counts as in a stream's window."""
        return self.exchange.offer.cost.held_bytes

    @property
    def polynomials(self) -> int:
        """Polynomial pairs of its reply."""
        return -(-self.exchange.model.output.score_count // self.exchange.offer.classes_per_polynomial)


class Scored(NamedTuple):
    """Scores (rows, score_count) with their meaning, which may change between two items as the model does."""

    output: Output
    scores: NDArray[np.float64]


Result = tuple[Batch, Scored | SealserveError]


class Gatherer:
    """Gathers rows into batches; a row that is refused makes a batch of its own, with its error.

    Args:
        exchange: returns the one to use for so many rows an item; asked anew for every batch, as models change.
        rows_per_item: rows to gather, if the offer takes so many; None for as many as it takes.
        clip: move features outside the model's range to its nearest end instead of refusing them.
        first_index: of the first row.
    """

    def __init__(
        self, exchange: Callable[[int], Exchange], rows_per_item: int | None, *, clip: bool, first_index: int = 0
    ) -> None:
        self._exchange_for = exchange
        self._rows_per_item = rows_per_item
        self._clip = clip
        self._next_index = first_index
        self._gathered: list[NDArray[np.float64]] = []
        self._exchange = exchange(rows_per_item or 1)

    def batches(self, rows: Iterable[Any]) -> Iterator[Batch]:
        """Gather all rows: of an array (rows, column_count) in blocks, of anything else one by one."""
        if isinstance(rows, np.ndarray) and rows.ndim == 2:
            yield from self._of_array(rows)
            return
        for row in rows:
            yield from self.add(row)
        yield from self.rest()

    def add(self, row: Any) -> Iterator[Batch]:
        """Take a row (column_count,) and yield what is complete with it."""
        if not self._gathered:
            self._exchange = self._exchange_for(self._rows_per_item or 1)
        try:
            self._gathered.append(self._exchange.model.schema.rows([row]))
        except InputError as error:
            yield from self.rest()
            yield Batch.refused(self._counted(1), self._exchange, error)
        if len(self._gathered) >= self._per_item:
            yield from self.rest()

    def rest(self) -> Iterator[Batch]:
        """Yield what has been gathered."""
        if self._gathered:
            rows = np.concatenate(self._gathered)
            self._gathered.clear()
            yield from self._checked(rows)

    @property
    def _per_item(self) -> int:
        capacity = self._exchange.offer.rows_per_item
        return capacity if self._rows_per_item is None else min(self._rows_per_item, capacity)

    def _counted(self, row_count: int) -> int:
        """Count rows and return the index of the first."""
        self._next_index += row_count
        return self._next_index - row_count

    def _of_array(self, rows: NDArray[Any]) -> Iterator[Batch]:
        start = 0
        while start < len(rows):
            self._exchange = self._exchange_for(self._rows_per_item or 1)
            block = rows[start : start + max(1, _BLOCK_ROWS // self._per_item) * self._per_item]
            start += len(block)
            try:
                checked = self._exchange.model.schema.rows(block)
            except InputError:  # if only of one that is no number
                for row in block:
                    yield from self.add(row)
                yield from self.rest()
            else:
                yield from self._checked(checked)

    def _checked(self, rows: NDArray[np.float64]) -> Iterator[Batch]:
        """Yield the batches of rows, one after the other but for those that are refused."""
        try:
            yield from self._split(rows, self._exchange.quantize(rows, clip=self._clip))
            return
        except InputError as error:
            if len(rows) == 1:
                yield Batch.refused(self._counted(1), self._exchange, error)
                return
        start = 0
        for place in [*self._refused(rows), len(rows)]:
            if start < place:
                good = rows[start:place]
                yield from self._split(good, self._exchange.quantize(good, clip=self._clip))
            if place < len(rows):
                yield from self._checked(rows[place : place + 1])
            start = place + 1

    def _refused(self, rows: NDArray[np.float64]) -> list[int]:
        """Return the places of rows that cannot be quantized."""
        places = list[int]()
        for place in range(len(rows)):
            try:
                self._exchange.quantize(rows[place : place + 1], clip=self._clip)
            except InputError:
                places.append(place)
        return places

    def _split(self, rows: NDArray[np.float64], quantized: NDArray[np.int64]) -> Iterator[Batch]:
        for at in range(0, len(rows), self._per_item):
            part = slice(at, at + self._per_item)
            first_index = self._counted(len(rows[part]))
            yield Batch(first_index, rows[part], self._exchange, quantized[part])
