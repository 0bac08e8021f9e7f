"""What travels: the header of an item, and the polynomial pairs of its reply. SDK and service share the words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sealserve.he.layouts import Layout

__all__ = ["EncryptedReply", "EncryptedScores", "ItemHeader", "Residues", "SealCiphertext"]


@dataclass(frozen=True)
class ItemHeader:
    """Says what an item is; see ItemHeader in prediction.proto.

    Attributes:
        layout: None when it is one that this version does not know.
    """

    model: str
    config_id: str
    layout: Layout | None
    parameter_set: str
    row_count: int
    ciphertext_count: int
    key_id: str = ""


class Residues(NamedTuple):
    """One polynomial pair of a reply; see Residues in prediction.proto."""

    c0: bytes
    c1: bytes

    @property
    def byte_count(self) -> int:
        """Bytes of both."""
        return len(self.c0) + len(self.c1)


class SealCiphertext(bytes):
    """A piece of a reply that is a whole SEAL object (EI only); see EncryptedScores in prediction.proto."""

    @property
    def byte_count(self) -> int:
        """Its length."""
        return len(self)


EncryptedScores = Residues | SealCiphertext
"""A piece of a reply: one polynomial pair, with the scores of some rows and classes."""


@dataclass(frozen=True)
class EncryptedReply:
    """The whole reply to an item.

    Attributes:
        header: the item's.
        scores: the pieces of the reply, in order.
        request_bytes, reply_bytes: the lengths of all messages of the item, and of its reply.
        server_seconds: the time that the service says it took.
    """

    header: ItemHeader
    scores: Sequence[EncryptedScores]
    request_bytes: int
    reply_bytes: int
    server_seconds: float
