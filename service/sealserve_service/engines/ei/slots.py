"""The EI slots engine: scores ciphertexts of unmodified encrypted-inference 0.9 clients.

It computes with SEAL 4.4. The scheme is CKKS; `packing` says which slot holds what. Features arrive
at three primes and are switched down to two at once: their only product needs no more. Baby steps
are taken at two primes. A rescaling leaves one prime, at which every further rotation costs half:
giant steps by Horner's rule, folds, and a rotation for each pair of classes, which brings its
scores to the slot that the client reads. Registered keys rotate by powers of two, to the left, and
by nothing else.

The reply's modulus is the first prime, just below 2^60. The coefficients of a pair stay within
|score| sqrt(2) times the scale. So |score| times the scale has to stay below 2^58: the scale of the
weights is reduced where the declared range of the features requires it. Beyond that range scores
wrap around, and nothing shows it.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from statistics import median

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import CiphertextFault, MalformedCiphertextError, PlanError
from sealserve.he import _seal, ei_format
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET, EI_PARAMETERS, EI_SLOTS
from sealserve.he.quantization import InputGrid
from sealserve.protocol.item import ItemHeader, SealCiphertext
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.model import Cost, ObservedError, Offer
from sealserve_service.engines.ei.packing import SLOTS, SlotPacking
from sealserve_service.engines.ei.score_error import score_error_estimate

GaloisKeysOf = Callable[[str, str], _seal.GaloisKeys]
"""(the owner's name, key id) -> loaded keys; raises KeyNotFoundError."""

_MAX_SCALED_SCORE = 2.0**58
_MAX_WEIGHT = 2.0**58  # at the scale of the second prime it stays below the product of the first two
_REQUEST_BYTES, _REPLY_BYTES = 165_000, 131_177  # a ciphertext as 0.9 compresses it; one uncompressed at one prime
_KEY_BYTES = 8_980_000  # evaluation keys as 0.9 compresses them
_TIMED_ENCODINGS = 5


class EiSlotsEngine:
    """Scores items of one row each.

    Args:
        weights: (score_count, feature_count).
        intercept: (score_count,).
        grid: the declared range of the features.
        keys: finds the Galois keys that an item names.
        observed_error: on the operator's rows; None if there are none.

    Raises:
        PlanError: too many classes, or scores or weights too large for any scale.
    """

    holds_gil = True

    def __init__(
        self,
        weights: NDArray[np.float64],
        intercept: NDArray[np.float64],
        grid: InputGrid,
        keys: GaloisKeysOf,
        observed_error: ObservedError | None = None,
    ) -> None:
        self.packing = SlotPacking.cheapest(weights.shape[1], weights.shape[0])
        self.context = _seal.context(EI_PARAMETERS)
        self.evaluator = _seal.Evaluator(self.context)
        self._encoder = _seal.CKKSEncoder(self.context)
        self._weights = weights
        self._keys = keys
        first = self.context.first_context_data()
        self._two_primes = first.next_context_data().parms_id()
        self._one_prime = self.context.last_parms_id()
        self._diagonals: dict[tuple[int, int, int], _seal.Plaintext | None] = {}
        scale_factor = _scale_factor(weights, intercept, grid)
        # A rescaling divides by the second prime: with weights at that scale, products have the
        # scale of the features.
        self._plaintext_scale = scale_factor * EI_PARAMETER_SET.primes[1]
        self.reply_scale = scale_factor * EI_PARAMETERS.scale
        self.intercept = self._encode(self.packing.paired(intercept), self.reply_scale, self._one_prime)
        # Exactly -X^(N / 2), so that a product with it costs no scale. It is minus i in every slot:
        # the first slot's root is taken to powers of 3, which alternate between 1
        # and 3 modulo 4.
        self.minus_i = self._encode(np.tile([-1j, 1j], SLOTS // 2), 1.0, self._one_prime)
        self.offer = self._offer(
            observed_error, score_error_estimate(self.packing, weights, grid, self._plaintext_scale, self.reply_scale)
        )

    def begin(self, header: ItemHeader, owner: str) -> "EiSlotsScoring":
        """Begin an item with the owner's keys of header.key_id.

        Raises:
            KeyNotFoundError: the owner has no such keys.
        """
        return EiSlotsScoring(self, self._keys(owner, header.key_id))

    def diagonal(self, block: int, giant: int, baby: int) -> _seal.Plaintext | None:
        """Return an encoded diagonal at two primes; None if it is zero.

        SEAL refuses a factor of zero. A diagonal is encoded on first use and kept; it takes
        131 KB.
        """
        key = (block, giant, baby)
        if key not in self._diagonals:
            weights = self.packing.diagonal(self._weights, block, giant, baby)
            encoded = self._encode(weights, self._plaintext_scale, self._two_primes)
            self._diagonals[key] = None if encoded.is_zero() else encoded
        return self._diagonals[key]

    @cached_property
    def least(self) -> _seal.Plaintext:
        """The least plaintext that is not zero: the polynomial 1.

        A model of zeros multiplies with it. A product with zero would be transparent, an encryption
        that hides nothing: SEAL refuses to make one.
        """
        return self._encode(np.full(SLOTS, 1 / self._plaintext_scale, complex), self._plaintext_scale, self._two_primes)

    def _encode(self, values: NDArray[np.complex128], scale: float, parms_id: list[int]) -> _seal.Plaintext:
        plaintext = self._encoder.encode_complex(values, scale)
        self.evaluator.mod_switch_to_inplace(plaintext, parms_id)
        return _seal.Plaintext(plaintext)  # a copy has no spare room; the original has room for three primes

    def _offer(self, observed_error: ObservedError | None, score_error_bound: float) -> Offer:
        packing = self.packing
        request_bytes = packing.blocks * _REQUEST_BYTES
        return Offer(
            layout=EI_SLOTS,
            parameters=EI_PARAMETERS,
            parms_id=_seal.fresh_parms_id(self.context),
            private_weights=False,
            rows_per_item=1,
            classes_per_polynomial=1,
            ciphertexts_per_item=packing.blocks,
            score_scale=1.0,
            score_centers=(),
            score_radii=(),
            score_error_bound=score_error_bound,
            input_rounding_error_bound=0.0,
            observed_error=observed_error,
            cost=Cost(
                request_bytes=request_bytes,
                reply_bytes=packing.score_count * _REPLY_BYTES,
                server_seconds=self._estimated_seconds(),
                held_bytes=request_bytes,
                key_bytes=_KEY_BYTES,
            ),
            required_key=KeyKind.EVALUATION_KEYS,
        )

    def _estimated_seconds(self) -> float:
        """Count the operations of an item, and time one that needs no key: there is none here."""
        seconds = []
        for _ in range(_TIMED_ENCODINGS):
            start = time.perf_counter()
            self._encoder.encode_complex(np.ones(SLOTS, complex), EI_PARAMETERS.scale)
            seconds.append(time.perf_counter() - start)
        return median(seconds) * self.packing.cost


class EiSlotsScoring:
    """One item: a row."""

    def __init__(self, engine: EiSlotsEngine, keys: _seal.GaloisKeys) -> None:
        self._engine = engine
        self._keys = keys
        self._block_count = 0
        self._last_block: _seal.Ciphertext | None = None
        self._sums: list[_seal.Ciphertext | None] = [None] * engine.packing.giant_steps

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Multiply the next blocks of features with their weights, add up and forget the blocks."""
        for data in ciphertexts:
            try:
                self._last_block = self._load(data)
            except MalformedCiphertextError as error:
                error.index = self._block_count
                raise
            with _seal.errors():
                self._multiply(self._last_block)
            self._block_count += 1

    def finish(self) -> Iterator[SealCiphertext]:
        """Yield a ciphertext a class, with the score in the first slot."""
        engine, packing = self._engine, self._engine.packing
        with _seal.errors():
            for pair, scores in enumerate(self._rotations(self._scores(), packing.pairs)):
                yield _write(scores)
                if 2 * pair + 1 < packing.score_count:
                    yield _write(engine.evaluator.multiply_plain(scores, engine.minus_i))

    def _load(self, data: bytes) -> _seal.Ciphertext:
        """Check and load a block, and switch it down to two primes."""
        checked = ei_format.read_ciphertext(data)
        try:
            block = _seal.load_ciphertext(self._engine.context, checked)
        except _seal.SealError as error:
            raise MalformedCiphertextError(CiphertextFault.HEADER) from error
        self._engine.evaluator.mod_switch_to_next_inplace(block)
        return block

    def _multiply(self, block: _seal.Ciphertext) -> None:
        engine, evaluator = self._engine, self._engine.evaluator
        for baby, rotated in enumerate(self._rotations(block, engine.packing.baby_steps)):
            for giant, total in enumerate(self._sums):
                diagonal = engine.diagonal(self._block_count, giant, baby)
                if diagonal is None:
                    continue
                product = evaluator.multiply_plain(rotated, diagonal)
                if total is None:
                    self._sums[giant] = product
                else:
                    evaluator.add_inplace(total, product)

    def _scores(self) -> _seal.Ciphertext:
        """Return the scores at one prime: slot s has those of pair s mod period."""
        engine, evaluator = self._engine, self._engine.evaluator
        sums = self._sums
        while sums and sums[-1] is None:
            sums.pop()
        if not sums:
            sums.append(evaluator.multiply_plain(self._last_block, engine.least))
        total = evaluator.rescale_to_next(sums.pop())
        for giant_sum in reversed(sums):
            evaluator.rotate_vector_inplace(total, engine.packing.baby_steps, self._keys)
            if giant_sum is not None:
                evaluator.add_inplace(total, evaluator.rescale_to_next(giant_sum))
        for steps in engine.packing.folds:
            evaluator.add_inplace(total, evaluator.rotate_vector(total, steps, self._keys))
        total.scale(engine.reply_scale)  # equal to its scale except for the last bits, which SEAL compares
        evaluator.add_plain_inplace(total, engine.intercept)
        return total

    def _rotations(self, value: _seal.Ciphertext, count: int) -> Iterator[_seal.Ciphertext]:
        """Yield a value rotated by 0 .. count - 1 steps.

        Each but the first takes one rotation of an earlier one: of that whose number of steps is
        the same without its lowest set bit.
        """
        path = [(0, value)]
        yield value
        for steps in range(1, count):
            while path[-1][0] != steps & (steps - 1):
                path.pop()
            rotated = self._engine.evaluator.rotate_vector(path[-1][1], steps & -steps, self._keys)
            path.append((steps, rotated))
            yield rotated


def _write(ciphertext: _seal.Ciphertext) -> SealCiphertext:
    return SealCiphertext(ei_format.write_ciphertext(_seal.ciphertext_bytes(ciphertext)))


def _scale_factor(weights: NDArray[np.float64], intercept: NDArray[np.float64], grid: InputGrid) -> float:
    """Return the factor, at most 1, that scales must have so that no score in the range wraps.

    Raises:
        PlanError: even at a scale of 1 scores wrap around, or a weight is too large.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        at_ends = np.stack([weights * grid.minimum, weights * grid.maximum])
        low, high = at_ends.min(axis=0).sum(axis=1), at_ends.max(axis=0).sum(axis=1)
        farthest = float(np.abs(np.stack([low + intercept, high + intercept])).max())
    # The weight of a feature that is always zero adds nothing to scores. Comparisons with NaN are
    # false.
    if not (farthest <= _MAX_SCALED_SCORE and float(np.abs(weights).max()) <= _MAX_WEIGHT):
        raise PlanError(
            f"the layout ei-slots holds scores up to {_MAX_SCALED_SCORE:.3g}, the range has {farthest:.3g}, "
            f"and weights up to {_MAX_WEIGHT:.3g}: scale the features"
        )
    return min(1.0, _MAX_SCALED_SCORE / (EI_PARAMETERS.scale * max(farthest, math.ulp(0.0))))
