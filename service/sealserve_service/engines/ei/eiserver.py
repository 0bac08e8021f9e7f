"""The `eiserver` engine: `EIServer` of encrypted-inference itself.

It is the reference for the EI slots engine. EIServer is slow (1.5 s a class) and its native code
aborts on input that it does not accept, so `eiserver_processes` runs it in processes of its own.
Ciphertexts are checked first: EIServer skips those that it cannot load, so that a row of several
ciphertexts would get a wrong answer and no error.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import MalformedCiphertextError, PlanError
from sealserve.he.ei_format import read_ciphertext
from sealserve.protocol.item import ItemHeader, SealCiphertext
from sealserve.protocol.model import Offer
from sealserve_service.engines.ei.eiserver_process import SLOTS
from sealserve_service.engines.ei.eiserver_processes import EIServerProcesses

# A block of weights whose Euclidean norm is at least this large is not encoded as zero: the largest
# of the 8192 coefficients is at least sqrt(2) 2^40 / 8192 times the norm (Parseval), and 1/2 is
# rounded up.
_SMALLEST_NORM = 2.0**-28


class EIServerEngine:
    """Scores items of one row each, in processes of their own.

    Args:
        weights: shape (classes, features).
        intercept: shape (classes,).
        offer: what clients see of the engine.
        key_bytes: (the owner's name, key id) -> the bytes of registered keys; raises
            KeyNotFoundError.
        processes: run EIServer.

    Raises:
        PlanError: EIServer aborts on the model.
    """

    holds_gil = False

    def __init__(
        self,
        weights: NDArray[np.float64],
        intercept: NDArray[np.float64],
        offer: Offer,
        key_bytes: Callable[[str, str], bytes],
        processes: EIServerProcesses,
    ) -> None:
        self.offer = offer
        self.weights = _without_zero_classes(weights)
        self.intercept = intercept
        self.key_bytes = key_bytes
        self.processes = processes

    def begin(self, header: ItemHeader, owner: str) -> "EIServerScoring":
        """Begin an item of one row."""
        return EIServerScoring(self, owner, header.key_id)


class EIServerScoring:
    """One item."""

    def __init__(self, engine: EIServerEngine, owner: str, key_id: str) -> None:
        self._engine = engine
        self._owner = owner
        self._key_id = key_id
        self._ciphertexts: list[bytes] = []

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Check the next blocks of the row's features."""
        for data in ciphertexts:
            try:
                read_ciphertext(data)
            except MalformedCiphertextError as error:
                error.index = len(self._ciphertexts)
                raise
            self._ciphertexts.append(data)

    def finish(self) -> Iterator[SealCiphertext]:
        """Yield a ciphertext a class, all of them after the last is done.

        The keys are read only now: items that wait for ciphertexts must not hold nine megabytes
        each.

        Raises:
            KeyNotFoundError: the owner has no such key.
            MalformedCiphertextError: EIServer refused ciphertexts or keys without saying why:
                reason HEADER, index 0.
            ItemTimeoutError, QuotaExceededError: it took too long, or too many requests were
                waiting.
        """
        engine = self._engine
        keys = engine.key_bytes(self._owner, self._key_id)
        yield from map(
            SealCiphertext,
            engine.processes.predict(engine.weights, engine.intercept, b"".join(self._ciphertexts), keys),
        )


def _without_zero_classes(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give classes that would be encoded as zero a weight for a slot that is zero in every row.

    EIServer drops a block of weights that is zero and aborts when it has dropped all.

    Raises:
        PlanError: there is no such slot.
    """
    features = weights.shape[1]
    blocks = np.split(weights, range(SLOTS, features, SLOTS), axis=1)
    zero = np.max([np.linalg.norm(block, axis=1) for block in blocks], axis=0) < _SMALLEST_NORM
    if not zero.any():
        return weights
    if features % SLOTS == 0:
        raise PlanError(
            f"class {int(np.argmax(zero))} has no weights, on which EIServer aborts, and {features} features leave no "
            f"room for one that does nothing: use the default EI engine, or drop a feature"
        )
    return np.column_stack([weights, zero.astype(np.float64)])
