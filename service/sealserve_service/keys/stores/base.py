"""The protocol of a key store, and what it keeps of a key beside its bytes.

A key is found by tenant and id; the id is the SHA-256 of the bytes, so that equal bytes are one key and a key never
changes. What has expired is as good as deleted, whether or not a sweep has been there yet.
"""

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Protocol

from sealserve.errors import KeyStoreUnavailableError, QuotaExceededError
from sealserve.protocol.key_record import KeyRecord

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of every store unless a test gives another."""
    return datetime.now(UTC)


def in_force(kept: KeyRecord | None, record: KeyRecord, now: datetime) -> KeyRecord:
    """Return the record of a key that is put where `kept` is found, None where nothing is."""
    if kept is None or kept.is_expired(now):
        return record
    return dataclasses.replace(kept, expire_time=max(kept.expire_time, record.expire_time))


def no_room() -> QuotaExceededError:
    """The error of a place that is full; expired keys are swept within a minute or so."""
    return QuotaExceededError("key_store_bytes", 60.0)


def no_answer() -> KeyStoreUnavailableError:
    """The error of a place that fails, or does not answer in time."""
    return KeyStoreUnavailableError(1.0)


class KeyStore(Protocol):
    """Registered keys. Threads share a store; processes do unless `is_shared` is false.

    Every method may block, for a bounded time, and raises KeyStoreUnavailableError when the place does not answer and
    QuotaExceededError when it has no room.
    """

    @property
    def is_shared(self) -> bool:
        """Whether several processes that are given the same place see the same keys."""

    def put(self, record: KeyRecord, data: bytes) -> KeyRecord:
        """Keep a key, whole or not at all, and return the record in force.

        A key that is there already stays, with its create_time; of the two expire_times the later is in force.
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
        """Delete what has expired, and what interrupted writers have left; returns the number of keys deleted."""

    def close(self) -> None:
        """Give back connections; the keys stay, unless they are kept in memory."""


class UploadSource(Protocol):
    """A place beside the keys, into which clients put what is too large for them to send: Azure's uploads.

    A client writes it with a permission of its own; the service is told a name, never a URL.
    """

    def read_upload(self, tenant: str, name: str, max_bytes: int) -> bytes:
        """Return what the tenant has put under a name: at most 200 letters, digits, dots, hyphens and underscores.

        Raises:
            KeyNotFoundError: there is nothing of that name, or it is no such name.
            LimitExceededError: it is longer than max_bytes; none of it was fetched.
            KeyStoreUnavailableError: the place does not answer in time.
        """
