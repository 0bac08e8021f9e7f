"""Public encryption keys over a real socket: registered, scoped, ready for use, bounded.

Bad ones leave no trace.
"""

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from multiprocessing import get_context

import grpc
import numpy as np
import psutil
import pytest

from sealserve.errors import (
    KeyFault,
    KeyNotFoundError,
    KeyStoreUnavailableError,
    LimitExceededError,
    MalformedKeyError,
    ParameterSetNotOfferedError,
    ServiceError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.public_key_format import public_key_bytes
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.key_record import KeyHeader, KeyKind, KeyRecord
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.ei_user import EIUser
from tests.support.raw import assert_error
from tests.support.registered_keys import Hours, record_of
from tests.support.seeded import unseeded_public_key
from tests.support.serving import HANG_SECONDS, registered_keys, running_server

PARAMETER_SET, LARGER = LAYOUTS["row"].private_parameter_sets[:2]
SAME_RING = ParameterSet("column-4096-92", PARAMETER_SET.poly_modulus_degree, PARAMETER_SET.primes)
KEY = SecretKey.generate(PARAMETER_SET)
DATA = KEY.public_encryption_key
KEY_ID = hashlib.sha256(DATA).hexdigest()
BYTES = public_key_bytes(PARAMETER_SET)
READY_BYTES = ZeroEncryptor(PARAMETER_SET, DATA).byte_count
UNSEEDED = unseeded_public_key(PARAMETER_SET, KEY.export(TOKEN))
KIND = KeyKind.PUBLIC_ENCRYPTION_KEY


@dataclass(frozen=True)
class Service:
    """A server with registered keys."""

    keys: RegisteredKeys
    registry: KeyRegistry

    def register(
        self, data: bytes = DATA, parameter_set: str = PARAMETER_SET.name, ttl_seconds: float | None = None
    ) -> KeyRecord:
        return self.registry.register(data, kind=KIND, parameter_set=parameter_set, ttl_seconds=ttl_seconds)


@pytest.fixture
def service() -> Iterator[Service]:
    keys = registered_keys(MemoryKeyStore(64 << 20))
    with (
        running_server(ModelRegistry([]), keys=keys) as address,
        KeyRegistry(address, timeout_seconds=HANG_SECONDS) as registry,
    ):
        yield Service(keys, registry)


def assert_encrypts_zero(encryptor: ZeroEncryptor, key: SecretKey, parameter_set: ParameterSet) -> None:
    """Check that what it encrypts is zero to the key's owner."""
    c0, c1 = encryptor.encrypt()
    everywhere = np.arange(parameter_set.poly_modulus_degree, dtype=np.intp)
    decryptor = Decryptor(key_parameters(parameter_set), key.export(TOKEN))
    assert not decryptor.decrypt(c0.tobytes(), c1.tobytes(), everywhere).any()
    assert c1.any()


@pytest.mark.parametrize(
    "parameter_set", LAYOUTS["row"].private_parameter_sets, ids=lambda parameter_set: parameter_set.name
)
def test_a_key_is_registered_and_encrypts_zero(service: Service, parameter_set: ParameterSet) -> None:
    key = SecretKey.generate(parameter_set)
    data = key.public_encryption_key
    record = service.register(data, parameter_set.name)
    assert record.key_id == hashlib.sha256(data).hexdigest()
    assert (record.kind, record.parameter_set, record.byte_count) == (KIND, parameter_set.name, len(data))
    assert service.registry.get(record.key_id) == record
    assert_encrypts_zero(service.keys.zero_encryptor("anonymous", record.key_id, parameter_set), key, parameter_set)


def test_the_same_bytes_are_one_key_for_every_model_of_the_ring(service: Service) -> None:
    assert service.register().create_time == service.register().create_time
    assert len(list(service.registry.list())) == 1
    for parameter_set in (PARAMETER_SET, SAME_RING):
        assert_encrypts_zero(service.keys.zero_encryptor("anonymous", KEY_ID, parameter_set), KEY, PARAMETER_SET)
    with pytest.raises(KeyNotFoundError):
        service.keys.zero_encryptor("anonymous", KEY_ID, LARGER)


def test_others_find_nothing_nor_does_who_has_deleted_it(service: Service) -> None:
    service.register()
    for tenant, key_id in (("bob", KEY_ID), ("", KEY_ID), ("anonymous", "0" * 64), ("anonymous", "")):
        with pytest.raises(KeyNotFoundError) as caught:
            service.keys.zero_encryptor(tenant, key_id, PARAMETER_SET)
        assert_error(caught.value, KeyNotFoundError(key_id))
    assert service.keys.zero_encryptor("anonymous", KEY_ID, PARAMETER_SET)
    service.registry.delete(KEY_ID)
    with pytest.raises(KeyNotFoundError):
        service.keys.zero_encryptor("anonymous", KEY_ID, PARAMETER_SET)


def test_a_key_of_one_kind_is_none_of_the_other(service: Service, ei_user: EIUser) -> None:
    service.register()
    evaluation_keys = service.registry.register(ei_user.evaluation_keys)
    with pytest.raises(KeyNotFoundError):
        service.keys.zero_encryptor("anonymous", evaluation_keys.key_id, PARAMETER_SET)
    with pytest.raises(KeyNotFoundError):
        service.keys.galois_keys("anonymous", KEY_ID)
    assert service.keys.galois_keys("anonymous", evaluation_keys.key_id)
    assert service.keys.zero_encryptor("anonymous", KEY_ID, PARAMETER_SET)


def ciphertext(encryptor: type[Encryptor]) -> bytes:
    made = encryptor(key_parameters(PARAMETER_SET), KEY.export(TOKEN))
    return made.encrypt(np.ones(PARAMETER_SET.poly_modulus_degree, np.uint64))


def changed(at: int, words: bytes) -> bytes:
    """The key with other values of b from one on; 113 bytes come before them, 81 behind."""
    start = 113 + 8 * at
    return DATA[:start] + words + DATA[start + len(words) :]


BAD_KEYS: dict[str, tuple[KeyFault, Callable[[], bytes]]] = {
    "empty": (KeyFault.FORMAT, lambda: b""),
    "truncated": (KeyFault.FORMAT, lambda: DATA[:-1]),
    "random": (KeyFault.FORMAT, lambda: os.urandom(BYTES)),
    "a seeded ciphertext": (KeyFault.FORMAT, lambda: ciphertext(SeededEncryptor)),
    "a secret key": (KeyFault.FORMAT, lambda: KEY.export(TOKEN)),
    "of other primes": (
        KeyFault.PARAMETERS,
        lambda: (
            SecretKey.generate(
                ParameterSet("other", 4096, (*reversed(PARAMETER_SET.data_primes), 0x1C001))
            ).public_encryption_key
        ),
    ),
    "unseeded": (KeyFault.UNSEEDED, lambda: UNSEEDED),
    "of another generator": (KeyFault.FORMAT, lambda: DATA[:-65] + b"\2" + DATA[-64:]),
    "with a residue at its prime": (
        KeyFault.COEFFICIENT,
        lambda: changed(3 * 4096 - 1, struct.pack("<Q", 0x1C001)),
    ),
    "zero": (KeyFault.DEGENERATE, lambda: changed(0, bytes(BYTES - 113 - 81))),
    "a third zero": (KeyFault.DEGENERATE, lambda: changed(4096, bytes(8 * 4096))),
    "constant": (KeyFault.DEGENERATE, lambda: changed(0, struct.pack("<Q", 7) * 3 * 4096)),
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_bad_keys_have_their_error_and_leave_nothing(service: Service, name: str) -> None:
    reason, make = BAD_KEYS[name]
    with pytest.raises(MalformedKeyError) as caught:
        service.register(make())
    assert_error(caught.value, MalformedKeyError(reason))
    assert list(service.registry.list()) == []
    assert service.register().key_id == KEY_ID


def test_an_unseeded_key_is_refused_before_it_is_sent(service: Service) -> None:
    """Its header shows it, and whatever would follow is neither read nor kept."""
    header = KeyHeader(
        key_id=hashlib.sha256(UNSEEDED).hexdigest(),
        kind=KIND,
        parameter_set=PARAMETER_SET.name,
        byte_count=len(UNSEEDED),
    )
    for changes in ({}, {"blob_name": "key"}):
        with pytest.raises(MalformedKeyError, match=r"SecretKey\.public_encryption_key") as caught:
            service.keys.begin(replace(header, **changes))  # type: ignore[arg-type]
        assert_error(caught.value, MalformedKeyError(KeyFault.UNSEEDED))


def test_the_status_of_an_unseeded_key_is_that_of_a_bad_argument(service: Service) -> None:
    with pytest.raises(MalformedKeyError) as caught:
        service.register(UNSEEDED)
    status = caught.value.__cause__
    assert isinstance(status, grpc.RpcError)
    assert status.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "only seeded public keys are accepted" in str(status.details())


@pytest.mark.parametrize(
    "parameter_set", ["ei-8192", *(s.name for s in LAYOUTS["row"].open_parameter_sets[:3]), "row-1024-27", ""]
)
def test_a_set_that_has_no_room_to_hide_weights_takes_no_keys(service: Service, parameter_set: str) -> None:
    with pytest.raises(ParameterSetNotOfferedError) as caught:
        service.register(parameter_set=parameter_set)
    assert_error(caught.value, ParameterSetNotOfferedError("", parameter_set))


def test_the_cap_is_that_of_the_kind(service: Service) -> None:
    """The limit is far below that of evaluation keys: the header is refused, nothing is read."""
    with pytest.raises(LimitExceededError) as caught:
        service.register(DATA + b"\0")
    assert_error(caught.value, LimitExceededError("max_key_bytes", BYTES, BYTES + 1))
    larger = SecretKey.generate(LARGER).public_encryption_key
    for data in (larger, ciphertext(Encryptor)):
        with pytest.raises(LimitExceededError):
            service.register(data)
    assert service.register(larger, LARGER.name).byte_count == len(larger)


# Ready for use


def kept_in(store: MemoryKeyStore, data: bytes, tenant: str = "alice", created: datetime | None = None) -> str:
    """Put a key into a store past the service, which would check it; returns its id."""
    record = record_of(data, tenant, created=created)
    changed = KeyRecord(**{**vars(record), "kind": KIND, "parameter_set": PARAMETER_SET.name})
    return store.put(changed, data).key_id


def test_an_expired_key_is_not_found() -> None:
    clock = Hours()
    store = MemoryKeyStore(64 << 20, clock=clock)
    keys = registered_keys(store, clock=clock)
    key_id = kept_in(store, DATA, created=clock.now)
    assert keys.zero_encryptor("alice", key_id, PARAMETER_SET)
    clock.now += timedelta(hours=2)
    with pytest.raises(KeyNotFoundError):
        keys.zero_encryptor("alice", key_id, PARAMETER_SET)


def test_a_store_of_bad_bytes_harms_nothing() -> None:
    """Bytes from an older version, or from somebody else: they are checked when they are loaded."""
    store = MemoryKeyStore(64 << 20)
    keys = registered_keys(store)
    bad, good = kept_in(store, DATA[:113] + bytes(BYTES - 113)), kept_in(store, DATA)
    older = kept_in(store, UNSEEDED)
    for key_id in (bad, older):
        with pytest.raises(MalformedKeyError):
            keys.zero_encryptor("alice", key_id, PARAMETER_SET)
    assert keys.zero_encryptor("alice", good, PARAMETER_SET)


def test_a_kind_of_tomorrow_is_not_found() -> None:
    store = MemoryKeyStore(64 << 20)
    record = KeyRecord(**{**vars(record_of(DATA)), "kind": KIND, "parameter_set": "row-16384-400"})
    store.put(record, DATA)
    with pytest.raises(KeyNotFoundError):
        registered_keys(store).zero_encryptor("alice", record.key_id, PARAMETER_SET)


def test_a_key_that_is_ready_needs_no_store() -> None:
    store = MemoryKeyStore(64 << 20)
    keys = registered_keys(store)
    key_id = kept_in(store, DATA)
    ready = keys.zero_encryptor("alice", key_id, PARAMETER_SET)

    def fail(*_: object) -> None:
        raise KeyStoreUnavailableError(1.0)

    store.read = store.get = fail  # type: ignore[method-assign,assignment]
    assert keys.zero_encryptor("alice", key_id, PARAMETER_SET) is ready
    with pytest.raises(ServiceError):
        keys.zero_encryptor("bob", key_id, PARAMETER_SET)


def grown_over_a_hundred_keys() -> tuple[int, int, float | None]:
    """Use a hundred keys ten times, with room for twenty.

    Returns:
        How much this process has grown, in bytes and in descriptors, and the size of the cache.
    """
    store = MemoryKeyStore(64 << 20)
    telemetry = Telemetry()
    keys = registered_keys(store, cache_bytes=20 * READY_BYTES, telemetry=telemetry)
    ids = [kept_in(store, SecretKey.generate(PARAMETER_SET).public_encryption_key) for _ in range(100)]
    process = psutil.Process()

    def use_all() -> tuple[int, int]:
        for key_id in ids:
            assert keys.zero_encryptor("alice", key_id, PARAMETER_SET).encrypt().any()
        return process.memory_info().rss, process.num_fds()

    use_all()
    resident, descriptors = use_all()
    for _ in range(10):
        last_resident, last_descriptors = use_all()
    cache_bytes = telemetry.registry.get_sample_value("sealserve_key_cache_bytes")
    return last_resident - resident, last_descriptors - descriptors, cache_bytes


@pytest.mark.slow
def test_memory_and_descriptors_are_flat_over_a_hundred_keys() -> None:
    """Twenty keys have room; a hundred keys, each used again and again, take no more.

    They do so in a process of their own: in this one, connections of other tests may still close.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        grown_bytes, grown_descriptors, cache_bytes = pool.submit(grown_over_a_hundred_keys).result()
    assert grown_descriptors == 0
    assert grown_bytes < 10 * READY_BYTES  # a thousand loads of keys that stayed would be 200 MB
    assert cache_bytes == 20 * READY_BYTES
