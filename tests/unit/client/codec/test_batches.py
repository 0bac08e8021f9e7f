"""Rows of any origin in batches: every row in one of them, in order, each refused alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csc_array

from sealserve._codec.batches import Batch, Batcher
from sealserve._codec.codec import RowCodec
from sealserve.errors import FeatureCountError, InputError, NotFiniteError, OutOfRangeError
from sealserve.he.layouts import LAYOUTS
from tests.support.serving import linear, served

MODEL = served("line", linear([[1.0, 2.0, 3.0]])).model
ROW, COLUMN = (
    RowCodec(MODEL, offer=next(offer for offer in MODEL.offers if offer.layout is layout))
    for layout in (LAYOUTS["row"], LAYOUTS["column"])
)
N = COLUMN.offer.rows_per_item
RANDOM = np.random.default_rng(6)


def gathered(rows: Any, rows_per_item: int | None = 1, codec: RowCodec = ROW, *, clip: bool = False) -> list[Batch]:
    return list(Batcher(lambda _: codec, rows_per_item, clip=clip).batches(rows))


def grid(count: int) -> NDArray[np.float64]:
    return RANDOM.integers(0, 256, (count, 3)) / 255


def assert_covers(batches: list[Batch], rows: Any) -> None:
    """Check that the batches hold each row once, in order, and refused rows one each."""
    index = 0
    for batch in batches:
        assert batch.first_index == index
        if batch.error is None:
            np.testing.assert_array_equal(batch.rows, np.asarray(rows[index : index + len(batch.rows)], np.float64))
            np.testing.assert_array_equal(batch.quantized, batch.codec.quantize(batch.rows))
        else:
            assert len(batch.rows) == 1
        index += len(batch.rows)
    assert index == len(rows)


@pytest.mark.parametrize("rows_per_item", [1, 3, 100, None])
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
@pytest.mark.parametrize("as_array", [True, False])
def test_rows_come_in_order_and_in_batches_of_the_size(rows_per_item: int | None, count: int, as_array: bool) -> None:
    rows = grid(count)
    batches = gathered(rows if as_array else iter(rows), rows_per_item)
    assert_covers(batches, rows)
    size = min(rows_per_item or ROW.offer.rows_per_item, ROW.offer.rows_per_item)
    assert {len(batch.rows) for batch in batches[:-1]} <= {size}
    assert len(batches) == -(-count // size)


def test_a_full_batch_of_columns() -> None:
    rows = grid(2 * N + 5)
    batches = gathered(rows, None, COLUMN)
    assert [len(batch.rows) for batch in batches] == [N, N, 5]
    assert_covers(batches, rows)


BAD: dict[str, tuple[Any, type[InputError]]] = {
    "out of range": ([0.5, 1.5, 0.5], OutOfRangeError),
    "not finite": ([0.5, np.nan, 0.5], NotFiniteError),
    "too short": ([0.5, 0.5], FeatureCountError),
    "a number": (0.5, FeatureCountError),
    "text": ("text", InputError),
    "nothing": (None, FeatureCountError),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("rows_per_item", [1, 4, None])
@pytest.mark.parametrize("place", [0, 5, 9])
def test_a_bad_row_is_refused_alone(name: str, rows_per_item: int | None, place: int) -> None:
    bad, error = BAD[name]
    rows = [*grid(10)]
    rows[place] = bad
    batches = gathered(iter(rows), rows_per_item)
    refused = [batch for batch in batches if batch.error]
    assert [(batch.first_index, type(batch.error)) for batch in refused] == [(place, error)]
    assert sum(len(batch.rows) for batch in batches) == 10
    good = [batch for batch in batches if not batch.error]
    assert [row.tolist() for batch in good for row in batch.rows] == [
        row.tolist() for index, row in enumerate(rows) if index != place
    ]


@given(bad=st.sets(st.integers(0, 299)), rows_per_item=st.sampled_from([1, 7, None]), columns=st.booleans())
def test_bad_rows_of_an_array_are_refused_alone(bad: set[int], rows_per_item: int | None, columns: bool) -> None:
    rows = grid(300)
    rows[list(bad), 1] = 1.5
    batches = gathered(rows, rows_per_item, COLUMN if columns else ROW)
    assert_covers(batches, rows)
    assert {batch.first_index for batch in batches if batch.error} == bad


def test_an_array_of_objects_and_one_of_the_wrong_width() -> None:
    rows = grid(20).astype(object)
    rows[3, 0] = "text"
    batches = gathered(rows, 4)
    assert [batch.first_index for batch in batches if batch.error] == [3]
    wide = gathered(np.zeros((5, 4)), 4)
    assert [type(batch.error) for batch in wide] == [FeatureCountError] * 5


def test_clipping() -> None:
    ((batch,)) = gathered(np.array([[2.0, -1.0, 0.5]]), clip=True)
    assert batch.error is None
    assert batch.quantized.tolist() == [[255, 0, 128]]


def test_a_source_may_use_its_buffer_again() -> None:
    rows, buffer = grid(10), np.empty(3)

    def source() -> Iterator[Any]:
        for row in rows:
            buffer[:] = row
            yield buffer

    assert_covers(gathered(source(), 4), rows)


def test_a_file_is_read_as_it_is_used(tmp_path: Path) -> None:
    """No more than a block of it, and float64 rows without a copy."""
    rows = np.memmap(tmp_path / "rows", np.float64, "w+", shape=(10 * N, 3))
    batches = Batcher(lambda _: COLUMN, None, clip=False).batches(rows)
    first = next(batches)
    assert len(first.rows) == N
    assert np.shares_memory(first.rows, rows)
    rows[5 * N] = 2.0  # not read yet
    assert [batch.first_index for batch in batches if batch.error] == [5 * N]


def test_rows_are_taken_as_batches_are() -> None:
    taken = list[int]()

    def source() -> Iterator[Any]:
        for index, row in enumerate(grid(100)):
            taken.append(index)
            yield row

    batches = Batcher(lambda _: ROW, 3, clip=False).batches(source())
    next(batches)
    assert len(taken) == 3


def test_each_batch_is_made_for_the_model_as_it_is_then() -> None:
    codecs = [ROW, ROW, COLUMN, COLUMN]
    gatherer = Batcher(lambda _: codecs.pop(0), 2, clip=False, first_index=40)
    batches = list(gatherer.batches(iter(grid(6))))
    assert [batch.codec for batch in batches] == [ROW, COLUMN, COLUMN]
    assert [batch.first_index for batch in batches] == [40, 42, 44]


@pytest.mark.parametrize("rows_per_item", [1, 4, None])
@pytest.mark.parametrize("table", [pd.DataFrame, csc_array], ids=["frame", "sparse"])
def test_a_table_is_its_rows(table: Any, rows_per_item: int | None) -> None:
    """Iterating over a DataFrame gives the names of its columns."""
    rows = grid(300)
    batches = gathered(table(rows), rows_per_item)
    assert not [batch.error for batch in batches if batch.error]
    assert_covers(batches, rows)


@pytest.mark.parametrize("rows_per_item", [1, 4, None])
def test_a_bad_row_of_a_frame_is_refused_alone(rows_per_item: int | None) -> None:
    frame = pd.DataFrame(grid(20)).astype(object)
    frame.iloc[3, 1], frame.iloc[7, 0], frame.iloc[9, 2] = "text", 10**400, None
    batches = gathered(frame, rows_per_item)
    assert [(batch.first_index, type(batch.error)) for batch in batches if batch.error] == [
        (3, InputError),
        (7, InputError),
        (9, NotFiniteError),
    ]
    assert sum(len(batch.rows) for batch in batches) == 20


def test_a_number_without_end_ends_no_stream() -> None:
    batches = gathered(iter([[0.5, 0.5, 0.5], [0.5, 10**400, 0.5], [0.5, 0.5, 0.5]]))
    assert [batch.first_index for batch in batches if batch.error] == [1]
    assert [batch.first_index for batch in batches if not batch.error] == [0, 2]
