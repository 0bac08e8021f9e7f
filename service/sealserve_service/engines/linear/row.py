"""The row engine: a forward transform a ciphertext, a product and an inverse transform a polynomial of the reply.

A plan with a noise width is one of mode private: its replies are re-randomized under the client's registered key.

Weights are lifted and transformed to NTT form once, when the engine is built, which keeps no others: a plan is as large
as its model. The encrypted arithmetic is SEAL's; which coefficient holds what is `sealserve.he.layouts.row`'s.
"""

import time
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import CiphertextFault, MalformedCiphertextError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.seal_format import pack_plaintext
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
from sealserve_service.planning.planner import RowPlan
from sealserve_service.tenants.tenant import Tenant

_COST_REPETITIONS = 5


class RowEngine:
    """Scores rows under a plan; `keys` finds those that a private plan needs."""

    holds_gil = True

    def __init__(
        self, plan: RowPlan, observed_error: ObservedError | None = None, keys: ZeroEncryptorOf = no_keys
    ) -> None:
        self._noise_width = plan.noise_width
        self._keys = keys
        self.parameter_set = plan.parameters.parameter_set
        self.packing = plan.packing
        self.context = _seal.context(plan.parameters)
        self.evaluator = _seal.Evaluator(self.context)
        self.format = planned.ciphertext_format(plan)
        self.primes = np.array(self.parameter_set.data_primes, np.uint64)[:, None]
        self.weights = [
            [self._transformed(block, plan.parameters.plain_modulus) for block in polynomial]
            for polynomial in plan.packing.pack_weights(plan.model.weights)
        ]
        self.intercept = planned.lifted_intercept(plan)
        self.offer = planned.offered(
            plan, LAYOUTS["row"], server_seconds=self._measured_seconds(plan), observed_error=observed_error
        )

    def begin(self, header: ItemHeader, tenant: Tenant) -> "RowScoring":
        """Begin an item of header.row_count rows.

        Raises:
            KeyNotFoundError: the weights are private, and the tenant has no public key of header.key_id and the ring.
        """
        hiding = hiding_of(self._noise_width, self.parameter_set, self._keys, header, tenant)
        return RowScoring(self, header.row_count, hiding)

    def _transformed(self, coefficients: NDArray[np.int64], plain_modulus: int) -> _seal.Plaintext | None:
        """Lift signed weights (N,) modulo t and transform them; None if all are zero: SEAL refuses such a factor.

        The weight of a feature that has no range may be a multiple of t: only the lifted ones tell.
        """
        lifted = np.mod(coefficients, plain_modulus).astype(np.uint64)
        if not lifted.any():
            return None
        plaintext = _seal.load_plaintext(self.context, pack_plaintext(lifted))
        return self.evaluator.transform_to_ntt(plaintext, self.context.first_parms_id())

    def _measured_seconds(self, plan: RowPlan) -> float:
        """Time the scoring of noise, which costs what a ciphertext costs; it warms the engine up besides."""
        noise = [planned.noise(plan)] * self.packing.ciphertexts
        hiding = hiding_to_measure(plan)
        seconds = []
        for _ in range(_COST_REPETITIONS):
            start = time.perf_counter()
            scoring = RowScoring(self, self.packing.rows, hiding)
            scoring.add(noise)
            for _ in scoring.finish():
                pass
            seconds.append(time.perf_counter() - start)
        return median(seconds)


class RowScoring:
    """One item on its way; `hiding` re-randomizes its reply in mode private."""

    def __init__(self, engine: RowEngine, row_count: int, hiding: Rerandomizer | None = None) -> None:
        self._engine = engine
        self._row_count = row_count
        self._hiding = hiding
        self._blocks: list[_seal.Ciphertext] = []

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        """Check, load and transform the next blocks of the rows' features."""
        engine = self._engine
        for data in ciphertexts:
            try:
                engine.format.check(data)
                block = _seal.load_ciphertext(engine.context, data)
                engine.evaluator.transform_to_ntt_inplace(block)
            except MalformedCiphertextError as error:
                error.index = len(self._blocks)
                raise
            except _seal.SealError as error:
                raise MalformedCiphertextError(CiphertextFault.HEADER, len(self._blocks)) from error
            self._blocks.append(block)

    def finish(self) -> Iterator[Residues]:
        """Yield a polynomial pair for every `classes` classes."""
        engine, packing = self._engine, self._engine.packing
        for polynomial, weights in enumerate(engine.weights):
            classes = packing.classes_in(polynomial)
            places = packing.places(self._row_count, len(classes))
            c0, c1 = self._product(weights)
            kept = c0[:, places] + engine.intercept[:, None, classes.start : classes.stop]
            kept %= engine.primes[:, None]
            if self._hiding is None:
                yield Residues(kept.tobytes(), c1.tobytes())
            else:
                yield self._hiding.hidden(kept.reshape(len(c1), -1), c1, places.ravel())

    def _product(self, weights: list[_seal.Plaintext | None]) -> NDArray[np.uint64]:
        """Return the sum of the products of weights and blocks: (2, data primes, N), coefficient form."""
        engine, evaluator, total = self._engine, self._engine.evaluator, None
        zero = np.zeros((2, len(engine.primes), engine.packing.poly_modulus_degree), np.uint64)
        try:
            with _seal.errors():
                for block, plaintext in zip(self._blocks, weights, strict=True):
                    if plaintext is None:
                        continue
                    product = evaluator.multiply_plain(block, plaintext)
                    if total is None:
                        total = product
                    else:
                        evaluator.add_inplace(total, product)
                if total is None:  # no class of this polynomial has weights: zero is the product, in the reply's shape
                    return zero
                evaluator.transform_from_ntt_inplace(total)
        except _seal.SealError as error:
            # Of checked ciphertexts SEAL refuses only a product whose second polynomial is zero. To say so would tell
            # whoever made such a ciphertext where the weights are zero; with the encryption of zero it hides enough.
            if self._hiding is not None:
                return zero
            raise MalformedCiphertextError(CiphertextFault.TRANSPARENT) from error
        return engine.format.residues(_seal.ciphertext_bytes(total))
