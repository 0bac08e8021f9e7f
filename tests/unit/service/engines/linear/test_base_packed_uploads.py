"""Packed ciphertexts in both engines, alone or beside others: as exact as full ones, or refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sealserve.errors import CiphertextFault, MalformedCiphertextError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import PackedEncryptor, SeededEncryptor
from sealserve.protocol.model import CiphertextForm
from sealserve_service.planning.plan import Plan
from tests.support.affine_models import affine, integer_scores, random_rows
from tests.support.item_round_trip import RoundTrip, secret_key
from tests.support.plans import plan_column, plan_row

KINDS = (PackedEncryptor, SeededEncryptor, Encryptor)
"""The kinds of an item's ciphertexts, in turn."""

FEATURES = {"row": 8200, "column": 7}  # three ciphertexts of a row or five, seven of a column
HIDING_BITS = {"open": None, "private": 40}
PACKING = {
    (name, mode): (LAYOUTS[name].open_parameter_sets if mode == "open" else LAYOUTS[name].private_parameter_sets)[:1]
    for name in FEATURES
    for mode in HIDING_BITS
}


class Item:
    """An item of several ciphertexts, which are made in any way."""

    def __init__(self, layout: str, mode: str) -> None:
        model = affine("normal", (3, FEATURES[layout]))
        make: Callable[..., Plan[Any]] = plan_column if layout == "column" else plan_row
        self.plan = make(
            *model.planned, hiding_bits=HIDING_BITS[mode], max_score_error=1e9, parameter_sets=PACKING[layout, mode]
        )
        self.round_trip = RoundTrip(self.plan)
        self.rows = random_rows(model.grid, 1)

    def encrypted(self, *kinds: type[Encryptor]) -> list[bytes]:
        key = secret_key(self.plan.parameters.parameter_set)
        encryptors = [kind(self.plan.parameters, key) for kind in kinds]
        plaintexts = enumerate(self.plan.packing.pack_rows(self.rows))
        return [encryptors[index % len(kinds)].encrypt(plaintext) for index, plaintext in plaintexts]


@pytest.fixture(scope="module", params=PACKING, ids=" ".join)
def item(request: pytest.FixtureRequest) -> Item:
    return Item(*request.param)


@pytest.mark.parametrize(
    "kinds", [KINDS[:1], KINDS, KINDS[::-1]], ids=lambda kinds: ", ".join(k.__name__ for k in kinds)
)
def test_scores_are_exact(item: Item, kinds: tuple[type[Encryptor], ...]) -> None:
    scores = item.round_trip.decrypted(item.encrypted(*kinds), 1)
    np.testing.assert_array_equal(scores, integer_scores(item.plan.model, item.rows))


@pytest.mark.parametrize("index", [0, 2])
def test_a_malformed_one_is_named(item: Item, index: int) -> None:
    ciphertexts = item.encrypted(PackedEncryptor)
    for data, fault in (
        (ciphertexts[index][:-1], CiphertextFault.LENGTH),
        (bytes(32) + ciphertexts[index][32:], CiphertextFault.PARAMETERS),
        (ciphertexts[index][:-8] + b"\xff" * 8, CiphertextFault.COEFFICIENT),
    ):
        with pytest.raises(MalformedCiphertextError) as caught:
            item.round_trip.reply([*ciphertexts[:index], data, *ciphertexts[index + 1 :]], 1)
        assert (caught.value.reason, caught.value.index) == (fault, index)


def test_offers_name_the_form_where_it_saves_a_fifth() -> None:
    model = affine("normal", (2, 5))
    found, makers = {}, dict[str, Callable[..., Plan[Any]]](row=plan_row, column=plan_column)
    for layout, make in makers.items():
        for parameter_set in LAYOUTS[layout].open_parameter_sets:
            plan = make(*model.planned, max_score_error=1e9, parameter_sets=[parameter_set])
            found[parameter_set.name] = RoundTrip(plan).engine.offer.ciphertext_forms
    packed = frozenset({CiphertextForm.PACKED})
    assert found == {
        f"{layout}-{ring}": packed if ring in ("2048-44", "4096-92") else frozenset()
        for layout in ("row", "column")
        for ring in ("2048-44", "2048-54", "4096-60", "4096-92")
    }
