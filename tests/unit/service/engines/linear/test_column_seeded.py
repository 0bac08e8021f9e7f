"""The column engine on seeded ciphertexts, alone or beside full ones: as exact as on full ones."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.protocol.item import ItemHeader
from sealserve_service.engines.linear.column import ColumnEngine
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.affine_models import Integers, affine, extreme_rows, integer_scores, random_rows
from tests.support.item_round_trip import secret_key
from tests.support.plans import column_plans

every_set = pytest.mark.parametrize(
    "parameter_set", LAYOUTS["column"].open_parameter_sets, ids=lambda parameter_set: parameter_set.name
)


def scores(plan: ColumnPlan, ciphertexts: list[bytes], row_count: int) -> Integers:
    """Score and decrypt the ciphertexts of an item.

    Returns the integers modulo t that are nearest to the centres.
    """
    parameters, t = plan.parameters, plan.parameters.plain_modulus
    header = ItemHeader(
        model="",
        config_id="",
        layout=LAYOUTS["column"],
        parameter_set=parameters.parameter_set.name,
        row_count=row_count,
        ciphertext_count=len(ciphertexts),
    )
    scoring = ColumnEngine(plan).begin(header, ANONYMOUS.name)
    for start in range(0, len(ciphertexts), 3):
        scoring.add(ciphertexts[start : start + 3])
    key, places = secret_key(parameters.parameter_set), np.arange(row_count)
    decryptor = Decryptor(parameters, key, plan.reply_bits)
    residues = [decryptor.decrypt(pair.c0, pair.c1, places).astype(object) for pair in scoring.finish()]
    centers = np.array(plan.score_centers, object)
    nearest: Integers = (np.stack(residues, axis=1) - centers + t // 2) % t - t // 2 + centers
    return nearest


def batch(plan: ColumnPlan, rows: NDArray[np.int64], every: int) -> list[bytes]:
    """Encrypt rows: every so many ciphertexts seeded, the others full."""
    key = secret_key(plan.parameters.parameter_set)
    full, seeded = Encryptor(plan.parameters, key), SeededEncryptor(plan.parameters, key)
    plaintexts = enumerate(plan.packing.pack_rows(rows))
    return [(full if index % every else seeded).encrypt(plaintext) for index, plaintext in plaintexts]


@every_set
@pytest.mark.parametrize("kind", ["normal", "one huge", "zero columns"])
@pytest.mark.parametrize("every", [1, 2], ids=["all seeded", "one in two"])
def test_batches_are_exact(parameter_set: ParameterSet, kind: str, every: int) -> None:
    model = affine(kind, (4, 25))
    *_, plan = column_plans(*model.planned, parameter_sets=[parameter_set])
    some = np.concatenate([extreme_rows(plan.model, model.grid), random_rows(model.grid, 20)])
    for rows in (some, random_rows(model.grid, plan.packing.rows)):
        found = scores(plan, batch(plan, rows, every), len(rows))
        np.testing.assert_array_equal(found, integer_scores(plan.model, rows))
