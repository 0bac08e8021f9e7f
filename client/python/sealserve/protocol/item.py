"""Items as client and service exchange them: the header, and the polynomial pairs of the reply."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError
from sealserve.he.layouts import Layout

__all__ = [
    "EncryptedReply",
    "EncryptedScores",
    "ItemHeader",
    "PackedPair",
    "RefusedRows",
    "ReplyForm",
    "Residues",
    "SealCiphertext",
]


class ReplyForm(Enum):
    """A form of encrypted scores. See ReplyForm in prediction.proto."""

    RESIDUES = "residues"
    """`Residues`: of the row and column layouts, unless an offer with reply bits is private."""
    PACKED = "packed"
    """`PackedPair`: of the row and column layouts, where it has."""
    SEAL_CIPHERTEXT = "seal_ciphertext"
    """`SealCiphertext`: of the EI slots layout."""


@dataclass(frozen=True, kw_only=True)
class ItemHeader:
    """The description of an item. See ItemHeader in prediction.proto.

    Attributes:
        layout: None if this version does not know the layout.
        reply_forms: the forms of encrypted scores that the client reads, as far as this version
            knows them.
    """

    model: str
    config_id: str
    layout: Layout | None
    parameter_set: str
    row_count: int
    ciphertext_count: int
    key_id: str = ""
    reply_forms: frozenset[ReplyForm] = frozenset(ReplyForm)


class _Pair(NamedTuple):
    """One polynomial pair of a reply.

    Attributes:
        c0: the coefficients of the first polynomial that hold scores.
        c1: all coefficients of the second polynomial.
    """

    c0: bytes
    c1: bytes

    @property
    def byte_count(self) -> int:
        """The number of bytes of both polynomials."""
        return len(self.c0) + len(self.c1)


class Residues(_Pair):
    """One polynomial pair of a reply. See Residues in prediction.proto."""

    __slots__ = ()


class PackedPair(_Pair):
    """One polynomial pair of a reply, packed. See PackedPair in prediction.proto."""

    __slots__ = ()


class SealCiphertext(bytes):
    """A piece of a reply that is a whole SEAL object (EI only).

    See EncryptedScores in prediction.proto.
    """

    @property
    def byte_count(self) -> int:
        """The number of bytes of the object."""
        return len(self)


PolynomialPair = Residues | PackedPair
"""One polynomial pair of a reply, with the scores of some rows and classes."""

EncryptedScores = PolynomialPair | SealCiphertext
"""A piece of a reply."""


@dataclass(frozen=True, eq=False, kw_only=True)
class RefusedRows:
    """The rows of an item that were refused. Dummies travel in their place.

    Attributes:
        places: bool (rows,), true where a row was refused.
        rows: of the item, as the caller handed them in.
        compose: composes the error of rows, at least one of which was refused.
    """

    places: NDArray[np.bool_]
    rows: NDArray[Any] = field(repr=False)
    compose: Callable[[NDArray[Any]], InputError] = field(repr=False)

    def error(self) -> InputError:
        """Compose the error that says which rows of the item were refused, and why."""
        return self.compose(self.rows)

    def errors(self) -> dict[int, InputError]:
        """Compose the errors of the refused rows, each by its place in the item."""
        return {place: self.compose(self.rows[place : place + 1]) for place in np.flatnonzero(self.places).tolist()}


@dataclass(frozen=True, kw_only=True)
class EncryptedReply:
    """The whole reply to an item.

    Attributes:
        header: the item's.
        scores: the pieces of the reply, in order.
        request_bytes, reply_bytes: the lengths of all messages of the item, and of its reply.
        server_seconds: the time that the service says it took.
        refused: the item's.
    """

    header: ItemHeader
    scores: Sequence[EncryptedScores]
    request_bytes: int
    reply_bytes: int
    server_seconds: float
    refused: RefusedRows | None = field(default=None, repr=False)
