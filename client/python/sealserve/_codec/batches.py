"""Batches: rows that travel as one item, and what becomes of each of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.codec import Decrypted, RowCodec
from sealserve.errors import InputError, ReplyError, SealserveError
from sealserve.he.quantization import Quantized
from sealserve.protocol.item import EncryptedScores
from sealserve.protocol.tables import is_table, row_blocks

PredictionMethod = Literal["predict", "decision_function", "predict_proba"]

_BLOCK_ROWS = 256  # rows of an array to quantize at once, even if an item takes fewer


@dataclass(frozen=True)
class Batch:
    """Rows that travel as one item, or one row that does not travel.

    A row whose values the model's grid refuses travels as a dummy, so that what is sent does not
    depend on values. A row that does not fit the model's schema, or that is no row of numbers, does
    not travel.

    Attributes:
        first_index: the index of the first row among all rows of the caller.
        rows: (rows, column_count) as `Schema` reads them, in case they must be quantized anew.
        codec: encrypts the rows, as `quantized`.
        quantized: int64 (rows, feature_count), on the model's grid.
        is_refused: bool (rows,), true where the grid refused a row.
        error: why the row does not travel.
    """

    first_index: int
    rows: NDArray[Any] = field(repr=False)
    codec: RowCodec
    quantized: NDArray[np.int64] = field(repr=False)
    is_refused: NDArray[np.bool_] = field(repr=False)
    error: InputError | None = None

    @classmethod
    def of_unsent_row(cls, index: int, codec: RowCodec, error: InputError) -> "Batch":
        """Make the batch of one row that does not travel."""
        return cls(index, np.empty((1, 0)), codec, np.empty((1, 0), np.int64), np.ones(1, np.bool_), error)

    @property
    def held_bytes(self) -> int:
        """The bytes that the batch counts in a stream's window."""
        return self.codec.offer.cost.held_bytes

    @property
    def sent_bytes(self) -> int:
        """The bytes of its ciphertexts."""
        return self.codec.item_bytes

    @property
    def polynomials(self) -> int:
        """The number of polynomial pairs in its reply."""
        return -(-self.codec.model.output.score_count // self.codec.offer.classes_per_polynomial)

    @property
    def max_piece_bytes(self) -> int:
        """The most bytes of a polynomial pair of its reply."""
        return self.codec.max_piece_bytes


class Result(NamedTuple):
    """A batch with its decrypted reply, or with the error that it failed with.

    That a reply is not plausible is no error yet: the thread that collects results must not take
    another path because of it.
    """

    batch: Batch
    outcome: Decrypted | SealserveError

    @property
    def errors(self) -> dict[int, SealserveError]:
        """The errors of those rows that have no scores, by index."""
        batch, outcome = self
        indices = range(batch.first_index, batch.first_index + len(batch.rows))
        if isinstance(outcome, SealserveError):
            return dict.fromkeys(indices, outcome)
        errors: dict[int, SealserveError] = {} if outcome.is_plausible else dict.fromkeys(indices, ReplyError())
        if np.count_nonzero(batch.is_refused):
            for position in np.flatnonzero(batch.is_refused).tolist():
                errors[indices[position]] = batch.codec.refusal(batch.rows[position : position + 1])
        return errors


class FinishedBatch(NamedTuple):
    """A batch with its whole reply, not decrypted yet, or with the error that it failed with."""

    batch: Batch
    reply: list[EncryptedScores] | SealserveError


def decrypt_reply(finished: FinishedBatch) -> Result:
    """Decrypt the reply to a batch."""
    batch, reply = finished
    if isinstance(reply, SealserveError):
        return Result(batch, reply)
    try:
        return Result(batch, batch.codec.read(len(batch.rows), reply, batch.is_refused))
    except SealserveError as error:
        return Result(batch, error)


class Batcher:
    """Puts rows into batches. A row that does not travel becomes a batch of its own.

    Args:
        codec_for: returns the codec for so many rows an item. It is called for every batch, as
            models change.
        rows_per_item: rows to put into a batch, if the offer takes so many; None for as many as it
            takes.
        first_index: the index of the first row.
    """

    def __init__(
        self, codec_for: Callable[[int], RowCodec], rows_per_item: int | None, *, first_index: int = 0
    ) -> None:
        self._codec_for = codec_for
        self._rows_per_item = rows_per_item
        self._next_index = first_index
        self._rows: list[NDArray[Any]] = []  # those of the batch that is not full yet
        self._codec = codec_for(rows_per_item or 1)

    def batches(self, rows: Iterable[Any]) -> Iterator[Batch]:
        """Yield the batches of all rows.

        A table (an array, a DataFrame, a sparse matrix) is read in blocks, anything else row by
        row.
        """
        if is_table(rows):
            yield from self._batches_of_table(rows)
            return
        if isinstance(rows, Mapping):  # to iterate over it would give the names of its columns
            raise InputError("a stream takes rows, not a dictionary of columns: pass a DataFrame or rows")
        try:
            each = iter(rows)
        except TypeError as error:
            raise InputError(f"{type(rows).__name__} is not iterable: pass a table, or rows one by one") from error
        for row in each:
            yield from self.add(row)
        yield from self.flush()

    def add(self, row: Any) -> Iterator[Batch]:
        """Add a row (column_count,) and yield the batches that it completes."""
        yield from self._add([row])

    def _add(self, table: Any) -> Iterator[Batch]:
        """Add a table of one row and yield the batches that it completes."""
        if not self._rows:
            self._renew_codec()
        try:
            self._rows.append(self._codec.model.schema.rows(table))
        except InputError as error:
            yield from self.flush()
            yield Batch.of_unsent_row(self._count(1), self._codec, error)
        if len(self._rows) >= self._per_item:
            yield from self.flush()

    def flush(self) -> Iterator[Batch]:
        """Yield the batch that is not full, if it has rows."""
        if self._rows:
            rows = np.concatenate(self._rows)
            self._rows.clear()
            yield from self._batches_of(rows)

    @property
    def _per_item(self) -> int:
        capacity = self._codec.offer.rows_per_item
        return capacity if self._rows_per_item is None else min(self._rows_per_item, capacity)

    def _renew_codec(self) -> None:
        self._codec = self._codec_for(self._rows_per_item or 1)

    def _count(self, row_count: int) -> int:
        """Count rows and return the index of the first."""
        self._next_index += row_count
        return self._next_index - row_count

    def _batches_of_table(self, table: Any) -> Iterator[Batch]:
        block, row_count, stop = row_blocks(table), table.shape[0], 0
        while stop < row_count:
            self._renew_codec()
            start = stop
            stop = min(row_count, start + max(1, _BLOCK_ROWS // self._per_item) * self._per_item)
            try:
                checked = self._codec.model.schema.rows(block(start, stop))
            except InputError:  # perhaps because of a single row: find it
                for position in range(start, stop):
                    yield from self._add(block(position, position + 1))
                yield from self.flush()
            else:
                yield from self._batches_of(checked)

    def _batches_of(self, rows: NDArray[Any]) -> Iterator[Batch]:
        """Yield the batches of rows, in order."""
        quantized = self._codec.quantize(rows)
        for batch in split(rows, quantized, self._codec, self._per_item, first_index=self._next_index):
            self._count(len(batch.rows))
            yield batch


def split(
    rows: NDArray[Any],
    quantized: Quantized,
    codec: RowCodec,
    rows_per_item: int,
    *,
    first_index: int = 0,
) -> Iterator[Batch]:
    """Yield the batches of rows that have been quantized.

    Args:
        rows: (rows, column_count).
        quantized: the same rows on the grid.
        codec: encrypts them.
        rows_per_item: rows of a full batch.
        first_index: the index of the first row.
    """
    for start in range(0, len(rows), rows_per_item):
        part = slice(start, start + rows_per_item)
        yield Batch(first_index + start, rows[part], codec, quantized.integers[part], quantized.is_refused[part])


def predictions(method: PredictionMethod, result: Result) -> Iterator[tuple[int, Any]]:
    """Yield (index, prediction or error) for each row of a batch."""
    batch, outcome = result
    errors = result.errors
    if isinstance(outcome, SealserveError) or not outcome.is_plausible:
        yield from errors.items()
    else:
        with np.errstate(all="ignore"):  # no score may end the stream, whatever the caller has set
            values = getattr(batch.codec.model.output, method)(outcome.scores)
        yield from ((index, errors.get(index, value)) for index, value in enumerate(values, batch.first_index))
