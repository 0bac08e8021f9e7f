"""The row engine is exact: its replies decrypt to the integers of plaintext arithmetic."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve.errors import CiphertextFault, MalformedCiphertextError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import ParameterSet
from sealserve.he.quantization import InputGrid
from sealserve_service.catalog.registry import prepare_model
from sealserve_service.engines.linear.row import RowEngine
from sealserve_service.planning.row import RowPlan
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.affine_models import (
    WEIGHTS,
    Affine,
    affine,
    affine_models,
    extreme_rows,
    integer_scores,
    random_rows,
)
from tests.support.item_round_trip import RoundTrip
from tests.support.plans import plan_row, row_plans
from tests.support.serving import LIMITS, linear

every_set = pytest.mark.parametrize(
    "parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda parameter_set: parameter_set.name
)


def assert_exact(plan: RowPlan, rows: NDArray[np.int64]) -> None:
    """Score rows in full items, repeated until the last is full, and some in items that are not."""
    round_trip, capacity = RoundTrip(plan), plan.packing.rows
    items = -(-len(rows) // capacity)
    full = rows[np.arange(items * capacity) % len(rows)]
    for item in (*np.split(full, items), full[: capacity // 2 + 1], rows[-1:]):
        np.testing.assert_array_equal(round_trip.scores(item), integer_scores(plan.model, item))


def assert_model_exact(model: Affine, plans: list[RowPlan]) -> None:
    """Score the extreme rows, and some in between."""
    assert plans
    for plan in plans:
        rows = [extreme_rows(plan.model, model.grid), random_rows(model.grid, 3)]
        assert_exact(plan, np.concatenate(rows))


# Exactness


@settings(deadline=None, max_examples=100)
@given(affine_models(), st.sampled_from(LAYOUTS["row"].open_parameter_sets))
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


@pytest.mark.parametrize("second", [2**40 - 2, 2**40 - 1])
def test_scores_that_span_t(second: int) -> None:
    model = Affine(np.array([[2.0**40, -second]]), np.array([1e17]), InputGrid.of(2, 0, 1, 1))
    plan = row_plans(*model.planned)[-1]
    assert plan.model.weights.tolist() == [[2**40, -second]]
    assert_model_exact(model, [plan])


@pytest.mark.parametrize(
    ("max_score_error", "name"), [(None, "row-2048-54"), (1e-2, "row-4096-60"), (1e-7, "row-4096-92")]
)
def test_what_a_client_reads(max_score_error: float | None, name: str) -> None:
    """The planner's choice through the SDK's own encryption and decryption."""
    model = affine("normal", (10, 200))
    regression = linear(model.weights, model.intercept)
    rounding = row_plans(*model.planned)[0].input_rounding_error_bound
    total = None if max_score_error is None else max_score_error + rounding
    served = prepare_model("model", regression, model.grid, LIMITS, max_score_error=total, accept_disagreement=True)
    codec, engine = RowCodec(served.model), served.engines[0]
    assert codec.offer.parameters.parameter_set.name == name
    assert isinstance(engine, RowEngine)
    quantized = plan_row(*model.planned, max_score_error=total).model
    rows = np.concatenate([extreme_rows(quantized, model.grid), random_rows(model.grid, 20)])
    capacity = codec.offer.rows_per_item
    for item in (rows[first : first + capacity] for first in range(0, len(rows), capacity)):
        encrypted = codec.encrypt(item)
        scoring = engine.begin(encrypted.header, ANONYMOUS.name)
        scoring.add(list(encrypted.ciphertexts))
        scores = codec.decrypt(len(item), list(scoring.finish()))
        np.testing.assert_array_equal(scores, quantized.scores(item))


# Costs and faults


@every_set
def test_costs_are_those_of_a_full_item(parameter_set: ParameterSet) -> None:
    model = affine("normal", (10, 100))
    plan = row_plans(*model.planned, parameter_sets=[parameter_set])[0]
    round_trip = RoundTrip(plan)
    rows = random_rows(model.grid, plan.packing.rows)
    ciphertexts = round_trip.encrypted(rows)
    cost = round_trip.engine.offer.cost
    assert sum(map(len, ciphertexts)) == cost.request_bytes
    assert sum(pair.byte_count for pair in round_trip.reply(ciphertexts, len(rows))) == cost.reply_bytes
    assert cost.server_seconds > 0


def test_a_malformed_ciphertext_is_named_by_its_place_in_the_item() -> None:
    model = affine("normal", (1, 9000))
    round_trip = RoundTrip(row_plans(*model.planned)[0])
    good = round_trip.encrypted(random_rows(model.grid, 1))
    scoring = round_trip.begin(1, len(good))
    scoring.add(good[:1])
    with pytest.raises(MalformedCiphertextError) as refused:
        scoring.add([good[1], good[2][:-1]])
    assert (refused.value.reason, refused.value.index) == (CiphertextFault.LENGTH, 2)


def test_blocks_that_cancel_each_other_out() -> None:
    """Each ciphertext is well made, but with equal weights the second polynomials cancel.

    The sum would hide nothing.
    """
    model = affine("equal", (1, 2 * 2048))
    model = Affine(model.weights, model.intercept, InputGrid.of(2 * 2048, 0.0, 1.0))
    round_trip = RoundTrip(row_plans(*model.planned, parameter_sets=LAYOUTS["row"].open_parameter_sets[:1])[0])
    first, _ = round_trip.encrypted(random_rows(model.grid, 1))
    c0, c1 = round_trip.engine.format.residues(first)
    opposite = (round_trip.engine.primes - c1) % round_trip.engine.primes
    with pytest.raises(MalformedCiphertextError) as refused:
        round_trip.reply([first, round_trip.engine.format.pack(c0, opposite.tobytes())], 1)
    assert refused.value.reason is CiphertextFault.TRANSPARENT
