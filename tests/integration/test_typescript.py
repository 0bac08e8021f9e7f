"""The TypeScript SDK: the vectors in Node, and its live tests against services of this process."""

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from sealserve.protocol.pin import Pin
from sealserve.v1 import errors_pb2, model_pb2, prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.models.loading import load_model
from tests.support import mnist, node
from tests.support.digits import Digits
from tests.support.hostile_service import abort, description, running_hostile
from tests.support.pages import blocks_of
from tests.support.serving import ROOT, linear, registered_keys, running_server, served
from tests.support.step_models import ROWS, expected_scores, served_with_steps
from tests.support.typescript_cases import HIDING_BITS, case
from tests.vectors.check import items, offers
from tests.vectors.check.rings import Keys
from tests.vectors.check.seal_objects import Parameters

ROW_COUNT = 1000


@pytest.fixture(autouse=True)
def _needs_node() -> None:
    node.require()


def test_vectors() -> None:
    assert "fail 0" in node.run_tests("tests/vectors/*.test.ts")


@pytest.mark.parametrize("name", ["bundle", "memory", "platform", pytest.param("surface", marks=pytest.mark.slow)])
def test_the_package(name: str) -> None:
    """Bundles, memory that is freed, platforms that lack something, and the public types."""
    assert "fail 0" in node.run_tests(f"tests/package/{name}.test.ts")


ITEMS = sorted((ROOT / "tests/vectors/items").iterdir())


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of what the SDK encrypts of the rows of all items."""
    node.require()
    folder = tmp_path_factory.mktemp("encrypted")
    node.run(["tests/cross/encrypt.ts", str(folder)])
    return folder


@pytest.mark.parametrize("folder", ITEMS, ids=lambda folder: folder.name)
def test_what_it_encrypts_is_accepted_by_integers_alone(encrypted: Path, folder: Path) -> None:
    """The checker of the vectors has no SEAL, and nothing of the SDKs."""
    request = prediction_pb2.PredictRequest.FromString((encrypted / f"{folder.name}.binpb").read_bytes())
    header, _ = items.requested(folder)
    model = items.described(folder)
    offer = items.offered(model, header)
    expected = json.loads((folder / "expected.json").read_text())
    keys = Keys.read(folder.parents[1] / "rings" / expected["ring"])
    assert (header.key_id == "") == (request.header.key_id == "")
    if request.header.key_id:
        public_key = (encrypted / f"{folder.name}.key").read_bytes()
        assert not keys.parameters.key_fault(len(public_key), request.header.key_id, public_key)
        request.header.key_id = header.key_id
    assert request.header == header
    parameters = Parameters.of(offer.parameters)
    plaintexts = offers.plaintexts(offer, expected["cells"])
    for plaintext, ciphertext in zip(plaintexts, request.ciphertexts, strict=True):
        assert items.noise_digest(parameters, keys.secret, plaintext, ciphertext)  # of noise up to 21


def test_labels_of_digits_are_those_of_scikit_learn(digits_model: Digits, tmp_path: Path) -> None:
    rows = np.resize(digits_model.X, (ROW_COUNT, digits_model.X.shape[1]))
    keys = registered_keys()
    models = [
        served("digits", digits_model.estimator, input_step=1 / 16),
        served("digits-private", digits_model.estimator, input_step=1 / 16, keys=keys, hiding_bits=HIDING_BITS),
    ]
    with running_server(ModelRegistry(models), keys=keys) as address:
        cases = [case(each.model.name, tmp_path, rows, digits_model.estimator) for each in models]
        node.run_live_tests("predictions", tmp_path, {"address": address, "cases": cases})


@pytest.mark.slow
def test_labels_of_mnist_are_those_of_scikit_learn(tmp_path: Path) -> None:
    path, images = mnist.find(mnist.MODEL), mnist.images()
    if path is None or images is None:
        pytest.skip("the MNIST model or its test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pickled by scikit-learn 0.22
        estimator = joblib.load(path)
    model, keys = load_model(path, trust_pickle=True), registered_keys()
    models = [served("mnist", model), served("mnist-private", model, keys=keys, hiding_bits=HIDING_BITS)]
    with running_server(ModelRegistry(models), keys=keys) as address:
        cases = [case(each.model.name, tmp_path, images[:ROW_COUNT], estimator) for each in models]
        node.run_live_tests("predictions", tmp_path, {"address": address, "cases": cases})


@pytest.mark.parametrize(
    "count", [pytest.param(1000, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.long)]
)
def test_memory_is_flat_over_many_predictions(digits_model: Digits, tmp_path: Path, count: int) -> None:
    keys = registered_keys()
    models = [
        served("digits", digits_model.estimator, input_step=1 / 16),
        served("digits-private", digits_model.estimator, input_step=1 / 16, keys=keys, hiding_bits=HIDING_BITS),
    ]
    with running_server(ModelRegistry(models), keys=keys) as address:
        content = {
            "address": address,
            "models": [each.model.name for each in models],
            "digit": digits_model.X[0].tolist(),
            "digitLabel": int(digits_model.estimator.predict(digits_model.X[:1])[0]),
            "count": count,
        }
        node.run_live_tests("memory", tmp_path, content)


def test_the_life_of_a_client(digits_model: Digits, tmp_path: Path) -> None:
    store = MemoryKeyStore(64 << 20)
    keys = registered_keys(store)
    old, new = (
        served("changing", linear([weights]), keys=keys, hiding_bits=HIDING_BITS)
        for weights in ((1.0, -1.0), (3.0, 1.0))
    )
    registry = ModelRegistry([served("digits", digits_model.estimator, input_step=1 / 16), old, served_with_steps()])
    table = [dict(zip(ROWS, values, strict=True)) for values in zip(*ROWS.values(), strict=True)]

    def forget_keys() -> None:
        for record in list(store.list("")):
            store.delete("", record.key_id)

    actions: dict[str, Callable[[], object]] = {"change": lambda: registry.put(new), "forget": forget_keys}
    with running_server(registry, keys=keys) as address, node.controls(actions) as control:
        content = {
            "address": address,
            "control": control,
            "digit": digits_model.X[0].tolist(),
            "digitLabel": int(digits_model.estimator.predict(digits_model.X[:1])[0]),
            "pin": Pin.of(served("digits", digits_model.estimator, input_step=1 / 16).model).digest,
            "stepsPin": Pin.of(served_with_steps().model).digest,
            "table": table,
            "tableScores": expected_scores().tolist(),
        }
        node.run_live_tests("life", tmp_path, content)


def test_the_examples_of_the_documentation(tmp_path: Path) -> None:
    """Both are those of the page, which the compiler checks; the one for Node is run."""
    page = blocks_of((ROOT / "docs/typescript.md").read_text())
    for name, block in zip(("node.ts", "browser.ts"), page, strict=True):
        example = (node.SDK / "examples" / name).read_text()
        assert block.text == example.replace("../src/index.ts", "sealserve")
    X, y = load_breast_cancer(return_X_y=True)
    model = served("tumors", LogisticRegression(max_iter=5000).fit(X, y), (0.0, 5000.0))
    program = node.SDK / "examples" / f".{tmp_path.name}.ts"
    with running_server(ModelRegistry([model])) as address:
        program.write_text((node.SDK / "examples/node.ts").read_text().replace("127.0.0.1:50051", address))
        try:
            printed = node.run([str(program)])
        finally:
            program.unlink()
    assert "Float64Array(2)" in printed


# What a hostile service does -> the kinds of failure that a client may report.
def _after(seconds: float, answer: Any) -> Callable[[Any, Any], Any]:
    def act(request: Any, context: Any) -> Any:
        time.sleep(seconds)
        return answer

    return act


def _reply(*pairs: prediction_pb2.EncryptedScores, first_index: int = 0) -> prediction_pb2.PredictResponse:
    group = prediction_pb2.ScoreGroup(first_index=first_index, scores=pairs)
    return prediction_pb2.PredictResponse(scores=group, done=prediction_pb2.ItemDone())


def _packed(c0: bytes, c1: bytes) -> prediction_pb2.EncryptedScores:
    return prediction_pb2.EncryptedScores(packed=prediction_pb2.PackedPair(c0=c0, c1=c1))


def _refusing(text: str, detail: errors_pb2.Error | None = None) -> Callable[[Any, Any], Any]:
    return lambda request, context: abort(context, text, detail)


def _described(**fields: Any) -> model_pb2.Model:
    return description(**fields)


def _changed(change: Callable[[model_pb2.Model], object]) -> model_pb2.Model:
    model = description()
    change(model)
    return model


def _insecure(model: model_pb2.Model) -> None:
    for offer in model.offers:
        offer.parameters.poly_modulus_degree = 1024


def _huge(model: model_pb2.Model) -> None:
    model.input.feature_count = 1 << 31


def _other_parms_id(model: model_pb2.Model) -> None:
    for offer in model.offers:
        offer.parameters.parms_id = bytes(32)


def hostile_services() -> Iterator[tuple[str, list[str], model_pb2.Model | None, dict[str, Any]]]:
    """A name, the kinds of failure, the description and the methods of each."""
    pair_bytes = description().offers[0].reply_bits
    N = description().offers[0].parameters.poly_modulus_degree
    zeros = _packed(bytes(-(-2 * pair_bytes.c0 // 8)), bytes(N * pair_bytes.c1 // 8))
    predict: Callable[..., dict[str, Any]] = lambda *pairs, **more: {"Predict": _after(0, _reply(*pairs, **more))}  # noqa: E731
    yield "no reply", ["reply"], None, predict()
    yield "an empty pair", ["reply"], None, predict(prediction_pb2.EncryptedScores())
    yield "too many pairs", ["reply"], None, predict(*[zeros] * 3)
    yield "a pair that begins elsewhere", ["reply"], None, predict(zeros, first_index=1)
    yield "a truncated pair", ["reply"], None, predict(_packed(b"\0", bytes(10)))
    yield "a pair that is too long", ["reply"], None, predict(_packed(b"\0", bytes(1 << 20)))
    yield "ones for zeros", ["reply"], None, predict(_packed(b"\xff" * len(zeros.packed.c0), zeros.packed.c1))
    yield "an aborted call", ["call"], None, {"Predict": _refusing("\x1b[2Jno\nway")}
    internal = errors_pb2.Error(internal=errors_pb2.Internal(request_id="\x1b[31m7"))
    yield "an internal error", ["internal"], None, {"Predict": _refusing("no", internal)}
    quota = errors_pb2.Error(quota_exceeded=errors_pb2.QuotaExceeded(quota="rows"))
    quota.quota_exceeded.retry_delay.seconds = 3600
    yield "a quota for an hour", ["quotaExceeded"], None, {"Predict": _refusing("no", quota)}
    stale = errors_pb2.Error(stale_config=errors_pb2.StaleConfig(current_config_id="another"))
    yield "always another configuration", ["staleConfig", "deadline"], None, {"Predict": _refusing("no", stale)}
    yield "silence", ["deadline"], None, {"Predict": _after(2, _reply())}
    yield "no predictions", ["call"], None, {}
    yield "an insecure set", ["parameter"], _changed(_insecure), {}
    yield "billions of features", ["parameter"], _changed(_huge), {}
    yield "another parms_id", ["parameter"], _changed(_other_parms_id), {}
    yield "an unknown capability", ["requirement"], _changed(lambda model: model.requires.append("magic")), {}
    yield "no offers", ["parameter"], _changed(lambda model: model.ClearField("offers")), {}
    yield "another name", ["parameter"], _described(name="other"), {}
    yield "a name with a line break", ["parameter"], _described(config_id="a\nb"), {}
    number = model_pb2.Column(kind=model_pb2.Column.KIND_NUMBER)
    steps = _changed(lambda model: model.input.columns.extend([number, number]))
    steps.input.steps_id, steps.input.steps_bytes = "0" * 64, 100
    piece = model_pb2.GetInputStepsResponse(piece=bytes(60))
    yield "steps without end", ["parameter"], steps, {"GetInputSteps": lambda *_: iter([piece] * 1000)}
    yield "steps cut off", ["parameter"], steps, {"GetInputSteps": lambda *_: iter([piece])}
    whole = model_pb2.GetInputStepsResponse(piece=bytes(100))
    yield "other steps", ["parameter"], steps, {"GetInputSteps": lambda *_: iter([whole])}


def test_hostile_services(tmp_path: Path) -> None:
    cases = []
    with ExitStack() as stack:
        for name, kinds, model, methods in hostile_services():
            _, address = stack.enter_context(running_hostile(model, **methods))
            cases.append({"name": name, "kinds": kinds, "address": address, "isDescribed": model is None})
        node.run_live_tests("hostile", tmp_path, {"cases": cases})


def test_the_tables_of_unicode_are_those_of_python() -> None:
    """Published steps mean the characters of Unicode 14.0, in every language."""
    import unicodedata

    from sealserve.steps import unicode_tables

    source = (node.SDK / "src/steps/unicode-tables.ts").read_text()

    def table(name: str) -> list[str]:
        return source.partition(f"const {name} = `")[2].partition("`")[0].split()

    assert table("WORD_CHARACTERS") == unicode_tables._WORD_CHARACTERS.split()
    assert table("UNASSIGNED_CHARACTERS") == unicode_tables._UNASSIGNED_CHARACTERS.split()
    ends = [part.partition("-") for part in table("COMBINING_CHARACTERS")]
    combining = {code for first, _, last in ends for code in range(int(first, 16), int(last or first, 16) + 1)}
    assigned = [code for code in range(0x110000) if not unicode_tables.UNASSIGNED.fullmatch(chr(code))]
    assert combining == {code for code in assigned if unicodedata.combining(chr(code))}
    assert json.dumps(sorted(combining)[:3]) == "[768, 769, 770]"
