"""Private weights over real sockets: a client uses them without knowing.

Keys that are wrong, foreign or gone are refused.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import (
    CiphertextFault,
    InputMismatchError,
    KeyNotFoundError,
    MalformedCiphertextError,
    ParameterError,
    ParameterSetNotOfferedError,
    PermissionDeniedError,
    ServiceError,
    StaleConfigError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.key_record import KeyKind
from sealserve.secret_key import SecretKey
from sealserve_service.catalog.registry import ModelRegistry, ServedModel, prepare_model
from sealserve_service.engines.ei.slots import EiSlotsEngine
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.engines.offering import PrivateWeights, plan_layouts
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import load_model
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.plan import Plan
from tests.support import mnist
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.identities import ALL, IdentitiesFile
from tests.support.metrics import free_address, scraped
from tests.support.plans import plan_row
from tests.support.programs import serve
from tests.support.raw import Message, RawClient, Request, as_message, assert_error, assert_scores, chunk
from tests.support.registered_keys import Hours
from tests.support.serving import (
    HANG_SECONDS,
    LIMITS,
    SETTINGS,
    linear,
    registered_keys,
    running_server,
    served,
)

KIND = KeyKind.PUBLIC_ENCRYPTION_KEY
BITS = 40


@dataclass(frozen=True)
class Service:
    """A server of the digits model with private weights.

    Its clock stands still unless a test moves it.
    """

    address: str
    models: ModelRegistry
    keys: RegisteredKeys
    clock: Hours

    def client(self, layout: str = "auto", secret_key: SecretKey | None = None) -> Client:
        return Client(self.address, layout=layout, secret_key=secret_key, timeout_seconds=HANG_SECONDS)

    def registry(self) -> KeyRegistry:
        return KeyRegistry(self.address, timeout_seconds=HANG_SECONDS)

    def key_ids(self) -> list[str]:
        with self.registry() as registry:
            return [record.key_id for record in registry.list() if record.kind is KIND]

    def forget_all(self) -> None:
        with self.registry() as registry:
            for key_id in self.key_ids():
                registry.delete(key_id)


def private_digits(model: Digits, keys: RegisteredKeys) -> ModelRegistry:
    return ModelRegistry([served("digits", model.estimator, input_step=1 / 16, keys=keys, hiding_bits=BITS)])


@pytest.fixture
def service(digits_model: Digits) -> Iterator[Service]:
    clock = Hours()
    keys = registered_keys(MemoryKeyStore(64 << 20, clock=clock), clock=clock)
    models = private_digits(digits_model, keys)
    with running_server(models, keys=keys) as address:
        yield Service(address, models, keys, clock)


# Without the user doing anything


@pytest.mark.parametrize("layout", ["auto", "row", "column"])
def test_a_client_needs_to_know_nothing(service: Service, digits_model: Digits, layout: str) -> None:
    with service.client(layout) as client:
        np.testing.assert_array_equal(
            client.predict(digits_model.X[:40]), digits_model.estimator.predict(digits_model.X[:40])
        )
        assert np.abs(client.decision_function(digits_model.X) - digits_model.scores).max() < 0.05
        results = dict(client.stream(digits_model.X[:30], method="decision_function", rows_per_item=7))
        assert np.abs(np.stack([results[row] for row in range(30)]) - digits_model.scores[:30]).max() < 0.05
        assert all(offer.private_weights for offer in client.model.offers)
    assert len(service.key_ids()) == 1  # both layouts' sets are of one ring


def test_what_the_first_call_costs_beside_the_others_is_published(service: Service, digits_model: Digits) -> None:
    with service.client("row") as client, service.registry() as registry:
        client.predict(digits_model.X[:1])
        (record,) = registry.list()
        offer = client.model.offers[0]
        assert offer.required_key is KIND
        assert record.byte_count == offer.cost.key_bytes == len(client.secret_key.public_encryption_key)
        assert record.parameter_set == offer.parameters.parameter_set.name


def test_a_saved_key_is_registered_under_one_id(service: Service, digits_model: Digits, tmp_path: Path) -> None:
    with service.client("row") as client:
        client.predict(digits_model.X[:1])
        client.secret_key.save(tmp_path / "key")
    with service.client("row", SecretKey.load(tmp_path / "key")) as client:
        client.predict(digits_model.X[:1])
    assert len(service.key_ids()) == 1


@pytest.mark.parametrize("layout", ["row", "column"])
def test_a_key_that_is_gone_is_registered_again(service: Service, digits_model: Digits, layout: str) -> None:
    with service.client(layout) as client:
        client.predict(digits_model.X[:1])
        before = service.key_ids()
        service.forget_all()
        assert np.abs(client.decision_function(digits_model.X[:3]) - digits_model.scores[:3]).max() < 0.05
        service.clock.now += timedelta(days=1)
        assert np.abs(client.decision_function(digits_model.X[:3]) - digits_model.scores[:3]).max() < 0.05
        assert service.key_ids() == before


def test_a_key_that_goes_in_the_middle_of_a_stream_costs_no_row(service: Service, digits_model: Digits) -> None:
    def rows() -> Iterator[NDArray[np.float64]]:
        for index, row in enumerate(digits_model.X[:120]):
            if index in (30, 31, 90):
                service.forget_all()
            yield row

    with service.client("row") as client:
        results = dict(client.stream(rows(), method="decision_function"))
    assert sorted(results) == list(range(120))
    assert np.abs(np.stack([results[row] for row in range(120)]) - digits_model.scores[:120]).max() < 0.05


def test_the_client_for_asyncio_needs_to_know_as_little(service: Service, digits_model: Digits) -> None:
    X, expected = digits_model.X[:40], digits_model.scores[:40]

    async def score() -> list[NDArray[np.float64]]:
        found = []
        async with AsyncClient(service.address, layout="row", timeout_seconds=HANG_SECONDS) as client:
            found.append(
                np.concatenate(await asyncio.gather(*(client.decision_function(X[[row]]) for row in range(40))))
            )
            assert len(service.key_ids()) == 1
            service.forget_all()
            found.append(await client.decision_function(X))
            service.forget_all()
            results = {index: result async for index, result in client.stream(X, method="decision_function")}
            found.append(np.stack([results[row] for row in range(40)]))
            return found

    for scores in asyncio.run(score()):
        assert np.abs(scores - expected).max() < 0.05
    assert len(service.key_ids()) == 1


def test_a_service_that_never_finds_the_key_is_asked_a_few_times_only(service: Service, digits_model: Digits) -> None:
    asked = list[str]()

    def lost(tenant: str, key_id: str) -> Any:
        asked.append(key_id)
        raise KeyNotFoundError(key_id)

    service.keys._ready.get = lost  # type: ignore[method-assign]
    with service.client("row") as client:
        with pytest.raises(KeyNotFoundError):
            client.predict(digits_model.X[:1])
        assert 2 <= len(asked) <= 6
        asked.clear()
        ((_, error),) = list(client.stream(digits_model.X[:1]))
        assert isinstance(error, KeyNotFoundError)
        assert 2 <= len(asked) <= 6


def test_threads_share_a_client_and_its_key(service: Service, digits_model: Digits) -> None:
    found: list[NDArray[np.float64]] = []
    with service.client() as client:
        threads = [
            threading.Thread(target=lambda: found.append(client.decision_function(digits_model.X[:20])))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 6
    assert all(np.abs(scores - digits_model.scores[:20]).max() < 0.05 for scores in found)
    assert len(service.key_ids()) == 1


def test_who_may_register_no_keys_is_told_so(digits_model: Digits, tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", clinic='models = ["*"]', lab=ALL)
    keys = registered_keys()
    settings = SETTINGS.with_changes(identities=file.path)
    tokens = {tenant: Credentials(token=file.token(tenant)) for tenant in ("clinic", "lab")}
    with running_server(private_digits(digits_model, keys), settings, keys) as address:
        with Client(address, credentials=tokens["clinic"], timeout_seconds=HANG_SECONDS) as clinic:
            with pytest.raises(PermissionDeniedError) as caught:
                clinic.predict(digits_model.X[:1])
            assert_error(caught.value, PermissionDeniedError("register_keys"))
        with Client(address, credentials=tokens["lab"], timeout_seconds=HANG_SECONDS) as lab:
            assert len(lab.predict(digits_model.X[:1])) == 1


def test_a_tenant_from_whom_private_columns_are_withdrawn(digits_model: Digits, tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", lab=ALL, guest=f"{ALL}\nprivate_columns = false")
    keys = registered_keys()
    lab, guest = (Credentials(token=file.token(tenant)) for tenant in ("lab", "guest"))
    with running_server(
        private_digits(digits_model, keys), SETTINGS.with_changes(identities=file.path), keys
    ) as address:
        with Client(address, credentials=guest, timeout_seconds=HANG_SECONDS) as client:
            assert [offer.layout.name for offer in client.model.offers] == ["row"]
            assert len(client.predict(digits_model.X[:40])) == 40
            assert [[offer.layout.name for offer in model.offers] for model in client.models()] == [["row"]]
        with (
            Client(address, credentials=guest, layout="column", timeout_seconds=HANG_SECONDS) as client,
            pytest.raises(ParameterError, match="not offered as column"),
        ):
            client.predict(digits_model.X[:2])
        with (
            RawClient(address, credentials=lab, layout=LAYOUTS["column"]) as trusted,
            RawClient(address, credentials=guest) as stranger,
        ):
            assert [offer.layout.name for offer in trusted.codec.model.offers] == ["row", "column"]
            # Its own configuration has no such offer, and that of others is not its own.
            request, (_, offer) = stranger.request(digits_model.X[:1]), trusted.codec.model.offers
            name = offer.parameters.parameter_set.name
            asked = trusted.codec.encrypt(trusted.codec.quantize(digits_model.X[:1]).integers).header_message
            asked = type(asked).FromString(asked.SerializeToString())
            current = request.header.config_id
            assert_refused(stranger, Request(header=asked), StaleConfigError(current))
            asked.config_id = current
            assert_refused(stranger, Request(header=asked), ParameterSetNotOfferedError("column", name))


def test_private_columns_are_withdrawn_while_the_service_runs(digits_model: Digits, tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", lab=ALL)
    keys = registered_keys()
    lab = Credentials(token=file.token("lab"))
    with (
        running_server(
            private_digits(digits_model, keys), SETTINGS.with_changes(identities=file.path), keys
        ) as address,
        Client(address, credentials=lab, timeout_seconds=HANG_SECONDS) as client,
    ):

        def offered() -> list[str]:
            return [offer.layout.name for offer in client.model.offers]

        assert offered() == ["row", "column"]
        file.path.write_text(file.path.read_text().replace("[tenants.lab]", "[tenants.lab]\nprivate_columns = false"))
        end = time.monotonic() + HANG_SECONDS
        while "column" in offered():
            assert time.monotonic() < end, "columns are still offered"
            assert len(client.predict(digits_model.X[:5])) == 5  # it gets the model again by itself
        assert offered() == ["row"]


def test_encrypted_inference_clients_are_served_as_before(ei_user: EIUser, digits_model: Digits) -> None:
    """Their layout has no private weights in either mode, and says so."""
    keys = registered_keys()
    model = linear(digits_model.estimator.coef_, digits_model.estimator.intercept_)
    grid = served("digits", model, input_step=1 / 16).model.grid
    mixed = prepare_model(
        "digits",
        model,
        grid,
        LIMITS,
        ei_engine=lambda model, grid: EiSlotsEngine(model.weights, model.intercept, grid, keys.galois_keys),
        private=PrivateWeights(BITS, keys.zero_encryptor),
        accept_disagreement=True,
    )
    assert [offer.private_weights for offer in mixed.model.offers] == [True, True, False]
    assert mixed.model.offers[2].layout is LAYOUTS["ei-slots"]
    assert mixed.model.offers[2].required_key is KeyKind.EVALUATION_KEYS
    assert mixed.model.offers[2].cost.key_bytes == pytest.approx(len(ei_user.evaluation_keys), rel=0.02)


# Keys that are not there, or not the right ones


@pytest.fixture
def raw(service: Service) -> Iterator[RawClient]:
    """A client of the private model whose key is not registered yet."""
    with RawClient(service.address) as raw:
        yield raw


def register(service: Service, raw: RawClient, ttl_seconds: float | None = None) -> str:
    """Register its key."""
    name = raw.codec.offer.parameters.parameter_set.name
    with service.registry() as registry:
        record = registry.register(raw.codec.public_key, kind=KIND, parameter_set=name, ttl_seconds=ttl_seconds)
    return record.key_id


def with_key(request: Request, key_id: str) -> Request:
    changed = Request()
    changed.CopyFrom(request)
    changed.header.key_id = key_id
    return changed


def assert_refused(raw: RawClient, request: Request, expected: ServiceError) -> None:
    """Check an item's error, alone and in a stream, where the others are not disturbed."""
    with pytest.raises(ServiceError) as caught:
        raw.predict(request)
    assert_error(caught.value, expected)
    assert_error(raw.stream([as_message(1, request)])[1], expected)


def test_a_key_that_is_none_of_ours(service: Service, raw: RawClient, digits_model: Digits, ei_user: EIUser) -> None:
    good = raw.request(digits_model.X[:1])
    ours = good.header.key_id
    assert_refused(raw, good, KeyNotFoundError(ours))
    assert register(service, raw) == ours
    larger = SecretKey.generate(LAYOUTS["row"].private_parameter_sets[1])
    with service.registry() as registry:
        of_other_kind = registry.register(ei_user.evaluation_keys).key_id
        of_other_ring = registry.register(
            larger.public_encryption_key, kind=KIND, parameter_set=LAYOUTS["row"].private_parameter_sets[1].name
        ).key_id
    for key_id in ("0" * 64, of_other_kind, of_other_ring, "../" + ours, ours.upper(), "\N{SNOWMAN}", ours[:-1]):
        assert_refused(raw, with_key(good, key_id), KeyNotFoundError(key_id))
    assert_refused(raw, with_key(good, "x" * 5000), KeyNotFoundError("x" * 100))
    assert_refused(raw, with_key(good, ""), InputMismatchError("key_id", 64, 0))
    assert_scores(raw.predict(good)[0], digits_model.scores[0])


def test_another_tenants_key_is_not_found(digits_model: Digits, tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", alice=ALL, bob=ALL)
    alices, bobs = (Credentials(token=file.token(tenant)) for tenant in ("alice", "bob"))
    keys = registered_keys()
    settings = SETTINGS.with_changes(identities=file.path)
    with (
        running_server(private_digits(digits_model, keys), settings, keys) as address,
        RawClient(address, credentials=alices) as alice,
        RawClient(address, credentials=bobs) as bob,
        KeyRegistry(address, credentials=alices, timeout_seconds=HANG_SECONDS) as registry,
    ):
        name = alice.codec.offer.parameters.parameter_set.name
        record = registry.register(alice.codec.public_key, kind=KIND, parameter_set=name)
        request = alice.request(digits_model.X[:1])
        assert_scores(alice.predict(request)[0], digits_model.scores[0])
        assert_refused(bob, request, KeyNotFoundError(record.key_id))
        assert_refused(bob, with_key(bob.request(digits_model.X[:1]), record.key_id), KeyNotFoundError(record.key_id))


def test_a_model_with_open_weights_takes_no_key(digits_model: Digits) -> None:
    keys = registered_keys()
    registry = ModelRegistry([served("digits", digits_model.estimator, input_step=1 / 16)])
    with running_server(registry, keys=keys) as address, RawClient(address) as raw:
        request = with_key(raw.request(digits_model.X[:1]), "0" * 64)
        assert_refused(raw, request, InputMismatchError("key_id", 0, 64))


def test_a_key_that_expires_in_the_middle_of_a_stream_fails_its_items_only(
    service: Service, raw: RawClient, digits_model: Digits
) -> None:
    register(service, raw, ttl_seconds=60.0)
    X = digits_model.X
    with raw.conversation() as stream, RawClient(service.address) as other:
        register(service, other)
        stream.send(raw.item(1, X[0]))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])
        begun = raw.item(2, X[1])
        stream.send(Message(item_id=2, header=begun.header))
        stream.send(raw.item(3, X[3]))  # answered once item 2 has begun
        assert_scores(next(stream.answers)[1], digits_model.scores[3])
        service.clock.now += timedelta(seconds=61)
        late = raw.item(4, X[2])
        stream.send(late)
        item_id, error = next(stream.answers)
        assert item_id == 4
        assert_error(error, KeyNotFoundError(late.header.key_id))
        stream.send(Message(item_id=2, chunk=chunk(0, *begun.chunk.ciphertexts)))  # its key was there as it began
        item_id, scores = next(stream.answers)
        assert item_id == 2
        assert_scores(scores, digits_model.scores[1])
        register(service, raw)
        stream.send(raw.item(5, X[2]))
        assert_scores(next(stream.answers)[1], digits_model.scores[2])
        assert_scores(other.predict(other.request(X[4]))[0], digits_model.scores[4])


def test_a_reload_leaves_keys_alone_and_items_their_engine(
    service: Service, raw: RawClient, digits_model: Digits
) -> None:
    """The new model has another t: its items go to the new engine, under the same key.

    The old model's items finish.
    """
    register(service, raw)
    begun = raw.item(1, digits_model.X[0])
    with service.client("row") as client, raw.conversation() as stream:
        assert np.abs(client.decision_function(digits_model.X[:1]) - digits_model.scores[:1]).max() < 0.01
        stream.send(Message(item_id=1, header=begun.header))
        stream.send(raw.item(2, digits_model.X[1]))
        assert next(stream.answers)[0] == 2
        old, registered = client.model, service.key_ids()
        doubled = linear(2 * digits_model.estimator.coef_, 100 * digits_model.estimator.intercept_)
        service.models.put(served("digits", doubled, input_step=1 / 4, keys=service.keys, hiding_bits=BITS))
        stream.send(Message(item_id=1, chunk=chunk(0, *begun.chunk.ciphertexts)))
        assert_scores(next(stream.answers)[1], digits_model.scores[0])
        stale = raw.item(3, digits_model.X[0])
        stream.send(stale)
        assert isinstance(next(stream.answers)[1], StaleConfigError)
        rows = np.round(digits_model.X[:3] * 4) / 4
        scores = client.predict(rows)
        ranges = input_ranges(doubled, input_range=(0.0, 1.0), input_step=1 / 4)
        plan = plan_row(doubled.weights, doubled.intercept, ranges, hiding_bits=BITS)
        assert plan.parameters == client.model.offers[0].parameters
        assert np.abs(scores - doubled.decision(rows)).max() <= plan.score_error_bound
        assert client.model.offers[0].parameters != old.offers[0].parameters
        assert service.key_ids() == registered


BAD_CIPHERTEXTS: dict[str, tuple[CiphertextFault, Callable[[bytes], bytes]]] = {
    "truncated": (CiphertextFault.LENGTH, lambda data: data[:-1]),
    "a public key": (
        CiphertextFault.LENGTH,
        lambda _: SecretKey.generate(LAYOUTS["row"].private_parameter_sets[0]).public_encryption_key,
    ),
    "at its prime": (CiphertextFault.COEFFICIENT, lambda data: data[:-8] + b"\xff" * 8),
    "without a second polynomial": (CiphertextFault.TRANSPARENT, lambda data: data[:-65536] + bytes(65536)),
}


@pytest.mark.parametrize("name", BAD_CIPHERTEXTS)
def test_bad_ciphertexts_are_refused_as_in_mode_open(
    service: Service, raw: RawClient, digits_model: Digits, name: str
) -> None:
    reason, spoil = BAD_CIPHERTEXTS[name]
    register(service, raw)
    request = raw.request(digits_model.X[:1])
    bad = Request(header=request.header, ciphertexts=[spoil(request.ciphertexts[0])])
    assert_refused(raw, bad, MalformedCiphertextError(reason))
    assert_scores(raw.predict(request)[0], digits_model.scores[0])


# Long


@pytest.mark.slow
@pytest.mark.parametrize("times", [90, pytest.param(990, marks=pytest.mark.long)], ids=["10,000", "100,000"])
def test_memory_and_descriptors_are_flat_over_calls_by_a_hundred_keys(
    digits_model: Digits, tmp_path: Path, times: int
) -> None:
    """The cache has room for twenty keys.

    Every call by another client finds its own key gone, and loads it again. The service is measured
    alone, in a process of its own: in this one, other tests' connections close and their memory is
    freed at any time.
    """
    parameter_set, estimator = LAYOUTS["row"].private_parameter_sets[0], digits_model.estimator
    key_bytes = ZeroEncryptor.under_a_random_key(parameter_set).byte_count
    model, metrics = tmp_path / "digits.npz", free_address()
    np.savez(model, coef=estimator.coef_, intercept=estimator.intercept_, classes=estimator.classes_)
    options = (
        "--input-range=0,1",
        "--input-step=0.0625",
        "--weights=private",
        "--processes=1",
        "--accept-disagreement",
    )
    sizes = f"--key-cache-bytes={20 * key_bytes}", f"--metrics-address={metrics}"
    with (
        serve(f"--model={model}", *options, *sizes) as program,
        RawClient(program.address) as raw,
        KeyRegistry(program.address, timeout_seconds=HANG_SECONDS) as registry,
    ):
        assert raw.codec.offer.parameters.parameter_set == parameter_set
        process = psutil.Process(program.process.pid)
        # It is asked with one ciphertext, and nobody decrypts its answers.
        request = raw.request(digits_model.X[:1])
        publics = [SecretKey.generate(parameter_set).public_encryption_key for _ in range(100)]
        ids = [registry.register(data, kind=KIND, parameter_set=parameter_set.name).key_id for data in publics]
        requests = [with_key(request, key_id) for key_id in ids]
        reply_bytes = raw.codec.offer.cost.reply_bytes

        def ask_all(times: int) -> tuple[int, int]:
            for _ in range(times):
                for each in requests:
                    reply = raw.predictions.Predict(each, timeout=HANG_SECONDS)
                    assert 0 < reply.ByteSize() < reply_bytes
            return process.memory_info().rss, process.num_fds()

        # Within 20,000 calls the heap and the threads' stacks reach their size.
        resident, descriptors = ask_all(max(10, times // 5))
        last_resident, last_descriptors = ask_all(times)
        assert scraped(f"http://{metrics}/metrics")("key_cache_bytes") == 20 * key_bytes
    assert last_descriptors == descriptors
    assert last_resident - resident < 10 * key_bytes  # 9,000 keys that stayed would be 1.8 GB


def served_mnist(max_score_error: float | None, keys: RegisteredKeys) -> tuple[ServedModel, LinearModel]:
    path = mnist.find(mnist.MODEL)
    if path is None:
        pytest.skip("the MNIST model is not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    model = load_model(path, trust_pickle=True)
    private = PrivateWeights(BITS, keys.zero_encryptor)
    grid = input_ranges(model, input_range=(0.0, 1.0))
    return prepare_model("mnist", model, grid, LIMITS, max_score_error=max_score_error, private=private), model


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["row", "column"])
@pytest.mark.parametrize(
    ("max_score_error", "row_set", "labels"), [(None, "row-4096-92", 9_995), (0.01, "row-8192-120", 10_000)]
)
def test_ten_thousand_images(max_score_error: float | None, row_set: str, labels: int, layout: str) -> None:
    """Decrypted integers are those of plaintext integer arithmetic.

    Enough labels are the plaintext model's.
    """
    images, keys = mnist.images(), registered_keys()
    if images is None:
        pytest.skip("the test images are not at hand: `make data`, or SEALSERVE_DATA=DIRECTORY")
    describe_model, model = served_mnist(max_score_error, keys)
    ranges = input_ranges(model, input_range=(0.0, 1.0))
    layouts = plan_layouts(model, ranges, modes=[BITS], max_score_error=max_score_error)
    plan = next(planned.chosen for planned in layouts if planned.engine_type.rules.layout.name == layout)
    assert isinstance(plan, Plan)
    if layout == "row":
        assert plan.parameters.parameter_set.name == row_set
    with (
        running_server(ModelRegistry([describe_model]), keys=keys) as address,
        Client(address, layout=layout, timeout_seconds=300.0) as client,
    ):
        scores = client.decision_function(images)
    np.testing.assert_array_equal(scores, plan.model.scores(describe_model.model.grid.quantize(images).integers))
    expected = model.decision(images)
    assert np.abs(scores - expected).max() <= plan.score_error_bound + plan.input_rounding_error_bound
    equal = int((model.output.predict(scores) == model.output.predict(expected)).sum())
    print(f"{layout}, {plan.parameters.parameter_set.name}: {equal:,} of {len(images):,} labels")
    assert equal >= labels
