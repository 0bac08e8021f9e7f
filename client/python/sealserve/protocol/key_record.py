"""Records of registered keys, which are evaluation keys or public encryption keys.

Nothing in a record is secret.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

__all__ = ["KeyHeader", "KeyKind", "KeyRecord"]


class KeyKind(Enum):
    """The purpose of a registered key."""

    EVALUATION_KEYS = "evaluation-keys"
    """Galois and relinearization keys, for the EI layout."""
    PUBLIC_ENCRYPTION_KEY = "public-encryption-key"
    """A key with which the service re-randomizes replies, for private weights."""


@dataclass(frozen=True, kw_only=True)
class KeyRecord:
    """A registered key without its bytes. See Key in keys.proto.

    Attributes:
        tenant: the name of the key's owner.
        key_id: the SHA-256 of the key's bytes, as 64 lower-case hexadecimal digits.
        create_time, expire_time: aware datetimes in UTC.
    """

    tenant: str
    key_id: str
    kind: KeyKind
    parameter_set: str
    byte_count: int
    create_time: datetime
    expire_time: datetime

    def is_expired(self, now: datetime) -> bool:
        """Tell whether the key has expired. An expired key counts as deleted."""
        return self.expire_time <= now


@dataclass(frozen=True, kw_only=True)
class KeyHeader:
    """The description of a key that is being uploaded. See KeyHeader in keys.proto.

    Attributes:
        ttl_seconds: how long to keep the key. If None, the service decides.
        blob_name: the blob that holds the key, if the bytes are not uploaded.
    """

    key_id: str
    kind: KeyKind
    parameter_set: str
    byte_count: int
    ttl_seconds: float | None = None
    blob_name: str = ""
