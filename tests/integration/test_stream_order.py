"""The messages of a stream in every wrong order: one item fails, its neighbours do not."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.errors import (
    CiphertextFault,
    InputMismatchError,
    ItemTimeoutError,
    LimitExceededError,
    MalformedCiphertextError,
    OutOfSequenceError,
    ServiceError,
)
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.digits import Digits
from tests.support.raw import (
    Answer,
    Message,
    RawClient,
    Request,
    as_message,
    assert_error,
    assert_scores,
    chunk,
)
from tests.support.serving import HANG_SECONDS, digits_registry, linear, running_server, served, with_limits

RANDOM = np.random.default_rng(3)
BLOCK_MODEL = linear(RANDOM.normal(size=(2, 4096)))


@pytest.fixture(scope="module")
def block_server() -> Iterator[str]:
    """The address of a server whose items have two ciphertexts."""
    with running_server(ModelRegistry([served("blocks", BLOCK_MODEL)])) as address:
        yield address


def assert_block_scores(raw: RawClient, answer: Answer, row: NDArray[np.float64]) -> None:
    offer = raw.codec.offer
    assert not isinstance(answer, ServiceError), answer
    bound = offer.score_error_bound
    assert np.abs(answer - BLOCK_MODEL.decision([row])).max() <= bound


def test_an_item_in_several_messages_among_others(block_server: str) -> None:
    """Two ciphertexts an item; their chunks alternate with another item's."""
    with RawClient(block_server) as raw:
        rows = RANDOM.random((2, BLOCK_MODEL.feature_count))
        one, other = map(raw.request, rows)
        answers = raw.stream(
            [
                Message(item_id=4, header=one.header),
                Message(item_id=9, header=other.header, chunk=chunk(0, other.ciphertexts[0])),
                Message(item_id=4, chunk=chunk(0, one.ciphertexts[0])),
                Message(item_id=9),
                Message(item_id=9, chunk=chunk(1, other.ciphertexts[1])),
                Message(item_id=4, chunk=chunk(1, one.ciphertexts[1])),
            ]
        )
        assert_block_scores(raw, answers[4], rows[0])
        assert_block_scores(raw, answers[9], rows[1])


Chunks = Callable[[Request], list[prediction_pb2.Chunk]]
CHUNK_FAULTS: dict[str, tuple[Chunks, ServiceError]] = {
    "second first": (lambda r: [chunk(1, r.ciphertexts[1]), chunk(0, r.ciphertexts[0])], OutOfSequenceError(0, 1)),
    "first repeated": (lambda r: [chunk(0, r.ciphertexts[0]), chunk(0, r.ciphertexts[0])], OutOfSequenceError(1, 0)),
    "index far off": (lambda r: [chunk(2**32 - 1, r.ciphertexts[0])], OutOfSequenceError(0, 2**32 - 1)),
    "one too many": (lambda r: [chunk(0, *r.ciphertexts, b"x")], InputMismatchError("ciphertexts", 2, 3)),
    "one too many, later": (
        lambda r: [chunk(0, r.ciphertexts[0]), chunk(1, *r.ciphertexts)],
        InputMismatchError("ciphertexts", 1, 2),
    ),
    "nothing in it": (lambda _: [chunk(0)], InputMismatchError("ciphertexts", 2, 0)),
    "second never sent": (lambda r: [chunk(0, r.ciphertexts[0])], InputMismatchError("ciphertexts", 2, 1)),
    "none ever sent": (lambda _: [], InputMismatchError("ciphertexts", 2, 0)),
    "second malformed": (
        lambda r: [chunk(0, r.ciphertexts[0]), chunk(1, r.ciphertexts[1][:-1])],
        MalformedCiphertextError(CiphertextFault.LENGTH, 1),
    ),
}


@pytest.mark.parametrize("name", CHUNK_FAULTS)
def test_chunks_out_of_order(block_server: str, name: str) -> None:
    chunks, expected = CHUNK_FAULTS[name]
    with RawClient(block_server) as raw:
        row = RANDOM.random(BLOCK_MODEL.feature_count)
        request = raw.request(row)
        bad = [Message(item_id=2, header=request.header), *(Message(item_id=2, chunk=c) for c in chunks(request))]
        answers = raw.stream([as_message(1, request), *bad, as_message(3, request)])
        assert sorted(answers) == [1, 2, 3]
        assert_block_scores(raw, answers[1], row)
        assert_error(answers[2], expected)
        assert_block_scores(raw, answers[3], row)


IDS: dict[str, tuple[list[int], int, ServiceError]] = {
    "id 0": ([5], 0, OutOfSequenceError(6, 0)),
    "used id": ([5], 5, OutOfSequenceError(6, 5)),
    "lower id": ([5, 8], 7, OutOfSequenceError(9, 7)),
    "id after the last": ([2**64 - 1], 2**64 - 1, OutOfSequenceError(0, 2**64 - 1)),
}


@pytest.mark.parametrize("name", IDS)
def test_item_ids_rise(raw: RawClient, digits_model: Digits, name: str) -> None:
    used, item_id, expected = IDS[name]
    items = [raw.item(number, digits_model.X[0]) for number in (*used, item_id)]
    ends = list(raw.answers(raw.predictions.StreamPredict(iter(items), timeout=HANG_SECONDS)))
    assert [number for number, _ in ends] == [*used, item_id]
    *scores, (_, error) = ends
    for _, answer in scores:
        assert_scores(answer, digits_model.scores[0])
    assert_error(error, expected)


def test_a_chunk_of_an_unknown_item(raw: RawClient, digits_model: Digits) -> None:
    stray = Message(item_id=7, chunk=raw.item(7, digits_model.X[0]).chunk)
    answers = raw.stream([raw.item(1, digits_model.X[1]), stray, raw.item(8, digits_model.X[2])])
    assert_scores(answers[1], digits_model.scores[1])
    assert_error(answers[7], OutOfSequenceError(2, 7))
    assert_scores(answers[8], digits_model.scores[2])


def test_a_cancelled_item_is_forgotten(raw: RawClient, digits_model: Digits) -> None:
    item = raw.item(1, digits_model.X[0])
    late = Message(item_id=1, chunk=item.chunk)
    requests = [
        Message(item_id=1, header=item.header),
        Message(item_id=1, cancel=True),
        late,
        Message(item_id=99, cancel=True),
        raw.item(2, digits_model.X[2]),
    ]
    answers = raw.stream(requests)
    assert list(answers) == [2]
    assert_scores(answers[2], digits_model.scores[2])


def test_an_item_that_is_not_sent_in_time(digits_model: Digits) -> None:
    settings = with_limits(item_timeout_seconds=0.25)
    with (
        running_server(digits_registry(digits_model.estimator, settings), settings) as address,
        RawClient(address) as raw,
    ):
        item = raw.item(1, digits_model.X[0])
        with raw.conversation() as stream:
            stream.send(Message(item_id=1, header=item.header))
            item_id, error = next(stream.answers)
            assert item_id == 1
            assert_error(error, ItemTimeoutError(0.25))
            stream.send(Message(item_id=1, chunk=item.chunk))  # too late; nothing more is said of it
            stream.send(raw.item(2, digits_model.X[2]))
            item_id, scores = next(stream.answers)
            assert item_id == 2
            assert_scores(scores, digits_model.scores[2])


def test_limits_of_a_stream(digits_model: Digits) -> None:
    settings = with_limits(max_open_items=2, window_bytes=50_000)
    models = [
        served("digits", digits_model.estimator, input_step=1 / 16, limits=settings.limits),
        served("blocks", BLOCK_MODEL, limits=settings.limits),
    ]
    with running_server(ModelRegistry(models), settings) as address:
        with RawClient(address, "digits") as raw:
            good, header = raw.item(4, digits_model.X[0]), raw.item(1, digits_model.X[0]).header
            too_many = [Message(item_id=number, header=header) for number in (1, 2, 3)]
            answers = raw.stream([*too_many, Message(item_id=1, cancel=True), good])
            assert_error(answers[3], LimitExceededError("max_open_items", 2, 3))
            assert_scores(answers[4], digits_model.scores[0])
        with RawClient(address, "blocks") as raw:
            row = RANDOM.random(BLOCK_MODEL.feature_count)
            request = raw.request(row)
            first, second = (chunk(index, data) for index, data in enumerate(request.ciphertexts))
            halves = [Message(item_id=number, header=request.header, chunk=first) for number in (1, 2)]
            answers = raw.stream([*halves, Message(item_id=1, chunk=second)])
            assert_error(answers[2], LimitExceededError("window_bytes", 50_000, 4 * len(request.ciphertexts[0])))
            assert_block_scores(raw, answers[1], row)  # longer than the window, but alone
