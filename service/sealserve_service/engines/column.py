"""The column engine: one matrix product of weights and residues, in float64, exact.

Class k of the reply is sum_j W[k, j] * ciphertext j, modulo each prime: no transform, no SEAL. The 64-bit residues are
viewed as 32-bit limbs, low and high, and BLAS adds products of weights and limbs up: as long as each class's weights
sum to 2^21 at most in absolute value, every partial sum is an integer of at most 2^21 (2^32 - 1) < 2^53, which float64
holds exactly, in whatever order BLAS adds. Before the sums would go beyond, they are folded: reduced modulo the prime,
as 64-bit integers, and begun anew. Where to fold depends on the weights alone and is decided when the engine is built.

A fold of low + 2^32 high, signed, modulo q < 2^60: the quotient of 2^32 high by q is estimated in float64. High limbs
are at most q / 2^32, so that the quotient is at most 2^21 in absolute value and its estimate, rounded down, off by one
at most. The remainder, computed modulo 2^64, is then within -q .. 2 q; with |low| < 2^53 and the residues so far, below
q, the sum stays far within 63 bits, and one exact division ends it.

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
from sealserve.he.parameters import Layout
from sealserve.he.planner import ColumnPlan
from sealserve.he.public_key_format import public_key_bytes
from sealserve.he.seal_format import CiphertextFormat
from sealserve.item import ItemHeader, Residues
from sealserve.model import Cost, ObservedError, Offer
from sealserve.registered_key import KeyKind
from sealserve_service.auth import Tenant
from sealserve_service.engines.rerandomizer import Rerandomizer, ZeroEncryptorOf, no_keys

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
        self._plan = plan
        self._keys = keys
        self.parameter_set = plan.parameters.parameter_set
        self.packing = plan.packing
        self.context = _seal.context(plan.parameters)
        self.format = CiphertextFormat(self.parameter_set, _seal.fresh_parms_id(self.context))
        self.primes = np.array(self.parameter_set.data_primes, np.int64)[:, None]
        self.weights = np.ascontiguousarray(plan.model.weights.T, np.float64)
        self.folds = folds(plan.model.weights)
        self.intercept = self._lifted_intercept()
        # As many products at once as there are cores: more would only take each other's cache.
        self._buffers: queue.SimpleQueue[NDArray[np.float64] | None] = queue.SimpleQueue()
        for _ in range(os.cpu_count() or 1):
            self._buffers.put(None)
        # Sums, 16 bytes a residue, and residues, 8.
        held_bytes = 3 * 2 * self.packing.score_count * self.parameter_set.polynomial_bytes
        if held_bytes > MAX_HELD_BYTES:
            raise PlanError(f"a batch with {self.packing.score_count} classes would hold {held_bytes >> 20} MB")
        self.offer = self._offer(observed_error, held_bytes)

    def begin(self, header: ItemHeader, tenant: Tenant) -> "ColumnScoring":
        """Begin an item of header.row_count rows.

        Raises:
            KeyNotFoundError: the weights are private, and the tenant has no public key of header.key_id and the ring.
        """
        width = self._plan.noise_width
        if width is None:
            return ColumnScoring(self, header.row_count)
        zero_encryptor = self._keys(tenant.name, header.key_id, self.parameter_set)
        return ColumnScoring(self, header.row_count, Rerandomizer(zero_encryptor, width))

    def multiply(self, first_index: int, residues: Sequence[NDArray[np.uint64]], sums: NDArray[np.float64]) -> None:
        """Add the products of residues, of consecutive ciphertexts between two folds, and their weights to the sums.

        Args:
            first_index: of the first ciphertext.
            residues: each (2, data primes, N).
            sums: float64 (score_count, 4 data primes N): low and high limbs alternate.
        """
        buffer = self._buffers.get()
        if buffer is None:
            buffer = np.empty((_CIPHERTEXTS_A_PRODUCT, _LIMBS_A_PRODUCT))
        try:
            limbs = [ciphertext.reshape(-1).view(np.uint32) for ciphertext in residues]
            for first in range(0, len(limbs), _CIPHERTEXTS_A_PRODUCT):
                block = limbs[first : first + _CIPHERTEXTS_A_PRODUCT]
                weights = self.weights[first_index + first : first_index + first + len(block)].T
                for start in range(0, sums.shape[1], _LIMBS_A_PRODUCT):
                    columns = slice(start, min(start + _LIMBS_A_PRODUCT, sums.shape[1]))
                    converted = buffer[: len(block), : columns.stop - start]
                    for row, ciphertext in zip(converted, block, strict=True):
                        row[:] = ciphertext[columns]
                    sums[:, columns] += weights @ converted
        finally:
            self._buffers.put(buffer)

    def _lifted_intercept(self) -> NDArray[np.int64]:
        """Scale intercepts to ciphertexts: round(q b_int / t) modulo each data prime, (score_count, data primes)."""
        q, t = self.parameter_set.modulus, self._plan.parameters.plain_modulus
        lifted = [(q * (b % t) + t // 2) // t for b in self._plan.model.intercept]
        return np.array([[value % prime for prime in self.parameter_set.data_primes] for value in lifted], np.int64)

    def _offer(self, observed_error: ObservedError | None, held_bytes: int) -> Offer:
        plan, packing = self._plan, self.packing
        is_private = plan.noise_width is not None
        return Offer(
            layout=Layout.COLUMN,
            parameters=plan.parameters,
            parms_id=_seal.fresh_parms_id(self.context),
            private_weights=is_private,
            rows_per_item=packing.rows,
            classes_per_polynomial=packing.classes,
            ciphertexts_per_item=packing.ciphertexts,
            score_scale=plan.model.score_scale,
            score_centers=plan.score_centers,
            score_radii=plan.score_radii,
            score_error_bound=plan.score_error_bound,
            input_rounding_error_bound=plan.input_rounding_error_bound,
            observed_error=observed_error,
            cost=Cost(
                request_bytes=packing.ciphertexts * self.format.full_bytes,
                reply_bytes=plan.reply_bytes,
                server_seconds=self._measured_seconds(),
                held_bytes=held_bytes,
                key_bytes=public_key_bytes(self.parameter_set) if is_private else 0,
            ),
            required_key=KeyKind.PUBLIC_ENCRYPTION_KEY if is_private else None,
        )

    def _measured_seconds(self) -> float:
        """Time some ciphertexts of noise, which cost what others cost, and the reply; it warms the engine up."""
        words = np.frombuffer(os.urandom(2 * self.parameter_set.polynomial_bytes), np.uint64)
        c0, c1 = words.reshape(2, *self.primes.shape[:1], -1) % self.primes.astype(np.uint64)
        some = min(self.packing.ciphertexts, _CIPHERTEXTS_A_PRODUCT)
        noise = [self.format.pack(c0, c1.tobytes())] * some
        width, hiding = self._plan.noise_width, None
        if width is not None:
            hiding = Rerandomizer.under_a_random_key(self.parameter_set, width)
        samples = []
        for _ in range(_COST_REPETITIONS):
            start = time.perf_counter()
            scoring = ColumnScoring(self, self.packing.rows, hiding)
            scoring.add(noise)
            added = time.perf_counter()
            scoring.fold()
            for _ in scoring.finish():
                pass
            samples.append((added - start) * self.packing.ciphertexts / some + time.perf_counter() - added)
        return median(samples)


class ColumnScoring:
    """One item on its way; `hiding` re-randomizes its reply in mode private."""

    def __init__(self, engine: ColumnEngine, row_count: int, hiding: Rerandomizer | None = None) -> None:
        self._engine = engine
        self._row_count = row_count
        self._hiding = hiding
        self._received = 0
        # Room that a chunk asks for, not a header: whoever has sent nothing yet holds nothing.
        self._sums: NDArray[np.float64] = np.empty((0, 0))
        self._residues: NDArray[np.int64] = np.zeros((1, 1, 1, 1), np.int64)

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Check ciphertexts, the next features of all rows, and add their products to the sums."""
        engine, residues = self._engine, []
        for index, data in enumerate(ciphertexts, self._received):
            try:
                residues.append(self._checked(data))
            except MalformedCiphertextError as error:
                error.index = index
                raise
        if not self._sums.size:
            words = 2 * engine.parameter_set.polynomial_bytes // 8
            self._sums = np.zeros((engine.packing.score_count, 2 * words))
        first = 0
        while first < len(residues):
            until_fold = engine.folds[np.searchsorted(engine.folds, self._received, "right")] - self._received
            some = residues[first : first + until_fold]
            engine.multiply(self._received, some, self._sums)
            self._received += len(some)
            first += len(some)
            if len(some) == until_fold:
                self.fold()

    def _checked(self, data: bytes) -> NDArray[np.uint64]:
        """Return the residues (2, data primes, N) of hostile bytes: a view of them, unless they are seeded."""
        engine = self._engine
        engine.format.check(data)
        if len(data) == engine.format.seeded_bytes:
            try:
                data = _seal.ciphertext_bytes(_seal.load_ciphertext(engine.context, data))
            except _seal.SealError as error:
                raise MalformedCiphertextError(CiphertextFault.HEADER) from error
        return engine.format.residues(data)

    def fold(self) -> None:
        """Reduce the sums modulo the primes into the residues (score_count, 2, data primes, N), and begin anew."""
        engine, sums = self._engine, self._sums
        shape = (len(sums), 2, len(engine.primes), engine.packing.poly_modulus_degree)
        low, high = sums[:, ::2].reshape(shape), sums[:, 1::2].reshape(shape)
        quotient = np.floor(high * (2.0**32 / engine.primes)).astype(np.int64)
        quotient *= engine.primes
        remainder = (high.astype(np.int64) << 32) - quotient  # exact modulo 2^64, and small
        remainder += low.astype(np.int64)
        remainder += self._residues
        remainder %= engine.primes
        self._residues = remainder
        sums[:] = 0.0

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
