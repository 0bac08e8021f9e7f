"""Engine: the interface of what scores items, begin -> add(chunk), ... -> finish.

A row engine takes one add. A column engine takes many; it adds each chunk to its sums and forgets
the chunk, so that an item's memory does not grow with its features. In the EI slots engine, begin
fetches the evaluation keys that the header names. All engines yield the reply piece by piece: the
server can send one piece while the next is made, and score other items in between.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from sealserve.protocol.item import EncryptedScores, ItemHeader
from sealserve.protocol.model import Offer


class Scoring(Protocol):
    """One item that an engine scores."""

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Take the next ciphertexts, in order; the caller counts them.

        Raises:
            MalformedCiphertextError: a ciphertext is malformed; the error's index counts from the
                item's first.
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
        """The layout, the parameters, the bounds and the costs that clients see."""

    @property
    def holds_gil(self) -> bool:
        """Whether its arithmetic holds the GIL: scoring two items at once would only delay both."""

    def begin(self, header: ItemHeader, owner: str) -> Scoring:
        """Begin an item whose header has been checked against the offer.

        Args:
            header: of the item.
            owner: the name of the tenant whose item it is, and whose keys it may use.

        Raises:
            KeyNotFoundError: the owner has no key of header.key_id, which the engine needs.
        """
