"""The memory of a real serving process: what batches take, and what failed ones leave."""

import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.wire import error_from_proto
from tests.support import mnist
from tests.support.azurite import free_port
from tests.support.metrics import scraped_until
from tests.support.programs import Program, serve
from tests.support.raw import Message, RawClient, Request, chunk
from tests.support.serving import HANG_SECONDS

pytestmark = pytest.mark.slow

FEATURES, CLASSES = 784, 10  # MNIST's
STREAMS, BATCHES = 8, 4
MAX_RESIDENT_BYTES = 400_000_000
PER_CHUNK = 8
ROUNDS = 6


@pytest.fixture(scope="module")
def model_options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that serve the guide's model, or one of the same size where it is not installed."""
    path = mnist.find(mnist.MODEL)
    if path is not None:
        return ["--model", f"mnist={path}", "--trust-pickle", "--input-range", "0,1"]
    generator = np.random.default_rng(4)
    path = tmp_path_factory.mktemp("model") / "mnist.npz"
    np.savez(path, coef=generator.normal(0, 0.1, (CLASSES, FEATURES)), intercept=np.ones(CLASSES))
    return ["--model", str(path), "--input-range", "0,1"]


def batch_of(raw: RawClient, row_count: int) -> Request:
    """A batch of rows, encrypted once and sent often."""
    return raw.request(np.random.default_rng(0).random((row_count, raw.codec.model.grid.feature_count)))


def messages_of(request: Request, item_id: int) -> Iterator[Message]:
    """A batch as a client sends it, some ciphertexts a message."""
    yield Message(item_id=item_id, header=request.header)
    for first in range(0, len(request.ciphertexts), PER_CHUNK):
        yield Message(item_id=item_id, chunk=chunk(first, *request.ciphertexts[first : first + PER_CHUNK]))


def ends_of(raw: RawClient, messages: Iterator[Message]) -> list[str]:
    """Send messages on one stream; returns how its items end, in order."""
    call = raw.predictions.StreamPredict(messages, timeout=4 * HANG_SECONDS)
    ends = [response for response in call if response.WhichOneof("end")]
    return [type(error_from_proto(e.error)).__name__ if e.HasField("error") else "done" for e in ends]


def test_eight_streams_of_batches_fit_into_400_megabytes(model_options: list[str]) -> None:
    """At any time from its start on; 51 MB a batch pass through."""
    with (
        serve(*model_options, "--max-score-error", "0.1") as program,
        RawClient(program.address, layout=LAYOUTS["column"]) as raw,
    ):
        offer = raw.codec.offer
        assert (offer.parameters.parameter_set.name, offer.rows_per_item) == ("column-4096-60", 4096)
        request, begun = batch_of(raw, 4096), threading.Barrier(STREAMS)

        def one_stream(client: RawClient) -> list[str]:
            begun.wait(HANG_SECONDS)
            return ends_of(client, (m for item_id in range(1, BATCHES + 1) for m in messages_of(request, item_id)))

        clients = [RawClient(program.address, layout=LAYOUTS["column"]) for _ in range(STREAMS)]
        with ThreadPoolExecutor(STREAMS) as pool:
            ends = list(pool.map(one_stream, clients))
        for client in clients:
            client.channel.close()
        assert ends == [["done"] * BATCHES] * STREAMS
        assert program.peak_bytes < MAX_RESIDENT_BYTES


def faulty(request: Request, item_id: int) -> Iterator[Message]:
    """Five batches that each go wrong in another way, and one that does not."""
    good = list(messages_of(request, 0))

    def numbered(number: int, messages: list[Message]) -> Iterator[Message]:
        for message in messages:
            yield Message(
                item_id=item_id + number,
                header=message.header if message.HasField("header") else None,
                chunk=message.chunk if message.HasField("chunk") else None,
            )

    bad = list(request.ciphertexts[8:16])
    bad[3] = bad[3][:113] + struct.pack("<Q", 2**64 - 1) + bad[3][121:]
    middle = len(good) // 2
    yield from numbered(0, [*good[:middle], good[1]])  # twice
    yield from numbered(1, [*good[:2], *good[3:6]])  # one missing
    yield from numbered(2, [*good[:2], Message(chunk=chunk(8, *bad)), *good[3:]])  # not below its prime
    yield from numbered(3, [*good[:2], Message(chunk=chunk(8, b"x" * 500_000))])  # of a wrong length
    yield from numbered(4, good)
    yield from numbered(5, good[:middle])  # never ends: the client closes its side


FAULTY_ENDS = [
    "OutOfSequenceError",
    "OutOfSequenceError",
    "MalformedCiphertextError",
    "MalformedCiphertextError",
    "done",
    "InputMismatchError",
]


def vanish(address: str, request: Request, metrics: str) -> None:
    """Begin batches and break off."""
    gone = threading.Event()

    def halves() -> Iterator[Message]:
        for item_id in (1, 2, 3):
            yield from list(messages_of(request, item_id))[:20]
        gone.wait(HANG_SECONDS)

    with RawClient(address, layout=LAYOUTS["column"]) as raw:
        call = raw.predictions.StreamPredict(halves(), timeout=HANG_SECONDS)
        scraped_until(metrics, lambda m: m("items_in_flight") >= 3)
        assert call.is_active()
    gone.set()


def test_memory_is_given_back_after_faults_and_vanished_clients(model_options: list[str]) -> None:
    port = free_port()
    metrics = f"http://127.0.0.1:{port}/metrics"
    with serve(*model_options, "--metrics-address", str(port)) as program:

        def one_round() -> None:
            with RawClient(program.address, layout=LAYOUTS["column"]) as raw:
                assert ends_of(raw, faulty(request, 1)) == FAULTY_ENDS
            vanish(program.address, request, metrics)

        with RawClient(program.address, layout=LAYOUTS["column"]) as raw:
            request = batch_of(raw, 2048)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: one_round(), range(3)))  # what a process keeps after it has had work
            before = settled_bytes(program, metrics)
            list(pool.map(lambda _: one_round(), range(3 * ROUNDS)))
            after = settled_bytes(program, metrics)
        assert after <= 1.1 * before, (before, after)


def settled_bytes(program: Program, metrics: str) -> int:
    """What the process has in memory once no item is in flight."""
    scraped_until(metrics, lambda m: m("items_in_flight") == m("held_bytes") == 0)
    return program.resident_bytes
