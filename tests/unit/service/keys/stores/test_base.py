"""What every key store does: one suite for all three, Azure's against a real Azurite."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from sealserve.errors import KeyNotFoundError, QuotaExceededError
from sealserve.protocol.key_record import KeyKind, KeyRecord
from sealserve_service.keys.stores.azure_blob import with_connection_string
from sealserve_service.keys.stores.base import KeyStore
from sealserve_service.keys.stores.filesystem import FilesystemKeyStore
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.keys.stores.record_format import folder_name, record_from_json, record_to_json
from tests.support import registered_keys
from tests.support.azurite import Azurite
from tests.support.registered_keys import HOUR

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
DATA = bytes(range(256)) * 3
MAX_BYTES = 64 << 20
ODD_TENANTS = [
    *("alice", "Alice", "ALICE", "a/b", "a", "b", "a=2fb", "../x", "..", ".", "", "/", "\\", "x\0", "%2e%2e", "a b"),
    *("a\nb", "\u00e9", "e\u0301", "租户", "😀", "\ud83d", "=none", "=sha256-", "con", ".lock"),
    *("x" * 300, "x" * 301, "租" * 300),
]


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "filesystem", "azure"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Callable[[], KeyStore]]:
    """Opens the store of one location, as each process does."""
    opened: Callable[[], KeyStore]
    if request.param == "memory":
        opened = partial(MemoryKeyStore, MAX_BYTES, clock=clock)
    elif request.param == "filesystem":
        opened = partial(FilesystemKeyStore, tmp_path / "keys", clock=clock)
    else:
        azurite: Azurite = request.getfixturevalue("azurite")
        opened = partial(with_connection_string, azurite.connection_string, azurite.new_container(), clock=clock)
    with contextlib.ExitStack() as closing:
        yield lambda: closing.enter_context(contextlib.closing(opened()))


@pytest.fixture
def store(open_store: Callable[[], KeyStore]) -> KeyStore:
    return open_store()


def record_of(data: bytes, tenant: str = "alice", lives: timedelta = HOUR, created: datetime = START) -> KeyRecord:
    return registered_keys.record_of(data, tenant, lives, created)


def assert_unknown(store: KeyStore, tenant: str, key_id: str) -> None:
    calls: list[Callable[[str, str], object]] = [store.get, store.read, store.delete]
    for call in calls:
        with pytest.raises(KeyNotFoundError) as refusal:
            call(tenant, key_id)
        assert refusal.value.key_id == key_id


# One key


@pytest.mark.parametrize("data", [DATA, b"x", b"\n{}\n" * 7, bytes(9_000_000)], ids=["short", "byte", "lines", "9 MB"])
def test_a_key_comes_back_as_it_was_put(store: KeyStore, data: bytes) -> None:
    record = record_of(data)
    assert store.put(record, data) == record
    assert store.get("alice", record.key_id) == record
    assert store.read("alice", record.key_id) == data
    assert list(store.list("alice")) == [record]


def test_a_key_of_the_other_kind(store: KeyStore) -> None:
    record = dataclasses.replace(
        record_of(DATA), kind=KeyKind.PUBLIC_ENCRYPTION_KEY, parameter_set='row-4096-92 "é"\r\nx: y'
    )
    store.put(record, DATA)
    assert store.get("alice", record.key_id) == record


def test_a_deleted_key_is_gone_and_can_be_put_anew(store: KeyStore) -> None:
    record, other = record_of(DATA), record_of(b"other")
    store.put(record, DATA)
    store.put(other, b"other")
    store.delete("alice", record.key_id)
    assert_unknown(store, "alice", record.key_id)
    assert list(store.list("alice")) == [other]
    store.put(record, DATA)
    assert store.read("alice", record.key_id) == DATA


UNKNOWN_IDS = [
    *("0" * 64, "", ".", "..", "../alice", "x", "0" * 63, "0" * 65, "0" * 63 + "g", "0" * 64 + "\n", "0" * 64 + ".key"),
    *("A" * 64, "\u0660" * 64, "/" * 64, "\0" * 64),
]


@pytest.mark.parametrize("key_id", UNKNOWN_IDS)
def test_unknown_ids(store: KeyStore, key_id: str) -> None:
    assert_unknown(store, "alice", key_id)
    store.put(record_of(DATA), DATA)
    assert_unknown(store, "alice", key_id)
    assert_unknown(store, "bob", key_id)


def test_an_id_is_known_in_lower_case_only(store: KeyStore) -> None:
    record = record_of(DATA)
    store.put(record, DATA)
    assert_unknown(store, "alice", record.key_id.upper())


# Several keys


def test_keys_are_listed_in_the_order_of_their_ids(store: KeyStore) -> None:
    contents = [bytes([n]) * 5 for n in range(12)]
    for data in contents:
        store.put(record_of(data), data)
    assert list(store.list("alice")) == sorted(map(record_of, contents), key=lambda record: record.key_id)
    assert list(store.list("bob")) == []


def test_a_tenant_sees_no_key_of_another(store: KeyStore) -> None:
    record = record_of(DATA)
    store.put(record, DATA)
    assert_unknown(store, "bob", record.key_id)
    assert list(store.list("bob")) == []
    later = record_of(DATA, "bob", created=START + HOUR)
    assert store.put(later, DATA) == later
    store.delete("alice", record.key_id)
    assert store.read("bob", record.key_id) == DATA
    assert_unknown(store, "alice", record.key_id)


def test_any_string_is_a_tenant_of_its_own(store: KeyStore) -> None:
    for number, tenant in enumerate(ODD_TENANTS):
        data = b"key of tenant %d" % number
        assert store.put(record_of(data, tenant), data) == record_of(data, tenant)
    for number, tenant in enumerate(ODD_TENANTS):
        data = b"key of tenant %d" % number
        assert list(store.list(tenant)) == [record_of(data, tenant)]
        assert store.read(tenant, record_of(data).key_id) == data


# Time


def test_an_expired_key_is_gone_before_any_sweep(store: KeyStore, clock: Clock) -> None:
    record, other = record_of(DATA), record_of(b"other", lives=2 * HOUR)
    store.put(record, DATA)
    store.put(other, b"other")
    clock.now += HOUR - timedelta(microseconds=1)
    assert store.read("alice", record.key_id) == DATA
    clock.now += timedelta(microseconds=1)
    assert_unknown(store, "alice", record.key_id)
    assert list(store.list("alice")) == [other]


def test_a_key_that_is_put_again_stays_with_the_later_expiry(store: KeyStore) -> None:
    first = record_of(DATA)
    assert store.put(first, DATA) == first
    assert store.put(first, DATA) == first
    sooner = record_of(DATA, lives=HOUR / 3, created=START + HOUR / 3)
    assert store.put(sooner, DATA) == first
    assert store.get("alice", first.key_id) == first
    later = record_of(DATA, lives=3 * HOUR, created=START + HOUR / 2)
    in_force = dataclasses.replace(first, expire_time=later.expire_time)
    assert store.put(later, DATA) == in_force
    assert store.get("alice", first.key_id) == in_force
    assert list(store.list("alice")) == [in_force]
    assert store.read("alice", first.key_id) == DATA


def test_an_expired_key_that_is_put_again_begins_anew(store: KeyStore, clock: Clock) -> None:
    record = record_of(DATA)
    store.put(record, DATA)
    clock.now += HOUR
    anew = record_of(DATA, created=clock.now)
    assert store.put(anew, DATA) == anew
    assert store.get("alice", record.key_id) == anew
    assert store.sweep() == 0
    assert store.read("alice", record.key_id) == DATA


def test_a_sweep_deletes_what_has_expired(store: KeyStore, clock: Clock) -> None:
    assert store.sweep() == 0
    kept = {}
    for hours, tenant in itertools.product((1, 2, 3), ("alice", "../bob", "")):
        data = f"{hours} {tenant}".encode()
        store.put(record_of(data, tenant, lives=hours * HOUR), data)
        if hours == 3:
            kept[tenant] = data
    clock.now += 2 * HOUR
    assert store.sweep() == 6
    assert store.sweep() == 0
    for tenant, data in kept.items():
        assert store.read(tenant, record_of(data).key_id) == data
    clock.now = START
    assert [len(list(store.list(tenant))) for tenant in kept] == [1, 1, 1]


# Threads


def test_threads_that_put_one_key_agree(store: KeyStore) -> None:
    records = [record_of(DATA, created=START + n * timedelta(seconds=1)) for n in range(12)]
    with ThreadPoolExecutor(len(records)) as threads:
        put = list(threads.map(lambda record: store.put(record, DATA), records))
    # Who came first is anyone's guess; from then on the key was there.
    assert len({record.create_time for record in put}) == 1
    kept = store.get("alice", records[0].key_id)
    assert kept.create_time == put[0].create_time
    assert kept.expire_time == records[-1].expire_time
    assert store.read("alice", kept.key_id) == DATA


def test_threads_that_read_see_a_whole_key_or_none(store: KeyStore) -> None:
    data = DATA * 500
    record = record_of(data)

    def read() -> bytes | None:
        try:
            return store.read("alice", record.key_id)
        except KeyNotFoundError:
            return None

    def put_and_delete() -> None:
        for _ in range(10):
            store.put(record, data)
            store.delete("alice", record.key_id)
        store.put(record, data)

    with ThreadPoolExecutor(4) as threads:
        writer = threads.submit(put_and_delete)
        seen = set()
        while not writer.done():
            seen |= set(threads.map(lambda _: read(), range(3)))
        writer.result()
    assert seen <= {data, None}
    assert read() == data


# Room


def test_memory_has_room_for_so_many_bytes(clock: Clock) -> None:
    store = MemoryKeyStore(10, clock=clock)
    store.put(record_of(b"123456"), b"123456")
    store.put(record_of(b"123456"), b"123456")
    store.put(record_of(b"1234"), b"1234")
    for data in (b"x", b"12345678901"):
        with pytest.raises(QuotaExceededError) as refusal:
            store.put(record_of(data), data)
        assert (refusal.value.quota, refusal.value.retry_delay_seconds) == ("key_store_bytes", 60.0)
    store.delete("alice", record_of(b"1234").key_id)
    store.put(record_of(b"x"), b"x")
    assert sum(record.byte_count for record in store.list("alice")) == 7


def test_memory_makes_room_of_expired_keys(clock: Clock) -> None:
    store = MemoryKeyStore(10, clock=clock)
    store.put(record_of(b"123456"), b"123456")
    store.put(record_of(b"1234", lives=3 * HOUR), b"1234")
    clock.now += HOUR
    data = b"654321"
    store.put(record_of(data, created=clock.now), data)
    assert store.read("alice", record_of(data).key_id) == data
    assert store.read("alice", record_of(b"1234").key_id) == b"1234"


# Names and records


def test_folder_names_are_safe_and_distinct_without_regard_to_case() -> None:
    names = [folder_name(tenant) for tenant in ODD_TENANTS]
    assert len({name.casefold() for name in names}) == len(ODD_TENANTS)
    for name in names:
        assert 0 < len(name) <= 255
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_=")
    assert folder_name("alice") == "alice"
    assert folder_name("Al.x@b") == "=41l=2ex=40b"


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "{}", "1", "null"),
        record_to_json(record_of(DATA)).replace("evaluation-keys", "x"),
        record_to_json(record_of(DATA)).replace("+00:00", ""),
        record_to_json(record_of(DATA)).replace("2026", "26"),
        record_to_json(record_of(DATA)).replace("768", "null"),
        record_to_json(record_of(DATA))[:-1],
    ],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json's own texts, too
        record_from_json(text, "alice", "0" * 64)


def test_all_processes_see_the_keys_of_a_location_except_in_memory(
    store: KeyStore, open_store: Callable[[], KeyStore]
) -> None:
    record = record_of(DATA)
    store.put(record, DATA)
    other = open_store()
    if isinstance(store, MemoryKeyStore):
        with pytest.raises(KeyNotFoundError):
            other.get(record.tenant, record.key_id)
    else:
        assert other.read(record.tenant, record.key_id) == DATA
