"""The items of a stream: every order of messages, without a server."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve.errors import (
    DrainingError,
    IdleTimeoutError,
    InputMismatchError,
    InternalError,
    ItemTimeoutError,
    LimitExceededError,
    ModelNotFoundError,
    OutOfSequenceError,
    ServiceError,
)
from sealserve.protocol.item import EncryptedScores
from sealserve.protocol.wire import error_from_proto, header_to_proto, scores_from_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.scoring.admission import Admission
from sealserve_service.scoring.table import ItemTable
from sealserve_service.scoring.turns import CallEnd, Waiter
from sealserve_service.telemetry.call_record import CallRecord
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.raw import Message, assert_error, chunk
from tests.support.serving import LIMITS, linear, served, with_limits

RANDOM = np.random.default_rng(5)
MODEL = linear(RANDOM.normal(size=(2, 4096)))
SERVED = served("blocks", MODEL)  # two ciphertexts an item
CODEC = RowCodec(SERVED.model)
ROW = RANDOM.random((1, 4096))
ITEM = CODEC.encrypt(CODEC.quantize(ROW).integers)
HEADER = header_to_proto(ITEM.header)
FIRST, SECOND = ITEM.ciphertexts
LIMITED = with_limits(
    max_open_items=2, window_bytes=4 * len(FIRST), item_timeout_seconds=10.0, idle_timeout_seconds=0.0
).limits

WAITER = Waiter("alice", CallEnd().call_back)


@pytest.fixture
def table() -> ItemTable:
    return ItemTable(
        ModelRegistry([SERVED]), ANONYMOUS, LIMITED, Admission(1 << 30), CallRecord("", Telemetry()), WAITER
    )


def begin(item_id: int) -> Message:
    return Message(item_id=item_id, header=HEADER)


def first(item_id: int) -> Message:
    return Message(item_id=item_id, chunk=chunk(0, FIRST))


def second(item_id: int) -> Message:
    return Message(item_id=item_id, chunk=chunk(1, SECOND))


def ends(table: ItemTable, *messages: Message) -> list[tuple[int, NDArray[np.float64] | ServiceError]]:
    """The ends of items that the messages bring about, in order: scores or error."""
    found: list[tuple[int, NDArray[np.float64] | ServiceError]] = []
    for message in messages:
        reply: list[EncryptedScores] = []
        for answer in table.receive(message):
            assert answer.item_id == message.item_id
            reply += scores_from_proto(answer.scores)
            if answer.HasField("error"):
                found.append((answer.item_id, error_from_proto(answer.error)))
            elif answer.HasField("done"):
                found.append((answer.item_id, CODEC.decrypt(1, reply)))
    return found


def assert_scored(answer: object) -> None:
    assert isinstance(answer, np.ndarray), repr(answer)
    offer = SERVED.model.offers[0]
    assert np.abs(answer - MODEL.decision(ROW)).max() <= offer.score_error_bound


@pytest.mark.parametrize(
    "messages",
    [
        [Message(item_id=1, header=HEADER, chunk=chunk(0, FIRST, SECOND))],
        [Message(item_id=1, header=HEADER, chunk=chunk(0, FIRST)), second(1)],
        [begin(1), first(1), second(1)],
        [begin(1), Message(item_id=1), first(1), Message(item_id=1), second(1)],
    ],
    ids=["one message", "two", "header alone", "with empty messages"],
)
def test_ways_to_send_an_item(table: ItemTable, messages: list[Message]) -> None:
    ((item_id, answer),) = ends(table, *messages)
    assert item_id == 1
    assert_scored(answer)
    assert len(table) == 0
    assert table.next_deadline is None


def test_items_in_each_others_midst(table: ItemTable) -> None:
    answers = ends(table, begin(3), begin(7), first(7), first(3), second(3), second(7))
    assert [item_id for item_id, _ in answers] == [3, 7]
    for _, answer in answers:
        assert_scored(answer)


def test_a_second_header_ends_the_item(table: ItemTable) -> None:
    ((item_id, error),) = ends(table, begin(1), first(1), begin(1), second(1))
    assert item_id == 1
    assert_error(error, OutOfSequenceError(2, 1))
    assert len(table) == 0


def test_messages_of_an_item_that_has_ended_are_passed_over(table: ItemTable) -> None:
    answers = ends(table, begin(1), second(1), first(1), second(1), Message(item_id=1), Message(item_id=1, cancel=True))
    assert len(answers) == 1
    assert_error(answers[0][1], OutOfSequenceError(0, 1))


@pytest.mark.parametrize("item_id", [0, 1, 2**64 - 1])
def test_messages_of_an_item_that_never_began(table: ItemTable, item_id: int) -> None:
    for message in (Message(item_id=item_id), first(item_id)):
        ((_, error),) = ends(table, message)
        assert_error(error, OutOfSequenceError(1, item_id))
    assert ends(table, Message(item_id=item_id, cancel=True)) == []


def test_a_cancelled_item_gives_its_room_back(table: ItemTable) -> None:
    assert ends(table, begin(1), begin(2), Message(item_id=1, cancel=True), begin(3)) == []
    assert len(table) == 2
    ((_, error),) = ends(table, begin(4))
    assert_error(error, LimitExceededError("max_open_items", 2, 3))
    assert len(table) == 2


def test_a_cancel_beside_a_header_cancels(table: ItemTable) -> None:
    assert ends(table, Message(item_id=1, header=HEADER, chunk=chunk(0, FIRST, SECOND), cancel=True)) == []
    assert len(table) == 0


def test_the_window_fails_the_item_that_overfills_it() -> None:
    """An item counts with all that it will hold from its first chunk on, and not before."""
    limits = with_limits(window_bytes=4 * len(FIRST) - 1).limits
    table = ItemTable(
        ModelRegistry([SERVED]), ANONYMOUS, limits, Admission(1 << 30), CallRecord("", Telemetry()), WAITER
    )
    answers = ends(table, begin(1), begin(2), begin(3), first(1), first(2), second(2), second(1), first(3), second(3))
    assert [item_id for item_id, _ in answers] == [2, 1, 3]
    assert_error(answers[0][1], LimitExceededError("window_bytes", limits.window_bytes, 4 * len(FIRST)))
    assert_scored(answers[1][1])
    assert_scored(answers[2][1])


def test_a_message_over_the_limit(table: ItemTable) -> None:
    ((_, error),) = ends(table, begin(1), Message(item_id=1, chunk=chunk(0, bytes(LIMITED.max_message_bytes + 1))))
    assert_error(error, LimitExceededError("max_message_bytes", LIMITS.max_message_bytes, LIMITS.max_message_bytes + 1))


def test_only_what_is_overdue_expires(table: ItemTable) -> None:
    ends(table, begin(1), begin(2))
    deadline = table.next_deadline
    assert deadline is not None
    assert time.monotonic() < deadline <= time.monotonic() + 10
    assert list(table.expire(deadline - 1)) == []
    (answer,) = table.expire(deadline)
    assert answer.item_id == 1
    assert_error(error_from_proto(answer.error), ItemTimeoutError(10.0))
    assert table.next_deadline is not None
    assert table.next_deadline > deadline
    assert len(ends(table, first(2), second(2))) == 1


def test_a_long_item_has_the_time_that_a_slow_link_takes(monkeypatch: pytest.MonkeyPatch, table: ItemTable) -> None:
    """And one that began before it may have to come before it, or after."""
    ends(table, begin(1))
    first_deadline = table.next_deadline
    monkeypatch.setattr("sealserve_service.scoring.table.SLOWEST_BYTES_PER_SECOND", 2 * len(FIRST) / 25.0)
    ends(table, begin(2))
    assert first_deadline is not None
    assert table.next_deadline == first_deadline
    assert [answer.item_id for answer in table.expire(first_deadline + 14)] == [1]
    deadline = table.next_deadline
    assert deadline is not None
    assert 24 < deadline - time.monotonic() <= 25
    (answer,) = table.expire(deadline)
    assert_error(error_from_proto(answer.error), ItemTimeoutError(25.0))


def test_a_stream_is_idle_only_without_open_items_and_messages() -> None:
    limits = with_limits(item_timeout_seconds=10.0, idle_timeout_seconds=5.0).limits
    table = ItemTable(
        ModelRegistry([SERVED]), ANONYMOUS, limits, Admission(1 << 30), CallRecord("", Telemetry()), WAITER
    )
    silent_until = table.next_deadline
    assert silent_until is not None
    assert silent_until <= time.monotonic() + 5
    table.check_idle(silent_until - 0.001)
    with pytest.raises(IdleTimeoutError) as caught:
        table.check_idle(silent_until)
    assert_error(caught.value, IdleTimeoutError(5.0))

    ends(table, begin(1))
    deadline = table.next_deadline
    assert deadline is not None
    assert deadline > silent_until + 4
    table.check_idle(deadline)
    assert [answer.item_id for answer in table.expire(deadline)] == [1]

    kept_until = table.next_deadline
    assert kept_until is not None
    assert silent_until < kept_until <= time.monotonic() + 5
    table.check_idle(silent_until)
    for nothing in (Message(cancel=True), Message(item_id=1, cancel=True), Message(item_id=9), begin(1)):
        ends(table, nothing)
        assert table.next_deadline == kept_until, "it neither begins nor continues an item"
    table.idle_timeout_seconds = 1.0
    assert table.next_deadline == pytest.approx(kept_until - 4.0)
    assert table.item_count == 1


def test_abandoned_items_are_named(table: ItemTable) -> None:
    ends(table, begin(1), begin(2), first(2))
    answers = list(table.abandon())
    assert [answer.item_id for answer in answers] == [1, 2]
    for received, answer in enumerate(answers):
        assert_error(error_from_proto(answer.error), InputMismatchError("ciphertexts", 2, received))
    assert len(table) == 0


def test_a_draining_table_finishes_what_it_has(table: ItemTable) -> None:
    ends(table, begin(1), first(1))
    table.is_stopping = True
    answers = ends(table, begin(2), second(1))
    assert_error(answers[0][1], DrainingError(1.0))
    assert_scored(answers[1][1])


def test_a_failed_header_uses_its_id_up(table: ItemTable) -> None:
    nobody = Message(item_id=5, header=prediction_pb2.ItemHeader(model="nobody"))
    answers = ends(table, nobody, begin(5))
    assert_error(answers[0][1], ModelNotFoundError("nobody"))
    assert_error(answers[1][1], OutOfSequenceError(6, 5))


def test_a_fault_of_the_server_names_the_log_entry_only(
    table: ItemTable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(ModelRegistry, "get", broken)
    ((_, error),) = ends(table, begin(1))
    assert isinstance(error, InternalError)
    assert "secret" not in str(error)
    assert error.request_id in caplog.text
    monkeypatch.undo()
    ((_, answer),) = ends(table, begin(2), first(2), second(2))
    assert_scored(answer)
