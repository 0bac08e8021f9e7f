"""The interface of an engine: begin -> add(chunk), ... -> finish.

Row: one add. Column: many, each added up and forgotten, so that an item's memory does not grow with its features. EI:
begin fetches the evaluation keys that the header names. All yield the reply piece by piece, so that a server can send
one while the next is made, and give others a turn in between.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from sealserve.protocol.item import EncryptedScores, ItemHeader
from sealserve.protocol.model import Offer
from sealserve_service.tenants.tenant import Tenant


class Scoring(Protocol):
    """One item on its way through an engine."""

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Take the next ciphertexts, in order; the caller counts them.

        Raises:
            MalformedCiphertextError: its index is that within the item.
        """

    def finish(self) -> Iterator[EncryptedScores]:
        """Yield the pieces of the reply, in order, after the last ciphertext.

        Raises:
            MalformedCiphertextError: the ciphertexts cannot be multiplied with the model.
        """


class Engine(Protocol):
    """A model made ready in one layout and parameter set."""

    @property
    def offer(self) -> Offer:
        """What it offers to clients."""

    @property
    def holds_gil(self) -> bool:
        """Whether its arithmetic holds the GIL, so that two items at once would only make both late."""

    def begin(self, header: ItemHeader, tenant: Tenant) -> Scoring:
        """Begin an item whose header has been checked against the offer.

        Raises:
            KeyNotFoundError: the tenant has no key of header.key_id, which the engine needs.
        """
