"""The planner's bound on noise holds at its worst, and is tight.

The noise is adversarial, beyond what SEAL draws.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve_service.planning import rounding
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Integers, integer_scores, random_rows, tightest
from tests.support.item_round_trip import RoundTrip, secret_key
from tests.support.noisy_encryptor import NoisyEncryptor
from tests.support.plans import row_plans
from tests.support.reply_pairs import unpacked

every_set = pytest.mark.parametrize(
    "parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda parameter_set: parameter_set.name
)


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
        """Noise of one size everywhere, and more where the weight is 1: (ciphertexts, N)."""
        noise: Integers = self.sign * each * np.sign(self.factors)
        unit = tuple(np.argwhere(np.abs(self.factors) == 1)[0])
        noise[unit] += self.sign * surplus * self.factors[unit]
        return noise

    def harm(self, packed: NDArray[np.uint64], each: int) -> int:
        """What the noise, and all other rounding, add to the score's coefficient, times t."""
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
    assert plan.reply_bits is not None
    packing, whole = RoundTrip(plan), RoundTrip(unpacked(plan))
    noisy = NoisyEncryptor(plan.parameters, secret_key(parameter_set))
    worst = Worst(plan, noisy, sign)
    rows = random_rows(model.grid, plan.packing.rows)
    packed = plan.packing.pack_rows(rows)
    expected = integer_scores(plan.model, rows)

    def errors(each: int, surplus: int = 0, round_trip: RoundTrip = whole) -> Integers:
        ciphertexts = [noisy.encrypt(*pair) for pair in zip(packed, worst.noise(each, surplus), strict=True)]
        wrong: Integers = round_trip.decrypted(ciphertexts, len(rows)) - expected
        return wrong

    assert not errors(21).any()  # no encryption of SEAL's has more
    assert not errors(21, round_trip=packing).any()
    # A quarter of the room is reserved for the rounding, which may help as much: 21.5 * 4 / 3 is
    # 28.7, and 21.5 * 5 / 3 is 35.8.
    assert not errors(28).any()
    assert errors(29)[-1, -1] == sign
    assert errors(36, round_trip=packing)[-1, -1] == sign
    q, t = parameter_set.modulus, plan.parameters.plain_modulus
    surplus = ((q - 1) // 2 - sign * worst.harm(packed, 21)) // t  # the most that leaves it below q / (2t)
    assert errors(21, surplus)[-1, -1] == 0
    assert errors(21, surplus + 1)[-1, -1] == sign


def test_what_division_in_two_primes_costs_is_not_planned_with() -> None:
    # q is so little above t (43 A' + 1) that SEAL, which rounds down once too often, does not
    # decrypt all of that.
    narrow = ParameterSet("narrow", 4096, (0x3FFFFF0E8001, 0x3FFFFD0D4001, 0x1C001))
    t = 1 << 43
    absolute_sum = ((narrow.modulus - 1) // t - 1) // 43
    parameters, key = EncryptionParameters(narrow, t), secret_key(narrow)
    half = np.full(narrow.poly_modulus_degree, t // 2, np.uint64)  # q / 2 is rounded up by 1/2
    ciphertext = NoisyEncryptor(parameters, key).encrypt(half, np.full(len(half), -43 * absolute_sum // 2 - 1, object))
    c0, c1 = np.frombuffer(ciphertext[-2 * narrow.polynomial_bytes :], np.uint8).reshape(2, -1)
    everywhere = np.arange(len(half), dtype=np.intp)
    assert (Decryptor(parameters, key).decrypt(c0.tobytes(), c1.tobytes(), everywhere) == half - 1).all()
    assert rounding.largest_absolute_sum(parameters, 1) < absolute_sum


@every_set
def test_the_noise_of_an_encryption_is_what_the_planner_takes_it_for(parameter_set: ParameterSet) -> None:
    parameters, key = EncryptionParameters(parameter_set, 1 << 20), secret_key(parameter_set)
    encryptor, noisy = Encryptor(parameters, key), NoisyEncryptor(parameters, key)
    plaintexts = np.random.default_rng(0).integers(0, 1 << 20, (20, parameter_set.poly_modulus_degree), np.uint64)
    noise = [noisy.noise(encryptor.encrypt(plaintext), plaintext) for plaintext in plaintexts]
    assert np.abs(noise).max() <= 21
    # The difference of two sums of 21 bits each: a wider distribution would have another variance.
    assert abs(np.var(np.array(noise, float)) / 10.5 - 1) < 0.07
