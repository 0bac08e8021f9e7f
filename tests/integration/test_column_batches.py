"""Batches of columns over a real socket, among rows and other batches.

What is wrong with one ends that one alone.
"""

import itertools
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve.errors import (
    CiphertextFault,
    InputMismatchError,
    ItemTimeoutError,
    LimitExceededError,
    MalformedCiphertextError,
    OutOfSequenceError,
    ParameterSetNotOfferedError,
    ServiceError,
    StaleConfigError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters
from sealserve.protocol.item import EncryptedScores
from sealserve.protocol.wire import error_from_proto, scores_from_proto
from sealserve.v1 import parameters_pb2, prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.malformed_ciphertexts import compressed, of_parameters, patched
from tests.support.raw import Message, RawClient, Request, as_message, assert_error, chunk
from tests.support.seeded import seeded
from tests.support.serving import HANG_SECONDS, SETTINGS, linear, running_server, served, with_limits

RANDOM = np.random.default_rng(3)
FEATURES = 12
MODEL = linear(RANDOM.normal(size=(2, FEATURES)), [1.0, -1.0])
TEN_CLASSES = linear(RANDOM.normal(size=(10, FEATURES)))  # its rows have a smaller t than columns
SET = LAYOUTS["column"].open_parameter_sets[0]
N, (PRIME,) = SET.poly_modulus_degree, SET.primes
RESIDUES = 113  # where they begin
C1 = RESIDUES + 8 * N
HELD_BYTES = 6 * 2 * SET.polynomial_bytes


NO_ROWS = np.empty((0, FEATURES))


@dataclass(frozen=True)
class Served:
    """A server, with a client for each layout and what the server counts."""

    address: str
    telemetry: Telemetry
    columns: RawClient
    rows: RawClient

    def count(self, gauge: str) -> float:
        """What a gauge shows."""
        value = self.telemetry.registry.get_sample_value(f"sealserve_{gauge}")
        assert value is not None
        return value

    def assert_nothing_is_left(self) -> None:
        """Everything that was held for items is released."""
        self.wait_until({"held_bytes": 0, "items_in_flight": 0})

    def wait_until(self, expected: dict[str, float]) -> None:
        """Wait until gauges have these values: a server learns of an end later than its client."""
        end = time.monotonic() + HANG_SECONDS
        while (found := {gauge: self.count(gauge) for gauge in expected}) != expected:
            assert time.monotonic() < end, found
            time.sleep(0.01)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    yield from serving()


def serving(**limits: float) -> Iterator[Served]:
    """Run a server of the model with some limits changed."""
    settings, telemetry = with_limits(**limits) if limits else SETTINGS, Telemetry()
    models = {"model": MODEL, "ten classes": TEN_CLASSES}
    registry = ModelRegistry(served(name, model, limits=settings.limits) for name, model in models.items())
    with (
        running_server(registry, settings, telemetry=telemetry) as address,
        RawClient(address, "model", layout=LAYOUTS["column"]) as columns,
        RawClient(address, "model", layout=LAYOUTS["row"]) as rows,
    ):
        yield Served(address, telemetry, columns, rows)


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("server", "impatient_server"):
        if name in request.fixturenames:
            request.getfixturevalue(name).assert_nothing_is_left()


# Conversations


@dataclass
class Talk:
    """Items of any layout on one stream."""

    call: Iterable[prediction_pb2.StreamPredictResponse]
    good: dict[int, tuple[RowCodec, NDArray[np.float64]]]
    ends: dict[int, ServiceError | None] = field(default_factory=dict)

    def read(self) -> Iterator[int]:
        """Yield ids of items as they end; scores are checked, and None stands for right ones."""
        replies = defaultdict[int, list[EncryptedScores]](list)
        for response in self.call:
            reply = replies[response.item_id]
            reply += scores_from_proto(response.scores)
            end = response.WhichOneof("end")
            if end is None:
                continue
            assert response.item_id not in self.ends, "an item has one end"
            self.ends[response.item_id] = error_from_proto(response.error) if end == "error" else None
            if end == "done":
                codec, rows = self.good[response.item_id]
                bound = codec.offer.score_error_bound
                assert np.abs(codec.decrypt(len(rows), reply) - MODEL.decision(rows)).max() <= bound
            yield response.item_id


def one_by_one(request: Request, item_id: int) -> list[Message]:
    """A batch, each ciphertext in a message of its own."""
    chunks = [Message(item_id=item_id, chunk=chunk(index, data)) for index, data in enumerate(request.ciphertexts)]
    return [Message(item_id=item_id, header=request.header), *chunks]


def interleaved(*items: Sequence[Message]) -> list[Message]:
    """The first message of each, then the second of each, and so on."""
    turns = itertools.zip_longest(*items)
    return [message for turn in turns for message in turn if message is not None]


def amidst(
    server: Served, messages: Sequence[Message], rows: NDArray[np.float64] = NO_ROWS
) -> dict[int, ServiceError | None]:
    """Send item 3 between batches and rows, message by message; return the ends.

    Meanwhile another stream succeeds.
    """
    some = RANDOM.random((7, FEATURES))
    good = {
        1: (server.rows, some[:1]),
        2: (server.columns, some),
        4: (server.columns, some[:1]),
        5: (server.rows, some[1:2]),
    }
    sent = {item_id: one_by_one(client.request(features), item_id) for item_id, (client, features) in good.items()}
    expected = {item_id: (client.codec, features) for item_id, (client, features) in good.items()}
    expected[3] = server.columns.codec, rows
    quiet = interleaved(*sent.values())
    noisy = interleaved(sent[1], sent[2], messages, sent[4], sent[5])

    def ends(to_send: list[Message]) -> dict[int, ServiceError | None]:
        talk = Talk(server.columns.predictions.StreamPredict(iter(to_send), timeout=HANG_SECONDS), expected)
        assert set(talk.read()) == {m.item_id for m in to_send} - {m.item_id for m in to_send if m.cancel}
        return talk.ends

    with ThreadPoolExecutor(2) as pool:
        other, answers = pool.submit(ends, quiet), ends(noisy)
        assert set(other.result().values()) == {None}
    assert [answers[item_id] for item_id in good] == [None] * 4
    return answers


@pytest.mark.parametrize("row_count", [1, 5, N])
def test_batches_among_rows_and_batches(server: Served, row_count: int) -> None:
    rows = RANDOM.random((row_count, FEATURES))
    request = server.columns.request(rows)
    whole, parts = [as_message(3, request)], one_by_one(request, 3)
    for messages in (whole, parts, [parts[0], Message(item_id=3), *parts[1:]]):
        assert amidst(server, messages, rows)[3] is None


# Faults of a batch

Chunks = Callable[[list[bytes]], list[prediction_pb2.Chunk]]


def separate(ciphertexts: Iterable[bytes], first_index: int = 0) -> list[prediction_pb2.Chunk]:
    return [chunk(index, data) for index, data in enumerate(ciphertexts, first_index)]


CHUNK_FAULTS: dict[str, tuple[Chunks, ServiceError]] = {
    "two exchanged": (lambda c: separate([c[0], c[1]])[::-1] + separate(c[2:], 2), OutOfSequenceError(0, 1)),
    "one twice": (lambda c: [*separate(c[:5]), *separate(c[4:], 4)], OutOfSequenceError(5, 4)),
    "one missing": (lambda c: [*separate(c[:5]), *separate(c[6:], 6)], OutOfSequenceError(5, 6)),
    "the last missing": (lambda c: separate(c[:-1]), InputMismatchError("ciphertexts", FEATURES, FEATURES - 1)),
    "all missing": (lambda _: [], InputMismatchError("ciphertexts", FEATURES, 0)),
    "an index far off": (lambda c: [*separate(c[:3]), chunk(2**32 - 1, c[3])], OutOfSequenceError(3, 2**32 - 1)),
    "an empty one": (lambda c: [*separate(c[:3]), chunk(3)], InputMismatchError("ciphertexts", FEATURES - 3, 0)),
    "one too many": (lambda c: [chunk(0, *c, c[0])], InputMismatchError("ciphertexts", FEATURES, FEATURES + 1)),
    "one too many at the end": (
        lambda c: [chunk(0, *c[:-1]), chunk(FEATURES - 1, c[-1], c[0])],
        InputMismatchError("ciphertexts", 1, 2),
    ),
}


@pytest.mark.parametrize("name", CHUNK_FAULTS)
def test_chunks_that_are_not_the_next(server: Served, name: str) -> None:
    chunks, expected = CHUNK_FAULTS[name]
    request = server.columns.request(RANDOM.random((5, FEATURES)))
    messages = [Message(item_id=3, chunk=piece) for piece in chunks(list(request.ciphertexts))]
    answers = amidst(server, [Message(item_id=3, header=request.header), *messages])
    assert_error(answers[3], expected)


def of_set(number: int, plain_modulus: int = 1 << 20) -> bytes:
    return of_parameters(EncryptionParameters(LAYOUTS["column"].open_parameter_sets[number], plain_modulus))


Spoil = Callable[[bytes, RowCodec], bytes]
LENGTH, HEADER, PARAMETERS = CiphertextFault.LENGTH, CiphertextFault.HEADER, CiphertextFault.PARAMETERS
COEFFICIENT, TRANSPARENT = CiphertextFault.COEFFICIENT, CiphertextFault.TRANSPARENT
CIPHERTEXT_FAULTS: dict[str, tuple[CiphertextFault, Spoil]] = {
    "empty": (LENGTH, lambda *_: b""),
    "a byte too short": (LENGTH, lambda data, _: data[:-1]),
    "a byte too long": (LENGTH, lambda data, _: data + b"\0"),
    "compressed": (LENGTH, lambda data, _: compressed(data)),
    "of another ring": (LENGTH, lambda *_: of_set(2)),
    "of two primes": (LENGTH, lambda *_: of_set(3)),
    "of another plaintext modulus": (PARAMETERS, lambda *_: of_set(0)),
    "of the row layout's plaintext modulus": (
        PARAMETERS,
        lambda _, codec: of_parameters(
            EncryptionParameters(LAYOUTS["row"].open_parameter_sets[0], codec.offer.parameters.plain_modulus * 2)
        ),
    ),
    "magic damaged": (HEADER, lambda data, _: patched(data, 0, b"\0")),
    "in NTT form": (CiphertextFault.FORM, lambda data, _: patched(data, 48, b"\1")),
    "first residue at its prime": (COEFFICIENT, lambda data, _: patched(data, RESIDUES, struct.pack("<Q", PRIME))),
    "last residue of 64 ones": (COEFFICIENT, lambda data, _: patched(data, len(data) - 8, b"\xff" * 8)),
    "second polynomial zero": (TRANSPARENT, lambda data, _: patched(data, C1, bytes(8 * N))),
    "seeded, a residue at its prime": (
        COEFFICIENT,
        lambda data, codec: patched(seeded(codec, data), RESIDUES, struct.pack("<Q", PRIME)),
    ),
}


@pytest.mark.parametrize("name", CIPHERTEXT_FAULTS)
def test_a_malformed_ciphertext_is_named_by_its_place_in_the_batch(server: Served, name: str) -> None:
    reason, spoil = CIPHERTEXT_FAULTS[name]
    request = server.columns.request(RANDOM.random((5, FEATURES)))
    request.ciphertexts[7] = spoil(request.ciphertexts[7], server.columns.codec)
    in_the_midst = [
        chunk(0, *request.ciphertexts[:6]),
        chunk(6, *request.ciphertexts[6:9]),
        chunk(9, *request.ciphertexts[9:]),
    ]
    messages = [Message(item_id=3, chunk=piece) for piece in in_the_midst]
    answers = amidst(server, [Message(item_id=3, header=request.header), *messages])
    assert_error(answers[3], MalformedCiphertextError(reason, 7))


def test_a_batch_whose_first_residue_is_zero_by_chance_is_scored(server: Served) -> None:
    """A second polynomial may begin with zeros; it is refused only if all are zeros.

    The scores here are noise.
    """
    request = server.columns.request(RANDOM.random((5, FEATURES)))
    request.ciphertexts[7] = patched(request.ciphertexts[7], C1, bytes(8))
    call = server.columns.predictions.StreamPredict(iter(one_by_one(request, 1)), timeout=HANG_SECONDS)
    assert [response.WhichOneof("end") for response in call if response.item_id][-1] == "done"


HEADER_FAULTS: dict[str, tuple[dict[str, object], ServiceError]] = {
    "no rows": ({"row_count": 0}, InputMismatchError("row_count", N, 0)),
    "a row too many": ({"row_count": N + 1}, InputMismatchError("row_count", N, N + 1)),
    "endless rows": ({"row_count": 2**32 - 1}, InputMismatchError("row_count", N, 2**32 - 1)),
    "no ciphertexts": ({"ciphertext_count": 0}, InputMismatchError("ciphertext_count", FEATURES, 0)),
    "a ciphertext too few": (
        {"ciphertext_count": FEATURES - 1},
        InputMismatchError("ciphertext_count", FEATURES, FEATURES - 1),
    ),
    "endless ciphertexts": (
        {"ciphertext_count": 2**32 - 1},
        InputMismatchError("ciphertext_count", FEATURES, 2**32 - 1),
    ),
    "as one row": ({"parameter_set": "row-2048-44"}, ParameterSetNotOfferedError("column", "row-2048-44")),
    "the row layout": (
        {"layout": parameters_pb2.LAYOUT_ROW},
        ParameterSetNotOfferedError("row", "column-2048-44"),
    ),
    "another column set": (
        {"parameter_set": "column-4096-92"},
        ParameterSetNotOfferedError("column", "column-4096-92"),
    ),
    "a key": ({"key_id": "k" * 64}, InputMismatchError("key_id", 0, 64)),
}


@pytest.mark.parametrize("name", HEADER_FAULTS)
def test_a_header_that_fits_no_offer(server: Served, name: str) -> None:
    changes, expected = HEADER_FAULTS[name]
    request = server.columns.request(RANDOM.random((5, FEATURES)))
    for attribute, value in changes.items():
        setattr(request.header, attribute, value)
    answers = amidst(server, one_by_one(request, 3))
    assert_error(answers[3], expected)


def test_a_batch_of_another_configuration(server: Served) -> None:
    request = server.columns.request(RANDOM.random((5, FEATURES)))
    request.header.config_id = "yesterday's"
    answers = amidst(server, one_by_one(request, 3))
    assert_error(answers[3], StaleConfigError(server.columns.codec.model.config_id))


def test_a_row_sent_as_a_batch(server: Served) -> None:
    """Ciphertexts of the row layout under a header of columns."""
    batch = server.columns.request(RANDOM.random((5, FEATURES)))
    with RawClient(server.address, "ten classes", layout=LAYOUTS["row"]) as raw:
        row, t = raw.request(RANDOM.random(FEATURES)), raw.codec.offer.parameters.plain_modulus
    assert t != server.columns.codec.offer.parameters.plain_modulus, "then it would be no fault"
    batch.ciphertexts[0] = row.ciphertexts[0]
    answers = amidst(server, one_by_one(batch, 3))
    assert_error(answers[3], MalformedCiphertextError(PARAMETERS, 0))


def test_chunks_of_an_item_that_never_began(server: Served) -> None:
    request = server.columns.request(RANDOM.random((5, FEATURES)))
    first, *_ = one_by_one(request, 3)[1:]
    assert_error(amidst(server, [first])[3], OutOfSequenceError(3, 3))


# Limits, time and clients that vanish


@pytest.fixture(scope="module")
def impatient_server() -> Iterator[Served]:
    yield from serving(item_timeout_seconds=0.4, max_open_items=3, window_bytes=2 * HELD_BYTES)


def test_a_batch_that_never_ends_times_out_and_is_freed(impatient_server: Served) -> None:
    server, rows = impatient_server, RANDOM.random((5, FEATURES))
    messages = one_by_one(server.columns.request(rows), 1)
    sent = threading.Event()

    def stream() -> Iterator[Message]:
        yield from messages[:-1]
        assert sent.wait(HANG_SECONDS)
        yield messages[-1]  # too late: nothing more is said of it
        yield from one_by_one(server.columns.request(rows), 2)

    call = server.columns.predictions.StreamPredict(stream(), timeout=HANG_SECONDS)
    talk = Talk(call, {2: (server.columns.codec, rows)})
    ends = talk.read()
    assert next(ends) == 1
    assert_error(talk.ends[1], ItemTimeoutError(0.4))
    server.assert_nothing_is_left()
    sent.set()
    assert list(ends) == [2]
    assert talk.ends[2] is None


def test_more_open_batches_than_allowed(impatient_server: Served) -> None:
    """Headers beyond max_open_items, and batches beyond the window, are refused one by one.

    Those that are open end well.
    """
    server, rows = impatient_server, RANDOM.random((5, FEATURES))
    batches = {item_id: one_by_one(server.columns.request(rows), item_id) for item_id in (1, 2, 3, 4)}
    headers = [batches[item_id][0] for item_id in (1, 2, 3, 4)]
    firsts = [batches[item_id][1] for item_id in (1, 2, 3)]
    rest = [message for item_id in (1, 2) for message in batches[item_id][2:]]
    call = server.columns.predictions.StreamPredict(iter([*headers, *firsts, *rest]), timeout=HANG_SECONDS)
    talk = Talk(call, dict.fromkeys((1, 2), (server.columns.codec, rows)))
    assert sorted(talk.read()) == [1, 2, 3, 4]
    assert_error(talk.ends[4], LimitExceededError("max_open_items", 3, 4))
    assert_error(talk.ends[3], LimitExceededError("window_bytes", 2 * HELD_BYTES, 3 * HELD_BYTES))
    assert talk.ends[1] is talk.ends[2] is None


def test_a_client_that_vanishes_in_the_middle_of_batches(server: Served) -> None:
    request = server.columns.request(RANDOM.random((5, FEATURES)))
    halves = interleaved(*(one_by_one(request, item_id)[:7] for item_id in range(1, 6)))
    sent = threading.Event()

    def stream() -> Iterator[Message]:
        yield from halves
        sent.wait(HANG_SECONDS)

    with RawClient(server.address, "model", layout=LAYOUTS["column"]) as vanishing:
        call = vanishing.predictions.StreamPredict(stream(), timeout=HANG_SECONDS)
        server.wait_until({"held_bytes": 5 * HELD_BYTES, "items_in_flight": 5})
        assert call.is_active()
    sent.set()
    server.assert_nothing_is_left()
    assert amidst(server, []) == dict.fromkeys((1, 2, 4, 5))


def test_a_cancelled_batch_is_forgotten(server: Served) -> None:
    messages = one_by_one(server.columns.request(RANDOM.random((5, FEATURES))), 3)
    answers = amidst(server, [*messages[:5], Message(item_id=3, cancel=True)])
    assert 3 not in answers
