"""Weights from a reply under a key with a uniform a and a chosen b: c0 spells out u, u unmasks c1.

The kept coefficients of c0 tell log2(q / 2B) bits each. In rows without a cap (the old behaviour,
here a switch) that is all of u; with the cap it is too little. Columns have no cap: they are
promised against clients that keep to the protocol only.
"""

import dataclasses
import math

import numpy as np

from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.row import RowPacking
from sealserve.he.parameters import ParameterSet
from sealserve.protocol.item import Residues
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.planning import hiding, lattice
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import ROW_RULES, RowPlan
from tests.support.affine_models import Integers, affine, keeping
from tests.support.item_round_trip import RoundTrip, zero_encryptor
from tests.support.plans import cheapest_plan, plan_column
from tests.support.reply_pairs import Pair, composed, factor, lifted, read_weights
from tests.support.spelling_key import SpellingKey

HIDING_BITS = 40

UNCAPPED_RULES = dataclasses.replace(ROW_RULES, capped=lambda packing, places: packing)


class Attacker:
    """A client that first asks honestly for the scores of zeros, which are the intercepts."""

    def __init__(self, plan: RowPlan | ColumnPlan, digits: int, stride: int) -> None:
        self.plan, self.parameter_set = plan, plan.parameters.parameter_set
        self.key: ZeroEncryptor = zero_encryptor(self.parameter_set)
        self.round_trip = RoundTrip(plan, self._find_key)
        zero = self.round_trip.encryptor.encrypt(np.zeros(self.parameter_set.poly_modulus_degree, np.uint64))
        self.intercepts = self.round_trip.decrypted([zero] * plan.packing.ciphertexts, 1)[0]
        self.key = self.spelling = SpellingKey(self.parameter_set, digits, stride)

    def _find_key(self, tenant: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
        return self.key

    def ask(self, row_count: int) -> list[Residues]:
        """Send c0 = 0 and, as c1 of ciphertext j, factor X^j: c1 of the reply has weights."""
        form = self.round_trip.engine.format
        scoring = self.round_trip.begin(row_count, self.plan.packing.ciphertexts)
        for index in range(self.plan.packing.ciphertexts):
            pair = np.zeros(form.shape, np.uint64)
            pair[1, :, index] = [factor(self.plan) % prime for prime in self.parameter_set.data_primes]
            scoring.add([form.pack(pair[0], pair[1].tobytes())])
        return [self._lifted(polynomial, pair, row_count) for polynomial, pair in enumerate(scoring.finish())]

    def _lifted(self, polynomial: int, pair: Pair, row_count: int) -> Residues:
        count = row_count * len(self.plan.packing.classes_in(polynomial))
        return lifted(self.plan.parameters, self.plan.reply_bits, pair, count)

    def spelled(self, pair: Residues, row_count: int, classes: range) -> dict[int, int]:
        """The coefficients of u that a pair's c0 spells out."""
        q, t = self.parameter_set.modulus, self.plan.parameters.plain_modulus
        places = self.plan.packing.places(row_count, len(classes))
        kept = composed(self.parameter_set, np.frombuffer(pair.c0, np.uint64)).reshape(places.shape)
        lifted = np.array([(q * int(value % t) + t // 2) // t for value in self.intercepts[classes]], object)
        return self.spelling.spelled((kept - lifted).ravel() % q, places.ravel())

    def unmasked(self, pair: Residues, u: dict[int, int]) -> Integers:
        """c1 of a pair without its mask, divided by the factor; unknown coefficients of u are 0."""
        N = self.parameter_set.poly_modulus_degree
        guess = np.array([u.get(index, 0) for index in range(N)], object)
        shape = len(self.parameter_set.data_primes), N
        residues = np.frombuffer(pair.c1, np.uint64).reshape(shape).astype(object) - self.spelling.mask(guess)
        return read_weights(self.plan, residues)


def told(plan: RowPlan | ColumnPlan, row_count: int) -> float:
    """The bits that a pair tells at most."""
    assert plan.noise_width is not None
    return hiding.told_bits(plan.parameters, plan.noise_width, row_count * plan.packing.classes)


def entropy(plan: RowPlan | ColumnPlan) -> float:
    """The bits of u."""
    return plan.parameters.parameter_set.poly_modulus_degree * math.log2(3)


def row_plan(*, is_capped: bool) -> RowPlan:
    """A model of 64 classes and 8 features: its windows fill a polynomial of 4096 coefficients."""
    rules = ROW_RULES if is_capped else UNCAPPED_RULES
    sets = LAYOUTS["row"].private_parameter_sets[:1]
    model = keeping(affine("normal", (64, 8)))
    return cheapest_plan(rules, *model.planned, max_score_error=0.05, hiding_bits=HIDING_BITS, parameter_sets=sets)


def test_rows_without_a_cap_give_u_and_all_weights() -> None:
    plan = row_plan(is_capped=False)
    rows = plan.packing.rows
    assert (rows, plan.packing.classes, plan.packing.polynomials) == (8, 64, 1)
    assert rows <= plan.packing.feature_count, "so many honest rows do not determine the weights"
    assert told(plan, rows) > entropy(plan)
    attacker = Attacker(plan, digits=8, stride=1)
    (pair,) = attacker.ask(rows)
    u = attacker.spelled(pair, rows, range(64))
    assert len(u) == 4096
    (packed,) = plan.packing.pack_weights(plan.model.weights)[:, 0]
    np.testing.assert_array_equal(attacker.unmasked(pair, u), packed)


def test_rows_with_a_cap_give_too_little_of_u() -> None:
    plan = row_plan(is_capped=True)
    parameter_set, rows = plan.parameters.parameter_set, plan.packing.rows
    assert (rows, plan.packing.classes, plan.packing.polynomials) == (1, 32, 2)
    N, per_place = parameter_set.poly_modulus_degree, int(told(plan, 1) / plan.packing.classes / math.log2(3))
    assert per_place > 8
    # Either the digits between two places, as above, or as many as a coefficient tells.
    for digits, stride in ((8, 1), (per_place, 8 * plan.packing.classes)):
        attacker = Attacker(plan, digits, stride)
        packed = plan.packing.pack_weights(plan.model.weights)[:, 0]
        for polynomial, pair in enumerate(attacker.ask(rows)):
            classes = plan.packing.classes_in(polynomial)
            u = attacker.spelled(pair, rows, classes)
            assert len(u) == digits * len(classes) <= told(plan, rows) / math.log2(3), "more than is told"
            # What is left of u is worth 128 bits, and so is all that can be told.
            assert worth(parameter_set, N - len(u)) >= 128
            assert worth(parameter_set, math.floor(N - told(plan, rows) / math.log2(3))) >= 128
            found = attacker.unmasked(pair, u)
            assert not (found == packed[polynomial])[packed[polynomial] != 0].any()
            assert np.median(np.abs(found)) > 1000 * np.abs(packed).max()


def worth(parameter_set: ParameterSet, unknown: int) -> float:
    """The bits of security of c1 where so many coefficients of u are unknown."""
    return lattice.primal_bits(
        unknown,
        parameter_set.poly_modulus_degree,
        math.log2(parameter_set.modulus),
        lattice.ROUNDING_DEVIATION,
        lattice.TERNARY_DEVIATION,
    )


def test_all_but_some_coefficients_of_u_are_no_help_to_this_attack() -> None:
    """Unmasking takes all of u: a single wrong coefficient spoils every weight."""
    plan = row_plan(is_capped=False)
    attacker = Attacker(plan, digits=8, stride=1)
    (pair,) = attacker.ask(plan.packing.rows)
    u = attacker.spelled(pair, plan.packing.rows, range(64))
    del u[next(index for index, trit in u.items() if trit)]
    (packed,) = plan.packing.pack_weights(plan.model.weights)[:, 0]
    assert not (attacker.unmasked(pair, u) == packed)[packed != 0].any()


def test_columns_give_all_weights_with_fewer_rows_than_features() -> None:
    """7,840 weights from one batch of 600 rows: stated in SECURITY.md, not mended."""
    plan = plan_column(*affine("normal", (10, 784)).planned, hiding_bits=HIDING_BITS)
    rows, N = 600, plan.parameters.parameter_set.poly_modulus_degree
    assert rows < plan.packing.feature_count
    assert told(plan, rows) > entropy(plan)
    attacker = Attacker(plan, digits=-(-N // rows), stride=rows)
    found = []
    for polynomial, pair in enumerate(attacker.ask(rows)):
        u = attacker.spelled(pair, rows, range(polynomial, polynomial + 1))
        assert len(u) == N
        found.append(attacker.unmasked(pair, u)[:784])
    np.testing.assert_array_equal(np.array(found), plan.model.weights)


def test_a_plan_of_rows_is_capped_whatever_the_packing() -> None:
    """The plans of the tests above differ in the cap alone."""
    capped, uncapped = row_plan(is_capped=True), row_plan(is_capped=False)
    assert isinstance(capped.packing, RowPacking)
    assert told(capped, capped.packing.rows) < hiding.cap_bits(capped.parameters.parameter_set)
    assert told(uncapped, uncapped.packing.rows) > hiding.cap_bits(uncapped.parameters.parameter_set)
