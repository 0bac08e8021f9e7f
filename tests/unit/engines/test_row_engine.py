"""The row engine is exact: what its replies decrypt to are the integers of plaintext arithmetic, always."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.he.decryptor import Decryptor
from sealserve.he.encryptor import Encryptor
from sealserve.he.parameters import ROW_PARAMETER_SETS, Layout, ParameterSet
from sealserve.he.planner import RowPlan, row_plans
from sealserve.he.quantization import InputGrid
from sealserve.item import ItemHeader
from sealserve.keys import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.auth import ANONYMOUS
from sealserve_service.engines.row import RowEngine
from tests.row_models import WEIGHTS, Affine, Integers, affine, affine_models, extreme_rows, integer_scores, random_rows

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
        return self.answers(ciphertexts, len(rows))

    def answers(self, ciphertexts: list[bytes], row_count: int) -> Integers:
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


@settings(deadline=None, max_examples=40)
@given(affine_models(), st.sampled_from(ROW_PARAMETER_SETS))
def test_any_model_under_any_plan(model: Affine, parameter_set: ParameterSet) -> None:
    assert_model_exact(model, row_plans(*model.planned, parameter_sets=[parameter_set]))


@every_set
@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_every_kind(kind: str, parameter_set: ParameterSet) -> None:
    model = affine(kind, (10, 100))
    assert_model_exact(model, row_plans(*model.planned, parameter_sets=[parameter_set]))


@every_set
@pytest.mark.parametrize("shape", [(10, 1), (10, 784), (10, 5000), (10, 20000), (1, 64), (2, 64), (1000, 64)], ids=str)
def test_shapes(shape: tuple[int, int], parameter_set: ParameterSet) -> None:
    model = affine("normal", shape)
    plans = row_plans(*model.planned, parameter_sets=[parameter_set])
    assert_model_exact(model, [plans[0], plans[-1]])  # the cheapest and the most accurate


def test_weights_that_are_multiples_of_t() -> None:
    constant = InputGrid.of(2, 5.0, 5.0)  # no range, hence a small t, however large the weights
    model = Affine(np.array([[2.0, 1.0]]), np.array([0.5]), constant)
    plans = row_plans(*model.planned)
    assert not (plans[0].model.weights % plans[0].parameters.plain_modulus).any()
    assert_model_exact(model, plans)
