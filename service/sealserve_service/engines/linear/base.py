"""LinearEngine: what the engines of planned models have in common.

A subclass says what it prepares of a plan, what an item holds and how long it takes, and what
scores an item.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Generic, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.layouts import polynomial_groups
from sealserve.he.packed_polynomial import PolynomialPacker
from sealserve.he.public_key_format import public_key_bytes
from sealserve.he.seal_format import CiphertextFormat
from sealserve.protocol.item import ItemHeader, PackedPair, PolynomialPair, ReplyForm, Residues
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.model import CiphertextForm, Cost, Offer
from sealserve_service.engines.base import Scoring
from sealserve_service.engines.linear.published_errors import published_errors
from sealserve_service.engines.linear.rerandomizer import Rerandomize, Rerandomizer
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor, ZeroEncryptorOf, find_no_key
from sealserve_service.planning.plan import PackingT, Plan, PlanningRules
from sealserve_service.planning.verdict import Judgement


class ReplyWriter(NamedTuple):
    """What writes replies in one form.

    Attributes:
        pair: makes a piece of the reply of the bytes of two polynomials.
        c0_bytes, c1_bytes: functions of a group, residues (polynomials, data primes, coefficients).
            They return each polynomial as it travels.
    """

    pair: Callable[[bytes, bytes], PolynomialPair]
    c0_bytes: Callable[[NDArray[np.uint64]], list[bytes]]
    c1_bytes: Callable[[NDArray[np.uint64]], list[bytes]]


class LinearScoring(Scoring, Protocol):
    """One item that a linear engine scores."""

    def finish(self) -> Iterator[PolynomialPair]:
        """Yield the polynomial pairs of the reply, in order, after the last ciphertext."""


class LinearEngine(ABC, Generic[PackingT]):
    """An engine of a plan.

    A plan with a noise width is one of mode private: its replies are re-randomized under the
    client's registered key.

    Args:
        plan: the model to score, and its parameters. It is not kept: it is as large as its model.
        judgement: of the plan; without it the offer has no verdict.
        keys: finds the public encryption keys that a private plan needs.

    Attributes:
        rules: by which the layout's plans are made.
        scoring_type: (engine, row count, what writes the reply, what re-randomizes it in mode
            private or None) -> scoring of an item.
        format: of the plan's fresh ciphertexts.
        primes: the data primes, uint64 (data primes, 1).
        intercept: round(q b_int / t) modulo each data prime, uint64 (data primes, score_count).
        rerandomizer: of mode private; None in mode open.
        polynomials: those of a reply, in the groups in which they are packed.
        writers: what writes replies in each of the offer's forms, in their order.

    Raises:
        PlanError: the engine cannot score so large a model.
    """

    rules: ClassVar[PlanningRules[Any]]
    scoring_type: ClassVar[Callable[..., LinearScoring]]
    holds_gil: ClassVar[bool]

    def __init__(
        self,
        plan: Plan[PackingT],
        judgement: Judgement | None = None,
        keys: ZeroEncryptorOf = find_no_key,
    ) -> None:
        self.parameter_set = plan.parameters.parameter_set
        self.packing: PackingT = plan.packing
        self.context = _seal.context(plan.parameters)
        self.format = CiphertextFormat(self.parameter_set, _seal.fresh_parms_id(self.context))
        self.primes = np.array(self.parameter_set.data_primes, np.uint64)[:, None]
        self.intercept = _lifted_intercept(plan)
        self.rerandomizer = None
        if plan.noise_width is not None:
            self.rerandomizer = Rerandomizer(self.parameter_set, plan.noise_width)
        self.polynomials = polynomial_groups(plan.packing)
        self.writers = dict[ReplyForm, ReplyWriter]()
        if (bits := plan.reply_bits) is not None:
            primes, N = self.parameter_set.data_primes, self.parameter_set.poly_modulus_degree
            self.writers[ReplyForm.PACKED] = ReplyWriter(
                PackedPair,
                PolynomialPacker(primes, bits.c0, plan.packing.rows * plan.packing.classes).pack_all,
                PolynomialPacker(primes, bits.c1, N).pack_all,
            )
        if bits is None or plan.noise_width is None:  # the rounding of packed replies is part of what hides
            self.writers[ReplyForm.RESIDUES] = ReplyWriter(Residues, _bytes_of_residues, _bytes_of_residues)
        self._keys = keys
        self.prepare(plan)
        self.offer = self._describe(plan, judgement)

    def begin(self, header: ItemHeader, owner: str) -> LinearScoring:
        """Begin an item of header.row_count rows.

        Raises:
            KeyNotFoundError: the weights are private, and the owner has no public key of
                header.key_id and the ring.
        """
        rerandomize = None
        if self.rerandomizer is not None:
            zero_encryptor = self._keys(owner, header.key_id, self.parameter_set)
            rerandomize = partial(self.rerandomizer.rerandomize, zero_encryptor)
        for form in self.writers:
            if form in header.reply_forms:
                break
        return self.scoring_type(self, header.row_count, self.writers[form], rerandomize)

    @property
    def writer(self) -> ReplyWriter:
        """What writes replies in the shortest form."""
        return next(iter(self.writers.values()))

    @abstractmethod
    def prepare(self, plan: Plan[PackingT]) -> None:
        """Make the plan's weights ready; the constructor calls it once.

        Raises:
            PlanError: the engine cannot score so large a model.
        """

    @property
    def held_bytes(self) -> int:
        """What the service holds of an item until its end: by default its ciphertexts."""
        return self.packing.ciphertexts * self.format.full_bytes

    @abstractmethod
    def measure_seconds(self) -> float:
        """Time the scoring of a full item of random ciphertexts; this also warms the engine up."""

    def random_ciphertext(self) -> bytes:
        """Make a ciphertext of random residues, which takes as long to score as any other."""
        words = np.frombuffer(os.urandom(2 * self.parameter_set.polynomial_bytes), np.uint64)
        c0, c1 = words.reshape(2, len(self.primes), -1) % self.primes
        return self.format.pack(c0, c1.tobytes())

    def random_rerandomize(self) -> Rerandomize | None:
        """Return a function that re-randomizes under a random key, at the same cost as any other.

        Return None in mode open.
        """
        if self.rerandomizer is None:
            return None
        return partial(self.rerandomizer.rerandomize, ZeroEncryptor.under_a_random_key(self.parameter_set))

    def _describe(self, plan: Plan[PackingT], judgement: Judgement | None) -> Offer:
        """Describe the plan to clients."""
        packing, is_private = plan.packing, plan.noise_width is not None
        return Offer(
            layout=self.rules.layout,
            parameters=plan.parameters,
            parms_id=_seal.fresh_parms_id(self.context),
            private_weights=is_private,
            rows_per_item=packing.rows,
            classes_per_polynomial=packing.classes,
            ciphertexts_per_item=packing.ciphertexts,
            score_scale=plan.model.score_scale,
            score_centers=plan.score_centers,
            **published_errors(plan, judgement),
            cost=Cost(
                request_bytes=packing.ciphertexts * self.format.full_bytes,
                reply_bytes=plan.reply_bytes,
                server_seconds=self.measure_seconds(),
                held_bytes=self.held_bytes,
                key_bytes=public_key_bytes(self.parameter_set) if is_private else 0,
            ),
            required_key=KeyKind.PUBLIC_ENCRYPTION_KEY if is_private else None,
            reply_bits=plan.reply_bits,
            ciphertext_forms=frozenset({CiphertextForm.PACKED} if self.format.packs else ()),
        )


def _bytes_of_residues(polynomials: NDArray[np.uint64]) -> list[bytes]:
    return [residues.tobytes() for residues in polynomials]


def _lifted_intercept(plan: Plan[PackingT]) -> NDArray[np.uint64]:
    """Return round(q b_int / t) modulo each data prime, (data primes, score_count)."""
    parameter_set, t = plan.parameters.parameter_set, plan.parameters.plain_modulus
    lifted = [(parameter_set.modulus * (b % t) + t // 2) // t for b in plan.model.intercept]
    return np.array([[value % prime for value in lifted] for prime in parameter_set.data_primes], np.uint64)
