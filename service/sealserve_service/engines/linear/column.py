"""The column engine: one matrix product of weights and residues, in float64, exact.

Class k of the reply is sum_j W[k, j] * ciphertext j, modulo each prime: no transform, no SEAL. The
64-bit residues are viewed as 32-bit limbs, low and high, and BLAS adds products of weights and
limbs up. As long as each class's weights sum to 2^21 at most in absolute value, every partial sum
is an integer of at most 2^21 (2^32 - 1) < 2^53, which float64 holds exactly, in whatever order BLAS
adds; 2^21 + 1 times 2^32 - 1 is the first that it does not hold. Before the sums would go beyond,
they are folded: reduced modulo the prime, as 64-bit integers, and begun anew. Where to fold depends
on the weights alone and is decided when the engine is built.

A fold reduces low + 2^32 high + residue modulo a prime q < 2^60, where

    |low|  <= 2^21 (2^32 - 1)
    |high| <= 2^21 floor((q - 1) / 2^32) < 2^49
    0 <= residue < q, what earlier folds have left

The quotient x = 2^32 high / q, below 2^21 in absolute value, is estimated in float64 with three
roundings of 2^-53 each at most: of q, of 2^32 / q, of its product with high (an integer that
float64 holds). The estimate is off by less than 2^21 4 2^-53 = 2^-30, so that with its floor, n,
the remainder 2^32 high - n q lies within -2^-30 q .. (1 + 2^-30) q. Both of its terms may be beyond
64 bits, but integers wrap modulo 2^64, and their difference, which is within 64 bits, comes out
right. With low and residue added, the sum lies within -2^54 .. 2 q + 2^54, far from 2^63; one exact
division ends it.

A chunk is added up and forgotten: an item holds classes x 2 N sums and residues, whatever the
number of features. Residues have a place of their own, which makes it 24 bytes each instead of 16:
among the sums, where weights go to the brim of 2^53, they would go beyond.
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
from sealserve.he.layouts.column import ColumnPacking
from sealserve.protocol.item import PolynomialPair
from sealserve_service.engines.linear.base import LinearEngine, ReplyWriter
from sealserve_service.engines.linear.rerandomizer import Rerandomize
from sealserve_service.planning.column import COLUMN_RULES, ColumnPlan

MAX_ABSOLUTE_SUM = 1 << 21
MAX_HELD_BYTES = 32 << 20
"""The most that an item may hold: what any process has room for."""

_CIPHERTEXTS_A_PRODUCT = 32
_LIMBS_A_PRODUCT = 8192  # with 32 ciphertexts 2 MB in float64: what a core's cache holds
_COST_REPETITIONS = 5


class ColumnScoring:
    """One item.

    `writer` writes its reply. In mode private `rerandomize` hides the weights in it.
    """

    def __init__(
        self, engine: "ColumnEngine", row_count: int, writer: ReplyWriter, rerandomize: Rerandomize | None = None
    ) -> None:
        self._engine = engine
        self._row_count = row_count
        self._writer = writer
        self._rerandomize = rerandomize
        self._received = 0
        # The first chunk allocates the arrays, not the header: an item without a chunk holds
        # nothing.
        self._sums: NDArray[np.float64] = np.empty((0, 0))
        self._residues: NDArray[np.int64] = np.empty((0, 2, 0, 0), np.int64)  # (score_count, 2, data primes, N)

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Check ciphertexts, the next features of all rows, and add their products to the sums."""
        engine = self._engine
        residues = engine.format.checked_residues(ciphertexts)
        if residues is None:
            residues = self._check_one_by_one(ciphertexts)
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

    def _check_one_by_one(self, ciphertexts: Sequence[bytes]) -> NDArray[np.uint64]:
        """Return the residues of ciphertexts of any form; name the first malformed one."""
        engine, residues = self._engine, []
        for index, data in enumerate(ciphertexts, self._received):
            try:
                data = engine.format.checked(data)
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
        primes = self._engine.signed_primes
        quotients_a_limb = 2.0**32 / primes
        # Class by class: intermediate results stay in a core's cache, and add nothing to what the
        # item holds.
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

    def finish(self) -> Iterator[PolynomialPair]:
        """Yield a polynomial pair for each class."""
        engine = self._engine
        for polynomials in engine.polynomials:
            classes = slice(polynomials.start, polynomials.stop)
            signed = self._residues[classes, 0, :, : self._row_count] + engine.signed_intercept[classes, :, None]
            signed %= engine.signed_primes
            kept, c1 = signed.view(np.uint64), self._residues[classes, 1].view(np.uint64)
            if self._rerandomize is not None:
                kept, c1 = self._rerandomize(kept, c1, slice(self._row_count))
            yield from map(self._writer.pair, self._writer.c0_bytes(kept), self._writer.c1_bytes(c1))


class ColumnEngine(LinearEngine[ColumnPacking]):
    """Scores batches of rows under a plan.

    Attributes:
        weights: float64 (feature_count, score_count).
        folds: see `folds`.
        signed_primes: the data primes, int64 (data primes, 1).
        signed_intercept: `intercept` as int64 (score_count, data primes).

    Raises:
        PlanError: an item would hold more than MAX_HELD_BYTES.
    """

    rules = COLUMN_RULES
    scoring_type = ColumnScoring
    holds_gil = False

    def prepare(self, plan: ColumnPlan) -> None:
        """Convert the weights and say where to fold."""
        if self.held_bytes > MAX_HELD_BYTES:
            raise PlanError(f"a batch with {self.packing.score_count} classes would hold {self.held_bytes >> 20} MB")
        self.weights = np.ascontiguousarray(plan.model.weights.T, np.float64)
        self.folds = folds(plan.model.weights)
        self.signed_primes = self.primes.astype(np.int64)
        self.signed_intercept = self.intercept.T.astype(np.int64)
        # As many products at once as there are cores: more would only displace each other's data
        # from the caches.
        self._buffers: queue.SimpleQueue[NDArray[np.float64] | None] = queue.SimpleQueue()
        for _ in range(os.cpu_count() or 1):
            self._buffers.put(None)

    @property
    def held_bytes(self) -> int:
        """What the service holds of an item: sums, 16 bytes a residue, and residues, 8."""
        return 3 * 2 * self.packing.score_count * self.parameter_set.polynomial_bytes

    def multiply(self, first_index: int, residues: NDArray[np.uint64], sums: NDArray[np.float64]) -> None:
        """Add the products of residues and their weights to the sums.

        Args:
            first_index: of the first ciphertext.
            residues: of consecutive ciphertexts between two folds, (ciphertexts, 2, data primes,
                N).
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

    def measure_seconds(self) -> float:
        """Time the products of some random ciphertexts, a fold and the reply; warm the engine up.

        Random ciphertexts take as long as others, except that those that a client sends are not
        in the caches yet.
        """
        some = min(self.packing.ciphertexts, _CIPHERTEXTS_A_PRODUCT)
        ciphertexts = [self.random_ciphertext() for _ in range(some)]
        scoring = ColumnScoring(self, self.packing.rows, self.writer, self.random_rerandomize())
        scoring.add(ciphertexts[:1])
        samples = []
        for _ in range(_COST_REPETITIONS):
            times = [time.perf_counter()]
            if (residues := self.format.checked_residues(ciphertexts)) is not None:  # they pass all checks
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


def folds(weights: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the indices of the ciphertexts before which to fold, the end included.

    Between two folds the absolute weights of each class sum to at most 2^21.

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
