"""Packing of the EI slots engine: generalized diagonals, two classes in a slot. Pure NumPy.

Classes 2k and 2k + 1 are the real and the imaginary part of pair k, which belongs to the slots
s = k modulo `period`. In slot s the diagonal of distance d of block i holds the pair's weight of
feature 4096 i + (s + d) mod 4096. The diagonal times block i rotated by d, summed over all d below
`period` and over the slots of the pair, is the pair's scores.

d = giant * baby_steps + baby (baby-step giant-step: Halevi and Shoup, CRYPTO 2014): a block is
rotated by each baby step, and a sum over baby steps by its giant step; a diagonal is rolled back by
its giant step beforehand.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import PlanError

SLOTS = 4096

# Costs in units of encoding a plaintext, which needs no key and can be timed anywhere. A rotation
# at two primes costs about twice one at one prime.
_LOAD = 4.0
_BABY_ROTATION, _ROTATION = 3.6, 1.9
_PRODUCT, _RESCALING, _REPLY = 0.4, 0.9, 0.2


@dataclass(frozen=True)
class SlotPacking:
    """The places of features and classes.

    Attributes:
        feature_count, score_count: the model's shape.
        baby_steps: a power of two, at most `period`.

    Raises:
        PlanError: more classes than slots for them.
    """

    feature_count: int
    score_count: int
    baby_steps: int = 1

    def __post_init__(self) -> None:
        if self.pairs > SLOTS:
            raise PlanError(f"the layout ei-slots has room for {2 * SLOTS} classes, the model has {self.score_count}")

    @classmethod
    def cheapest(cls, feature_count: int, score_count: int) -> "SlotPacking":
        """Return the packing whose number of baby steps costs least."""
        period = cls(feature_count, score_count).period
        choices = (cls(feature_count, score_count, 1 << power) for power in range(period.bit_length()))
        return min(choices, key=lambda packing: packing.cost)

    @property
    def blocks(self) -> int:
        """Ciphertexts of a row."""
        return -(-self.feature_count // SLOTS)

    @property
    def pairs(self) -> int:
        """Pairs of classes."""
        return -(-self.score_count // 2)

    @property
    def period(self) -> int:
        """The number of diagonals: the least power of two that is at least `pairs`."""
        return 1 << (self.pairs - 1).bit_length()

    @property
    def giant_steps(self) -> int:
        """Sums over baby steps."""
        return self.period // self.baby_steps

    @property
    def folds(self) -> tuple[int, ...]:
        """Rotations that sum a pair's slots up, so that in the end slot k has the scores of pair k.

        With one pair only the slots of features have anything to sum. With several, a feature that
        comes before its pair's first slot is read at the other end of the slots, so that all 4096
        slots have something to sum.
        """
        used = SLOTS if self.period > 1 else min(self.feature_count, SLOTS)
        return tuple(1 << power for power in range(self.period.bit_length() - 1, (used - 1).bit_length()))[::-1]

    @property
    def cost(self) -> float:
        """The cost of an item, counted in encodings of a plaintext."""
        block = _LOAD + (self.baby_steps - 1) * _BABY_ROTATION + self.period * _PRODUCT
        rotations = self.giant_steps - 1 + len(self.folds) + self.pairs - 1
        return self.blocks * block + rotations * _ROTATION + self.giant_steps * _RESCALING + self.score_count * _REPLY

    def diagonal(self, weights: NDArray[np.float64], block: int, giant: int, baby: int) -> NDArray[np.complex128]:
        """Return the weights of a distance: (4096,), rolled back by the giant step.

        Args:
            weights: (score_count, feature_count).
            block: the index of the ciphertext.
            giant: the index of the giant step.
            baby: the baby step.
        """
        roll = giant * self.baby_steps
        # Rolled back by the giant step, slot s holds the weight of slot s - roll, which reads
        # feature s + baby.
        slot = np.arange(SLOTS)
        feature = block * SLOTS + (slot + baby) % SLOTS
        score = 2 * ((slot - roll) % self.period)
        diagonal = np.zeros(SLOTS, np.complex128)
        for part, factor in enumerate((1, 1j)):
            held = (feature < self.feature_count) & (score + part < self.score_count)
            diagonal[held] += factor * weights[score[held] + part, feature[held]]
        return diagonal

    def paired(self, scores: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Put a number for each class (score_count,) into every slot of its pair: (4096,)."""
        padded = np.zeros(2 * self.period)
        padded[: self.score_count] = scores
        return np.resize(padded[0::2] + 1j * padded[1::2], SLOTS)
