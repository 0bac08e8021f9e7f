"""The planner's bound on noise holds at its worst for columns, and is tight.

The noise is beyond what SEAL draws.
"""

import numpy as np
import pytest

from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from tests.support.affine_models import Integers, integer_scores, random_rows, tightest_columns
from tests.support.column_round_trip import ColumnRoundTrip
from tests.support.item_round_trip import secret_key
from tests.support.noisy_encryptor import NoisyEncryptor
from tests.support.plans import column_plans
from tests.support.reply_pairs import unpacked


@pytest.mark.parametrize(
    "parameter_set", LAYOUTS["column"].open_parameter_sets, ids=lambda parameter_set: parameter_set.name
)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_noise_bound_holds_and_is_tight(parameter_set: ParameterSet, sign: int) -> None:
    """The noise that does most harm, in every row at once.

    Then as much in the first row as it bears, and one more.
    """
    model = tightest_columns(parameter_set)
    *_, plan = column_plans(*model.planned, parameter_sets=[parameter_set])
    np.testing.assert_array_equal(plan.model.weights, model.weights)
    assert plan.reply_bits is not None
    batch, packing = ColumnRoundTrip(unpacked(plan)), ColumnRoundTrip(plan)
    noisy = NoisyEncryptor(plan.parameters, secret_key(parameter_set))
    q, t = parameter_set.modulus, plan.parameters.plain_modulus
    rows = random_rows(model.grid, plan.packing.rows)
    plaintexts, expected = list(plan.packing.pack_rows(rows)), integer_scores(plan.model, rows)
    weights = plan.model.weights[0].astype(object)
    unit = int(np.argmin(np.abs(plan.model.weights[0])))
    assert abs(weights[unit]) == 1

    zeros = np.zeros(plan.packing.rows, object)
    quiet = [batch.engine.format.residues(noisy.encrypt(plaintext, zeros)) for plaintext in plaintexts]
    primes = np.array(parameter_set.data_primes, object)[:, None]

    def errors(each: int, surplus: int = 0, batch: ColumnRoundTrip = batch) -> Integers:
        ciphertexts = []
        for index, (c0, c1) in enumerate(quiet):
            noise = sign * each * (1 if weights[index] > 0 else -1)
            noisier = (c0 + (noise % primes).astype(np.uint64)) % primes.astype(np.uint64)
            if index == unit:
                noisier[:, :1] = (noisier[:, :1].astype(object) + sign * surplus * weights[unit]) % primes
            ciphertexts.append(batch.engine.format.pack(noisier, c1.tobytes()))
        wrong: Integers = batch.decrypted(ciphertexts, len(rows), [5, 40]) - expected
        return wrong

    assert not errors(21).any()  # no encryption of SEAL's has more
    assert not errors(21, batch=packing).any()
    # A quarter of the room is reserved for the rounding, which may help as much: 21.5 * 4 / 3 is
    # 28.7, and 21.5 * 5 / 3 is 35.8.
    assert not errors(28).any()
    assert (errors(29) == sign).all()
    assert (errors(36, batch=packing) == sign).all()
    # What noise of 21, and all other rounding, add to the score's first coefficient, times t.
    rounding = sum(
        w * (t * int(noisy.scaled(m[:1])[0]) - q * int(m[0])) for w, m in zip(weights, plaintexts, strict=True)
    )
    intercept = plan.model.intercept[0] % t
    of_intercept = t * ((q * intercept + t // 2) // t) - q * intercept
    harm = sign * t * 21 * int(np.abs(weights).sum()) + rounding + of_intercept
    surplus = ((q - 1) // 2 - sign * harm) // t  # the most that leaves it below q / (2t)
    assert errors(21, surplus)[0, 0] == 0
    assert errors(21, surplus + 1)[0, 0] == sign
