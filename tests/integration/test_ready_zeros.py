"""Ready zeros in a service: whose they are, when they come and go, and that scores stay right."""

import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import KeyNotFoundError, MalformedCiphertextError
from sealserve.he.layouts import LAYOUTS
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.key_record import KeyKind
from sealserve.secret_key import SecretKey
from sealserve_service.app import service
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.engines.linear.rerandomizer import Rerandomizer
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.memory import MemoryKeyStore
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.raw import RawClient, Request
from tests.support.registered_keys import Hours
from tests.support.serving import HANG_SECONDS, SETTINGS, registered_keys, running_server, served
from tests.support.waiting import wait_until

KIND = KeyKind.PUBLIC_ENCRYPTION_KEY
READY, OF_A_TENANT = 16, 4
PARAMETER_SET = LAYOUTS["row"].private_parameter_sets[0]  # of the digits model


@dataclass(frozen=True)
class Service:
    """A server of the digits model with private weights.

    The clock of its keys stands still unless a test moves it.
    """

    keys: RegisteredKeys
    address: str
    clock: Hours = field(default_factory=Hours)

    def encryptor(self, key_id: str, tenant: str = "anonymous") -> ZeroEncryptor:
        """The encryptor of a key, without using it."""
        found = self.keys._ready.get(tenant, key_id)
        assert isinstance(found, ZeroEncryptor)
        return found

    def wait_until_ready(self, key_id: str, tenant: str = "anonymous") -> None:
        """Wait until a key has as many zeros as a tenant may have."""
        wait_until(lambda: len(self.encryptor(key_id, tenant).ready) == OF_A_TENANT)


@pytest.fixture
def running(digits_model: Digits) -> Iterator[Service]:
    clock = Hours()
    keys = registered_keys(MemoryKeyStore(64 << 20, clock=clock), ready_zeros=READY, clock=clock)
    with running_server(private_digits(digits_model, keys), keys=keys) as address:
        yield Service(keys, address, clock)


def private_digits(model: Digits, keys: RegisteredKeys) -> ModelRegistry:
    return ModelRegistry([served("digits", model.estimator, input_step=1 / 16, keys=keys, hiding_bits=40)])


def asked(service: Service, model: Digits, key: SecretKey, credentials: Credentials | None = None) -> str:
    """Have two rows scored under a key; return its id."""
    with Client(
        service.address, layout="row", secret_key=key, credentials=credentials, timeout_seconds=HANG_SECONDS
    ) as client:
        np.testing.assert_array_equal(
            [client.predict(row)[0] for row in model.X[:2, None]], model.estimator.predict(model.X[:2])
        )
    with KeyRegistry(service.address, credentials=credentials, timeout_seconds=HANG_SECONDS) as registry:
        (record,) = (record for record in registry.list() if record.kind is KIND)
    return record.key_id


def test_a_key_has_zeros_from_its_second_use_on_and_scores_are_right(running: Service, digits_model: Digits) -> None:
    made_by = list[str]()

    class Watching:
        """SEAL's encryptor; says in which threads it is asked for a zero."""

        def __init__(self, real: Any) -> None:
            self._real = real

        def encrypt_zero(self) -> Any:
            made_by.append(threading.current_thread().name)
            return self._real.encrypt_zero()

    with Client(running.address, layout="row", timeout_seconds=HANG_SECONDS) as client:
        client.predict(digits_model.X[:1])
        with KeyRegistry(running.address, timeout_seconds=HANG_SECONDS) as registry:
            (record,) = registry.list()
        encryptor = running.encryptor(record.key_id)
        assert not encryptor.is_supplied
        client.predict(digits_model.X[:1])
        running.wait_until_ready(record.key_id)
        encryptor._encryptor = Watching(encryptor._encryptor)
        for row in range(10):
            scores = client.decision_function(digits_model.X[row : row + 1])
            assert np.abs(scores[0] - digits_model.scores[row]).max() < 0.05
            running.wait_until_ready(record.key_id)
        assert set(made_by) == {"zeros"}, "no call has made one"
        assert len(made_by) == 10


def test_under_load_scores_are_right_and_no_zero_is_used_twice(
    running: Service, digits_model: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, encrypt = list[bytes](), ZeroEncryptor.encrypt

    def watched(encryptor: ZeroEncryptor) -> Any:
        used.append((zero := encrypt(encryptor)).tobytes())
        return zero

    monkeypatch.setattr(ZeroEncryptor, "encrypt", watched)
    rows = digits_model.X[:120]
    with Client(running.address, layout="row", timeout_seconds=HANG_SECONDS) as client:
        results = dict(client.stream(rows, method="decision_function", rows_per_item=1))
    assert np.abs(np.stack([results[row] for row in range(len(rows))]) - digits_model.scores[:120]).max() < 0.05
    assert len(set(used)) == len(used) >= len(rows)


def test_a_key_that_is_deleted_has_no_zeros(running: Service, digits_model: Digits) -> None:
    key_id = asked(running, digits_model, SecretKey.generate(PARAMETER_SET))
    running.wait_until_ready(key_id)
    values = [weakref.ref(zero.value) for zero in running.encryptor(key_id).ready]
    assert all(value() is not None for value in values)
    with KeyRegistry(running.address, timeout_seconds=HANG_SECONDS) as registry:
        registry.delete(key_id)
    wait_until(lambda: all(value() is None for value in values), 5.0)


@pytest.mark.parametrize("notices", ["a call", "the sweep"])
def test_a_key_that_has_expired_has_no_zeros(running: Service, digits_model: Digits, notices: str) -> None:
    key = SecretKey.generate(PARAMETER_SET)
    key_id = asked(running, digits_model, key)
    running.wait_until_ready(key_id)
    values = [weakref.ref(zero.value) for zero in running.encryptor(key_id).ready]
    running.clock.now += timedelta(days=2)
    if notices == "a call":
        with pytest.raises(KeyNotFoundError):
            running.keys.zero_encryptor("anonymous", key_id, PARAMETER_SET)
    else:
        running.keys.sweep()
    wait_until(lambda: all(value() is None for value in values), 5.0)


def test_a_key_that_makes_room_for_others_has_no_zeros(digits_model: Digits) -> None:
    key = SecretKey.generate(PARAMETER_SET)
    one = ZeroEncryptor.under_a_random_key(PARAMETER_SET).byte_count
    keys = registered_keys(ready_zeros=READY, cache_bytes=one)
    with running_server(private_digits(digits_model, keys), keys=keys) as address:
        running = Service(keys, address)
        key_id = asked(running, digits_model, key)
        running.wait_until_ready(key_id)
        values = [weakref.ref(zero.value) for zero in running.encryptor(key_id).ready]
        with Client(running.address, layout="row", timeout_seconds=HANG_SECONDS) as another:
            another.predict(digits_model.X[:1])
        wait_until(lambda: all(value() is None for value in values), 5.0)


def test_a_key_that_two_tenants_have_has_zeros_for_each(digits_model: Digits, tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", alice=ALL, bob=ALL)
    keys, key = registered_keys(ready_zeros=READY), SecretKey.generate(PARAMETER_SET)
    tokens = {tenant: Credentials(token=file.token(tenant)) for tenant in ("alice", "bob")}
    settings = SETTINGS.with_changes(identities=file.path)
    with running_server(private_digits(digits_model, keys), settings, keys) as address:
        running = Service(keys, address)
        (key_id,) = {asked(running, digits_model, key, credentials) for credentials in tokens.values()}
        for tenant in tokens:
            running.wait_until_ready(key_id, tenant)
        zeros = [zero.value.tobytes() for tenant in tokens for zero in running.encryptor(key_id, tenant).ready]
    assert len(set(zeros)) == 2 * OF_A_TENANT


def test_what_fails_takes_its_zeros_with_it(
    running: Service, digits_model: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = SecretKey.generate(PARAMETER_SET)
    key_id = asked(running, digits_model, key)
    running.wait_until_ready(key_id)
    encryptor = running.encryptor(key_id)
    before = [zero.value.tobytes() for zero in encryptor.ready]
    rerandomize = Rerandomizer.rerandomize

    def fail(*arguments: Any) -> NoReturn:
        rerandomize(*arguments)
        raise MemoryError

    with RawClient(running.address) as raw:
        good = raw.request(digits_model.X[:1])
        good.header.key_id = key_id
        bad = Request(header=good.header, ciphertexts=[bytes(100)])
        with pytest.raises(MalformedCiphertextError):
            raw.predict(bad)
        assert [zero.value.tobytes() for zero in encryptor.ready] == before, "it came to no reply"
        with monkeypatch.context() as faulty:
            faulty.setattr(Rerandomizer, "rerandomize", fail)
            with pytest.raises(Exception, match=r"memory|server_bytes"):
                raw.predict(good)
        running.wait_until_ready(key_id)
        after = [zero.value.tobytes() for zero in encryptor.ready]
        assert before[0] not in after, "used for a reply that nobody has got, and gone"
        assert before[1:] == after[:-1]
    assert Rerandomizer.rerandomize is rerandomize


@pytest.mark.parametrize("weights", ["private", "open"])
@pytest.mark.parametrize("ready_zeros", [0, 8])
def test_the_operator_says_how_many(digits_model: Digits, tmp_path: Path, ready_zeros: int, weights: str) -> None:
    estimator, path = digits_model.estimator, tmp_path / "digits.npz"
    np.savez(path, coef=estimator.coef_, intercept=estimator.intercept_, classes=estimator.classes_)
    settings = SETTINGS.with_changes(
        model=[str(path)], input_range=["0,1"], accept_disagreement=True, weights=weights, ready_zeros=ready_zeros
    )
    before = {thread.name for thread in threading.enumerate()}
    assert "zeros" not in before
    with service(settings) as (server, _):
        port = server.start()
        try:
            makes = [thread.name for thread in threading.enumerate()].count("zeros")
            assert makes == (1 if ready_zeros and weights == "private" else 0)
            with Client(f"127.0.0.1:{port}", layout="row", timeout_seconds=HANG_SECONDS) as client:
                for _ in range(3):
                    client.predict(digits_model.X[:1])

            def ready_bytes() -> float:
                return server.telemetry.registry.get_sample_value("sealserve_ready_zero_bytes") or 0.0

            if makes:
                wait_until(lambda: ready_bytes() == 2 * 2 * 2 * 4096 * 8)
            else:
                assert ready_bytes() == 0
        finally:
            server.stop()
    wait_until(lambda: "zeros" not in {thread.name for thread in threading.enumerate()})
