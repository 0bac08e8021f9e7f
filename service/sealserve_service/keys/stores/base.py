"""The protocol of a key store.

A key is found by its tenant and its id. The id is the SHA-256 of the bytes, so equal bytes are one
key, and a key never changes. An expired key counts as deleted, whether or not a sweep has deleted
it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from sealserve.errors import KeyStoreUnavailableError, QuotaExceededError
from sealserve.protocol.key_record import KeyRecord

Clock = Callable[[], datetime]

utc_now: Clock = partial(datetime.now, UTC)
"""The clock of every store unless a test gives another."""


def in_force(kept: KeyRecord | None, record: KeyRecord, now: datetime) -> KeyRecord:
    """Return the record that is in force when `record` is put and `kept` is what the store has."""
    if kept is None or kept.is_expired(now):
        return record
    return dataclasses.replace(kept, expire_time=max(kept.expire_time, record.expire_time))


def full_error() -> QuotaExceededError:
    """Return the error of a full store; the client may try again in a minute."""
    return QuotaExceededError("key_store_bytes", 60.0)


def check_tenant_bytes(kept: Iterable[KeyRecord], record: KeyRecord, max_bytes: float) -> None:
    """Check that a tenant's keys, with the one to be put, have at most max_bytes.

    Raises:
        QuotaExceededError: they have more. The client may try again in a minute: a key may have
            been deleted, or have expired.
    """
    others = sum(other.byte_count for other in kept if other.key_id != record.key_id)
    if others + record.byte_count > max_bytes:
        raise QuotaExceededError("key_bytes", 60.0)


def unavailable_error() -> KeyStoreUnavailableError:
    """Return the error of a store that fails, or does not answer in time."""
    return KeyStoreUnavailableError(1.0)


class KeyStore(Protocol):
    """A store of registered keys. Threads may share it.

    Every method may block for a bounded time. It raises KeyStoreUnavailableError if the store does
    not answer, and QuotaExceededError if the store has no room.
    """

    def put(self, record: KeyRecord, data: bytes, max_tenant_bytes: float | None = None) -> KeyRecord:
        """Keep a key, completely or not at all, and return the record that is in force.

        A key that the store has already stays, with its create_time. The later of the two
        expire_times is in force.

        Args:
            record: the key's record.
            data: the key's bytes.
            max_tenant_bytes: of the tenant's keys together with this one; None for no bound. No
                number of writers exceeds it, whatever processes they are in.

        Raises:
            QuotaExceededError: the tenant's keys would have more bytes than that.
        """

    def get(self, tenant: str, key_id: str) -> KeyRecord:
        """Return a key's record.

        Raises:
            KeyNotFoundError: the tenant has no such key, or it has expired.
        """

    def read(self, tenant: str, key_id: str) -> bytes:
        """Return a key's bytes, checked against its id.

        Raises:
            KeyNotFoundError: the tenant has no such key, or it has expired.
        """

    def list(self, tenant: str) -> Iterator[KeyRecord]:
        """Yield the records of a tenant's keys, in the order of their ids."""

    def delete(self, tenant: str, key_id: str) -> None:
        """Delete a key.

        Raises:
            KeyNotFoundError: the tenant has no such key, or it has expired.
        """

    def sweep(self) -> int:
        """Delete expired keys and what interrupted writers have left; return the number of keys."""

    def close(self) -> None:
        """Close connections. The keys stay, unless they are kept in memory."""


class UploadSource(Protocol):
    """Storage into which clients put keys that are too large for them to send: Azure's uploads.

    A client writes there with a permission of its own, and tells the service a name, never a URL.
    """

    def read_upload(self, tenant: str, name: str, max_bytes: int) -> bytes:
        """Return the bytes that the tenant has put under a name.

        A name has at most 200 letters, digits, dots, hyphens and underscores.

        Raises:
            KeyNotFoundError: there is nothing of that name, or the name is malformed.
            LimitExceededError: there are more than max_bytes; none of them was fetched.
            KeyStoreUnavailableError: the storage does not answer in time.
        """
