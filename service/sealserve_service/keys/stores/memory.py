"""A key store in the memory of this process: it ends with the process, and others do not see it."""

import threading
from collections.abc import Iterator, Sequence

from sealserve.errors import KeyNotFoundError
from sealserve.protocol.key_record import KeyRecord
from sealserve_service.keys.stores.base import Clock, check_tenant_bytes, full_error, in_force, utc_now


class MemoryKeyStore:
    """At most max_bytes of keys.

    A key that does not fit is refused. No key that is in force is evicted for it.
    """

    def __init__(self, max_bytes: int, *, clock: Clock = utc_now) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[tuple[str, str], tuple[KeyRecord, bytes]] = {}

    def put(self, record: KeyRecord, data: bytes, max_tenant_bytes: float | None = None) -> KeyRecord:
        """Keep a key; see KeyStore.put."""
        key = record.tenant, record.key_id
        now = self._clock()
        with self._lock:
            if max_tenant_bytes is not None:
                check_tenant_bytes(self._records(record.tenant), record, max_tenant_bytes)
            kept, kept_data = self._keys.get(key, (None, b""))
            if kept is None:
                self._make_room(len(data))
            wanted = in_force(kept, record, now)
            self._keys[key] = (wanted, kept_data or data)
            return wanted

    def get(self, tenant: str, key_id: str) -> KeyRecord:
        """Return a key's record; see KeyStore.get."""
        return self._find(tenant, key_id)[0]

    def read(self, tenant: str, key_id: str) -> bytes:
        """Return a key's bytes; see KeyStore.read."""
        return self._find(tenant, key_id)[1]

    def list(self, tenant: str) -> Iterator[KeyRecord]:
        """Yield a tenant's records; see KeyStore.list."""
        with self._lock:
            records = self._records(tenant)
        return iter(sorted(records, key=lambda record: record.key_id))

    def delete(self, tenant: str, key_id: str) -> None:
        """Delete a key; see KeyStore.delete."""
        self._find(tenant, key_id)
        with self._lock:
            self._keys.pop((tenant, key_id), None)

    def sweep(self) -> int:
        """Delete expired keys; see KeyStore.sweep."""
        with self._lock:
            return self._drop_expired()

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def _find(self, tenant: str, key_id: str) -> tuple[KeyRecord, bytes]:
        with self._lock:
            found = self._keys.get((tenant, key_id))
        if found is None or found[0].is_expired(self._clock()):
            raise KeyNotFoundError(key_id)
        return found

    def _records(self, tenant: str) -> Sequence[KeyRecord]:
        """Return the records of a tenant's keys that are in force. The caller holds the lock."""
        now = self._clock()
        return [record for record, _ in self._keys.values() if record.tenant == tenant and not record.is_expired(now)]

    def _make_room(self, byte_count: int) -> None:
        if byte_count <= self._free_bytes():
            return
        self._drop_expired()
        if byte_count > self._free_bytes():
            raise full_error()

    def _free_bytes(self) -> int:
        return self._max_bytes - sum(len(data) for _, data in self._keys.values())

    def _drop_expired(self) -> int:
        now = self._clock()
        expired = [key for key, (record, _) in self._keys.items() if record.is_expired(now)]
        for key in expired:
            del self._keys[key]
        return len(expired)
