"""The schedule of many batches, and of failures, without threads, sockets or a clock."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sealserve import errors
from sealserve._codec.batches import Batch
from sealserve._codec.codec import Exchange
from sealserve._streaming.schedule import MAX_CHANGES, End, Flight, Transfer
from sealserve.protocol.model import Limits
from sealserve.protocol.wire import error_to_proto
from sealserve.v1 import prediction_pb2
from tests.support.serving import LIMITS, linear, served

EXCHANGE = Exchange(served("line", linear([[1.0, 2.0]])).model)
ROWS = np.array([[0.25, 0.5]])
HELD = EXCHANGE.offer.cost.held_bytes
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
    return Batch(index, ROWS, EXCHANGE, EXCHANGE.quantize(ROWS))


def transfer_of(count: int, lanes: int = 1, limits: Limits = LIMITS) -> Transfer:
    transfer = Transfer(limits, lanes, TIMEOUT, 0.0)
    for index in range(count):
        transfer.add(batch(index), 0.0)
    return transfer


def opened(transfer: Transfer, lane: int = 0, now: float = 0.0, window_bytes: int = 1 << 30) -> Flight:
    """A stream whose service has announced its window."""
    assert transfer.take(transfer.lanes[lane], now)
    flight = transfer.begin(transfer.lanes[lane], now)
    assert transfer.next(flight, now) is None, "nothing is sent before the window is known"
    window = prediction_pb2.Window(max_bytes_in_flight=window_bytes)
    assert transfer.receive(flight, Response(window=window), now) is None
    return flight


def sent(transfer: Transfer, flight: Flight, now: float = 0.0) -> dict[int, int]:
    """Send all that may be sent: the first index of each item."""
    items = dict[int, int]()
    while (job := transfer.next(flight, now)) is not None and job.stale is None:
        items[transfer.send(flight, now)] = job.batch.first_index
    return items


def refused(item_id: int, error: errors.SealserveError) -> Response:
    assert isinstance(error, errors.ServiceError)
    return Response(item_id=item_id, error=error_to_proto(error))


def done(item_id: int) -> Response:
    scores = prediction_pb2.ScoreGroup(scores=[prediction_pb2.EncryptedScores()])
    return Response(item_id=item_id, scores=scores, done=prediction_pb2.ItemDone())


def index_of(end: End | None) -> int:
    assert end is not None
    return end.batch.first_index


# The window


def test_no_more_is_in_flight_than_the_window_takes() -> None:
    transfer = transfer_of(5)
    flight = opened(transfer, window_bytes=2 * HELD)
    assert sent(transfer, flight) == {1: 0, 2: 1}
    assert index_of(transfer.receive(flight, done(2), 0.0)) == 1
    assert sent(transfer, flight) == {3: 2}
    wider = prediction_pb2.Window(max_bytes_in_flight=3 * HELD)
    transfer.receive(flight, Response(window=wider), 0.0)
    assert sent(transfer, flight) == {4: 3}


def test_an_item_larger_than_the_window_travels_alone() -> None:
    transfer = transfer_of(2)
    flight = opened(transfer, window_bytes=1)
    assert sent(transfer, flight) == {1: 0}
    assert index_of(transfer.receive(flight, done(1), 0.0)) == 0
    assert sent(transfer, flight) == {2: 1}


def test_no_more_items_are_open_than_the_service_takes() -> None:
    transfer = transfer_of(9, limits=dataclasses.replace(LIMITS, max_open_items=3))
    flight = opened(transfer)
    assert list(sent(transfer, flight)) == [1, 2, 3]
    transfer.receive(flight, refused(2, FINAL[0]), 0.0)
    assert list(sent(transfer, flight)) == [4]


def test_a_batch_is_wanted_when_it_could_be_sent() -> None:
    transfer = transfer_of(0, lanes=2, limits=dataclasses.replace(LIMITS, max_open_items=1))
    wanted = [transfer.wants_batch]
    assert not transfer.take(transfer.lanes[0], 0.0)
    wanted.append(transfer.wants_batch)
    transfer.add(batch(0), 0.0)
    flight = opened(transfer)
    assert sent(transfer, flight) == {1: 0}
    wanted.append(transfer.wants_batch)  # there is no room for another
    transfer.receive(flight, done(1), 0.0)
    assert transfer.next(flight, 0.0) is None
    wanted.append(transfer.wants_batch)
    assert wanted == [False, True, False, True]


# Ends


def test_every_batch_has_one_end() -> None:
    transfer = transfer_of(3)
    flight = opened(transfer)
    sent(transfer, flight)
    transfer.source_has_ended = True
    assert [index_of(transfer.receive(flight, done(item), 0.0)) for item in (2, 1)] == [1, 0]
    assert transfer.receive(flight, done(2), 0.0) is None, "its end has been there"
    assert not transfer.is_finished
    end = transfer.receive(flight, refused(3, FINAL[0]), 0.0)
    assert end is not None
    assert isinstance(end.reply, errors.MalformedCiphertextError)
    assert transfer.is_finished


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_a_final_error_is_the_end_of_its_batch(error: errors.ServiceError) -> None:
    transfer = transfer_of(2)
    flight = opened(transfer)
    sent(transfer, flight)
    end = transfer.receive(flight, refused(1, error), 0.0)
    assert end is not None
    assert type(end.reply) is type(error)
    assert flight.lane.paused_until == 0.0


@pytest.mark.parametrize("first_index", [1, 7])
def test_scores_out_of_order_break_the_protocol(first_index: int) -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    scores = prediction_pb2.ScoreGroup(first_index=first_index)
    with pytest.raises(errors.ReplyError):
        transfer.receive(flight, Response(item_id=1, scores=scores), 0.0)


def test_more_scores_than_there_are_classes_break_the_protocol() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    scores = prediction_pb2.ScoreGroup(scores=[prediction_pb2.EncryptedScores()] * 2)
    with pytest.raises(errors.ReplyError):
        transfer.receive(flight, Response(item_id=1, scores=scores), 0.0)


# Failures that pass


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_is_refused_for_now_is_sent_again_after_a_pause(error: errors.SealserveError) -> None:
    transfer = transfer_of(3)
    flight = opened(transfer)
    sent(transfer, flight)
    assert transfer.receive(flight, refused(2, error), 0.0) is None
    assert transfer.receive(flight, done(1), 0.0) is not None
    transfer.receive(flight, done(3), 0.0)
    assert transfer.next(flight, 0.0) is None
    assert flight.lane.paused_until >= getattr(error, "retry_delay_seconds", 0.02)
    again = flight
    if isinstance(error, errors.DrainingError):  # not on this stream
        assert transfer.next(flight, LONG) is None
        assert transfer.broken(flight, None, LONG) == []
        again = opened(transfer, now=2 * LONG)
    assert list(sent(transfer, again, 2 * LONG).values()) == [1]


def test_another_lane_takes_what_one_was_refused() -> None:
    transfer = transfer_of(2, lanes=2)
    one = opened(transfer, 0)
    assert sent(transfer, one) == {1: 0, 2: 1}
    transfer.receive(one, refused(1, BUSY), 0.0)
    other = opened(transfer, 1)
    assert sent(transfer, other) == {1: 0}


def test_a_lane_that_was_refused_begins_again_with_one_item_and_grows() -> None:
    transfer = transfer_of(40)
    flight = opened(transfer)
    items = sent(transfer, flight)
    for item_id in items:
        assert transfer.receive(flight, refused(item_id, BUSY), 0.0) is None
    assert flight.lane.failures == 1, "many at once are one failure"
    opened_items = list[int]()
    for _ in range(4):
        opened_items.append(len(batch_items := sent(transfer, flight, LONG)))
        for item_id in batch_items:
            transfer.receive(flight, done(item_id), LONG)
    assert opened_items == [1, 2, 4, 8]
    assert flight.lane.failures == 0


def test_pauses_grow_as_failures_follow_each_other() -> None:
    transfer = transfer_of(1)
    now, pauses = 0.0, list[float]()
    for _ in range(6):
        flight = opened(transfer, now=now)
        transfer.broken(flight, BREAKS[0], now)
        pauses.append(flight.lane.paused_until - now)
        now = flight.lane.paused_until
    assert 0.02 <= pauses[0] <= 0.08
    assert pauses[5] > pauses[0]


def test_nothing_new_is_wanted_while_all_lanes_pause() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    transfer.receive(flight, refused(1, BUSY), 0.0)
    assert transfer.next(flight, 0.5) is None
    assert not transfer.wants_batch


# Broken streams


@pytest.mark.parametrize("error", BREAKS, ids=lambda error: type(error).__name__)
def test_a_break_sends_again_what_has_no_end_and_nothing_else(error: errors.SealserveError) -> None:
    transfer = transfer_of(4)
    flight = opened(transfer)
    assert len(sent(transfer, flight)) == 4
    transfer.receive(flight, done(2), 0.0)
    partial = prediction_pb2.ScoreGroup(scores=[prediction_pb2.EncryptedScores()])
    transfer.receive(flight, Response(item_id=3, scores=partial), 0.0)
    assert transfer.broken(flight, error, 0.0) == []
    assert transfer.broken(flight, error, 0.0) == [], "once"
    assert transfer.receive(flight, done(1), 0.0) is None, "a late word of the old stream"
    again = opened(transfer, now=LONG)
    assert again.lane.in_hand is not None
    sent_again = list[int]()
    while items := sent(transfer, again, LONG):
        sent_again += items.values()
        for item_id in items:
            end = transfer.receive(again, done(item_id), LONG)
            assert end is not None
            assert isinstance(end.reply, list)
            assert len(end.reply) == 1, "what came before the break is void"
    assert sent_again == [0, 2, 3]


def test_a_job_in_hand_is_not_lost_with_its_stream() -> None:
    transfer = transfer_of(3)
    flight = opened(transfer, window_bytes=HELD)
    assert sent(transfer, flight) == {1: 0}
    assert flight.lane.in_hand is not None
    transfer.broken(flight, BREAKS[0], 0.0)
    assert transfer.next(flight, LONG) is None, "the old stream sends nothing more"
    again = opened(transfer, now=LONG, window_bytes=HELD)
    for expected in range(3):
        ((item_id, index),) = sent(transfer, again, LONG).items()
        assert index == expected
        transfer.receive(again, done(item_id), LONG)


def test_the_rest_of_an_item_is_not_sent_after_its_end_nor_after_its_streams() -> None:
    transfer = transfer_of(2)
    flight = opened(transfer)
    sent(transfer, flight)
    assert transfer.goes_on(flight, 1, 0.0, is_long=True)
    transfer.receive(flight, refused(1, FINAL[0]), 0.0)
    assert not transfer.goes_on(flight, 1, 0.0, is_long=True)
    transfer.broken(flight, BREAKS[0], 0.0)
    assert not transfer.goes_on(flight, 2, 0.0, is_long=True)


@pytest.mark.parametrize(
    "error", [errors.UnauthenticatedError(), errors.CallError("UNIMPLEMENTED"), errors.InternalError("id")]
)
def test_what_no_other_stream_would_survive_is_raised(error: errors.SealserveError) -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    with pytest.raises(type(error)):
        transfer.broken(flight, error, 0.0)


def test_a_stream_that_ends_before_its_items_breaks_the_protocol() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    with pytest.raises(errors.ReplyError):
        transfer.broken(flight, None, 0.0)


# A model that changes


def test_a_stale_batch_is_renewed_before_it_is_sent_again() -> None:
    transfer = transfer_of(2)
    flight = opened(transfer)
    sent(transfer, flight)
    assert transfer.receive(flight, refused(1, STALE), 0.0) is None
    job = transfer.next(flight, 0.0)
    assert job is not None
    assert isinstance(job.stale, errors.StaleConfigError)
    row_refused = Batch.refused(0, EXCHANGE, errors.InputError("out of range by now"))
    ends = list(transfer.renew(flight, [row_refused, batch(7), batch(8)]))
    assert [end.reply for end in ends] == [row_refused.error]
    assert sorted(sent(transfer, flight).values()) == [7, 8]


def test_a_stale_batch_that_cannot_be_renewed_ends() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    transfer.receive(flight, refused(1, STALE), 0.0)
    assert transfer.next(flight, 0.0) is not None
    ((ended, reply),) = transfer.drop(flight, FINAL[2])
    assert (ended.first_index, reply) == (0, FINAL[2])


def test_a_renewal_that_comes_after_its_streams_end_is_made_elsewhere() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    transfer.receive(flight, refused(1, STALE), 0.0)
    assert transfer.next(flight, 0.0) is not None
    transfer.broken(flight, BREAKS[0], 0.0)
    assert list(transfer.renew(flight, [batch(0)])) == []
    assert list(transfer.drop(flight, FINAL[2])) == []
    again = opened(transfer, now=LONG)
    job = transfer.next(again, LONG)
    assert job is not None
    assert job.stale is not None


def test_a_model_that_changes_all_the_time_is_an_error() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    ends = list[End | None]()
    for _ in range(MAX_CHANGES + 1):
        ((item_id, _),) = sent(transfer, flight).items()
        ends.append(transfer.receive(flight, refused(item_id, STALE), 0.0))
        if ends[-1] is None:
            assert transfer.next(flight, 0.0) is not None
            assert list(transfer.renew(flight, [batch(0)])) == []
    assert ends[:-1] == [None] * MAX_CHANGES
    assert ends[-1] is not None
    assert isinstance(ends[-1].reply, errors.StaleConfigError)


# Time


def fails_for_ever(error: errors.SealserveError) -> tuple[Any, int]:
    """Break or refuse at every attempt, while another stream succeeds.

    Returns:
        The end of the batch, and the number of attempts.
    """
    transfer, now, tries = transfer_of(1, lanes=2), 0.0, 0
    while True:
        tries += 1
        flight = opened(transfer, now=now)
        sent(transfer, flight, now)
        ends: Sequence[End | None] = transfer.broken(flight, error, now)
        if ends:
            return ends[0], tries
        now = flight.lane.paused_until
        transfer.waits(now)  # results come from elsewhere
        assert transfer.overdue(now) is None


@pytest.mark.parametrize("error", [errors.UnavailableError("gone"), BUSY])
def test_a_batch_that_never_gets_through_fails_for_good_even_if_others_do(error: errors.SealserveError) -> None:
    end, tries = fails_for_ever(error)
    assert end.reply is error
    assert 8 < tries < 100


def test_all_is_given_up_when_nothing_has_got_through_for_too_long() -> None:
    transfer = transfer_of(2)
    flight = opened(transfer)
    sent(transfer, flight)
    assert transfer.overdue(TIMEOUT) is None
    assert isinstance(transfer.overdue(TIMEOUT + 1), errors.DeadlineError)
    transfer.receive(flight, done(1), TIMEOUT)
    assert transfer.overdue(TIMEOUT + 1) is None
    transfer.broken(flight, BREAKS[0], TIMEOUT + 1)
    assert transfer.overdue(2 * TIMEOUT) is None
    assert transfer.overdue(2 * TIMEOUT + 1) is BREAKS[0]


def test_it_is_given_up_early_when_the_pause_is_longer_than_the_time_that_is_left() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    transfer.receive(flight, refused(1, errors.QuotaExceededError("rows_per_minute", 60.0)), 0.0)
    error = transfer.overdue(0.0)
    assert isinstance(error, errors.QuotaExceededError)
    assert error.quota == "rows_per_minute"


def test_a_long_wait_for_the_source_or_for_the_caller_is_nobodys_fault() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    sent(transfer, flight)
    transfer.receive(flight, done(1), 0.0)
    assert transfer.overdue(LONG) is None
    transfer.add(batch(1), LONG)
    assert transfer.overdue(LONG + TIMEOUT) is None
    sent(transfer, flight, LONG)
    transfer.waits(2 * LONG)
    assert transfer.overdue(2 * LONG + TIMEOUT) is None


def test_a_long_item_that_moves_is_not_late() -> None:
    transfer = transfer_of(1)
    flight = opened(transfer)
    ((item_id, _),) = sent(transfer, flight).items()
    for now in range(0, 100, 5):
        assert transfer.goes_on(flight, item_id, now, is_long=True)
        assert transfer.overdue(now + 5) is None


def stuck_and_good() -> tuple[Transfer, Flight, Flight]:
    """Two streams with an item each; one of them goes on a second later."""
    transfer = transfer_of(2, lanes=2, limits=dataclasses.replace(LIMITS, max_open_items=1))
    stuck, good = opened(transfer, 0), opened(transfer, 1)
    sent(transfer, stuck)
    ((item_id, _),) = sent(transfer, good).items()
    transfer.receive(good, done(item_id), 1.0)
    return transfer, stuck, good


def test_a_stream_that_has_stalled_is_found_if_another_went_on() -> None:
    transfer, stuck, good = stuck_and_good()
    assert transfer.stalled(TIMEOUT) == []
    assert transfer.stalled(TIMEOUT + 2) == [0]
    assert transfer.overdue(TIMEOUT + 2) is None
    transfer.broken(stuck, BREAKS[0], TIMEOUT + 2)
    assert list(sent(transfer, good, TIMEOUT + 2).values()) == [0]


def test_what_has_stalled_is_given_up_the_next_time() -> None:
    transfer, *_ = stuck_and_good()
    assert transfer.stalled(TIMEOUT + 2) == [0]
    assert transfer.stalled(2 * TIMEOUT + 3) == [0]
    assert isinstance(transfer.overdue(2 * TIMEOUT + 3), errors.DeadlineError)


def test_a_stream_has_not_stalled_if_nobody_reads_it_or_none_went_on() -> None:
    transfer, stuck, _ = stuck_and_good()
    transfer.reads(stuck, 0.5, is_read=False)
    assert transfer.stalled(LONG) == [], "its results wait for the caller"
    transfer.reads(stuck, 3.0, is_read=True)
    assert transfer.stalled(LONG) == [], "it moved last"
