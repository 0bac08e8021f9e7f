"""The row engine on seeded ciphertexts: as exact as on full ones.

That holds to the last unit of the noise that a plan allows.
"""

import numpy as np
import pytest

from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from tests.support.affine_models import Affine, affine, extreme_rows, integer_scores, random_rows, tightest
from tests.support.item_round_trip import RoundTrip, secret_key
from tests.support.plans import row_plans

every_set = pytest.mark.parametrize(
    "parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda parameter_set: parameter_set.name
)


def assert_exact(model: Affine, parameter_set: ParameterSet) -> None:
    """Score the extreme rows, one by one and in full items, all seeded, and seeded beside full."""
    plans = row_plans(*model.planned, parameter_sets=[parameter_set])
    assert plans
    for plan in plans:
        round_trip, seeded = RoundTrip(plan), SeededEncryptor(plan.parameters, secret_key(parameter_set))
        rows = np.concatenate([extreme_rows(plan.model, model.grid), random_rows(model.grid, 3)])
        for item in (rows[: plan.packing.rows], rows[-1:]):
            ciphertexts = [seeded.encrypt(plaintext) for plaintext in plan.packing.pack_rows(item)]
            expected = integer_scores(plan.model, item)
            for mixed in (ciphertexts, ciphertexts[:1] + round_trip.encrypted(item)[1:]):
                np.testing.assert_array_equal(round_trip.decrypted(mixed, len(item)), expected)


@every_set
@pytest.mark.parametrize("shape", [(10, 1), (2, 64), (10, 784), (3, 5000)], ids=str)
def test_models_of_every_shape(shape: tuple[int, int], parameter_set: ParameterSet) -> None:
    assert_exact(affine("normal", shape), parameter_set)


@every_set
@pytest.mark.parametrize(("scores", "features", "levels"), [(2, 1000, 1), (1, 5000, 2)], ids=["two classes", "blocks"])
def test_models_that_use_the_noise_up(parameter_set: ParameterSet, scores: int, features: int, levels: int) -> None:
    assert_exact(tightest(parameter_set, scores, features, levels), parameter_set)
