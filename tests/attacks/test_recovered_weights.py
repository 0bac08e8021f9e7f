"""Weights recovered from one request with its reply, without a key.

In rows c1 is divided in NTT form; in columns a linear system is solved modulo q. Where replies are
not packed, every weight comes out in mode open, and with noise on c0 alone. In mode private none
does. From packed replies in mode open, every weight comes out for a client that chooses c1.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.row import RowPacking
from sealserve.he.parameters import ParameterSet
from sealserve.he.seal_format import CiphertextFormat
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor, ZeroEncryptorOf
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Integers, affine, random_rows
from tests.support.item_round_trip import RoundTrip, zero_encryptor
from tests.support.plans import column_plans, row_plans
from tests.support.reply_pairs import Pair, factor, lifted, read_weights, unpacked


class NoZeros(ZeroEncryptor):
    """Zeros in place of encryptions of zero: noise on c0 is all that is left."""

    def __init__(self, parameter_set: ParameterSet) -> None:
        self.parameter_set = parameter_set

    def encrypt(self) -> NDArray[np.uint64]:
        return np.zeros((2, len(self.parameter_set.data_primes), self.parameter_set.poly_modulus_degree), np.uint64)


def real_keys(tenant: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
    return zero_encryptor(parameter_set)


def no_zeros(tenant: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
    return NoZeros(parameter_set)


MODES: dict[str, tuple[int | None, ZeroEncryptorOf, bool]] = {
    "open": (None, real_keys, True),
    "noise on c0 alone": (40, no_zeros, True),
    "private": (40, real_keys, False),
}
every_mode = pytest.mark.parametrize("mode", MODES)


def centred(residues: Integers, prime: int) -> Integers:
    """The integers of least absolute value that have these residues."""
    least: Integers = (residues + prime // 2) % prime - prime // 2
    return least


def quotient(plan: RowPlan, c1: bytes, reply_c1: bytes) -> Integers:
    """Divide the second polynomial of a reply by the request's.

    Returns what is left, (N,), modulo the first prime. SEAL transforms; the division is of one
    value by another at each root.
    """
    context, parameter_set = _seal.context(plan.parameters), plan.parameters.parameter_set
    evaluator, form = _seal.Evaluator(context), CiphertextFormat(parameter_set, _seal.fresh_parms_id(context))
    shape = len(parameter_set.data_primes), parameter_set.poly_modulus_degree
    pair = _seal.load_ciphertext(context, form.pack(np.frombuffer(reply_c1, np.uint64).reshape(shape), c1))
    evaluator.transform_to_ntt_inplace(pair)
    data = _seal.ciphertext_bytes(pair)
    numerators, denominators = form.residues(data)
    values = np.array(
        [
            [int(n) * pow(int(d), -1, prime) % prime for n, d in zip(row_n, row_d, strict=True)]
            for row_n, row_d, prime in zip(numerators, denominators, parameter_set.data_primes, strict=True)
        ],
        np.uint64,
    )
    back = _seal.load_ciphertext(context, data[: -2 * parameter_set.polynomial_bytes] + 2 * values.tobytes())
    evaluator.transform_from_ntt_inplace(back)
    return centred(form.residues(_seal.ciphertext_bytes(back))[0, 0].astype(object), parameter_set.data_primes[0])


@every_mode
@pytest.mark.parametrize("parameter_set", LAYOUTS["row"].private_parameter_sets[:2], ids=lambda s: s.name)
def test_dividing_the_second_polynomial(mode: str, parameter_set: ParameterSet) -> None:
    hiding_bits, keys, succeeds = MODES[mode]
    model = affine("normal", (10, 200))
    plan = unpacked(row_plans(*model.planned, hiding_bits=hiding_bits, parameter_sets=[parameter_set])[0])
    round_trip = RoundTrip(plan, keys)
    (ciphertext,) = round_trip.encrypted(random_rows(model.grid, 1))
    c1 = ciphertext[-parameter_set.polynomial_bytes :]
    packed = plan.packing.pack_weights(plan.model.weights)[:, 0]
    for weights, pair in zip(packed, round_trip.reply([ciphertext], 1), strict=True):
        found = quotient(plan, c1, pair.c1)
        if succeeds:
            np.testing.assert_array_equal(found, weights)
        else:
            # As good as a guess modulo 2^46; and nothing there is as small as a weight.
            assert not (found == weights).any()
            assert np.abs(found).min() > np.abs(plan.model.weights).max()


def eliminated(columns: Integers, totals: Integers, prime: int) -> Integers:
    """Solve columns (n, n) x = totals (n,) modulo a prime."""
    table: Integers = np.concatenate([columns, totals[:, None]], axis=1)
    for pivot in range(len(table)):
        row = next(row for row in range(pivot, len(table)) if table[row, pivot])
        table[[pivot, row]] = table[[row, pivot]]
        table[pivot] = table[pivot] * pow(int(table[pivot, pivot]), -1, prime) % prime
        others = np.arange(len(table)) != pivot
        table[others] = (table[others] - table[others, pivot, None] * table[pivot]) % prime
    return table[:, -1]


def recovered(plan: ColumnPlan, ciphertexts: list[bytes], reply: list[Pair]) -> Integers:
    """Find weights (classes, features) from as many coefficients as features, modulo a prime.

    The prime is the first.
    """
    parameter_set = plan.parameters.parameter_set
    prime, features = parameter_set.data_primes[0], plan.packing.feature_count
    second = [np.frombuffer(data[-parameter_set.polynomial_bytes :], np.uint64)[:features] for data in ciphertexts]
    columns = np.stack(second, axis=1).astype(object)
    found = [
        eliminated(columns.copy(), np.frombuffer(pair.c1, np.uint64)[:features].astype(object), prime) for pair in reply
    ]
    return centred(np.array(found, object), prime)


@every_mode
@pytest.mark.parametrize("parameter_set", LAYOUTS["column"].private_parameter_sets[:2], ids=lambda s: s.name)
def test_elimination(mode: str, parameter_set: ParameterSet) -> None:
    hiding_bits, keys, succeeds = MODES[mode]
    model = affine("normal", (3, 40))
    *_, packed = column_plans(*model.planned, hiding_bits=hiding_bits, parameter_sets=[parameter_set])
    plan = unpacked(packed)
    round_trip = RoundTrip(plan, keys)
    ciphertexts = round_trip.encrypted(random_rows(model.grid, 5))
    found = recovered(plan, ciphertexts, round_trip.reply(ciphertexts, 5))
    if succeeds:
        np.testing.assert_array_equal(found, plan.model.weights)
    else:
        assert not (found == plan.model.weights).any()
        assert np.abs(found).min() > np.abs(plan.model.weights).max()


@pytest.mark.parametrize("layout", ["row", "column"])
def test_a_chosen_second_polynomial_reads_the_weights_from_packed_replies_of_mode_open(layout: str) -> None:
    """Rounding is not hiding: of c0 = 0 and c1 = factor X^j the reply's c1 has factor times W."""
    model = affine("normal", (3, 40))
    plan = (row_plans if layout == "row" else column_plans)(*model.planned)[0]
    assert plan.reply_bits is not None
    round_trip, parameter_set, N = RoundTrip(plan), plan.parameters.parameter_set, plan.packing.poly_modulus_degree
    ciphertexts = []
    for index in range(plan.packing.ciphertexts):
        pair = np.zeros((2, len(parameter_set.data_primes), N), np.uint64)
        pair[1, :, index] = [factor(plan) % prime for prime in parameter_set.data_primes]
        ciphertexts.append(round_trip.engine.format.pack(pair[0], pair[1].tobytes()))
    found = []
    for polynomial, reply in enumerate(round_trip.reply(ciphertexts, 1)):
        count = len(plan.packing.classes_in(polynomial))
        c1 = lifted(plan.parameters, plan.reply_bits, reply, count).c1
        found.append(read_weights(plan, np.frombuffer(c1, np.uint64)))
    if isinstance(plan.packing, RowPacking):
        np.testing.assert_array_equal(np.array(found), plan.packing.pack_weights(plan.model.weights)[:, 0])
    else:
        np.testing.assert_array_equal(np.array(found)[:, :40], plan.model.weights)
