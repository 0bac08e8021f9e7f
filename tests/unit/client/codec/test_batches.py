"""Rows of any origin in batches: every row in one of them, in order, refused ones as dummies."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csc_array

from sealserve._codec.batches import Batch, Batcher, Result, predictions
from sealserve._codec.codec import Decrypted, RowCodec
from sealserve.errors import (
    FeatureCountError,
    InputError,
    InternalError,
    NotFiniteError,
    OutOfRangeError,
    ReplyError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.output import Link, Output, Task
from tests.support.recording_service import described, reply_of
from tests.support.serving import linear, served

MODEL = served("line", linear([[1.0, 2.0, 3.0]])).model
ROW, COLUMN = (
    RowCodec(MODEL, offer=next(offer for offer in MODEL.offers if offer.layout is layout))
    for layout in (LAYOUTS["row"], LAYOUTS["column"])
)
N = COLUMN.offer.rows_per_item
RANDOM = np.random.default_rng(6)


def gathered(rows: Any, rows_per_item: int | None = 1, codec: RowCodec = ROW) -> list[Batch]:
    return list(Batcher(lambda _: codec, rows_per_item).batches(rows))


def grid(count: int) -> NDArray[np.float64]:
    return RANDOM.integers(0, 256, (count, 3)) / 255


def assert_covers(batches: list[Batch], rows: Any) -> None:
    """Check that the batches hold each row once, in order, and unsent rows one each."""
    index = 0
    for batch in batches:
        assert batch.first_index == index
        if batch.error is None:
            np.testing.assert_array_equal(batch.rows, np.asarray(rows[index : index + len(batch.rows)], np.float64))
            integers, is_refused = batch.codec.quantize(batch.rows)
            np.testing.assert_array_equal(batch.quantized, integers)
            np.testing.assert_array_equal(batch.is_refused, is_refused)
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


REFUSED: dict[str, tuple[Any, type[InputError]]] = {
    "out of range": ([0.5, 1.5, 0.5], OutOfRangeError),
    "not finite": ([0.5, np.nan, 0.5], NotFiniteError),
    "both": ([1.5, np.nan, 0.5], NotFiniteError),
    "a gap": ([0.5, None, 0.5], NotFiniteError),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("rows_per_item", [1, 4, None])
@pytest.mark.parametrize("place", [0, 5, 9])
def test_a_refused_row_is_a_dummy_in_its_place(name: str, rows_per_item: int | None, place: int) -> None:
    bad, error = REFUSED[name]
    rows = [*grid(10)]
    good = gathered(iter(rows), rows_per_item)
    rows[place] = bad
    batches = gathered(iter(rows), rows_per_item)
    assert [len(batch.rows) for batch in batches] == [len(batch.rows) for batch in good]
    assert not any(batch.error for batch in batches)
    for batch, whole in zip(batches, good, strict=True):
        for position in range(len(batch.rows)):
            is_bad = batch.first_index + position == place
            assert batch.is_refused[position] == is_bad
            expected = np.zeros(3) if is_bad else whole.quantized[position]
            np.testing.assert_array_equal(batch.quantized[position], expected)
        outcome = Decrypted(np.zeros((len(batch.rows), 1)), True)
        errors = Result(batch, outcome).errors
        is_here = place - batch.first_index in range(len(batch.rows))
        assert {index: type(found) for index, found in errors.items()} == ({place: error} if is_here else {})


def test_what_becomes_of_each_row_of_a_batch() -> None:
    rows = grid(3)
    rows[1, 2] = np.inf
    ((batch,)) = gathered(rows, 3)
    scores = np.arange(3.0)[:, None]
    sound = dict(predictions("predict", Result(batch, Decrypted(scores, True))))
    assert (sound[0], sound[2]) == ([0.0], [2.0])
    assert str(sound[1]) == "feature 2 is infinite: replace it"
    failing = dict(predictions("predict", Result(batch, Decrypted(scores, False))))
    assert [type(failing[index]) for index in range(3)] == [ReplyError, NotFiniteError, ReplyError]
    internal = InternalError("x")
    assert dict(predictions("predict", Result(batch, internal))) == dict.fromkeys(range(3), internal)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("handling", ["warn", "raise"])
def test_no_score_ends_a_stream(handling: Any) -> None:
    """A hostile description has a scale that makes scores overflow."""
    ((batch,)) = gathered(grid(1))
    model = described(MODEL, layout="row")
    tiny = dataclasses.replace(model, offers=(dataclasses.replace(model.offers[0], score_scale=1e-307),))
    codec = RowCodec(tiny)
    with np.errstate(all=handling):
        scores, is_plausible = codec.read(1, reply_of(tiny, np.array([[10**6]])))
        assert is_plausible
        assert np.isinf(scores).all()
        softmax = Output(Task.CLASSIFICATION, 3, ("a", "b", "c"), Link.SOFTMAX)
        codec_of_labels: Any = SimpleNamespace(model=SimpleNamespace(output=softmax))
        labelled = dataclasses.replace(batch, codec=codec_of_labels)
        result = Result(labelled, Decrypted(np.array([[np.inf, 0.0, 1.0]]), True))
        ((index, _),) = predictions("predict_proba", result)
        assert index == 0


@pytest.mark.parametrize("codec", [ROW, COLUMN], ids=["row", "column"])
@pytest.mark.parametrize("outside", [0, 1, 2])
def test_a_dummys_scores_are_not_checked_and_those_of_other_rows_are(codec: RowCodec, outside: int) -> None:
    model = described(MODEL, layout=codec.offer.layout.name)
    reader = RowCodec(model)
    values = np.array([[1], [2], [3]])
    values[outside] = model.offers[0].parameters.plain_modulus // 2
    reply = reply_of(model, values)
    for dummy in range(3):
        scores, is_plausible = reader.read(3, reply, np.arange(3) == dummy)
        assert is_plausible == (dummy == outside)
        kept = np.arange(3) != outside
        np.testing.assert_array_equal(scores[kept], values[kept] / model.offers[0].score_scale)
    assert not reader.read(3, reply).is_plausible
    assert reader.read(3, reply, np.ones(3, np.bool_)).is_plausible


BAD: dict[str, tuple[Any, type[InputError]]] = {
    "too short": ([0.5, 0.5], FeatureCountError),
    "a number": (0.5, FeatureCountError),
    "text": ("text", InputError),
    "nothing": (None, FeatureCountError),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("rows_per_item", [1, 4, None])
@pytest.mark.parametrize("place", [0, 5, 9])
def test_a_bad_row_is_left_out_alone(name: str, rows_per_item: int | None, place: int) -> None:
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


@settings(deadline=None)
@given(bad=st.sets(st.integers(0, 299)), rows_per_item=st.sampled_from([1, 7, None]), columns=st.booleans())
def test_refused_rows_of_an_array_change_no_batch(bad: set[int], rows_per_item: int | None, columns: bool) -> None:
    rows, codec = grid(300), COLUMN if columns else ROW
    rows[list(bad), 1] = 1.5
    batches = gathered(rows, rows_per_item, codec)
    assert_covers(batches, rows)
    size = min(rows_per_item or codec.offer.rows_per_item, codec.offer.rows_per_item)
    assert [len(batch.rows) for batch in batches] == [min(size, 300 - start) for start in range(0, 300, size)]
    assert not any(batch.error for batch in batches)
    is_refused = np.concatenate([batch.is_refused for batch in batches])
    assert set(np.flatnonzero(is_refused).tolist()) == bad


def test_an_array_of_objects_and_one_of_the_wrong_width() -> None:
    rows = grid(20).astype(object)
    rows[3, 0] = "text"
    batches = gathered(rows, 4)
    assert [batch.first_index for batch in batches if batch.error] == [3]
    wide = gathered(np.zeros((5, 4)), 4)
    assert [type(batch.error) for batch in wide] == [FeatureCountError] * 5


def test_clipping() -> None:
    ((batch,)) = gathered(np.array([[2.0, -1.0, 0.5]]), codec=RowCodec(MODEL, clip=True))
    assert batch.error is None
    assert not batch.is_refused.any()
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
    batches = Batcher(lambda _: COLUMN, None).batches(rows)
    first = next(batches)
    assert len(first.rows) == N
    assert np.shares_memory(first.rows, rows)
    rows[5 * N] = 2.0  # not read yet
    assert [batch.first_index for batch in batches if batch.is_refused.any()] == [5 * N]


def test_rows_are_taken_as_batches_are() -> None:
    taken = list[int]()

    def source() -> Iterator[Any]:
        for index, row in enumerate(grid(100)):
            taken.append(index)
            yield row

    batches = Batcher(lambda _: ROW, 3).batches(source())
    next(batches)
    assert len(taken) == 3


def test_each_batch_is_made_for_the_model_as_it_is_then() -> None:
    codecs = [ROW, ROW, COLUMN, COLUMN]
    gatherer = Batcher(lambda _: codecs.pop(0), 2, first_index=40)
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
    ]
    assert sum(len(batch.rows) for batch in batches) == 20
    (travelling,) = [batch for batch in batches if not batch.error and batch.is_refused.any()]
    ((index, error),) = Result(travelling, Decrypted(np.zeros((len(travelling.rows), 1)), True)).errors.items()
    assert (index, type(error), str(error)) == (9, NotFiniteError, "feature 2 is missing (NaN): replace it")


def test_a_number_without_end_ends_no_stream() -> None:
    batches = gathered(iter([[0.5, 0.5, 0.5], [0.5, 10**400, 0.5], [0.5, 0.5, 0.5]]))
    assert [batch.first_index for batch in batches if batch.error] == [1]
    assert [batch.first_index for batch in batches if not batch.error] == [0, 2]
