"""Where each of many batches is, and what a failure changes: no threads, sockets or clock."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sealserve import errors
from sealserve._codec.batches import Batch, FinishedBatch
from sealserve._codec.codec import RowCodec
from sealserve._rpc.retry import MAX_LOSSES
from sealserve._rpc.transfer_time import TransferTime
from sealserve._streaming.schedule import Schedule
from sealserve._streaming.slots import PendingBatch, Slot, Stream
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import error_to_proto
from sealserve.v1 import prediction_pb2
from tests.support.serving import LIMITS, linear, served

CODEC = RowCodec(served("line", linear([[1.0, 2.0]])).model)
ROWS = np.array([[0.25, 0.5]])
HELD = CODEC.offer.cost.held_bytes
TIMEOUT = 10.0
LONG = 1e6  # longer than any pause
Response = prediction_pb2.StreamPredictResponse
STALE = errors.StaleConfigError("new")
BUSY = errors.QuotaExceededError("rows_per_minute", 1.0)
PASSING: list[errors.SealserveError] = [
    BUSY,
    errors.DrainingError(1.0),
    errors.KeyStoreUnavailableError(1.0),
    errors.ItemTimeoutError(1.0),
]
FINAL: list[errors.ServiceError] = [
    errors.MalformedCiphertextError(errors.CiphertextFault.FORM),
    errors.InputMismatchError("row_count", 1, 2),
    errors.ModelNotFoundError("line"),
    errors.InternalError("id"),
    errors.LimitExceededError("max_open_items", 1, 2),
]
BREAKS: list[errors.SealserveError] = [
    errors.UnavailableError("gone"),
    errors.DeadlineError("late"),
    errors.IdleTimeoutError(1.0),
    errors.QuotaExceededError("concurrent_calls", 1.0),
    errors.DrainingError(1.0),
]


def batch(index: int) -> Batch:
    return Batch(index, ROWS, CODEC, *CODEC.quantize(ROWS))


def schedule_of(count: int, slots: int = 1, limits: Limits = LIMITS) -> Schedule:
    schedule = Schedule(limits, slots, TIMEOUT, 0.0)
    for index in range(count):
        schedule.add(batch(index), 0.0)
    return schedule


def opened(schedule: Schedule, slot: int = 0, now: float = 0.0, window_bytes: int = 1 << 30) -> Stream:
    """A stream whose service has said its window."""
    assert assigned(schedule, schedule.slots[slot], now)
    stream = schedule.open_stream(schedule.slots[slot], now)
    assert sendable(schedule, stream, now) is None, "nothing is sent before the window is known"
    window = prediction_pb2.Window(max_bytes_in_flight=window_bytes)
    assert schedule.receive(stream, Response(window=window), now) is None
    return stream


def assigned(schedule: Schedule, slot: Slot, now: float) -> bool:
    """Give a slot a batch, and tell whether it may send it."""
    schedule.assign(slot, now)
    return slot.is_ready(now)


def sendable(schedule: Schedule, stream: Stream, now: float) -> PendingBatch | None:
    """The batch to send, after the stream's slot was given one where there is room."""
    schedule.assign_to_stream(stream, now)
    return schedule.sendable(stream, now)


def goes_on(schedule: Schedule, stream: Stream, item_id: int, now: float, *, is_long: bool) -> bool:
    """Whether the next message of an item is to be sent, which is noted."""
    schedule.continue_item(stream, item_id, now, is_long=is_long)
    return stream.is_open(item_id)


def stalled(schedule: Schedule, now: float) -> list[int]:
    """The slots whose streams are dead, whose items have their time once more."""
    if found := schedule.stalled_slots(now):
        schedule.extend_timeout(now)
    return found


def sent(schedule: Schedule, stream: Stream, now: float = 0.0) -> dict[int, int]:
    """Send all that may be sent: the first index of each item."""
    items = dict[int, int]()
    while (pending := sendable(schedule, stream, now)) is not None and schedule.change(stream, pending) is None:
        items[schedule.begin_item(stream, now)] = pending.batch.first_index
    return items


def named(change: errors.ServiceError | None) -> str:
    """The configuration for which a batch is to be made anew."""
    assert isinstance(change, errors.StaleConfigError)
    return change.current_config_id


def refused(item_id: int, error: errors.SealserveError) -> Response:
    assert isinstance(error, errors.ServiceError)
    return Response(item_id=item_id, error=error_to_proto(error))


def done(item_id: int, server_seconds: float = 0.0) -> Response:
    scores = prediction_pb2.ScoreGroup(scores=[prediction_pb2.EncryptedScores()])
    return Response(item_id=item_id, scores=scores, done=prediction_pb2.ItemDone(server_seconds=server_seconds))


def index_of(end: FinishedBatch | None) -> int:
    assert end is not None
    return end.batch.first_index


# What items show of the time of a byte


def test_items_show_what_a_stream_carried_while_they_were_open() -> None:
    """Two that are open at once share the link: each shows the bytes of both."""
    times = TransferTime()
    schedule = Schedule(LIMITS, 1, TIMEOUT, 0.0, times)
    for index in range(2):
        schedule.add(batch(index), 0.0)
    stream = opened(schedule)
    assert sent(schedule, stream, 1.0) == {1: 0, 2: 1}
    stream.computed_seconds += 0.25  # encryption
    for item_id, now in ((1, 2.0), (2, 3.0)):
        schedule.receive(stream, done(item_id, server_seconds=0.5), now)
    assert times.noted == [(CODEC.item_bytes, 1.0, 0.75), (2 * CODEC.item_bytes, 2.0, 1.25)]


def test_time_in_which_no_message_is_read_does_not_count() -> None:
    """It is that of decryption, and of a caller who takes results slowly."""
    shown = []
    for caller_seconds in (0.0, 5.0):
        times = TransferTime()
        schedule = Schedule(LIMITS, 1, TIMEOUT, 0.0, times)
        for index in range(2):
            schedule.add(batch(index), 0.0)
        stream = opened(schedule)
        assert sent(schedule, stream, 1.0) == {1: 0, 2: 1}
        schedule.receive(stream, done(1), 2.0)
        schedule.set_reading(stream, 2.0, is_read=False)
        schedule.set_reading(stream, 2.0 + caller_seconds, is_read=True)
        schedule.receive(stream, done(2), 3.0 + caller_seconds)
        shown.append([(count, seconds - computed) for count, seconds, computed in times.noted])
    assert shown[0] == shown[1] == [(CODEC.item_bytes, 1.0), (2 * CODEC.item_bytes, 2.0)]


def test_items_that_fail_show_nothing() -> None:
    times = TransferTime()
    schedule = Schedule(LIMITS, 1, TIMEOUT, 0.0, times)
    schedule.add(batch(0), 0.0)
    stream = opened(schedule)
    sent(schedule, stream, 1.0)
    schedule.receive(stream, refused(1, FINAL[0]), 2.0)
    assert not times.noted


# The window


def test_no_more_is_in_flight_than_the_window_takes() -> None:
    schedule = schedule_of(5)
    stream = opened(schedule, window_bytes=2 * HELD)
    assert sent(schedule, stream) == {1: 0, 2: 1}
    assert index_of(schedule.receive(stream, done(2), 0.0)) == 1
    assert sent(schedule, stream) == {3: 2}
    wider = prediction_pb2.Window(max_bytes_in_flight=3 * HELD)
    schedule.receive(stream, Response(window=wider), 0.0)
    assert sent(schedule, stream) == {4: 3}


def test_an_item_larger_than_the_window_travels_alone() -> None:
    schedule = schedule_of(2)
    stream = opened(schedule, window_bytes=1)
    assert sent(schedule, stream) == {1: 0}
    assert index_of(schedule.receive(stream, done(1), 0.0)) == 0
    assert sent(schedule, stream) == {2: 1}


def test_no_more_items_are_open_than_the_service_takes() -> None:
    schedule = schedule_of(9, limits=dataclasses.replace(LIMITS, max_open_items=3))
    stream = opened(schedule)
    assert list(sent(schedule, stream)) == [1, 2, 3]
    schedule.receive(stream, refused(2, FINAL[0]), 0.0)
    assert list(sent(schedule, stream)) == [4]


def test_a_batch_is_wanted_when_it_could_be_sent() -> None:
    schedule = schedule_of(0, slots=2, limits=dataclasses.replace(LIMITS, max_open_items=1))
    wanted = [schedule.wants_batch]
    assert not assigned(schedule, schedule.slots[0], 0.0)
    wanted.append(schedule.wants_batch)
    schedule.add(batch(0), 0.0)
    stream = opened(schedule)
    assert sent(schedule, stream) == {1: 0}
    wanted.append(schedule.wants_batch)  # there is no room for another
    schedule.receive(stream, done(1), 0.0)
    assert sendable(schedule, stream, 0.0) is None
    wanted.append(schedule.wants_batch)
    assert wanted == [False, True, False, True]


# Ends


def test_every_batch_has_one_end() -> None:
    schedule = schedule_of(3)
    stream = opened(schedule)
    sent(schedule, stream)
    schedule.source_has_ended = True
    assert [index_of(schedule.receive(stream, done(item), 0.0)) for item in (2, 1)] == [1, 0]
    assert schedule.receive(stream, done(2), 0.0) is None, "its end has been there"
    assert not schedule.is_finished
    end = schedule.receive(stream, refused(3, FINAL[0]), 0.0)
    assert end is not None
    assert isinstance(end.reply, errors.MalformedCiphertextError)
    assert schedule.is_finished


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_a_final_error_is_the_end_of_its_batch(error: errors.ServiceError) -> None:
    schedule = schedule_of(2)
    stream = opened(schedule)
    sent(schedule, stream)
    end = schedule.receive(stream, refused(1, error), 0.0)
    assert end is not None
    assert type(end.reply) is type(error)
    assert stream.slot.paused_until == 0.0


@pytest.mark.parametrize("first_index", [1, 7])
def test_scores_out_of_order_break_the_protocol(first_index: int) -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    scores = prediction_pb2.ScoreGroup(first_index=first_index)
    with pytest.raises(errors.ReplyError):
        schedule.receive(stream, Response(item_id=1, scores=scores), 0.0)


def test_more_scores_than_there_are_classes_break_the_protocol() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    scores = prediction_pb2.ScoreGroup(scores=[prediction_pb2.EncryptedScores()] * 2)
    with pytest.raises(errors.ReplyError):
        schedule.receive(stream, Response(item_id=1, scores=scores), 0.0)


# Failures that pass


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_is_refused_for_now_is_sent_again_after_a_pause(error: errors.SealserveError) -> None:
    schedule = schedule_of(3)
    stream = opened(schedule)
    sent(schedule, stream)
    assert schedule.receive(stream, refused(2, error), 0.0) is None
    assert schedule.receive(stream, done(1), 0.0) is not None
    schedule.receive(stream, done(3), 0.0)
    assert sendable(schedule, stream, 0.0) is None
    is_elsewhere = isinstance(error, errors.DrainingError)  # another replica may answer at once
    asked = 0.005 if is_elsewhere else getattr(error, "retry_delay_seconds", 0.02)
    assert stream.slot.paused_until >= asked
    assert not is_elsewhere or stream.slot.paused_until <= 0.1
    again = stream
    if isinstance(error, errors.DrainingError):  # not on this stream
        assert sendable(schedule, stream, LONG) is None
        assert schedule.end_stream(stream, None, LONG) == []
        again = opened(schedule, now=2 * LONG)
    assert list(sent(schedule, again, 2 * LONG).values()) == [1]


def test_another_slot_takes_what_one_was_refused() -> None:
    schedule = schedule_of(2, slots=2)
    one = opened(schedule, 0)
    assert sent(schedule, one) == {1: 0, 2: 1}
    schedule.receive(one, refused(1, BUSY), 0.0)
    other = opened(schedule, 1)
    assert sent(schedule, other) == {1: 0}


def test_a_slot_that_was_refused_begins_again_with_one_item_and_grows() -> None:
    schedule = schedule_of(40)
    stream = opened(schedule)
    items = sent(schedule, stream)
    for item_id in items:
        assert schedule.receive(stream, refused(item_id, BUSY), 0.0) is None
    assert stream.slot.failures == 1, "many at once are one failure"
    opened_items = list[int]()
    for _ in range(4):
        opened_items.append(len(batch_items := sent(schedule, stream, LONG)))
        for item_id in batch_items:
            schedule.receive(stream, done(item_id), LONG)
    assert opened_items == [1, 2, 4, 8]
    assert stream.slot.failures == 0


def test_pauses_grow_as_failures_follow_each_other() -> None:
    schedule = schedule_of(1)
    now, pauses = 0.0, list[float]()
    for _ in range(6):
        stream = opened(schedule, now=now)
        schedule.end_stream(stream, BREAKS[0], now)
        pauses.append(stream.slot.paused_until - now)
        now = stream.slot.paused_until
    assert 0.02 <= pauses[0] <= 0.08
    assert pauses[5] > pauses[0]


def test_nothing_new_is_wanted_while_all_slots_pause() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    schedule.receive(stream, refused(1, BUSY), 0.0)
    assert sendable(schedule, stream, 0.5) is None
    assert not schedule.wants_batch


# Broken streams


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
def test_a_break_sends_again_what_has_no_end_and_nothing_else(error: errors.SealserveError) -> None:
    schedule = schedule_of(4)
    stream = opened(schedule)
    assert len(sent(schedule, stream)) == 4
    schedule.receive(stream, done(2), 0.0)
    partial = prediction_pb2.ScoreGroup(scores=[prediction_pb2.EncryptedScores()])
    schedule.receive(stream, Response(item_id=3, scores=partial), 0.0)
    assert schedule.end_stream(stream, error, 0.0) == []
    assert schedule.end_stream(stream, error, 0.0) == [], "once"
    assert schedule.receive(stream, done(1), 0.0) is None, "a late word of the old stream"
    again = opened(schedule, now=LONG)
    assert again.slot.next_batch is not None
    sent_again = list[int]()
    while items := sent(schedule, again, LONG):
        sent_again += items.values()
        for item_id in items:
            end = schedule.receive(again, done(item_id), LONG)
            assert end is not None
            assert isinstance(end.reply, list)
            assert len(end.reply) == 1, "what came before the break is void"
    assert sent_again == [0, 2, 3]


def test_the_next_batch_is_not_lost_with_its_stream() -> None:
    schedule = schedule_of(3)
    stream = opened(schedule, window_bytes=HELD)
    assert sent(schedule, stream) == {1: 0}
    assert stream.slot.next_batch is not None
    schedule.end_stream(stream, BREAKS[0], 0.0)
    assert sendable(schedule, stream, LONG) is None, "the old stream sends nothing more"
    again = opened(schedule, now=LONG, window_bytes=HELD)
    for expected in range(3):
        ((item_id, index),) = sent(schedule, again, LONG).items()
        assert index == expected
        schedule.receive(again, done(item_id), LONG)


def test_the_rest_of_an_item_is_not_sent_after_its_end_nor_after_its_streams() -> None:
    schedule = schedule_of(2)
    stream = opened(schedule)
    sent(schedule, stream)
    assert goes_on(schedule, stream, 1, 0.0, is_long=True)
    schedule.receive(stream, refused(1, FINAL[0]), 0.0)
    assert not goes_on(schedule, stream, 1, 0.0, is_long=True)
    schedule.end_stream(stream, BREAKS[0], 0.0)
    assert not goes_on(schedule, stream, 2, 0.0, is_long=True)


@pytest.mark.parametrize(
    "error", [errors.UnauthenticatedError(), errors.CallError("UNIMPLEMENTED"), errors.InternalError("id")]
)
def test_what_no_other_stream_would_survive_is_raised(error: errors.SealserveError) -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    with pytest.raises(type(error)):
        schedule.end_stream(stream, error, 0.0)


def test_a_stream_that_ends_before_its_items_breaks_the_protocol() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    with pytest.raises(errors.ReplyError):
        schedule.end_stream(stream, None, 0.0)


# A model that changes


def test_a_stale_batch_is_renewed_before_it_is_sent_again() -> None:
    schedule = schedule_of(2)
    stream = opened(schedule)
    sent(schedule, stream)
    assert schedule.receive(stream, refused(1, STALE), 0.0) is None
    pending = sendable(schedule, stream, 0.0)
    assert pending is not None
    assert named(schedule.change(stream, pending)) == "new"
    row_refused = Batch.of_unsent_row(0, CODEC, errors.InputError("of another width by now"))
    ends = schedule.renew(stream, [row_refused, batch(7), batch(8)])
    assert [end.reply for end in ends] == [row_refused.error]
    assert sorted(sent(schedule, stream).values()) == [7, 8]


def test_a_stale_batch_that_cannot_be_renewed_ends() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    schedule.receive(stream, refused(1, STALE), 0.0)
    assert sendable(schedule, stream, 0.0) is not None
    ((ended, reply),) = schedule.fail(stream, FINAL[2])
    assert (ended.first_index, reply) == (0, FINAL[2])


def test_a_renewal_that_comes_after_its_streams_end_is_made_elsewhere() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    schedule.receive(stream, refused(1, STALE), 0.0)
    assert sendable(schedule, stream, 0.0) is not None
    schedule.end_stream(stream, BREAKS[0], 0.0)
    assert schedule.renew(stream, [batch(0)]) == []
    assert schedule.fail(stream, FINAL[2]) == []
    again = opened(schedule, now=LONG)
    pending = sendable(schedule, again, LONG)
    assert pending is not None
    assert pending.stale is not None


def next_change(schedule: Schedule, stream: Stream, now: float) -> FinishedBatch | None:
    """Send the only batch, which meets a change; make it anew if it is to be sent again."""
    ((item_id, _),) = sent(schedule, stream, now).items()
    end = schedule.receive(stream, refused(item_id, STALE), now)
    if end is None:
        schedule.assign(stream.slot, LONG)
        assert stream.slot.next_batch is not None
        assert named(schedule.change(stream, stream.slot.next_batch)) == "new"
        assert schedule.renew(stream, [batch(0)]) == []
    return end


def test_a_model_that_changes_all_the_time_is_an_error_when_the_time_is_over() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    now, pauses, end = 0.0, list[float](), None
    while end is None:
        end = next_change(schedule, stream, now)
        pauses.append(max(0.0, stream.slot.paused_until - now))
        now = max(now, stream.slot.paused_until)
    assert isinstance(end.reply, errors.StaleConfigError)
    assert pauses[:2] == [0.0, 0.0], "replicas may just change one after the other"
    assert all(0.001 <= pause <= 3.0 for pause in pauses[2:-1])
    assert pauses[-2] > 20 * pauses[2], "they grow"
    assert TIMEOUT - 3.0 <= now <= TIMEOUT
    assert len(pauses) > 10


def test_another_change_that_comes_late_has_time_too() -> None:
    """The time of the changes of an item begins with the first of them, not with the stream."""
    schedule = schedule_of(1)
    stream = opened(schedule)
    assert next_change(schedule, stream, 3 * TIMEOUT) is None
    assert next_change(schedule, stream, 3.9 * TIMEOUT) is None
    assert next_change(schedule, stream, 4.1 * TIMEOUT) is not None


def test_a_key_that_is_lost_all_the_time_is_an_error() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    now, ends = 0.0, list[FinishedBatch | None]()
    while not any(ends):
        ((item_id, _),) = sent(schedule, stream, now).items()
        ends.append(schedule.receive(stream, refused(item_id, errors.KeyNotFoundError("id")), now))
        now = max(now, stream.slot.paused_until)
        if ends[-1] is None:
            schedule.assign(stream.slot, now)
            assert stream.slot.next_batch is not None
            assert isinstance(schedule.change(stream, stream.slot.next_batch), errors.KeyNotFoundError)
            schedule.renew(stream, [batch(0)])
    assert len(ends) == MAX_LOSSES + 1
    assert ends[-1] is not None
    assert isinstance(ends[-1].reply, errors.KeyNotFoundError)


# Replicas of two versions


def of_config(index: int, config_id: str) -> Batch:
    made = batch(index)
    codec = copy.copy(CODEC)
    codec.model = dataclasses.replace(CODEC.model, config_id=config_id)
    return dataclasses.replace(made, codec=codec)


def test_each_stream_gets_batches_of_the_version_that_its_replica_serves() -> None:
    schedule = schedule_of(0, slots=2)
    for index in range(2):
        schedule.add(of_config(index, "old"), 0.0)
    streams = [opened(schedule, slot) for slot in range(2)]
    for stream in streams:
        ((item_id, _),) = sent(schedule, stream).items()
        if stream is streams[1]:
            assert schedule.receive(stream, refused(item_id, errors.StaleConfigError("new")), 0.0) is None
        else:
            assert schedule.receive(stream, done(item_id), 0.0) is not None
    pending = sendable(schedule, streams[1], 0.0)
    assert pending is not None
    assert named(schedule.change(streams[1], pending)) == "new"
    schedule.renew(streams[1], [of_config(1, "new")])
    assert sent(schedule, streams[1]) == {2: 1}
    for index in (2, 3):
        schedule.add(of_config(index, "old"), 0.0)
    assert list(sent(schedule, streams[0]).values()) == [2, 3], "its replica has named none"
    for index in (4, 5):
        schedule.add(of_config(index, "old"), 0.0)
    for index in (4, 5):
        pending = sendable(schedule, streams[1], 0.0)
        assert pending is not None
        assert named(schedule.change(streams[1], pending)) == "new", "before it is sent in vain"
        schedule.renew(streams[1], [of_config(index, "new")])
        assert schedule.sendable(streams[1], 0.0), "it stays for this stream"
        schedule.begin_item(streams[1], 0.0)


def test_a_batch_that_another_replica_refused_is_sent_as_it_is_to_one_that_serves_its_version() -> None:
    schedule = schedule_of(0, slots=2)
    streams = list[Stream]()
    for slot, other in enumerate(("old", "new")):
        schedule.add(of_config(slot, other), 0.0)
        streams.append(opened(schedule, slot))
    for stream, named_here in zip(streams, ("new", "old"), strict=True):
        ((item_id, index),) = sent(schedule, stream).items()
        assert schedule.receive(stream, refused(item_id, errors.StaleConfigError(named_here)), 0.0) is None
        schedule.assign(streams[1 - index].slot, 0.0)
    assert [stream.slot.next_batch is not None for stream in streams] == [True, True]
    crossed = [stream.slot.next_batch.batch.codec.model.config_id for stream in streams if stream.slot.next_batch]
    assert crossed == [stream.config_id for stream in streams]
    for stream in streams:
        assert list(sent(schedule, stream)) == [2]


def test_a_batch_is_made_anew_once_where_nobody_describes_what_a_replica_names() -> None:
    """A replica names what no other one knows: the batch is sent as it can be made."""
    schedule = schedule_of(0)
    schedule.add(of_config(0, "old"), 0.0)
    stream = opened(schedule)
    sent(schedule, stream)
    schedule.receive(stream, refused(1, errors.StaleConfigError("unheard of")), 0.0)
    pending = sendable(schedule, stream, 0.0)
    assert pending is not None
    assert schedule.change(stream, pending) is not None
    schedule.renew(stream, [of_config(0, "old")])
    assert sent(schedule, stream) == {2: 0}


def test_a_lost_key_is_registered_whatever_version_the_replica_serves() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    lost = errors.KeyNotFoundError("id")
    assert schedule.receive(stream, refused(1, lost), 0.0) is None
    pending = sendable(schedule, stream, 0.0)
    assert pending is not None
    assert isinstance(schedule.change(stream, pending), errors.KeyNotFoundError)
    schedule.renew(stream, [pending.batch])
    assert sent(schedule, stream) == {2: 0}


# Time


def fails_for_ever(error: errors.SealserveError) -> tuple[Any, int]:
    """Fail at every try, while another slot gets through; returns the end and the tries."""
    schedule, now, tries = schedule_of(1, slots=2), 0.0, 0
    while True:
        tries += 1
        stream = opened(schedule, now=now)
        sent(schedule, stream, now)
        ends: Sequence[FinishedBatch | None] = schedule.end_stream(stream, error, now)
        if ends:
            return ends[0], tries
        now = stream.slot.paused_until
        schedule.expect_result(now)  # results come from elsewhere
        assert schedule.timeout_error(now) is None


@pytest.mark.parametrize("error", [errors.UnavailableError("gone"), BUSY])
def test_a_batch_that_never_gets_through_fails_for_good_even_if_others_do(error: errors.SealserveError) -> None:
    end, tries = fails_for_ever(error)
    assert end.reply is error
    assert 8 < tries < 100


def test_all_is_given_up_when_nothing_has_got_through_for_too_long() -> None:
    schedule = schedule_of(2)
    stream = opened(schedule)
    sent(schedule, stream)
    assert schedule.timeout_error(TIMEOUT) is None
    assert isinstance(schedule.timeout_error(TIMEOUT + 1), errors.DeadlineError)
    schedule.receive(stream, done(1), TIMEOUT)
    assert schedule.timeout_error(TIMEOUT + 1) is None
    schedule.end_stream(stream, BREAKS[0], TIMEOUT + 1)
    assert schedule.timeout_error(2 * TIMEOUT) is None
    assert schedule.timeout_error(2 * TIMEOUT + 1) is BREAKS[0]


def test_it_is_given_up_early_when_the_pause_is_longer_than_the_time_that_is_left() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    schedule.receive(stream, refused(1, errors.QuotaExceededError("rows_per_minute", 60.0)), 0.0)
    error = schedule.timeout_error(0.0)
    assert isinstance(error, errors.QuotaExceededError)
    assert error.quota == "rows_per_minute"


def test_a_long_wait_for_the_source_or_for_the_caller_is_nobodys_fault() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    sent(schedule, stream)
    schedule.receive(stream, done(1), 0.0)
    assert schedule.timeout_error(LONG) is None
    schedule.add(batch(1), LONG)
    assert schedule.timeout_error(LONG + TIMEOUT) is None
    sent(schedule, stream, LONG)
    schedule.expect_result(2 * LONG)
    assert schedule.timeout_error(2 * LONG + TIMEOUT) is None


def test_a_long_item_that_moves_is_not_late() -> None:
    schedule = schedule_of(1)
    stream = opened(schedule)
    ((item_id, _),) = sent(schedule, stream).items()
    for now in range(0, 100, 5):
        assert goes_on(schedule, stream, item_id, now, is_long=True)
        assert schedule.timeout_error(now + 5) is None


@pytest.mark.parametrize(
    "response",
    [
        Response(),
        Response(window=prediction_pb2.Window(max_bytes_in_flight=1)),
        Response(item_id=1),
        Response(item_id=1, scores=prediction_pb2.ScoreGroup()),
        Response(item_id=99, done=prediction_pb2.ItemDone()),
        refused(1, STALE),
        refused(1, BUSY),
    ],
    ids=["empty", "a window", "of an item", "no scores", "of no item", "stale", "busy"],
)
def test_a_message_that_arrives_is_no_progress(response: Response) -> None:
    schedule = schedule_of(2)
    stream = opened(schedule)
    sent(schedule, stream)
    schedule.receive(stream, response, TIMEOUT)
    assert schedule.timeout_error(TIMEOUT + 1) is not None
    assert stream.last_progress == 0.0


def test_an_item_that_is_sent_again_and_again_is_no_progress() -> None:
    schedule, now, counted = schedule_of(1), 0.0, list[bool]()
    for _ in range(6):
        stream = opened(schedule, now=now)
        sent(schedule, stream, now)
        counted.append(schedule.timeout_error(now) is None)
        now += TIMEOUT - 1
        schedule.end_stream(stream, BREAKS[0], now)
        now = max(now, stream.slot.paused_until)
    assert counted == [True, True, True, False, False, False]


def test_no_more_replies_are_awaited_than_memory_takes() -> None:
    reply_bytes = batch(0).polynomials * batch(0).max_piece_bytes
    schedule = schedule_of(5)
    stream = Stream(schedule.slots[0], 0.0, 2 * reply_bytes)
    stream.window_bytes = 1 << 40
    stream.slot.max_items = 10
    room = list[bool]()
    for index in range(3):
        room.append(stream.has_room(batch(index), 10))
        stream.add_item(PendingBatch(batch(index)), 0.0)
    assert room == [True, True, False]
    stream.remove_item(1)
    stream.remove_item(2)
    assert stream.has_room(batch(3), 10)


def test_a_piece_that_is_too_long_breaks_the_protocol() -> None:
    most = batch(0).max_piece_bytes
    for byte_count, is_refused in ((most, False), (most + 1, True)):
        schedule = schedule_of(1)
        stream = opened(schedule)
        sent(schedule, stream)
        scores = prediction_pb2.EncryptedScores(residues=prediction_pb2.Residues(c0=b"0", c1=bytes(byte_count - 1)))
        response = Response(item_id=1, scores=prediction_pb2.ScoreGroup(scores=[scores]))
        if is_refused:
            with pytest.raises(errors.ReplyError):
                schedule.receive(stream, response, 0.0)
        else:
            assert schedule.receive(stream, response, 0.0) is None


def stuck_and_good() -> tuple[Schedule, Stream, Stream]:
    """Two streams with an item each; one of them goes on a second later."""
    schedule = schedule_of(2, slots=2, limits=dataclasses.replace(LIMITS, max_open_items=1))
    stuck, good = opened(schedule, 0), opened(schedule, 1)
    sent(schedule, stuck)
    ((item_id, _),) = sent(schedule, good).items()
    schedule.receive(good, done(item_id), 1.0)
    return schedule, stuck, good


def test_a_stream_that_has_stalled_is_found_if_another_went_on() -> None:
    schedule, stuck, good = stuck_and_good()
    assert stalled(schedule, TIMEOUT) == []
    assert stalled(schedule, TIMEOUT + 2) == [0]
    assert schedule.timeout_error(TIMEOUT + 2) is None
    schedule.end_stream(stuck, BREAKS[0], TIMEOUT + 2)
    assert list(sent(schedule, good, TIMEOUT + 2).values()) == [0]


def test_what_has_stalled_is_given_up_the_next_time() -> None:
    schedule, *_ = stuck_and_good()
    assert stalled(schedule, TIMEOUT + 2) == [0]
    assert stalled(schedule, 2 * TIMEOUT + 3) == [0]
    assert isinstance(schedule.timeout_error(2 * TIMEOUT + 3), errors.DeadlineError)


def test_a_stream_has_not_stalled_if_nobody_reads_it_or_none_went_on() -> None:
    schedule, stuck, _ = stuck_and_good()
    schedule.set_reading(stuck, 0.5, is_read=False)
    assert stalled(schedule, LONG) == [], "its results wait for the caller"
    schedule.set_reading(stuck, 3.0, is_read=True)
    assert stalled(schedule, LONG) == [], "it moved last"
