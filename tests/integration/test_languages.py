"""Clients in Python, TypeScript and Go: what one encrypts, the others check, a service answers.

Each encrypts the items of the vectors under the vectors' keys, which everybody has. One live
service scores them. Then each of the three checks the ciphertexts and decrypts the replies of all.
Python's checks are those of the vectors, which need neither SEAL nor an SDK.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import grpc
import numpy as np
import pytest

from sealserve._codec.codec import RowCodec
from sealserve.protocol.wire import model_from_proto
from sealserve.v1 import keys_pb2, keys_pb2_grpc, model_pb2, model_pb2_grpc, prediction_pb2, prediction_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry
from tests.support import go, node
from tests.support.serving import HANG_SECONDS, ROOT, registered_keys, running_server
from tests.vectors.check import items, offers
from tests.vectors.check.files import are_close, read_json
from tests.vectors.check.rings import Keys
from tests.vectors.check.seal_objects import Parameters
from tests.vectors.make.keys import RingKeys
from tests.vectors.make.models import all_models

VECTORS = ROOT / "tests/vectors"
ITEMS = sorted((VECTORS / "items").iterdir())
LANGUAGES = ("python", "typescript", "go")

Change: TypeAlias = Callable[[prediction_pb2.PredictRequest, prediction_pb2.PredictResponse], None]

pytestmark = pytest.mark.slow


def encrypt(folder: Path) -> None:
    """Encrypt the items with the Python SDK."""
    for item in ITEMS:
        model, expected = model_from_proto(items.described(item)), read_json(item / "expected.json")
        header, _ = items.requested(item)
        (offer,) = (each for each in model.offers if each.parameters.parameter_set.name == header.parameter_set)
        key = RingKeys(expected["ring"]).sdk_key(folder)
        codec = RowCodec(model, key, offer=offer, seeded=not item.name.endswith("residues"))
        made = codec.encrypt(codec.quantize(np.array(expected["rows"])).integers)
        request = prediction_pb2.PredictRequest(header=made.header_message, ciphertexts=made.ciphertexts)
        (folder / f"{item.name}.binpb").write_bytes(request.SerializeToString())
        if request.header.key_id:
            (folder / f"{item.name}.key").write_bytes(key.public_encryption_key)


def score(channel: grpc.Channel, folder: Path) -> None:
    """Let a service answer the requests of a folder, once their public keys are registered."""
    for item in ITEMS:
        request = prediction_pb2.PredictRequest.FromString((folder / f"{item.name}.binpb").read_bytes())
        if request.header.key_id:
            data = (folder / f"{item.name}.key").read_bytes()
            header = keys_pb2.KeyHeader(
                key_id=request.header.key_id,
                kind=keys_pb2.KEY_KIND_PUBLIC_ENCRYPTION_KEY,
                parameter_set=request.header.parameter_set,
                byte_count=len(data),
            )
            put = keys_pb2.PutKeyRequest(header=header, data=data)
            keys_pb2_grpc.KeyServiceStub(channel).PutKey(put, timeout=HANG_SECONDS)
        reply = prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=HANG_SECONDS)
        (folder / f"{item.name}.reply").write_bytes(reply.SerializeToString())


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each language a folder of requests, public keys and the replies of one service."""
    node.require()
    go.go()
    folders = {language: tmp_path_factory.mktemp(language) for language in LANGUAGES}
    encrypt(folders["python"])
    node.run(["tests/cross/encrypt.ts", str(folders["typescript"])])
    run_go("TestCrossEncrypt", SEALSERVE_CROSS_TO=str(folders["go"]))
    keys = registered_keys()
    registry = ModelRegistry(made.served for made in all_models(keys.zero_encryptor).values())
    with running_server(registry, keys=keys) as address, grpc.insecure_channel(address) as channel:
        for item in ITEMS:
            described = items.described(item)
            asked = model_pb2.GetModelRequest(model=described.name)
            live = model_pb2_grpc.ModelServiceStub(channel).GetModel(asked, timeout=HANG_SECONDS).model
            assert live.config_id == described.config_id
        for folder in folders.values():
            score(channel, folder)
    return folders


def change_header(request: prediction_pb2.PredictRequest, _: prediction_pb2.PredictResponse) -> None:
    request.header.config_id = "0" * len(request.header.config_id)


def change_ciphertext(request: prediction_pb2.PredictRequest, _: prediction_pb2.PredictResponse) -> None:
    data = bytearray(request.ciphertexts[0])
    data[len(data) // 2] ^= 1 << 5
    request.ciphertexts[0] = bytes(data)


def change_reply(_: prediction_pb2.PredictRequest, reply: prediction_pb2.PredictResponse) -> None:
    pair = reply.scores.scores[0]
    form = getattr(pair, str(pair.WhichOneof("form")))
    form.c1 = form.c1[::-1]


DAMAGE = {
    "header": (change_header, "the header of"),
    "ciphertext": (change_ciphertext, "ciphertext 0 of"),
    "reply": (change_reply, "not a well-formed answer|the scores of"),
}
"""What is done to the files of an item, and what TypeScript then refuses."""


def damaged(folder: Path, change: Change, to: Path) -> Path:
    """Copy a folder, with a change of the files of its first item."""
    shutil.copytree(folder, to)
    paths = [to / f"{ITEMS[0].name}.{suffix}" for suffix in ("binpb", "reply")]
    request = prediction_pb2.PredictRequest.FromString(paths[0].read_bytes())
    reply = prediction_pb2.PredictResponse.FromString(paths[1].read_bytes())
    change(request, reply)
    for path, message in zip(paths, (request, reply), strict=True):
        path.write_bytes(message.SerializeToString())
    return to


def run_go(name: str, **variables: str) -> None:
    done = go.run("test", "-count=1", "-v", "-run", f"^{name}$", ".", variables=variables)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert f"--- PASS: {name}" in done.stdout


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.name)
def test_integers_alone_accept_what_each_encrypts(scored: dict[str, Path], language: str, item: Path) -> None:
    folder, expected, model = scored[language], read_json(item / "expected.json"), items.described(item)
    request = prediction_pb2.PredictRequest.FromString((folder / f"{item.name}.binpb").read_bytes())
    header, _ = items.requested(item)
    offer, keys = items.offered(model, header), Keys.read(VECTORS / "rings" / expected["ring"])
    if header.key_id:
        public_key = (folder / f"{item.name}.key").read_bytes()
        assert request.header.key_id == hashlib.sha256(public_key).hexdigest()
        assert not keys.parameters.key_fault(len(public_key), request.header.key_id, public_key)
        request.header.key_id = header.key_id
    assert request.header == header
    parameters = Parameters.of(offer.parameters)
    plaintexts = offers.plaintexts(offer, expected["cells"])
    for plaintext, ciphertext in zip(plaintexts, request.ciphertexts, strict=True):
        assert items.noise_digest(parameters, keys.secret, plaintext, ciphertext)  # of noise up to 21
    reply = prediction_pb2.PredictResponse.FromString((folder / f"{item.name}.reply").read_bytes())
    pairs = list(reply.scores.scores)
    integers = items.decrypted(model, offer, keys.secret, len(expected["rows"]), pairs)
    assert [list(map(str, row)) for row in integers] == expected["integers"]
    assert are_close([[each / offer.score_scale for each in row] for row in integers], expected["scores"], 1e-15)


def test_typescript_accepts_what_each_encrypts(scored: dict[str, Path]) -> None:
    printed = node.run(["tests/cross/check.ts", *map(str, scored.values())])
    assert len(printed.splitlines()) == len(scored) * len(ITEMS)


def test_go_accepts_what_each_encrypts(scored: dict[str, Path]) -> None:
    run_go("TestCrossCheck", SEALSERVE_CROSS_FROM=":".join(map(str, scored.values())))


@pytest.mark.parametrize(("change", "refused"), DAMAGE.values(), ids=DAMAGE)
def test_typescript_refuses_what_is_damaged(
    scored: dict[str, Path], change: Change, refused: str, tmp_path: Path
) -> None:
    folder = damaged(scored["python"], change, tmp_path / "damaged")
    with pytest.raises(AssertionError, match=refused):
        node.run(["tests/cross/check.ts", str(folder)])


@pytest.mark.parametrize("change", [change for change, _ in DAMAGE.values()], ids=DAMAGE)
def test_go_refuses_what_is_damaged(scored: dict[str, Path], change: Change, tmp_path: Path) -> None:
    folder = damaged(scored["python"], change, tmp_path / "damaged")
    with pytest.raises(AssertionError, match="--- FAIL: TestCrossCheck"):
        run_go("TestCrossCheck", SEALSERVE_CROSS_FROM=str(folder))
