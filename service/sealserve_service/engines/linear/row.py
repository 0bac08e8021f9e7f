"""The row engine: products of transformed polynomials.

It takes a forward transform for each ciphertext. For each polynomial of the reply it takes a
product with each ciphertext and an inverse transform.

Weights are lifted and transformed to NTT form once, when the engine is built. The encrypted
arithmetic is SEAL's; `sealserve.he.layouts.row` says which coefficient holds what.
"""

import time
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import CiphertextFault, MalformedCiphertextError
from sealserve.he import _seal
from sealserve.he.layouts.row import RowPacking
from sealserve.he.seal_format import pack_plaintext, plaintext_coefficients
from sealserve.protocol.item import PolynomialPair
from sealserve_service.engines.linear.base import LinearEngine, ReplyWriter
from sealserve_service.engines.linear.rerandomizer import Rerandomize
from sealserve_service.planning.row import ROW_RULES, RowPlan

_COST_REPETITIONS = 5


class RowScoring:
    """One item.

    `writer` writes its reply. In mode private `rerandomize` hides the weights in it.
    """

    def __init__(
        self, engine: "RowEngine", row_count: int, writer: ReplyWriter, rerandomize: Rerandomize | None = None
    ) -> None:
        self._engine = engine
        self._row_count = row_count
        self._writer = writer
        self._rerandomize = rerandomize
        self._blocks: list[_seal.Ciphertext] = []

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Check, load and transform the next blocks of the rows' features."""
        engine = self._engine
        for data in ciphertexts:
            try:
                block = _seal.load_ciphertext(engine.context, engine.format.checked(data))
                engine.evaluator.transform_to_ntt_inplace(block)
            except MalformedCiphertextError as error:
                error.index = len(self._blocks)
                raise
            except _seal.SealError as error:
                raise MalformedCiphertextError(CiphertextFault.HEADER, len(self._blocks)) from error
            self._blocks.append(block)

    def finish(self) -> Iterator[PolynomialPair]:
        """Yield a polynomial pair for every `classes` classes."""
        engine = self._engine
        for polynomials, intercept in zip(engine.polynomials, engine.intercepts, strict=True):
            places = engine.places[: self._row_count, : intercept.shape[-1]].ravel()
            c0 = np.empty((len(polynomials), len(engine.primes), places.size), np.uint64)
            c1 = np.empty((len(polynomials), len(engine.primes), engine.packing.poly_modulus_degree), np.uint64)
            for index, polynomial in enumerate(polynomials):
                product = self._product(engine.weights[polynomial])
                c0[index], c1[index] = product[0][:, places], product[1]
            with_intercept = c0.reshape(*c0.shape[:2], self._row_count, -1) + intercept
            kept = with_intercept.reshape(c0.shape) % engine.primes
            if self._rerandomize is not None:
                kept, c1 = self._rerandomize(kept, c1, places)
            yield from map(self._writer.pair, self._writer.c0_bytes(kept), self._writer.c1_bytes(c1))

    def _product(self, weights: list[_seal.Plaintext | None]) -> NDArray[np.uint64]:
        """Return the sum of products of weights and blocks: (2, data primes, N), no NTT form."""
        engine, evaluator, total = self._engine, self._engine.evaluator, None
        try:
            for block, plaintext in zip(self._blocks, weights, strict=True):
                if plaintext is None:
                    continue
                product = evaluator.multiply_plain(block, plaintext)
                if total is None:
                    total = product
                else:
                    evaluator.add_inplace(total, product)
            if total is None:  # no class of this polynomial has weights: the product is zero, in the reply's shape
                return engine.zero
            evaluator.transform_from_ntt_inplace(total)
        except RuntimeError as error:
            # If the ciphertexts are checked, SEAL refuses only a product whose second polynomial is
            # zero. To report that would tell the maker of such a ciphertext where the weights are
            # zero. In mode private the encryption of zero hides this product as well as any other.
            # Whatever else fails is a fault of this process, and no product.
            if not self._is_transparent(weights):
                raise
            if self._rerandomize is not None:
                return engine.zero
            raise MalformedCiphertextError(CiphertextFault.TRANSPARENT) from error
        return _seal.ciphertext_residues(total, engine.format.shape)

    def _is_transparent(self, weights: list[_seal.Plaintext | None]) -> bool:
        """Return whether the second polynomial of a product, or of a sum of products, is zero.

        In NTT form a product is one of values, modulo a prime: it is zero where a factor is. The
        sums are computed in Python's integers. That takes milliseconds, but only for somebody who
        has made blocks cancel and thus knows the weights up to a factor.
        """
        shape, pairs = self._engine.format.shape, list[tuple[NDArray[np.uint64], NDArray[np.uint64]]]()
        for block, plaintext in zip(self._blocks, weights, strict=True):
            if plaintext is not None:
                factors = plaintext_coefficients(_seal.plaintext_bytes(plaintext), shape[1] * shape[2])
                pairs.append((_seal.ciphertext_residues(block, shape)[1], factors.reshape(shape[1:])))
        if not all(((values != 0) & (factors != 0)).any() for values, factors in pairs):
            return True
        total = np.zeros(shape[1:], object)
        for values, factors in pairs:
            total = (total + values.astype(object) * factors.astype(object)) % self._engine.primes.astype(object)
            if not total.any():
                return True
        return False


class RowEngine(LinearEngine[RowPacking]):
    """Scores rows under a plan.

    Attributes:
        weights: of each polynomial of the reply and each block of features, lifted and transformed;
            None where all are zero.
        intercepts: of each group of `polynomials`, uint64 (polynomials, data primes, 1, classes).
        places: of scores in a polynomial of the reply, (rows, classes).
        zero: the residues of a product with no weights, (2, data primes, N), read-only.
    """

    rules = ROW_RULES
    scoring_type = RowScoring
    holds_gil = True

    def prepare(self, plan: RowPlan) -> None:
        """Lift and transform the weights."""
        packing = plan.packing
        self.evaluator = _seal.Evaluator(self.context)
        self.weights = [
            [self._transform(block, plan.parameters.plain_modulus) for block in polynomial]
            for polynomial in packing.pack_weights(plan.model.weights)
        ]
        self.intercepts = [
            self.intercept[:, packing.classes_in(group[0]).start : packing.classes_in(group[-1]).stop]
            .reshape(len(self.primes), len(group), 1, -1)
            .swapaxes(0, 1)
            for group in self.polynomials
        ]
        self.places = packing.places(packing.rows, packing.classes)
        shape = 2, len(self.primes), packing.poly_modulus_degree
        self.zero = np.broadcast_to(np.uint64(0), shape)

    def _transform(self, coefficients: NDArray[np.int64], plain_modulus: int) -> _seal.Plaintext | None:
        """Lift signed weights (N,) modulo t and transform them; None if all are zero.

        SEAL refuses a factor of zero. Only the lifted weights show that: the weight of a feature
        without a range may be a multiple of t.
        """
        lifted = np.mod(coefficients, plain_modulus).astype(np.uint64)
        if not lifted.any():
            return None
        plaintext = _seal.load_plaintext(self.context, pack_plaintext(lifted))
        return self.evaluator.transform_to_ntt(plaintext, self.context.first_parms_id())

    def measure_seconds(self) -> float:
        """Time the scoring of a full item of random ciphertexts; this also warms the engine up."""
        ciphertexts = [self.random_ciphertext()] * self.packing.ciphertexts
        rerandomize = self.random_rerandomize()
        seconds = []
        for _ in range(_COST_REPETITIONS):
            start = time.perf_counter()
            scoring = RowScoring(self, self.packing.rows, self.writer, rerandomize)
            scoring.add(ciphertexts)
            for _ in scoring.finish():
                pass
            seconds.append(time.perf_counter() - start)
        return median(seconds)
