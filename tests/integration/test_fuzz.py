"""More than 30,000 mutated requests to one live server: it answers each, from one process."""

import hashlib
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from sealserve.errors import MalformedKeyError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.public_key_format import check_public_key
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.item import ItemHeader
from sealserve.protocol.key_record import KeyHeader, KeyKind
from sealserve.protocol.wire import header_to_proto, key_header_to_proto
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve.v1 import keys_pb2, keys_pb2_grpc, model_pb2
from tests.support import http2
from tests.support.ei_user import EIUser
from tests.support.ends import ends_of
from tests.support.mutations import damaged, disordered, endless, mutants
from tests.support.raw import Message, RawClient, Request, as_message, chunk
from tests.support.seeded import unseeded_public_key
from tests.support.serving import HANG_SECONDS, ROOT

pytestmark = pytest.mark.slow
TIMES = pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.long)])

PREDICTS, STREAMS, MESSAGES, CONNECTIONS = 9_000, 7_000, 3_000, 2_000
EI_PREDICTS, UPLOADS, KEYS = 3_000, 1_500, 500
PUBLIC_UPLOADS, PUBLIC_KEYS = 1_500, 1_500
COLUMN_STREAMS, COLUMN_PREDICTS = 4_000, 3_000
WEIGHTS = {"small": np.array([[1.0, -2.0, 0.5, 3.0]]), "blocks": np.random.default_rng(7).normal(size=(3, 4500))}


@dataclass(frozen=True)
class Server:
    """A live server."""

    address: str
    process: psutil.Process
    log: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`sealserve serve` with a model of one ciphertext an item and one of three."""
    directory = tmp_path_factory.mktemp("fuzz")
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", "--address", "127.0.0.1:0", "--input-range", "0,1"]
    command += ["--weights", "open"]
    command += ["--empty-calls-per-minute", "1e9"]  # otherwise most uploads would be refused unread
    for name, weights in WEIGHTS.items():
        np.savez(directory / name, coef=weights, intercept=np.ones(len(weights)))
        command += ["--model", f"{name}={directory / name}.npz"]
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout
            address = process.stdout.readline().split()[-1]
            yield Server(address, psutil.Process(process.pid), directory / "log")
        finally:
            process.terminate()


@pytest.fixture(autouse=True)
def _the_same_process_goes_on(server: Server) -> Iterator[None]:
    yield
    assert server.process.is_running(), "no other process has its id"
    assert server.process.status() != psutil.STATUS_ZOMBIE
    for name, layout in (("small", LAYOUTS["row"]), ("small", LAYOUTS["column"]), ("blocks", LAYOUTS["row"])):
        weights = WEIGHTS[name]
        row = np.random.default_rng(8).random(weights.shape[1])
        with RawClient(server.address, name, layout=layout) as raw:
            answer = raw.stream([raw.item(1, row)])[1]
            assert isinstance(answer, np.ndarray)
            assert answer[0] == pytest.approx(weights @ row + 1, rel=0.01, abs=0.5)
    said = server.log.read_text()
    assert not re.search("Traceback| ERROR | CRITICAL ", said), said[-4000:]


def good_request(raw: RawClient) -> Request:
    return raw.request(np.random.default_rng(9).random(raw.codec.model.grid.feature_count))


def good_messages(raw: RawClient) -> list[Message]:
    """Two items on one stream, one in a single message, one in several."""
    request = good_request(raw)
    chunks = [Message(item_id=7, chunk=chunk(index, data)) for index, data in enumerate(request.ciphertexts)]
    return [Message(item_id=7, header=request.header), as_message(9, request), *chunks]


def stream(raw: RawClient, requests: Iterable[Message]) -> None:
    """Send messages on one stream and read every answer; none says that the server failed."""
    for answer in raw.predictions.StreamPredict(iter(requests), timeout=HANG_SECONDS):
        assert not answer.error.HasField("internal"), answer


@TIMES
def test_every_field_of_a_unary_request(server: Server, times: int) -> None:
    predict_count = PREDICTS * times
    with RawClient(server.address, "small") as small, RawClient(server.address, "blocks") as blocks:
        bases = [good_request(small), good_request(blocks)]
        requests = endless(lambda source: (m for base in bases for m in mutants(base, source)), predict_count)
        ends = ends_of(lambda request: small.predictions.Predict(request, timeout=HANG_SECONDS), requests)
    assert sum(ends.values()) == predict_count
    assert set(ends) == {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}


def good_batches(columns: RawClient, rows: RawClient) -> list[Message]:
    """A batch in the midst of another one and of a row."""
    generator, features = np.random.default_rng(9), columns.codec.model.grid.feature_count
    parts = {}
    for item_id in (7, 8):
        request = columns.request(generator.random((5, features)))
        chunks = [Message(item_id=item_id, chunk=chunk(index, data)) for index, data in enumerate(request.ciphertexts)]
        parts[item_id] = [Message(item_id=item_id, header=request.header), *chunks]
    whole = rows.item(9, generator.random(features))
    return [*parts[7][:2], *parts[8][:3], whole, *parts[7][2:], *parts[8][3:]]


@TIMES
def test_every_field_of_a_stream_and_every_order(server: Server, times: int) -> None:
    stream_count = STREAMS * times
    with RawClient(server.address, "small") as small, RawClient(server.address, "blocks") as blocks:
        bases = [good_messages(small), good_messages(blocks)]
        streams = endless(lambda source: (m for base in bases for m in disordered(base, source)), stream_count)
        ends = ends_of(lambda messages: stream(small, messages), streams)
    assert sum(ends.values()) == stream_count
    assert set(ends) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert ends["OK"] > stream_count / 2


@TIMES
def test_every_field_of_batches_and_every_order(server: Server, times: int) -> None:
    stream_count = COLUMN_STREAMS * times
    predict_count = COLUMN_PREDICTS * times
    with (
        RawClient(server.address, "small", layout=LAYOUTS["column"]) as columns,
        RawClient(server.address, "small") as raw,
    ):
        base = good_batches(columns, raw)
        streams = endless(lambda source: disordered(base, source), stream_count)
        ends = ends_of(lambda messages: stream(raw, messages), streams)
        assert sum(ends.values()) == stream_count
        assert set(ends) <= {"OK", "RESOURCE_EXHAUSTED"}
        assert ends["OK"] > stream_count / 2
        mutated = endless(lambda source: mutants(columns.request(np.ones((3, 4))), source), predict_count)
        ends = ends_of(lambda request: raw.predictions.Predict(request, timeout=HANG_SECONDS), mutated)
    assert sum(ends.values()) == predict_count
    assert set(ends) == {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"}


def test_every_field_of_a_question_for_models(server: Server) -> None:
    with RawClient(server.address, "small") as raw:
        questions = (
            (raw.models.GetModel, model_pb2.GetModelRequest(model="small")),
            (raw.models.ListModels, model_pb2.ListModelsRequest(page_size=1, page_token="blocks")),
        )
        for ask, question in questions:
            ends = ends_of(
                lambda request, ask=ask: ask(request, timeout=HANG_SECONDS),  # type: ignore[misc]
                endless(lambda source, question=question: mutants(question, source), 200),  # type: ignore[misc]
            )
            assert set(ends) <= {"OK", "NOT_FOUND"}


def ei_request(raw: RawClient, user: EIUser, key_id: str) -> Request:
    """A good item for the EI engine."""
    offer = raw.codec.model.offers[-1]
    ciphertexts = user.encrypt(np.random.default_rng(9).random(raw.codec.model.grid.feature_count))
    header = ItemHeader(
        model=raw.codec.model.name,
        config_id=raw.codec.model.config_id,
        layout=offer.layout,
        parameter_set="ei-8192",
        row_count=1,
        ciphertext_count=len(ciphertexts),
        key_id=key_id,
    )
    return Request(header=header_to_proto(header), ciphertexts=ciphertexts)


@TIMES
def test_every_field_of_an_ei_request(server: Server, ei_user: EIUser, times: int) -> None:
    predict_count = EI_PREDICTS * times
    with RawClient(server.address, "small") as small, KeyRegistry(server.address) as registry:
        good = ei_request(small, ei_user, registry.register(ei_user.evaluation_keys).key_id)
        requests = endless(lambda source: mutants(good, source), predict_count)
        ends = ends_of(lambda request: small.predictions.Predict(request, timeout=HANG_SECONDS), requests)
        assert sum(ends.values()) == predict_count
        assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"} <= set(ends)
        response = small.predictions.Predict(good, timeout=HANG_SECONDS)
    scores = ei_user.decrypt(piece.seal_ciphertext for piece in response.scores.scores)
    assert scores == pytest.approx(WEIGHTS["small"] @ np.random.default_rng(9).random(4) + 1, abs=1e-4)


def upload_of(
    data: bytes, kind: KeyKind = KeyKind.EVALUATION_KEYS, parameter_set: str = "ei-8192"
) -> list[keys_pb2.RegisterKeyRequest]:
    """The messages of a key's upload."""
    header = KeyHeader(
        key_id=hashlib.sha256(data).hexdigest(),
        kind=kind,
        parameter_set=parameter_set,
        byte_count=len(data),
    )
    return [keys_pb2.RegisterKeyRequest(header=key_header_to_proto(header))] + [
        keys_pb2.RegisterKeyRequest(chunk=keys_pb2.KeyChunk(offset=offset, data=data[offset : offset + (1 << 20)]))
        for offset in range(0, len(data), 1 << 20)
    ]


@TIMES
def test_every_field_of_an_upload_and_keys_of_any_bytes(server: Server, ei_user: EIUser, times: int) -> None:
    upload_count = UPLOADS * times
    key_count = KEYS * times
    data = ei_user.evaluation_keys
    start = upload_of(data)[:3]  # the rest never comes
    uploads = endless(lambda source: disordered(start, source), upload_count)
    keys = (upload_of(damaged(data, random.Random(seed))) for seed in range(key_count))
    with RawClient(server.address, "small") as raw:
        stub = keys_pb2_grpc.KeyServiceStub(raw.channel)
        small = upload_of(data[: 1 << 16])
        request = keys_pb2.PutKeyRequest(header=small[0].header, data=small[1].chunk.data)
        ends = ends_of(
            lambda request: stub.PutKey(request, timeout=HANG_SECONDS),
            endless(lambda source: mutants(request, source), key_count),
        )
        assert sum(ends.values()) == key_count
        assert "INVALID_ARGUMENT" in ends
        for requests, count in ((uploads, upload_count), (keys, key_count)):
            ends = ends_of(lambda messages: stub.RegisterKey(iter(messages), timeout=HANG_SECONDS), requests)
            assert sum(ends.values()) == count
            assert "INVALID_ARGUMENT" in ends
    with KeyRegistry(server.address) as registry:
        kept = list(registry.list())
    assert {record.key_id for record in kept} <= {ei_user.key_id}, "nothing that is damaged is kept"


@TIMES
@pytest.mark.parametrize("seeded", [True, False], ids=["seeded", "unseeded"])
def test_every_field_of_an_upload_of_a_public_key_and_public_keys_of_any_bytes(
    server: Server, times: int, seeded: bool
) -> None:
    """Many of the damaged keys are good ones: of another seed, or with another residue."""
    parameter_set = LAYOUTS["row"].private_parameter_sets[0]
    key = SecretKey.generate(parameter_set)
    data = key.public_encryption_key if seeded else unseeded_public_key(parameter_set, key.export(TOKEN))

    def upload(data: bytes) -> list[keys_pb2.RegisterKeyRequest]:
        return upload_of(data, KeyKind.PUBLIC_ENCRYPTION_KEY, parameter_set.name)

    def is_key(data: bytes) -> bool:
        try:
            check_public_key(parameter_set, data)
        except MalformedKeyError:
            return False
        return True

    all_damaged = [damaged(data, random.Random(seed)) for seed in range(PUBLIC_KEYS * times)]
    good = {hashlib.sha256(each).hexdigest() for each in (data, *all_damaged) if is_key(each)}
    assert bool(good) is seeded
    mutated = endless(lambda source: disordered(upload(data), source), PUBLIC_UPLOADS * times)
    with RawClient(server.address, "small") as raw, KeyRegistry(server.address) as registry:
        stub = keys_pb2_grpc.KeyServiceStub(raw.channel)
        before = {record.key_id for record in registry.list()}
        for requests in (mutated, map(upload, all_damaged)):
            ends = ends_of(lambda messages: stub.RegisterKey(iter(messages), timeout=HANG_SECONDS), requests)
            assert "INVALID_ARGUMENT" in ends
            assert ("OK" in ends) is seeded
        kept = {record.key_id for record in registry.list()} - before
        assert kept <= good
        assert bool(kept) is seeded
        for key_id in kept:
            registry.delete(key_id)


def test_every_field_of_a_question_for_keys(server: Server) -> None:
    with RawClient(server.address, "small") as raw:
        stub = keys_pb2_grpc.KeyServiceStub(raw.channel)
        questions = (
            (stub.GetKey, keys_pb2.GetKeyRequest(key_id="a" * 64)),
            (stub.ListKeys, keys_pb2.ListKeysRequest(page_size=1, page_token="a" * 64)),
            (stub.DeleteKey, keys_pb2.DeleteKeyRequest(key_id="a" * 64)),
        )
        for ask, question in questions:
            ends = ends_of(
                lambda request, ask=ask: ask(request, timeout=HANG_SECONDS),  # type: ignore[misc]
                endless(lambda source, question=question: mutants(question, source), 200),  # type: ignore[misc]
            )
            assert set(ends) <= {"OK", "NOT_FOUND"}


@TIMES
def test_messages_of_any_bytes(server: Server, times: int) -> None:
    message_count = MESSAGES * times
    with RawClient(server.address, "small") as raw:
        good = {
            "PredictionService/Predict": good_request(raw),
            "PredictionService/StreamPredict": good_messages(raw)[1],
            "ModelService/GetModel": model_pb2.GetModelRequest(model="small"),
            "ModelService/ListModels": model_pb2.ListModelsRequest(page_size=1, page_token="blocks"),
            "KeyService/ListKeys": keys_pb2.ListKeysRequest(page_size=1, page_token="a"),
            "KeyService/PutKey": keys_pb2.PutKeyRequest(header=upload_of(b"no key")[0].header, data=b"no key"),
        }
        encoded = {method: message.SerializeToString() for method, message in good.items()}
        calls = endless(
            lambda source: ((method, damaged(data, source)) for method, data in encoded.items()), message_count
        )
        ends = ends_of(lambda call: raw.call(*call), calls)
    assert sum(ends.values()) == message_count
    assert {"OK", "INVALID_ARGUMENT"} <= set(ends)


@TIMES
def test_connections_of_any_bytes(server: Server, times: int) -> None:
    """HTTP/2 itself: what arrives is a call, a call with something wrong, or no HTTP/2 at all."""
    connection_count = CONNECTIONS * times
    with RawClient(server.address, "small") as raw:
        body = good_request(raw).SerializeToString()[:2000]
    good = http2.call(b"/sealserve.v1.PredictionService/Predict", body)
    source = random.Random(11)
    paths = [damaged(b"/sealserve.v1.PredictionService/Predict", source)[:120] for _ in range(connection_count // 4)]
    connections = [http2.call(path, body) for path in paths]
    connections += [damaged(good, source) for _ in range(connection_count - len(connections))]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda data: http2.exchange(server.address, data, patience_seconds=0.1), connections))
    assert len(answers) == connection_count
    assert sum(map(bool, answers)) > connection_count / 2, "most are well-formed enough to be answered"
