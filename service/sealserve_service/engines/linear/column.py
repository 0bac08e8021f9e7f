"""The column engine: one matrix product of weights and residues, in float64, exact.

Class k of the reply is sum_j W[k, j] * ciphertext j, modulo each prime: no transform, no SEAL. The 64-bit residues are
viewed as 32-bit limbs, low and high, and BLAS adds products of weights and limbs up: as long as each class's weights
sum to 2^21 at most in absolute value, every partial sum is an integer of at most 2^21 (2^32 - 1) < 2^53, which float64
holds exactly, in whatever order BLAS adds; 2^21 + 1 times 2^32 - 1 is the first that it does not hold. Before the sums
would go beyond, they are folded: reduced modulo the prime, as 64-bit integers, and begun anew. Where to fold depends on
the weights alone and is decided when the engine is built.

A fold reduces low + 2^32 high + residue modulo a prime q < 2^60, where

    |low|  <= 2^21 (2^32 - 1)
    |high| <= 2^21 floor((q - 1) / 2^32) < 2^49
    0 <= residue < q, what earlier folds have left

The quotient x = 2^32 high / q, below 2^21 in absolute value, is estimated in float64 with three roundings of 2^-53 each
at most: of q, of 2^32 / q, of its product with high (an integer that float64 holds). The estimate is off by less than
2^21 4 2^-53 = 2^-30, so that with its floor, n, the remainder 2^32 high - n q lies within -2^-30 q .. (1 + 2^-30) q.
Both of its terms may be beyond 64 bits, but integers wrap modulo 2^64, and their difference, which is not, comes out
right. With low and residue added, the sum lies within -2^54 .. 2 q + 2^54, far from 2^63; one exact division ends it.

A chunk is added up and forgotten: an item holds classes x 2 N sums and residues, whatever the number of features.

A plan with a noise width is one of mode private: its replies are re-randomized under the client's registered key.
"""

import os
import queue
import time
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import CiphertextFault, MalformedCiphertextError, PlanError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.item import ItemHeader, Residues
from sealserve.protocol.model import ObservedError
from sealserve_service.engines.linear import base as planned
from sealserve_service.engines.linear.rerandomizer import (
    Rerandomizer,
    ZeroEncryptorOf,
    hiding_of,
    hiding_to_measure,
    no_keys,
)
from sealserve_service.planning.planner import ColumnPlan
from sealserve_service.tenants.tenant import Tenant

MAX_ABSOLUTE_SUM = 1 << 21
MAX_HELD_BYTES = 32 << 20
"""Of one item: what any process has room for."""

_CIPHERTEXTS_A_PRODUCT = 32
_LIMBS_A_PRODUCT = 8192  # with 32 ciphertexts 2 MB in float64: what a core's cache holds
_COST_REPETITIONS = 5


class ColumnEngine:
    """Scores batches of rows under a plan; `keys` finds those that a private plan needs.

    Raises:
        PlanError: an item would hold more than MAX_HELD_BYTES.
    """

    holds_gil = False

    def __init__(
        self, plan: ColumnPlan, observed_error: ObservedError | None = None, keys: ZeroEncryptorOf = no_keys
    ) -> None:
        self._noise_width = plan.noise_width
        self._keys = keys
        self.parameter_set = plan.parameters.parameter_set
        self.packing = plan.packing
        self.context = _seal.context(plan.parameters)
        self.format = planned.ciphertext_format(plan)
        self.primes = np.array(self.parameter_set.data_primes, np.int64)[:, None]
        self.weights = np.ascontiguousarray(plan.model.weights.T, np.float64)
        self.folds = folds(plan.model.weights)
        self.intercept = planned.lifted_intercept(plan).T.astype(np.int64)  # (score_count, data primes)
        # As many products at once as there are cores: more would only take each other's cache.
        self._buffers: queue.SimpleQueue[NDArray[np.float64] | None] = queue.SimpleQueue()
        for _ in range(os.cpu_count() or 1):
            self._buffers.put(None)
        # Sums, 16 bytes a residue, and residues, 8.
        held_bytes = 3 * 2 * self.packing.score_count * self.parameter_set.polynomial_bytes
        if held_bytes > MAX_HELD_BYTES:
            raise PlanError(f"a batch with {self.packing.score_count} classes would hold {held_bytes >> 20} MB")
        self.offer = planned.offered(
            plan,
            LAYOUTS["column"],
            server_seconds=self._measured_seconds(plan),
            held_bytes=held_bytes,
            observed_error=observed_error,
        )

    def begin(self, header: ItemHeader, tenant: Tenant) -> "ColumnScoring":
        """Begin an item of header.row_count rows.

        Raises:
            KeyNotFoundError: the weights are private, and the tenant has no public key of header.key_id and the ring.
        """
        hiding = hiding_of(self._noise_width, self.parameter_set, self._keys, header, tenant)
        return ColumnScoring(self, header.row_count, hiding)

    def multiply(self, first_index: int, residues: NDArray[np.uint64], sums: NDArray[np.float64]) -> None:
        """Add the products of residues, of consecutive ciphertexts between two folds, and their weights to the sums.

        Args:
            first_index: of the first ciphertext.
            residues: (ciphertexts, 2, data primes, N).
            sums: float64 (score_count, 4 data primes N): low and high limbs alternate.
        """
        buffer = self._buffers.get()
        try:
            if buffer is None:
                buffer = np.empty((_CIPHERTEXTS_A_PRODUCT, _LIMBS_A_PRODUCT))
            limbs = residues.reshape(len(residues), -1).view(np.uint32)
            for first in range(0, len(limbs), _CIPHERTEXTS_A_PRODUCT):
                block = limbs[first : first + _CIPHERTEXTS_A_PRODUCT]
                weights = self.weights[first_index + first : first_index + first + len(block)].T
                for start in range(0, sums.shape[1], _LIMBS_A_PRODUCT):
                    columns = slice(start, min(start + _LIMBS_A_PRODUCT, sums.shape[1]))
                    converted = buffer[: len(block), : columns.stop - start]
                    converted[:] = block[:, columns]
                    sums[:, columns] += weights @ converted
        finally:
            self._buffers.put(buffer)

    def _measured_seconds(self, plan: ColumnPlan) -> float:
        """Time the products of some ciphertexts of noise, a fold and the reply; it warms the engine up.

        Ciphertexts of noise cost what others cost, but for the caches: those that are received have to come into them.
        """
        some = min(self.packing.ciphertexts, _CIPHERTEXTS_A_PRODUCT)
        noise = [planned.noise(plan) for _ in range(some)]
        scoring = ColumnScoring(self, self.packing.rows, hiding_to_measure(plan))
        scoring.add(noise[:1])
        samples = []
        for _ in range(_COST_REPETITIONS):
            times = [time.perf_counter()]
            if (residues := self.format.checked_residues(noise)) is not None:  # as it is: noise passes all checks
                self.multiply(0, residues, scoring._sums)  # without folds: there may be many among the first features
            times.append(time.perf_counter())
            scoring.fold()
            times.append(time.perf_counter())
            for _ in scoring.finish():
                pass
            times.append(time.perf_counter())
            products, fold, finish = np.diff(times)
            samples.append(products * self.packing.ciphertexts / some + fold * len(self.folds) + finish)
        return float(median(samples))


class ColumnScoring:
    """One item on its way; `hiding` re-randomizes its reply in mode private."""

    def __init__(self, engine: ColumnEngine, row_count: int, hiding: Rerandomizer | None = None) -> None:
        self._engine = engine
        self._row_count = row_count
        self._hiding = hiding
        self._received = 0
        # Room that a chunk asks for, not a header: whoever has sent nothing yet holds nothing.
        self._sums: NDArray[np.float64] = np.empty((0, 0))
        self._residues: NDArray[np.int64] = np.empty((0, 2, 0, 0), np.int64)  # (score_count, 2, data primes, N)

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Check ciphertexts, the next features of all rows, and add their products to the sums."""
        engine = self._engine
        residues = engine.format.checked_residues(ciphertexts)
        if residues is None:
            residues = self._checked_one_by_one(ciphertexts)
        if not self._sums.size:
            shape = engine.packing.score_count, 2, len(engine.primes), engine.packing.poly_modulus_degree
            self._residues = np.zeros(shape, np.int64)
            self._sums = np.zeros((shape[0], 2 * self._residues[0].size))
        first = 0
        while first < len(residues):
            until_fold = engine.folds[np.searchsorted(engine.folds, self._received, "right")] - self._received
            some = residues[first : first + until_fold]
            engine.multiply(self._received, some, self._sums)
            self._received += len(some)
            first += len(some)
            if len(some) == until_fold:
                self.fold()

    def _checked_one_by_one(self, ciphertexts: Sequence[bytes]) -> NDArray[np.uint64]:
        """Return the residues of ciphertexts of which some are seeded, or bad, and say which."""
        engine, residues = self._engine, []
        for index, data in enumerate(ciphertexts, self._received):
            try:
                engine.format.check(data)
                if len(data) == engine.format.seeded_bytes:
                    data = _seal.ciphertext_bytes(_seal.load_ciphertext(engine.context, data))
            except MalformedCiphertextError as error:
                error.index = index
                raise
            except _seal.SealError as error:
                raise MalformedCiphertextError(CiphertextFault.HEADER, index) from error
            residues.append(engine.format.residues(data))
        return np.stack(residues)

    def fold(self) -> None:
        """Reduce the sums modulo the primes into the residues, and begin anew."""
        primes = self._engine.primes
        quotients_a_limb = 2.0**32 / primes
        # Class by class: what is needed in between stays in a core's cache, and is no part of what the item holds.
        for sums, residues in zip(self._sums, self._residues, strict=True):
            low, high = (sums[limb::2].reshape(residues.shape) for limb in (0, 1))
            quotient = np.floor(high * quotients_a_limb).astype(np.int64)
            quotient *= primes
            remainder = high.astype(np.int64)
            remainder <<= 32
            remainder -= quotient
            remainder += low.astype(np.int64)
            residues += remainder
            residues %= primes
        self._sums[:] = 0.0

    def finish(self) -> Iterator[Residues]:
        """Yield a polynomial pair for each class."""
        engine = self._engine
        for residues, intercept in zip(self._residues, engine.intercept, strict=True):
            kept = residues[0, :, : self._row_count] + intercept[:, None]
            kept %= engine.primes
            if self._hiding is None:
                yield Residues(kept.tobytes(), residues[1].tobytes())
            else:
                c1 = residues[1].view(np.uint64)
                yield self._hiding.hidden(kept.view(np.uint64), c1, slice(self._row_count))


def folds(weights: NDArray[np.int64]) -> NDArray[np.intp]:
    """Say before which ciphertexts to fold, the end included: each part's weights sum to 2^21 a class at most.

    Args:
        weights: (score_count, feature_count), each at most 2^21 in absolute value.
    """
    ends, total = [], np.zeros(len(weights), np.int64)
    for index, column in enumerate(np.abs(weights).T):
        total = total + column
        if total.max() > MAX_ABSOLUTE_SUM:
            ends.append(index)
            total = column
    return np.array([*ends, weights.shape[1]], np.intp)
