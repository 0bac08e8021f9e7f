"""The race of a quota: uploads that begin at the same time each find that there is room.

As it was, the quota of key bytes was checked, and the key was put afterwards. Eight uploads at once
passed a quota of two and a half keys.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from sealserve.errors import QuotaExceededError
from sealserve.protocol.key_record import KeyRecord
from sealserve_service.keys.stores.azure_blob import with_connection_string
from sealserve_service.keys.stores.base import KeyStore, check_tenant_bytes
from sealserve_service.keys.stores.filesystem import FilesystemKeyStore
from sealserve_service.keys.stores.memory import MemoryKeyStore
from tests.support.azurite import Azurite
from tests.support.registered_keys import let_put, putting_process, record_of
from tests.support.serving import HANG_SECONDS

UPLOADS = 8
KEY_BYTES = 1000
QUOTA = 2.5 * KEY_BYTES
KEYS = [bytes([number]) * KEY_BYTES for number in range(UPLOADS)]

Put = Callable[[KeyStore, KeyRecord, bytes], object]


def put_at_once(stores: list[KeyStore], put: Put) -> int:
    """Put a key into each store at the same time; return how many were taken."""
    together = threading.Barrier(UPLOADS)

    def is_taken(store: KeyStore, data: bytes) -> bool:
        record = record_of(data)
        together.wait()
        try:
            put(store, record, data)
        except QuotaExceededError:
            return False
        return True

    with ThreadPoolExecutor(UPLOADS) as threads:
        return sum(threads.map(is_taken, stores, KEYS))


def as_it_was() -> Put:
    """Check, then put. The race was that every upload was checked before the first was put."""
    checked = threading.Barrier(UPLOADS)

    def put(store: KeyStore, record: KeyRecord, data: bytes) -> None:
        check_tenant_bytes(store.list(record.tenant), record, QUOTA)
        checked.wait()
        store.put(record, data)

    return put


def as_it_is() -> Put:
    return lambda store, record, data: store.put(record, data, QUOTA)


@pytest.fixture(params=["memory", "filesystem", "azure"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[KeyStore]]:
    """A store for each upload, as processes have it; in memory, the one that threads share."""
    opened: Callable[[], KeyStore]
    if request.param == "memory":
        store = MemoryKeyStore(1 << 20)
        opened = lambda: store  # noqa: E731
    elif request.param == "filesystem":
        opened = partial(FilesystemKeyStore, tmp_path / "keys")
    else:
        azurite: Azurite = request.getfixturevalue("azurite")
        opened = partial(with_connection_string, azurite.connection_string, azurite.new_container())
    with contextlib.ExitStack() as closing:
        yield [closing.enter_context(contextlib.closing(opened())) for _ in range(UPLOADS)]


@pytest.mark.parametrize("way", [as_it_was, as_it_is])
def test_uploads_at_once_against_a_quota_of_two_and_a_half(way: Callable[[], Put], stores: list[KeyStore]) -> None:
    taken = put_at_once(stores, way())
    kept = sum(record.byte_count for record in stores[0].list("alice"))
    assert kept == taken * KEY_BYTES
    assert taken == (UPLOADS if way is as_it_was else 2)


def test_what_is_deleted_or_renewed_leaves_room(stores: list[KeyStore]) -> None:
    first, second, third = KEYS[:3]
    for data in (first, second, first):
        stores[0].put(record_of(data), data, QUOTA)
    with pytest.raises(QuotaExceededError) as caught:
        stores[1].put(record_of(third), third, QUOTA)
    assert (caught.value.quota, caught.value.retry_delay_seconds) == ("key_bytes", 60.0)
    stores[2].put(record_of(third, tenant="bob"), third, QUOTA)
    stores[2].delete("alice", record_of(first).key_id)
    stores[1].put(record_of(third), third, QUOTA)


FILESYSTEM = """
from pathlib import Path
from sealserve_service.keys.stores.filesystem import FilesystemKeyStore
store = FilesystemKeyStore(Path({directory!r}))
"""
AZURE = """
from sealserve_service.keys.stores.azure_blob import with_connection_string
store = with_connection_string({connection_string!r}, {container!r})
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["filesystem", "azure"])
def test_uploads_of_eight_processes(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store: KeyStore
    if kind == "filesystem":
        store = FilesystemKeyStore(tmp_path)
        preparation = FILESYSTEM.format(directory=str(tmp_path))
    else:
        azurite: Azurite = request.getfixturevalue("azurite")
        container = azurite.new_container()
        store = with_connection_string(azurite.connection_string, container)
        preparation = AZURE.format(connection_string=azurite.connection_string, container=container)
    with contextlib.closing(store), contextlib.ExitStack() as stack:
        processes = [stack.enter_context(putting_process(preparation, data, max_tenant_bytes=QUOTA)) for data in KEYS]
        said = let_put(processes, 2 * HANG_SECONDS)
        assert sorted(map(bool, said)) == [False] * (UPLOADS - 2) + [True] * 2
        assert len(list(store.list("alice"))) == 2
