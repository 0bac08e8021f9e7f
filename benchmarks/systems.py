"""The systems that `peers` compares: ours as served, peers in processes of their own, plaintext."""

import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks import plain_server
from benchmarks.row import latency, message_bytes
from benchmarks.server_time import with_server_seconds
from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters
from sealserve.loadtest.items import LoadItems
from sealserve.protocol.item import ItemHeader
from sealserve.protocol.wire import header_to_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.models.linear_model import LinearModel
from tests.support.ei_user import EIUser
from tests.support.metrics import free_address
from tests.support.programs import Program, serve

_WORKER = Path(__file__).with_name("peer_worker.py")
_PREDICT = "/sealserve.v1.PredictionService/Predict"
_ROWS = 20  # a repetition
_BATCHES = 4  # whose time at the server is looked at
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Sample:
    """One repetition.

    Attributes:
        scores: float64 (rows, classes), of consecutive rows.
        total_seconds: from features to scores, a row.
        steps: seconds a row of encrypt, server and decrypt, where they can be told apart, and of
            process: all that the serving process computes, gRPC included.
        request_bytes, reply_bytes: a row.
    """

    scores: NDArray[np.float64]
    total_seconds: float
    steps: dict[str, float]
    request_bytes: float
    reply_bytes: float


@dataclass(frozen=True)
class System:
    """Something that scores rows.

    Attributes:
        name: in tables.
        where: what is between client and server.
        measure: scores rows from an index on, and says what it took.
        rows: that a repetition scores.
        resident_bytes: of its server, or of client and server where these are one process.
        key_bytes: what a client sends before its first row.
    """

    name: str
    where: str
    measure: Callable[[int], Sample]
    rows: int
    resident_bytes: Callable[[], int]
    key_bytes: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workload:
    """A model, as a file and loaded, and rows."""

    path: Path
    model: LinearModel
    rows: NDArray[np.float64]

    def part(self, first: int, count: int) -> NDArray[np.float64]:
        """Rows from an index on, from the first again after the last."""
        return self.rows[np.arange(first, first + count) % len(self.rows)]


def described(parameters: EncryptionParameters) -> str:
    """Say what a reader who knows lattices wants to know."""
    set_ = parameters.parameter_set
    bits = [prime.bit_length() for prime in set_.primes]
    primes = f"a prime of {bits[0]}" if len(bits) == 1 else f"primes of {', '.join(map(str, bits[:-1]))} and {bits[-1]}"
    scheme, log = parameters.scheme.name, round(math.log2(max(parameters.plain_modulus, parameters.scale)))
    what = "t =" if parameters.plain_modulus else "scale"
    return f"{scheme}, N = {set_.poly_modulus_degree}, {primes} bits, {what} 2^{log}: {set_.name}"


@contextlib.contextmanager
def _served(workload: Workload, *options: str) -> Iterator[tuple[Program, str]]:
    """Serve the model; yield the program and the address of its metrics."""
    address = free_address()
    options = f"--model=mnist={workload.path}", "--trust-pickle", "--input-range=0,1", *options
    with serve(*options, f"--metrics-address={address}") as program:
        yield program, address


@contextlib.contextmanager
def row(workload: Workload, name: str, *options: str) -> Iterator[System]:
    """The row layout, one row a call."""
    with _served(workload, *options) as (program, metrics_address), Client(program.address, layout="row") as client:
        scores = client.decision_function(workload.rows[:_ROWS])  # warm, and registered
        sizes, offer = message_bytes(client, workload.rows[:1]), client.offer()

        def measure(first: int) -> Sample:
            some = workload.part(first, _ROWS)
            computed = program.cpu_seconds
            # It asks for each row twice.
            found, server_seconds = with_server_seconds(metrics_address, "row", lambda: latency(client, some))
            scores = np.concatenate([client.decision_function(one) for one in some[:, None]])
            steps = {step: found[f"{step}_ms"] / 1e3 for step in ("encrypt", "decrypt")}
            steps["server"] = server_seconds
            steps["process"] = (program.cpu_seconds - computed) / (3 * _ROWS)
            return Sample(scores, found["predict_ms"] / 1e3, steps, sizes["request_bytes"], sizes["reply_bytes"])

        assert len(scores) == _ROWS
        notes = {"parameters": described(offer.parameters)}
        yield System(name, "gRPC", measure, _ROWS, lambda: program.resident_bytes, offer.cost.key_bytes, notes)


@contextlib.contextmanager
def column(workload: Workload, name: str, *options: str) -> Iterator[System]:
    """The column layout, a full batch a call."""
    with _served(workload, *options) as (program, metrics_address), Client(program.address, layout="column") as client:
        offer = client.offer()
        count = offer.rows_per_item
        client.register_key(count)
        items = LoadItems(client, count, replay=1)
        client.decision_function(workload.part(0, count))

        def measure(first: int) -> Sample:
            some = workload.part(first, count)
            start = time.perf_counter()
            scores = client.decision_function(some)
            total = time.perf_counter() - start
            start = time.perf_counter()
            list(client.encrypt(some).ciphertexts)
            encrypt = time.perf_counter() - start
            computed = program.cpu_seconds
            answers, server_seconds = with_server_seconds(
                metrics_address, "column", lambda: [items.send(_TIMEOUT_SECONDS) for _ in range(_BATCHES)]
            )
            computed = program.cpu_seconds - computed
            answered, start = answers[-1], time.perf_counter()
            client.decrypt(answered)
            steps = {
                "encrypt": encrypt / count,
                "server": server_seconds / count,
                "decrypt": (time.perf_counter() - start) / count,
                "process": computed / (_BATCHES * count),
            }
            return Sample(scores, total / count, steps, answered.request_bytes / count, answered.reply_bytes / count)

        notes = {"parameters": described(offer.parameters)}
        yield System(name, "gRPC", measure, count, lambda: program.resident_bytes, offer.cost.key_bytes, notes)


@contextlib.contextmanager
def ei_slots(workload: Workload, name: str) -> Iterator[System]:
    """The EI slots of our engine, asked by an unmodified encrypted-inference client."""
    user = EIUser()
    with (
        _served(workload) as (program, _),
        EIClient(program.address, client=user.client, evaluation_keys=user.evaluation_keys) as client,
        grpc.insecure_channel(program.address, options=[("grpc.max_receive_message_length", -1)]) as channel,
    ):
        key_id, model = client.register_keys().key_id, client.model
        (offer,) = (offer for offer in model.offers if offer.layout is LAYOUTS["ei-slots"])
        header = ItemHeader(
            model=model.name,
            config_id=model.config_id,
            layout=offer.layout,
            parameter_set="ei-8192",
            row_count=1,
            ciphertext_count=1,
            key_id=key_id,
        )
        call: Any = channel.unary_unary(_PREDICT, bytes, prediction_pb2.PredictResponse.FromString)

        def measure(first: int) -> Sample:
            (features,) = workload.part(first, 1)
            times = [time.perf_counter()]
            ciphertexts = user.encrypt(features)
            times.append(time.perf_counter())
            request = prediction_pb2.PredictRequest(header=header_to_proto(header), ciphertexts=ciphertexts)
            body = request.SerializeToString()
            computed = program.cpu_seconds
            response = call(body, timeout=_TIMEOUT_SECONDS)
            computed = program.cpu_seconds - computed
            times.append(time.perf_counter())
            scores = user.decrypt([pair.seal_ciphertext for pair in response.scores.scores])
            times.append(time.perf_counter())
            encrypt, _, decrypt = np.diff(times).tolist()
            server = response.done.server_seconds
            steps = {"encrypt": encrypt, "server": server, "decrypt": decrypt, "process": computed}
            return Sample(scores[None], times[-1] - times[0], steps, len(body), response.ByteSize())

        measure(0)  # by then the keys are loaded
        notes = {"parameters": described(offer.parameters)}
        yield System(name, "gRPC", measure, 1, lambda: program.resident_bytes, len(user.evaluation_keys), notes)


@dataclass(frozen=True)
class Peer:
    """A running process of peer_worker.py.

    Attributes:
        process: the process.
        ready: what it said when it was ready: its version, its parameters and the bytes of its
            keys.
    """

    process: "subprocess.Popen[str]"
    ready: dict[str, Any]

    def score(self, row: int) -> dict[str, Any]:
        """Have a row scored, by its index, and return what that took."""
        assert self.process.stdin
        assert self.process.stdout
        print(row, file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer


@contextlib.contextmanager
def running_peer(worker: str, python: str, rows: NDArray[np.float64], **arrays: NDArray[np.generic]) -> Iterator[Peer]:
    """Run a peer of peer_worker.py on rows, with the arrays that it makes its model of.

    Raises:
        RuntimeError: it does not start.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]  # as its stubs have it, one may be allow_pickle
        np.save(path.with_name("rows.npy"), rows)
        command = [python, str(_WORKER), worker, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"{worker} did not start; what it says is above")
                yield Peer(process, json.loads(line))
            finally:
                process.kill()


@contextlib.contextmanager
def peer(
    workload: Workload, name: str, worker: str, python: str = sys.executable, *, count: int = 1
) -> Iterator[System]:
    """A peer of peer_worker.py; a repetition is a number of rows, one by one, in processor time.

    Raises:
        RuntimeError: it does not start.
    """
    model = workload.model
    with running_peer(worker, python, workload.rows, weights=model.weights, intercept=model.intercept) as running:

        def measure(first: int) -> Sample:
            found = [running.score(number % len(workload.rows)) for number in range(first, first + count)]
            steps = {step: median(took[step] for took in found) for step in ("encrypt", "server", "decrypt")}
            total = median(sum(took[step] for step in steps) for took in found)
            scores = np.array([took["scores"] for took in found])
            return Sample(scores, total, steps, found[0]["request_bytes"], found[0]["reply_bytes"])

        if count > 1:  # the others take a tenth of a second or more, and a median leaves the first out
            measure(0)
        resident, ready = psutil.Process(running.process.pid).memory_info, running.ready
        notes = {"version": ready["version"], "parameters": ready["parameters"]}
        yield System(name, "none", measure, count, lambda: int(resident().rss), ready["key_bytes"], notes)


@contextlib.contextmanager
def plaintext(workload: Workload, name: str, a_call: int, calls: int) -> Iterator[System]:
    """The same rows as float32 over gRPC, so many a call, and so many calls a repetition."""
    model = workload.model
    floats = workload.rows.astype(np.float32)
    per_message = (1 << 20) // floats[0].nbytes
    with (
        plain_server.running(model.weights, model.intercept) as program,
        grpc.insecure_channel(program.address, options=[("grpc.max_receive_message_length", -1)]) as channel,
    ):
        stream: Any = channel.stream_stream(plain_server.SCORE, bytes, bytes)
        unary: Any = channel.unary_unary(plain_server.SCORE_ROW, bytes, bytes)

        def measure(first: int) -> Sample:
            some = floats[np.arange(first, first + calls * a_call) % len(floats)].reshape(calls, a_call, -1)
            replies, seconds, server = [], [], []
            computed = program.cpu_seconds
            for rows in some:
                start = time.perf_counter()
                bodies = [rows[at : at + per_message].tobytes() for at in range(0, a_call, per_message)]
                if a_call == 1:
                    reply, call = unary.with_call(bodies[0])
                else:
                    call = stream(iter(bodies))
                    reply = b"".join(call)
                replies.append(reply)
                seconds.append((time.perf_counter() - start) / a_call)
                server.append(float(dict(call.trailing_metadata())[plain_server.SERVER_SECONDS]) / a_call)
            scores = np.frombuffer(b"".join(replies), np.float32).reshape(calls * a_call, -1).astype(np.float64)
            computed = program.cpu_seconds - computed
            steps = {"server": median(server), "process": computed / (calls * a_call)}
            return Sample(scores, median(seconds), steps, rows[0].nbytes, len(replies[0]) / a_call)

        measure(0)
        notes = {"parameters": "float32"}
        yield System(name, "gRPC", measure, calls * a_call, lambda: program.resident_bytes, notes=notes)
