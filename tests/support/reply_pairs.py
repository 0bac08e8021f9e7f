"""Polynomial pairs of replies: packed ones lifted to residues, and ones that a test makes up."""

import dataclasses
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sealserve.he.packed_polynomial import PolynomialPacker, PolynomialUnpacker
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.reply_bits import ReplyBits
from sealserve.protocol.item import PackedPair, PolynomialPair, Residues
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Integers

Pair = PolynomialPair
PlanT = TypeVar("PlanT", RowPlan, ColumnPlan, RowPlan | ColumnPlan)


def unpacked(plan: PlanT) -> PlanT:
    """The same plan, whose replies are the residues that packed ones are rounded from."""
    return dataclasses.replace(plan, reply_bits=None)


def lifted(parameters: EncryptionParameters, bits: ReplyBits | None, pair: Pair, count: int) -> Residues:
    """A pair with so many coefficients of c0 as residues modulo all data primes.

    A packed one tells an attacker no more than that.
    """
    if isinstance(pair, Residues):
        return pair
    assert bits is not None
    primes, N = parameters.parameter_set.data_primes, parameters.parameter_set.poly_modulus_degree
    c0 = PolynomialUnpacker(primes, bits.c0, count).unpack(pair.c0, count)
    c1 = PolynomialUnpacker(primes, bits.c1, N).unpack(pair.c1, N)
    return Residues(c0.tobytes(), c1.tobytes())


def composed(parameter_set: ParameterSet, residues: NDArray[np.uint64] | Integers) -> Integers:
    """Integers modulo q (n,) of their residues modulo the data primes, (data primes, n)."""
    q, primes = parameter_set.modulus, parameter_set.data_primes
    units = np.array([[q // prime * pow(q // prime, -1, prime)] for prime in primes], object)
    found: Integers = (residues.reshape(len(primes), -1).astype(object) * units).sum(axis=0) % q
    return found


def read_weights(plan: RowPlan | ColumnPlan, residues: NDArray[np.uint64] | Integers) -> Integers:
    """What is left of c1 if it is `factor` times weights, and a rounding: (n,)."""
    parameter_set, unit = plan.parameters.parameter_set, factor(plan)
    q = parameter_set.modulus
    weights: Integers = ((composed(parameter_set, residues) + unit // 2 + q // 2) % q - q // 2) // unit
    return weights


def factor(plan: RowPlan | ColumnPlan) -> int:
    """With which to ask for weights: some bits less than q, as many as a weight has and 13.

    A packed c1 has more bits than that, so that the weights come out of it. Anything else is some
    thousand times as large as a weight.
    """
    assert plan.reply_bits is None or plan.reply_bits.c1 > plan.weight_bits + 15
    return plan.parameters.parameter_set.modulus >> plan.weight_bits + 13


def pair_of(
    parameter_set: ParameterSet, bits: ReplyBits | None, c0: NDArray[np.uint64], c1: NDArray[np.uint64]
) -> Pair:
    """A pair of residues (data primes, n) and (data primes, N), in the form of an offer."""
    if bits is None:
        return Residues(c0.tobytes(), c1.tobytes())
    primes = parameter_set.data_primes
    return PackedPair(
        PolynomialPacker(primes, bits.c0, c0.shape[1]).pack(c0), PolynomialPacker(primes, bits.c1, c1.shape[1]).pack(c1)
    )
