"""The row engine is exact: what its replies decrypt to are the integers of plaintext arithmetic, always."""

from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.he.decryptor import Decryptor
from sealserve.he.encryptor import Encryptor
from sealserve.he.parameters import ROW_PARAMETER_SETS, EncryptionParameters, Layout, ParameterSet
from sealserve.he.planner import RowPlan, row_plans
from sealserve.he.quantization import InputGrid
from sealserve.item import ItemHeader
from sealserve.keys import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.auth import ANONYMOUS
from sealserve_service.engines.row import RowEngine
from tests.noisy import NoisyEncryptor
from tests.row_models import (
    WEIGHTS,
    Affine,
    Integers,
    affine,
    affine_models,
    extreme_rows,
    integer_scores,
    random_rows,
    tightest,
)

every_set = pytest.mark.parametrize("parameter_set", ROW_PARAMETER_SETS, ids=lambda parameter_set: parameter_set.name)


@cache
def secret_key(parameter_set: ParameterSet) -> bytes:
    return SecretKey.generate(parameter_set).export(TOKEN)


class Round:
    """A client and a server of a plan, without the floats at either end: integers in, integers out."""

    def __init__(self, plan: RowPlan) -> None:
        self.plan = plan
        self.engine = RowEngine(plan)
        key = secret_key(plan.parameters.parameter_set)
        self.encryptor = Encryptor(plan.parameters, key)
        self.decryptor = Decryptor(plan.parameters, key)

    def scores(self, rows: NDArray[np.int64]) -> Integers:
        """Send one item of rows on the grid (1..R, feature_count); returns (rows, score_count)."""
        ciphertexts = [self.encryptor.encrypt(plaintext) for plaintext in self.plan.packing.pack_rows(rows)]
        return self.decrypted(ciphertexts, len(rows))

    def decrypted(self, ciphertexts: list[bytes], row_count: int) -> Integers:
        """Score and decrypt the ciphertexts of an item."""
        packing, parameters = self.plan.packing, self.plan.parameters
        header = ItemHeader("", "", Layout.ROW, parameters.parameter_set.name, row_count, len(ciphertexts))
        scoring = self.engine.begin(header, ANONYMOUS)
        scoring.add(ciphertexts)
        pieces = []
        for polynomial, (c0, c1) in enumerate(scoring.finish()):
            places = packing.places(row_count, len(packing.classes_in(polynomial)))
            pieces.append(self.decryptor.decrypt(c0, c1, places.ravel()).reshape(places.shape))
        return self.nearest_to_centers(np.concatenate(pieces, axis=1).astype(object))

    def nearest_to_centers(self, residues: Integers) -> Integers:
        """Take for each residue modulo t the integer that is nearest to its class's centre."""
        t, centers = self.plan.parameters.plain_modulus, np.array(self.plan.score_centers, object)
        scores: Integers = (residues - centers + t // 2) % t - t // 2 + centers
        return scores


def assert_exact(plan: RowPlan, rows: NDArray[np.int64]) -> None:
    """Score rows in full items, the last one as full as it comes, and one row alone."""
    exchange, capacity = Round(plan), plan.packing.rows
    for first in range(0, len(rows), capacity):
        item = rows[first : first + capacity]
        np.testing.assert_array_equal(exchange.scores(item), integer_scores(plan.model, item))
    np.testing.assert_array_equal(exchange.scores(rows[:1]), integer_scores(plan.model, rows[:1]))


def assert_model_exact(model: Affine, plans: list[RowPlan]) -> None:
    """Score the rows that no other outdoes, and some in between."""
    assert plans
    for plan in plans:
        rows = [extreme_rows(plan.model, model.grid), random_rows(model.grid, 3)]
        assert_exact(plan, np.concatenate(rows))


# Exactness


@settings(deadline=None, max_examples=100)
@given(affine_models(), st.sampled_from(ROW_PARAMETER_SETS))
def test_any_model_under_any_plan(model: Affine, parameter_set: ParameterSet) -> None:
    plans = row_plans(*model.planned, parameter_sets=[parameter_set])
    assume(plans)  # the intercepts may be beyond any scale
    assert_model_exact(model, plans)


@every_set
@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_every_kind(kind: str, parameter_set: ParameterSet) -> None:
    model = affine(kind, (10, 100))
    assert_model_exact(model, row_plans(*model.planned, parameter_sets=[parameter_set]))


@every_set
@pytest.mark.parametrize("shape", [(10, 1), (10, 784), (10, 5000), (10, 20000), (1, 64), (2, 64), (1000, 64)], ids=str)
def test_shapes(shape: tuple[int, int], parameter_set: ParameterSet) -> None:
    model = affine("normal", shape)
    assert_model_exact(model, row_plans(*model.planned, parameter_sets=[parameter_set])[:1])


def test_weights_that_are_multiples_of_t() -> None:
    constant = InputGrid.of(2, 5.0, 5.0)  # no range, hence a small t, however large the weights
    model = Affine(np.array([[2.0, 1.0]]), np.array([0.5]), constant)
    plans = row_plans(*model.planned)
    assert not (plans[0].model.weights % plans[0].parameters.plain_modulus).any()
    assert_model_exact(model, plans)


# Noise


class Worst:
    """The noise that does most harm to the last score of a full item."""

    def __init__(self, plan: RowPlan, noisy: NoisyEncryptor, sign: int) -> None:
        self.plan, self.noisy, self.sign = plan, noisy, sign
        packing, N = plan.packing, plan.packing.poly_modulus_degree
        reach = packing.places(packing.rows, packing.score_count)[-1, -1] - np.arange(N)
        (weights,) = packing.pack_weights(plan.model.weights)
        # What the score's coefficient takes of each coefficient of the ciphertexts; X^N = -1.
        self.factors = np.where(reach >= 0, weights[:, reach], -weights[:, reach]).astype(object)

    def noise(self, each: int, surplus: int = 0) -> Integers:
        """So much in every coefficient, and a surplus in one whose weight is 1: (ciphertexts, N)."""
        noise: Integers = self.sign * each * np.sign(self.factors)
        unit = tuple(np.argwhere(np.abs(self.factors) == 1)[0])
        noise[unit] += self.sign * surplus * self.factors[unit]
        return noise

    def harm(self, packed: NDArray[np.uint64], each: int) -> int:
        """What the noise, and all that is rounded besides, add to the score's coefficient, times t."""
        q, t = self.plan.parameters.parameter_set.modulus, self.plan.parameters.plain_modulus
        rounding = t * self.noisy.scaled(packed) - q * packed.astype(object)
        intercept = self.plan.model.intercept[-1] % t
        of_intercept = t * ((q * intercept + t // 2) // t) - q * intercept
        return int((self.factors * (t * self.noise(each) + rounding)).sum() + of_intercept)


@every_set
@pytest.mark.parametrize(("scores", "features", "levels"), [(2, 1000, 1), (1, 5000, 2)], ids=["two classes", "blocks"])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_noise_bound_holds_and_is_tight(
    parameter_set: ParameterSet, scores: int, features: int, levels: int, sign: int
) -> None:
    model = tightest(parameter_set, scores, features, levels)
    plan = row_plans(*model.planned, parameter_sets=[parameter_set])[0]
    np.testing.assert_array_equal(plan.model.weights, model.weights)
    assert plan.packing.polynomials == 1
    exchange, noisy = Round(plan), NoisyEncryptor(plan.parameters, secret_key(parameter_set))
    worst = Worst(plan, noisy, sign)
    rows = random_rows(model.grid, plan.packing.rows)
    packed = plan.packing.pack_rows(rows)
    expected = integer_scores(plan.model, rows)

    def errors(each: int, surplus: int = 0) -> Integers:
        ciphertexts = [noisy.encrypt(*pair) for pair in zip(packed, worst.noise(each, surplus), strict=True)]
        wrong: Integers = exchange.decrypted(ciphertexts, len(rows)) - expected
        return wrong

    assert not errors(21).any()  # no encryption of SEAL's has more
    assert errors(22)[-1, -1] == sign
    q, t = parameter_set.modulus, plan.parameters.plain_modulus
    surplus = ((q - 1) // 2 - sign * worst.harm(packed, 21)) // t  # the most that leaves it below q / (2t)
    assert errors(21, surplus)[-1, -1] == 0
    assert errors(21, surplus + 1)[-1, -1] == sign


def test_what_division_in_two_primes_costs_is_not_planned_with() -> None:
    # q is so little above t (43 A' + 1) that SEAL, which rounds down once too often, does not decrypt all of that.
    narrow = ParameterSet("narrow", 4096, (0x3FFFFF0E8001, 0x3FFFFD0D4001, 0x1C001))
    model = tightest(narrow, 2, 1000, 1)
    absolute_sum, t = int(np.abs(model.weights).sum()), 1 << 43
    parameters, key = EncryptionParameters(narrow, t), secret_key(narrow)
    half = np.full(narrow.poly_modulus_degree, t // 2, np.uint64)  # q / 2 is rounded up by 1/2
    ciphertext = NoisyEncryptor(parameters, key).encrypt(half, np.full(len(half), -43 * absolute_sum // 2 - 1, object))
    c0, c1 = np.frombuffer(ciphertext[-2 * narrow.polynomial_bytes :], np.uint8).reshape(2, -1)
    everywhere = np.arange(len(half), dtype=np.intp)
    assert (Decryptor(parameters, key).decrypt(c0.tobytes(), c1.tobytes(), everywhere) == half - 1).all()
    plan = row_plans(*model.planned, parameter_sets=[narrow])[0]
    assert plan.model.score_scale < 1  # the model's integers are not kept


@every_set
def test_the_noise_of_an_encryption_is_what_the_planner_takes_it_for(parameter_set: ParameterSet) -> None:
    parameters, key = EncryptionParameters(parameter_set, 1 << 20), secret_key(parameter_set)
    encryptor, noisy = Encryptor(parameters, key), NoisyEncryptor(parameters, key)
    plaintexts = np.random.default_rng(0).integers(0, 1 << 20, (20, parameter_set.poly_modulus_degree), np.uint64)
    noise = [noisy.noise(encryptor.encrypt(plaintext), plaintext) for plaintext in plaintexts]
    assert np.abs(noise).max() <= 21
    # The difference of two sums of 21 bits each: a wider distribution would have another variance.
    assert abs(np.var(np.array(noise, float)) / 10.5 - 1) < 0.07
