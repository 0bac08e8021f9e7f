"""Both engines in mode private: scores are exact, and each reply is new.

Nothing is said of degenerate products.
"""

import itertools

import numpy as np
import pytest

from sealserve.errors import KeyNotFoundError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.quantization import InputGrid
from sealserve.protocol.item import PackedPair
from sealserve.protocol.key_record import KeyKind
from sealserve_service.engines.linear.row import RowEngine
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor, find_no_key
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import WEIGHTS, Affine, affine, extreme_rows, integer_scores, random_rows
from tests.support.item_round_trip import RoundTrip, zero_encryptor
from tests.support.plans import column_plans, row_plans
from tests.support.reply_pairs import unpacked

SMALLEST = LAYOUTS["row"].private_parameter_sets[0]
every_row_set = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].private_parameter_sets, ids=lambda s: s.name)
every_column_set = pytest.mark.parametrize(
    "parameter_set", LAYOUTS["column"].private_parameter_sets, ids=lambda s: s.name
)
KINDS = [kind for kind in WEIGHTS if kind != "normal"]


def assert_exact(model: Affine, plan: RowPlan | ColumnPlan) -> None:
    round_trip = RoundTrip(plan)
    rows = np.concatenate([extreme_rows(plan.model, model.grid), random_rows(model.grid, 5)])
    for first in range(0, len(rows), plan.packing.rows):
        item = rows[first : first + plan.packing.rows]
        np.testing.assert_array_equal(round_trip.scores(item), integer_scores(plan.model, item))


@every_row_set
@pytest.mark.parametrize("shape", [(1, 1), (10, 784), (3, 9000)], ids=str)
def test_rows_are_exact(parameter_set: ParameterSet, shape: tuple[int, int]) -> None:
    model = affine("normal", shape)
    for plan in row_plans(*model.planned, hiding_bits=40, parameter_sets=[parameter_set]):
        assert_exact(model, plan)


@every_column_set
def test_columns_are_exact(parameter_set: ParameterSet) -> None:
    model = affine("normal", (4, 25))
    *_, plan = column_plans(*model.planned, hiding_bits=40, parameter_sets=[parameter_set])
    assert_exact(model, plan)
    full = random_rows(model.grid, plan.packing.rows)
    np.testing.assert_array_equal(RoundTrip(plan).scores(full), integer_scores(plan.model, full))


@pytest.mark.parametrize("kind", KINDS)
def test_any_weights_are_exact(kind: str) -> None:
    """A model of zeros included, whose replies look like any other's."""
    model = affine(kind, (5, 40))
    assert_exact(model, row_plans(*model.planned, hiding_bits=40)[0])
    assert_exact(model, column_plans(*model.planned, hiding_bits=40)[0])


def plan_of(layout: str, kind: str = "normal") -> RowPlan | ColumnPlan:
    model = affine(kind, (3, 20))
    return (row_plans if layout == "row" else column_plans)(*model.planned, hiding_bits=40)[0]


both = pytest.mark.parametrize("layout", ["row", "column"])


@both
@pytest.mark.parametrize("kind", ["normal", "zero"])
def test_the_same_request_has_another_reply_each_time(layout: str, kind: str) -> None:
    round_trip = RoundTrip(unpacked(plan_of(layout, kind)))
    rows = random_rows(affine(kind, (3, 20)).grid, 2)
    ciphertexts = round_trip.encrypted(rows)
    replies = [pair for _ in range(4) for pair in round_trip.reply(ciphertexts, 2)]
    primes = round_trip.engine.parameter_set.data_primes
    for one, other in itertools.combinations(replies, 2):  # those of one item's polynomials as well
        for mine, others in zip(one, other, strict=True):
            both_residues = np.frombuffer(mine + others, np.uint64).reshape(2, len(primes), -1)
            # Of 4096 random coefficients a few may be equal, not modulo 2^46.
            assert (both_residues[0] == both_residues[1]).mean() < 0.01
    for pair in replies:
        for part in pair:
            assert (np.frombuffer(part, np.uint64).reshape(len(primes), -1).max(axis=1) < primes).all()


@both
def test_every_pair_takes_one_encryption_of_zero_of_its_own(layout: str) -> None:
    plan, used = plan_of(layout), list[bytes]()

    class Counting(ZeroEncryptor):
        def __init__(self) -> None:
            self.__dict__ = zero_encryptor(plan.parameters.parameter_set).__dict__

        def encrypt(self) -> np.ndarray:
            used.append((zero := super().encrypt()).tobytes())
            return zero

    round_trip = RoundTrip(plan, keys=lambda *_: Counting())
    rows = random_rows(affine("normal", (3, 20)).grid, 2)
    for items in (1, 2):
        round_trip.scores(rows)
        assert len(set(used)) == len(used) == items * plan.packing.polynomials


@both
def test_the_dropped_coefficients_are_absent_from_the_bytes(layout: str) -> None:
    plan = plan_of(layout)
    round_trip, bits = RoundTrip(plan), plan.reply_bits
    assert bits is not None
    for row_count in (1, 2, plan.packing.rows):
        rows = random_rows(affine("normal", (3, 20)).grid, row_count)
        for polynomial, pair in enumerate(round_trip.reply(round_trip.encrypted(rows), row_count)):
            kept = row_count * len(plan.packing.classes_in(polynomial))
            assert isinstance(pair, PackedPair)
            assert len(pair.c0) == -(-kept * bits.c0 // 8)
            assert len(pair.c1) == plan.packing.poly_modulus_degree * bits.c1 // 8


@both
def test_an_item_needs_a_key(layout: str) -> None:
    plan = plan_of(layout)
    round_trip = RoundTrip(plan, keys=find_no_key)
    offer = round_trip.engine.offer
    assert offer.private_weights
    assert offer.required_key is KeyKind.PUBLIC_ENCRYPTION_KEY
    assert offer.cost.key_bytes == 113 + 8 * 3 * 4096 + 81
    with pytest.raises(KeyNotFoundError):
        round_trip.begin(1, 1)


def test_a_product_that_hides_nothing_is_zero_and_not_an_error() -> None:
    """In mode open such a product is refused.

    Here the refusal would tell whoever made such ciphertexts which weights are equal.
    """
    features = 2 * SMALLEST.poly_modulus_degree
    model = affine("equal", (1, features))
    model = Affine(model.weights, model.intercept, InputGrid.of(features, 0.0, 1.0))
    round_trip = RoundTrip(row_plans(*model.planned, hiding_bits=20, parameter_sets=[SMALLEST])[0])
    assert isinstance(round_trip.engine, RowEngine)
    first, _ = round_trip.encrypted(random_rows(model.grid, 1))
    c0, c1 = round_trip.engine.format.residues(first)
    opposite = (round_trip.engine.primes - c1) % round_trip.engine.primes
    cancelling = [first, round_trip.engine.format.pack(c0, opposite.tobytes())]
    (pair,) = round_trip.reply(cancelling, 1)
    assert isinstance(pair, PackedPair)
    assert any(pair.c1)
    t = round_trip.plan.parameters.plain_modulus
    assert (round_trip.decrypted(cancelling, 1)[0, 0] - round_trip.plan.model.intercept[0]) % t == 0
