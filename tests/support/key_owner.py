"""The key's owner, who reads more of a reply than its scores: the noise at their places.

It also computes what that noise would be in mode open.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts.row import RowPacking
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Integers, integer_scores
from tests.support.item_round_trip import secret_key
from tests.support.noisy_encryptor import NoisyEncryptor
from tests.support.reply_pairs import Pair, lifted


@dataclass(frozen=True, eq=False)
class Question:
    """An encrypted item, as SEAL encrypts it, with the noise that its client can compute.

    Attributes:
        ciphertexts: of rows on the grid.
        noise: v + rounding of q m / t, of each ciphertext, float64 (ciphertexts, N).
    """

    rows: NDArray[np.int64]
    ciphertexts: list[bytes]
    noise: NDArray[np.float64]


class KeyOwner:
    """A client of a plan that keeps to the protocol and looks at everything that it can compute."""

    def __init__(self, plan: RowPlan | ColumnPlan) -> None:
        self.plan = plan
        self._noisy = NoisyEncryptor(plan.parameters, secret_key(plan.parameters.parameter_set))

    def question(self, rows: NDArray[np.int64]) -> Question:
        """Encrypt rows on the grid."""
        q, t = self.plan.parameters.parameter_set.modulus, self.plan.parameters.plain_modulus
        ciphertexts, noise = [], []
        for plaintext in self.plan.packing.pack_rows(rows):
            ciphertexts.append(self._noisy.fresh(plaintext))
            rounding = self._noisy.scaled(plaintext) * t - q * plaintext.astype(object)
            noise.append((self._noisy.noise(ciphertexts[-1], plaintext) * t + rounding) / t)
        return Question(rows, ciphertexts, np.array(noise, np.float64))

    def reply_noise(self, question: Question, reply: list[Pair]) -> NDArray[np.float64]:
        """Return phase - q y / t at the places of the scores: float64 (rows, scores).

        Of a packed reply the phase is rounded, too.
        """
        packing, q = self.plan.packing, self.plan.parameters.parameter_set.modulus
        t, found = self.plan.parameters.plain_modulus, []
        for polynomial, pair in enumerate(reply):
            classes = packing.classes_in(polynomial)
            places = packing.places(len(question.rows), len(classes))
            scores = integer_scores(self.plan.model, question.rows)[:, classes.start : classes.stop] % t
            pair = lifted(self.plan.parameters, self.plan.reply_bits, pair, places.size)
            phase: Integers = self._noisy.phase(pair.c0, pair.c1, places.ravel()).reshape(places.shape)
            # In units of 1 / t, so that integers hold it.
            found.append(((phase * t - q * scores + q * t // 2) % (q * t) - q * t // 2) / t)
        return np.concatenate(found, axis=1).astype(np.float64)

    def noise_terms(self, question: Question) -> NDArray[np.float64]:
        """Return the terms of each score's noise in mode open, without their weights.

        Shape (rows, scores, packed weights): the noise is the product of the terms with
        `packed_weights` of the score's class.
        """
        packing, scores = self.plan.packing, self.plan.packing.score_count
        if not isinstance(packing, RowPacking):
            return np.repeat(question.noise.T[: len(question.rows), None], scores, axis=1)
        (noise,) = question.noise
        N, used = packing.poly_modulus_degree, packing.classes * packing.window
        terms = np.empty((len(question.rows), scores, used))
        for polynomial in range(packing.polynomials):
            classes = packing.classes_in(polynomial)
            for (row, place), at in np.ndenumerate(packing.places(len(question.rows), len(classes))):
                source = at - np.arange(used)  # X^N is -1
                terms[row, classes.start + place] = np.where(source < 0, -noise[source % N], noise[source % N])
        return terms

    def packed_weights(self, score: int) -> NDArray[np.float64]:
        """Return the weights in a score's noise: its polynomial's (row), its class's (column)."""
        packing, used = self.plan.packing, self.plan.model.weights[score]
        if isinstance(packing, RowPacking):
            packed = packing.pack_weights(self.plan.model.weights)[score // packing.classes, 0]
            used = packed[: packing.classes * packing.window]
        return np.array(used, np.float64)

    def predicted(self, question: Question) -> NDArray[np.float64]:
        """Return the noise in mode open, but for the rounding of the intercept: (rows, scores)."""
        weights = np.stack([self.packed_weights(score) for score in range(self.plan.packing.score_count)])
        noise: NDArray[np.float64] = np.einsum("rsw,sw->rs", self.noise_terms(question), weights)
        return noise
