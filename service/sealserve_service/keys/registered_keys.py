"""The keys of clients: checked on arrival, kept in a store, loaded on first use."""

import logging
import math
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

from sealserve.errors import (
    KeyFault,
    KeyNotFoundError,
    MalformedKeyError,
    ParameterSetNotOfferedError,
    ServiceError,
)
from sealserve.he._seal import GaloisKeys
from sealserve.he.parameters import ParameterSet
from sealserve.protocol.key_record import KeyHeader, KeyRecord
from sealserve_service.engines.linear.ready_zeros import ReadyZeros
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.keys.cache import KeyCache, Loaded
from sealserve_service.keys.kinds import KEY_TYPES, ReadyKey
from sealserve_service.keys.stores.base import Clock, KeyStore, UploadSource, utc_now
from sealserve_service.keys.upload import Upload
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import Tenant

_logger = logging.getLogger(__name__)

_NO_QUOTA = Quota()


class RegisteredKeys:
    """The registered keys of all tenants.

    Args:
        store: keeps the keys.
        uploads: reads keys that clients have put in storage instead of sending them; None if
            clients cannot do that.
        max_key_bytes: of one key.
        max_ttl_seconds: how long a key is kept at most.
        cache_bytes: of memory for keys that are ready for use.
        quota: of tenants that have none of their own.
        clock: returns the time; for tests.
        telemetry: the metrics; by default the keys have their own.
        ready_zeros: how many encryptions of zero may be ready under all keys.

    Attributes:
        ready_zeros: what makes those; None if there may be none.
    """

    def __init__(
        self,
        store: KeyStore,
        uploads: UploadSource | None = None,
        *,
        max_key_bytes: int,
        max_ttl_seconds: float,
        cache_bytes: int,
        quota: Quota = _NO_QUOTA,
        clock: Clock = utc_now,
        telemetry: Telemetry | None = None,
        ready_zeros: int = 0,
    ) -> None:
        self._telemetry = telemetry or Telemetry()
        self.ready_zeros = ReadyZeros(ready_zeros, telemetry=self._telemetry) if ready_zeros else None
        self._store = store
        self._uploads = uploads
        self._clock = clock
        self._quota = quota
        self._max_ttl_seconds = max_ttl_seconds
        self._max_key_bytes = max_key_bytes
        self._ready = KeyCache(cache_bytes, self._load, self._expiry, clock=clock, telemetry=self._telemetry)

    def begin(self, header: KeyHeader) -> Upload:
        """Begin an upload.

        Raises:
            ParameterSetNotOfferedError: the service takes no such keys of that parameter set.
            MalformedKeyError: a key of that length is not seeded, but must be.
            InputMismatchError, LimitExceededError: no key can have such a header.
        """
        key_type = KEY_TYPES.get((header.kind, header.parameter_set))
        if key_type is None:
            raise ParameterSetNotOfferedError("", header.parameter_set)
        if header.byte_count == key_type.unseeded_bytes:
            raise MalformedKeyError(KeyFault.UNSEEDED)
        return Upload(header, min(self._max_key_bytes, key_type.max_bytes or self._max_key_bytes))

    def fetch(self, tenant: Tenant, upload: Upload) -> None:
        """Read the bytes of an upload from the blob into which the client has put them.

        Raises:
            KeyNotFoundError: there is no blob of that name, or no storage for blobs.
            LimitExceededError, MalformedKeyError: the blob is longer than declared or allowed.
            KeyStoreUnavailableError: the storage does not answer.
        """
        name = upload.header.blob_name
        if self._uploads is None:
            raise KeyNotFoundError(name)
        with self._telemetry.key_store_call("read_upload"):
            data = self._uploads.read_upload(tenant.name, name, upload.header.byte_count)
        upload.add(data)

    def finish(self, tenant: Tenant, upload: Upload) -> KeyRecord:
        """Check a key and keep it; return its record.

        Raises:
            MalformedKeyError: the key is not what its header declares, or no key of its kind.
            KeyStoreUnavailableError: the store does not answer.
            QuotaExceededError: the store is full, or the tenant's part of it.
        """
        header, data = upload.header, upload.finish()
        now = self._clock()
        KEY_TYPES[header.kind, header.parameter_set].check(data)
        expires = now + timedelta(seconds=min(header.ttl_seconds or math.inf, self._max_ttl_seconds))
        record = KeyRecord(
            tenant=tenant.name,
            key_id=header.key_id,
            kind=header.kind,
            parameter_set=header.parameter_set,
            byte_count=len(data),
            create_time=now,
            expire_time=expires,
        )
        with self._telemetry.key_store_call("put"):
            kept = self._store.put(record, data, (tenant.quota or self._quota).key_bytes)
        self._telemetry.registered_keys.inc()
        self._telemetry.registered_key_bytes.inc(len(data))
        return kept

    def get(self, tenant: Tenant, key_id: str) -> KeyRecord:
        """Return a key's record; see KeyStore.get."""
        with self._telemetry.key_store_call("get"):
            return self._store.get(tenant.name, key_id)

    def after(self, tenant: Tenant, key_id: str) -> Iterator[KeyRecord]:
        """Yield the records of the tenant's keys whose ids follow the given one, in order."""
        return (record for record in self._store.list(tenant.name) if record.key_id > key_id)

    def delete(self, tenant: Tenant, key_id: str) -> None:
        """Delete a key; see KeyStore.delete."""
        try:
            with self._telemetry.key_store_call("delete"):
                self._store.delete(tenant.name, key_id)
        finally:
            # Afterwards: a call that loads the key meanwhile would put it into the cache again.
            self._ready.forget(tenant.name, key_id)

    def read(self, tenant: str, key_id: str) -> bytes:
        """Return a key's bytes; see KeyStore.read."""
        with self._telemetry.key_store_call("read"):
            return self._store.read(tenant, key_id)

    def galois_keys(self, tenant: str, key_id: str) -> GaloisKeys:
        """Return the Galois keys of registered evaluation keys, ready for use.

        Raises:
            KeyNotFoundError: the tenant has no such evaluation keys.
            KeyStoreUnavailableError: the keys are not in memory, and the store does not answer.
        """
        ready = self._ready.get(tenant, key_id)
        if not isinstance(ready, GaloisKeys):
            raise KeyNotFoundError(key_id)
        return ready

    def zero_encryptor(self, tenant: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
        """Return the encryptor of zero under a registered public key of the parameter set's ring.

        From the second time on, zeros of the key are made before they are needed.

        Raises:
            KeyNotFoundError: the tenant has no such public encryption key of that ring.
            KeyStoreUnavailableError: the key is not in memory, and the store does not answer.
        """
        ready = self._ready.get(tenant, key_id)
        if not isinstance(ready, ZeroEncryptor):
            raise KeyNotFoundError(key_id)
        if ready.parameter_set is not parameter_set and not ready.parameter_set.shares_ring(parameter_set):
            raise KeyNotFoundError(key_id)
        if self.ready_zeros is not None and not ready.is_supplied and ready.last_use > -math.inf:
            self.ready_zeros.supply(tenant, ready)
        ready.last_use = time.monotonic()
        return ready

    def sweep(self) -> None:
        """Drop expired keys, and have the store delete them.

        A failed deletion is tried again the next time.
        """
        self._ready.drop_expired()
        try:
            with self._telemetry.key_store_call("sweep"):
                count = self._store.sweep()
            _logger.info("%d expired keys deleted", count)
        except ServiceError as error:
            _logger.warning("expired keys could not be deleted: %s", error)

    def close(self) -> None:
        """Close the store's connections."""
        self._store.close()

    def _load(self, tenant: str, key_id: str) -> Loaded[ReadyKey]:
        with self._telemetry.key_store_call("get"):
            record = self._store.get(tenant, key_id)
        key_type = KEY_TYPES.get((record.kind, record.parameter_set))
        if key_type is None:  # another version of the service, which takes such keys, has kept it
            raise KeyNotFoundError(key_id)
        ready, byte_count = key_type.load(self.read(tenant, key_id))
        return Loaded(value=ready, byte_count=byte_count, expire_time=record.expire_time)

    def _expiry(self, tenant: str, key_id: str) -> datetime:
        with self._telemetry.key_store_call("get"):
            return self._store.get(tenant, key_id).expire_time
