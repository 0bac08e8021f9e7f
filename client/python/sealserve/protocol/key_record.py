"""What is known of a registered key: evaluation keys, or a public encryption key. Nothing of it is secret."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

__all__ = ["KeyHeader", "KeyKind", "KeyRecord"]


class KeyKind(Enum):
    """What a registered key is for."""

    EVALUATION_KEYS = "evaluation-keys"
    """Galois and relinearization keys: the EI layout."""
    PUBLIC_ENCRYPTION_KEY = "public-encryption-key"
    """Re-randomizes replies: private weights."""


@dataclass(frozen=True)
class KeyRecord:
    """A registered key, without its bytes; see Key in keys.proto.

    Attributes:
        tenant: the name of its owner.
        key_id: SHA-256 of its bytes, 64 lower-case hexadecimal digits.
        create_time, expire_time: aware datetimes, UTC.
    """

    tenant: str
    key_id: str
    kind: KeyKind
    parameter_set: str
    byte_count: int
    create_time: datetime
    expire_time: datetime

    def is_expired(self, now: datetime) -> bool:
        """Whether the key is as good as deleted."""
        return self.expire_time <= now


@dataclass(frozen=True)
class KeyHeader:
    """Says which key is coming; see KeyHeader in keys.proto.

    Attributes:
        ttl_seconds: None leaves it to the service.
    """

    key_id: str
    kind: KeyKind
    parameter_set: str
    byte_count: int
    ttl_seconds: float | None = None
    blob_name: str = ""
