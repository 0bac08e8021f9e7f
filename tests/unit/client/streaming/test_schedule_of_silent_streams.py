"""When a stream that falls silent is left, by a clock that is turned by hand."""

import math

import numpy as np
import pytest

from sealserve import errors
from sealserve._codec.batches import Batch
from sealserve._codec.codec import RowCodec
from sealserve._streaming.schedule import Schedule
from sealserve._streaming.slots import Stream
from sealserve.he.layouts import LAYOUTS
from sealserve.v1 import prediction_pb2
from tests.support.serving import LIMITS, linear, served

FEATURES = 40
MODEL = served("line", linear(np.ones((1, FEATURES)))).model
ROW, COLUMN = (
    RowCodec(MODEL, offer=next(offer for offer in MODEL.offers if offer.layout is LAYOUTS[name]))
    for name in ("row", "column")
)
TIMEOUT = 30.0
ENOUGH = 32
QUICK = 0.01
LEAST, LEAST_TO_OPEN = 0.15, 0.05
Response = prediction_pb2.StreamPredictResponse
GONE = errors.UnavailableError("gone")


class Life:
    """The life of one slot, and the caller who watches it.

    Attributes:
        now: the time.
        stream: the stream that was opened last.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.schedule = Schedule(LIMITS, 1, TIMEOUT, self.now)
        self.slot = self.schedule.slots[0]
        self.count = 0

    def open(self) -> Stream:
        """Open a stream for the batch that waits, without an answer of the service's."""
        self.schedule.assign(self.slot, self.now)
        assert self.slot.is_ready(self.now), "without a pause"
        self.stream = self.schedule.open_stream(self.slot, self.now)
        return self.stream

    def receive(self, response: Response) -> bool:
        """Receive a message; tell whether it finishes a batch."""
        return self.schedule.receive(self.stream, response, self.now) is not None

    def say_window(self) -> None:
        self.receive(Response(window=prediction_pb2.Window(max_bytes_in_flight=1 << 40)))

    def add(self, codec: RowCodec = ROW) -> None:
        """Add a batch of a row."""
        row = np.full((1, FEATURES), 0.5)
        self.schedule.add(Batch(self.count, row, codec, *codec.quantize(row)), self.now)
        self.count += 1

    def send(self) -> int:
        """Send the batch that waits."""
        self.schedule.assign_to_stream(self.stream, self.now)
        assert self.schedule.sendable(self.stream, self.now)
        return self.schedule.begin_item(self.stream, self.now)

    def answer(self, item_id: int, seconds: float = 0.0) -> None:
        """Answer an item after so many seconds, while the caller watches."""
        assert self.silence(seconds) == math.inf
        scores = prediction_pb2.ScoreGroup(scores=[prediction_pb2.EncryptedScores()])
        assert self.receive(Response(item_id=item_id, scores=scores, done=prediction_pb2.ItemDone()))

    def serve(self, count: int, seconds: float = QUICK, codec: RowCodec = ROW) -> None:
        """Send items one after the other, each of which is answered after so many seconds."""
        for _ in range(count):
            self.add(codec)
            self.answer(self.send(), seconds)

    def silence(self, most: float) -> float:
        """Wait for so many seconds at most, until the stream is to be left; return how long."""
        began = self.now
        while not self.schedule.stalled_slots(self.now):
            if self.now >= began + most:
                return math.inf
            self.now = min(self.now + max(1e-6, self.schedule.check_seconds(self.now)), began + most)
        return self.now - began

    def leave(self) -> None:
        """Leave the stream, which is cancelled, and open another one."""
        assert self.schedule.end_stream(self.stream, GONE, self.now) == []
        self.open()


def begun(count: int = ENOUGH, seconds: float = QUICK, codec: RowCodec = ROW) -> Life:
    """A stream on which so many items were answered, each after so many seconds."""
    life = Life()
    life.add(codec)
    life.open()
    life.say_window()
    life.answer(life.send(), seconds)
    life.serve(count - 1, seconds, codec)
    return life


def just_after(seconds: float) -> object:
    return pytest.approx(seconds, rel=1e-3)


def test_a_stream_is_left_soon_after_it_falls_silent() -> None:
    life = begun()
    assert life.silence(TIMEOUT) == math.inf, "nobody waits for anything"
    life.add()
    life.send()
    assert life.silence(TIMEOUT) == just_after(LEAST)
    assert life.silence(TIMEOUT) == math.inf, "it is said once"


def test_what_few_answers_took_tells_nothing() -> None:
    life = begun(ENOUGH - 1)
    life.add()
    life.send()
    assert life.silence(TIMEOUT) == math.inf


def test_its_items_are_sent_again_at_once_on_another_stream() -> None:
    life = begun()
    for _ in range(2):
        life.add()
        life.send()
    life.silence(TIMEOUT)
    life.leave()
    life.say_window()
    life.answer(life.send(), QUICK)
    life.answer(life.send(), QUICK)
    assert life.count == ENOUGH + 2
    life.schedule.source_has_ended = True
    assert life.schedule.is_finished


def test_items_that_can_still_be_sent_are_no_sign_of_life() -> None:
    """A proxy takes them, and TCP's buffers do."""
    life = begun()
    for _ in range(2):
        life.add()
        life.send()
        assert life.silence(0.1 * LEAST) == math.inf
    assert life.silence(TIMEOUT) == just_after(0.8 * LEAST)


@pytest.mark.parametrize("response", [Response(), Response(item_id=ENOUGH + 1)], ids=["empty", "of the item"])
def test_whatever_arrives_is_a_sign_of_life(response: Response) -> None:
    life = begun()
    life.add()
    life.send()
    assert life.silence(0.9 * LEAST) == math.inf
    life.receive(response)
    assert life.silence(TIMEOUT) == just_after(LEAST)


def test_messages_of_a_long_item_that_go_out_are_a_sign_of_life() -> None:
    life = begun()
    life.add()
    item_id = life.send()
    for _ in range(20):
        assert life.silence(0.9 * LEAST) == math.inf
        life.schedule.continue_item(life.stream, item_id, life.now, is_long=True)
    assert life.silence(TIMEOUT) == just_after(LEAST)


@pytest.mark.parametrize("seconds", [0.1, 0.5, 2.0])
def test_a_slow_link_or_a_busy_service_has_twice_what_it_usually_takes(seconds: float) -> None:
    life = begun(seconds=seconds)
    life.add()
    life.send()
    assert life.silence(TIMEOUT) == just_after(2 * seconds)


def test_one_slow_answer_of_many_counts() -> None:
    life = begun()
    life.add()
    life.answer(life.send(), 0.9 * LEAST)
    life.serve(ENOUGH - 1)
    life.add()
    life.answer(life.send(), 1.7 * LEAST)


def test_an_item_of_more_bytes_has_as_much_more_time() -> None:
    life, times = begun(), COLUMN.item_bytes / ROW.item_bytes
    assert times >= 10
    life.add(COLUMN)
    life.send()
    assert life.silence(TIMEOUT) == just_after(2 * QUICK * times)


def test_an_item_of_fewer_bytes_has_no_less() -> None:
    """It may be all of the time that no byte needs."""
    life = begun(seconds=0.1, codec=COLUMN)
    life.add(ROW)
    life.send()
    assert life.silence(TIMEOUT) == just_after(0.2)


@pytest.mark.parametrize("seconds", [0.2, 3600.0])
def test_the_time_in_which_this_process_stood_still_is_no_silence(seconds: float) -> None:
    """It was stopped, the lid was closed, or other programs had the processor."""
    life = begun()
    life.add()
    item_id = life.send()
    assert life.silence(0.9 * LEAST) == math.inf
    life.now += seconds
    assert life.schedule.stalled_slots(life.now) == [], "what has arrived meanwhile is not read yet"
    life.schedule.check_seconds(life.now)
    life.answer(item_id, 0.9 * LEAST)


def test_a_silence_after_this_process_stood_still_is_one() -> None:
    life = begun()
    life.add()
    life.send()
    life.now += 60.0
    assert life.silence(TIMEOUT) == just_after(LEAST)


def test_what_the_caller_does_between_results_is_no_silence() -> None:
    """While nobody watches, or nothing is read."""
    life = begun()
    life.add()
    life.send()
    life.schedule.set_reading(life.stream, life.now, is_read=False)
    assert life.silence(TIMEOUT) == math.inf
    life.schedule.set_reading(life.stream, life.now, is_read=True)
    assert life.silence(TIMEOUT) == just_after(LEAST)


def test_what_decryption_takes_is_no_part_of_an_answer() -> None:
    """It shall not show in what the client does next."""
    life = begun()
    for _ in range(ENOUGH):
        life.add()
        item_id = life.send()
        life.schedule.set_reading(life.stream, life.now, is_read=False)
        assert life.silence(2.0) == math.inf
        life.schedule.set_reading(life.stream, life.now, is_read=True)
        life.answer(item_id, QUICK)
    life.add()
    life.send()
    assert life.silence(TIMEOUT) == just_after(LEAST)


def test_each_stall_in_a_row_doubles_the_silence() -> None:
    """A service that has paused, or a frozen replica that the proxy chooses again."""
    life = begun()
    life.add()
    life.send()
    assert life.silence(TIMEOUT) == just_after(LEAST)
    for number in range(10):
        life.leave()  # and its service does not even say the window
        assert life.silence(TIMEOUT) == just_after(LEAST_TO_OPEN * 2 ** max(0, number - 1))
        assert life.schedule.timeout_error(life.now) is None
    life.leave()
    life.silence(TIMEOUT)
    assert isinstance(life.schedule.timeout_error(life.now), errors.DeadlineError), "in the end the call fails"


def test_the_window_has_as_long_as_the_slowest_answer() -> None:
    life = begun(seconds=0.5)
    life.add()
    life.send()
    assert life.silence(TIMEOUT) == just_after(1.0)
    life.leave()
    assert life.silence(TIMEOUT) == just_after(0.5)
    life.leave()
    life.say_window()
    life.send()
    assert life.silence(TIMEOUT) == just_after(4 * 1.0)


@pytest.mark.parametrize("answers", [ENOUGH - 1, ENOUGH])
def test_enough_answers_end_the_doubling(answers: int) -> None:
    life = begun()
    life.add()
    life.send()
    life.silence(TIMEOUT)
    life.leave()
    life.say_window()
    life.answer(life.send(), QUICK)
    life.serve(answers - 1)
    life.add()
    life.send()
    assert life.silence(TIMEOUT) == just_after(LEAST if answers == ENOUGH else 2 * LEAST)


def test_a_service_that_becomes_slow_is_left_a_few_times_and_then_known_to_be() -> None:
    """From 10 ms to 2 s for an item: no storm."""
    life, stalls = begun(), 0
    for _ in range(100):
        life.add()
        item_id = life.send()
        while life.silence(2.0) < math.inf:
            stalls += 1
            life.leave()
            life.say_window()
            item_id = life.send()
        life.answer(item_id)
    assert stalls == 4


def test_a_service_that_pauses_again_and_again_is_left_ever_less() -> None:
    """Each 20 items it pauses for half a second, for whatever stream."""
    life, stalls = begun(), 0
    for number in range(400):
        life.add()
        item_id, ready = life.send(), life.now + (0.5 if number % 20 == 0 else QUICK)
        while life.silence(ready - life.now) < math.inf:
            stalls += 1
            life.leave()
            life.say_window()
            item_id = life.send()
        life.answer(item_id)
    assert stalls <= 3


def test_a_stream_that_follows_one_that_broke_is_known_anew() -> None:
    life = begun()
    life.add()
    life.send()
    life.schedule.end_stream(life.stream, GONE, life.now)
    life.now = life.slot.paused_until
    life.open()
    assert life.silence(TIMEOUT) == math.inf


def test_the_first_stalls_keep_the_connection_and_the_next_do_not() -> None:
    """So a whole service that has paused does not have all of its clients connect again."""
    life = begun()
    assert life.stream.needs_another_connection(GONE)
    life.add()
    life.send()
    kept = []
    for _ in range(4):
        life.silence(TIMEOUT)
        kept.append(not life.stream.needs_another_connection(GONE))
        life.leave()
    assert kept == [True, True, False, False]
