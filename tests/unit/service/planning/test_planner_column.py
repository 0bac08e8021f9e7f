"""Plans for columns keep the two bounds with one class's weights.

Their weights are such that float64 adds them up exactly.
"""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings

from sealserve.errors import PlanError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve_service.engines.linear.column import folds
from sealserve_service.models.loading import load_model
from sealserve_service.planning import planner
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.rounding import open_noise
from tests.support import mnist
from tests.support.affine_models import (
    Affine,
    affine,
    affine_models,
    extreme_rows,
    integer_scores,
    keeping,
    random_rows,
    tightest_columns,
)
from tests.support.plans import column_plans, plan_column, row_plans

every_set = pytest.mark.parametrize("parameter_set", LAYOUTS["column"].open_parameter_sets, ids=lambda s: s.name)
any_model = given(affine_models())
SHAPES = [(1, 1), (10, 784), (3, 5000), (200, 16)]


def plans_of(model: Affine) -> list[ColumnPlan]:
    """The plans of a model, those that another one makes superfluous included."""
    return [
        plan for s in LAYOUTS["column"].open_parameter_sets for plan in column_plans(*model.planned, parameter_sets=[s])
    ]


def plans_of_most_bits(model: Affine) -> list[ColumnPlan]:
    """Of each set the plan that no other one is better than."""
    return list({plan.parameters.parameter_set: plan for plan in plans_of(model)}.values())


def absolute_sum(model: QuantizedModel) -> int:
    """A': the absolute weights of one class, at most."""
    sums: list[int] = [sum(map(abs, weights)) for weights in model.weights.tolist()]
    return max(sums)


def extreme_scores(model: QuantizedModel, grid: InputGrid) -> list[tuple[int, int]]:
    """The least and the greatest integer score of each class."""
    products = model.weights.astype(object) * grid.levels.astype(object)
    lows, highs = np.minimum(products, 0).sum(axis=1), np.maximum(products, 0).sum(axis=1)
    return [(b + low, b + high) for b, low, high in zip(model.intercept, lows, highs, strict=True)]


def least_plain_modulus(model: QuantizedModel, grid: InputGrid) -> int:
    """The least t that wraps no score and holds every feature."""
    return max(2, int(grid.levels.max()) + 1, *(high - low + 2 for low, high in extreme_scores(model, grid)))


def power_of_two_from(least: int) -> int:
    return 1 << (least - 1).bit_length()


def leaves_room_for_noise(parameter_set: ParameterSet, model: QuantizedModel, plain_modulus: int) -> bool:
    if plain_modulus >= parameter_set.modulus:
        return False
    most = open_noise(EncryptionParameters(parameter_set, plain_modulus), parameter_set.poly_modulus_degree)
    return 43 * absolute_sum(model) + 1 <= most


def cost(plan: ColumnPlan) -> float:
    """Bytes a row of a full batch, both ways, from the shapes alone."""
    parameter_set, (scores, features) = plan.parameters.parameter_set, plan.model.weights.shape
    N, words, bits = parameter_set.poly_modulus_degree, len(parameter_set.data_primes), plan.reply_bits
    down = 16 * words if bits is None else (bits.c0 + bits.c1) / 8  # of a class
    return float((16 * words * features * N + scores * N * down) / N)


# The two bounds, and the third


def assert_bounds(model: Affine, plan: ColumnPlan) -> None:
    t, parameter_set = plan.parameters.plain_modulus, plan.parameters.parameter_set
    assert leaves_room_for_noise(parameter_set, plan.model, t)
    assert t == power_of_two_from(least_plain_modulus(plan.model, model.grid))
    assert int(np.abs(plan.model.weights).max()) <= 2**21
    for (low, high), center, radius in zip(
        extreme_scores(plan.model, model.grid), plan.score_centers, plan.score_radii, strict=True
    ):
        assert max(high - center, center - low) == radius <= t // 2 - (radius > 0)
    assert plan.packing.classes == 1
    assert (plan.packing.poly_modulus_degree, plan.packing.rows) == (parameter_set.poly_modulus_degree,) * 2
    assert (plan.packing.score_count, plan.packing.feature_count) == model.weights.shape


@settings(deadline=None, max_examples=60)
@any_model
def test_neither_wrap_nor_noise_nor_rounding(model: Affine) -> None:
    for plan in plans_of(model):
        assert_bounds(model, plan)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bounds_of_large_models(shape: tuple[int, int]) -> None:
    model = affine("normal", shape)
    assert [plan.parameters.parameter_set for plan in plans_of_most_bits(model)] == list(
        LAYOUTS["column"].open_parameter_sets
    )
    for plan in plans_of(model):
        assert_bounds(model, plan)


@settings(deadline=None, max_examples=30)
@any_model
def test_centers_and_radii_hold_every_score(model: Affine) -> None:
    for plan in column_plans(*model.planned):
        rows = np.concatenate([extreme_rows(plan.model, model.grid), random_rows(model.grid, 20)])
        distances = np.abs(integer_scores(plan.model, rows) - np.array(plan.score_centers, object))
        assert distances.max(axis=0).tolist() == list(plan.score_radii)


@settings(deadline=None, max_examples=50)
@any_model
def test_one_more_bit_breaks_a_bound_or_is_no_better(model: Affine) -> None:
    for plan in plans_of_most_bits(model):
        doubled = QuantizedModel.of(*model.planned, 2 * plan.model.score_scale)
        t = power_of_two_from(least_plain_modulus(doubled, model.grid))
        farthest = max(max(-low, high) for low, high in extreme_scores(doubled, model.grid))
        fits = leaves_room_for_noise(plan.parameters.parameter_set, doubled, t) and t < 2**60 and farthest < 2**60
        is_better = planner._score_errors(*model.planned, doubled).max() < plan.score_error_bound
        assert plan.weight_bits == 21 or not fits or not is_better
        assert plan.weight_bits <= 21


def test_weights_have_21_bits_at_most_and_reach_them() -> None:
    model = affine("normal", (2, 3))
    plan = column_plans(model.weights, model.intercept, InputGrid.of(3, 0.0, 1.0))[-1]
    assert plan.weight_bits == 21
    assert int(np.abs(plan.model.weights).max()) == 2**21


@every_set
def test_one_more_in_a_weight_leaves_no_room_for_noise(parameter_set: ParameterSet) -> None:
    model = tightest_columns(parameter_set)
    *_, plan = column_plans(*model.planned, parameter_sets=[parameter_set])
    np.testing.assert_array_equal(plan.model.weights, model.weights)
    weights = model.weights.copy()
    weights[0, np.abs(weights[0]).argmin()] *= 2  # 1 becomes 2
    *_, past = column_plans(weights, model.intercept, model.grid, parameter_sets=[parameter_set])
    assert past.weight_bits == plan.weight_bits - 1
    integers = QuantizedModel.of(weights, model.intercept, model.grid, 1.0)
    assert not leaves_room_for_noise(parameter_set, integers, plan.parameters.plain_modulus)


@every_set
def test_other_classes_take_no_room(parameter_set: ParameterSet) -> None:
    """There may be any number of classes.

    In rows, those that share a polynomial would share its room for noise.
    """
    model = tightest_columns(parameter_set)
    weights, intercept = np.repeat(model.weights, 5, axis=0), np.repeat(model.intercept, 5)
    *_, plan = column_plans(weights, intercept, model.grid, parameter_sets=[parameter_set])
    np.testing.assert_array_equal(plan.model.weights, weights)
    assert leaves_room_for_noise(parameter_set, plan.model, plan.parameters.plain_modulus)


# Errors


def on_grid_error(model: Affine, integers: QuantizedModel) -> float:
    """The greatest error of rows on the grid.

    They are random rows, and rows where the weights' rounding errors add up.
    """
    residual = integers.weights / integers.score_scale - model.weights * model.grid.step
    worst = [np.where(sign * residual > 0, model.grid.levels, 0) for sign in (1, -1)]
    rows = np.concatenate([*worst, extreme_rows(integers, model.grid), random_rows(model.grid, 20)])
    expected = (model.grid.minimum + model.grid.step * rows) @ model.weights.T + model.intercept
    scores = (integer_scores(integers, rows) / integers.score_scale).astype(float)
    return float(np.abs(scores - expected).max())


@settings(deadline=None, max_examples=40)
@any_model
def test_error_bounds_hold(model: Affine) -> None:
    for plan in column_plans(*model.planned):
        assert on_grid_error(model, plan.model) <= plan.score_error_bound


# Choice


def price(plan: ColumnPlan) -> tuple[float, int, int]:
    """What plans are sorted by."""
    return cost(plan), plan.packing.rows, plan.weight_bits


@settings(deadline=None, max_examples=50)
@any_model
def test_plans_are_sorted_and_none_is_beaten(model: Affine) -> None:
    plans = column_plans(*model.planned)
    offered = [(*price(plan), plan.score_error_bound) for plan in plans]
    for (*low_cost, large_error), (*high_cost, small_error) in itertools.pairwise(offered):
        assert low_cost < high_cost
        assert large_error > small_error
    for left_out in plans_of(model):
        assert any(tuple(paid) <= price(left_out) and error <= left_out.score_error_bound for *paid, error in offered)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_costs_are_by_bytes_a_row(shape: tuple[int, int]) -> None:
    for plan in plans_of(affine("normal", shape)):
        assert (plan.request_bytes + plan.reply_bytes) / plan.packing.rows == cost(plan)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_cheapest_plan_with_the_wanted_error_is_chosen(shape: tuple[int, int]) -> None:
    model = keeping(affine("normal", shape))
    plans = column_plans(*model.planned)
    for number, plan in enumerate(plans):
        chosen = plan_column(*model.planned, max_score_error=plan.score_error_bound)
        assert chosen.parameters == plan.parameters
        if number:
            error = np.nextafter(plans[number - 1].score_error_bound, 0)
            assert plan_column(*model.planned, max_score_error=error).parameters == plan.parameters


@pytest.mark.parametrize("shape", [(10, 784), (3, 5000), (2, 20_000)], ids=str)
def test_bits_that_make_it_fold_often_are_spent_on_a_wanted_error_only(shape: tuple[int, int]) -> None:
    model = keeping(affine("normal", shape))
    *_, most = column_plans(*model.planned)
    live = np.count_nonzero(model.grid.levels)  # features of one value take no weight
    assert len(folds(most.model.weights)) > live / 15, "it would fold every few features"
    for parameter_set in LAYOUTS["column"].open_parameter_sets:
        first, *others = column_plans(*model.planned, parameter_sets=[parameter_set])
        assert len(folds(first.model.weights)) <= 1 + shape[1] / 100
        assert [plan.weight_bits for plan in others] == [first.weight_bits + n + 1 for n in range(len(others))]
    wanted = 1.5 * most.score_error_bound
    enough = plan_column(*model.planned, max_score_error=wanted)
    assert enough.score_error_bound <= wanted < column_plans(*model.planned)[-3].score_error_bound
    sets = LAYOUTS["column"].open_parameter_sets[-1:]
    loose = column_plans(*model.planned, parameter_sets=sets)[0]
    chosen = plan_column(*model.planned, max_score_error=loose.score_error_bound, parameter_sets=sets)
    assert chosen.weight_bits == loose.weight_bits < most.weight_bits


def test_the_order_of_the_sets_does_not_matter() -> None:
    model = affine("normal", (10, 784))
    plans = column_plans(*model.planned)
    backwards = column_plans(*model.planned, parameter_sets=LAYOUTS["column"].open_parameter_sets[::-1])
    assert [plan.parameters for plan in backwards] == [plan.parameters for plan in plans]


def test_as_many_bits_as_rows_or_more_with_one_class_a_polynomial() -> None:
    model = affine("normal", (10, 784))
    *_, columns = column_plans(*model.planned, parameter_sets=LAYOUTS["column"].open_parameter_sets[1:2])
    rows = row_plans(*model.planned)
    assert columns.weight_bits >= max(p.weight_bits for p in rows if p.parameters.parameter_set.name == "row-2048-54")


# Refusals


def test_an_error_that_is_out_of_reach() -> None:
    model = keeping(affine("normal", (10, 784)))
    best = column_plans(*model.planned)[-1]
    with pytest.raises(PlanError) as refused:
        plan_column(*model.planned, max_score_error=np.nextafter(best.score_error_bound, 0))
    name, bits = best.parameters.parameter_set.name, best.weight_bits
    assert f"{name} with {bits}-bit weights, is proven to {best.score_error_bound:.3g}" in str(refused.value)


def test_an_error_that_only_rows_reach() -> None:
    """The price of float64: 21 bits, where rows have 28."""
    model = keeping(affine("normal", (10, 784)))
    within_rows_reach = row_plans(*model.planned)[-1].score_error_bound
    assert within_rows_reach < column_plans(*model.planned)[-1].score_error_bound / 10
    with pytest.raises(PlanError, match=re.escape("the best, column-4096-92 with 21-bit weights")):
        plan_column(*model.planned, max_score_error=within_rows_reach)


def test_intercepts_beyond_any_scale() -> None:
    with pytest.raises(PlanError, match="even with 1-bit weights"):
        plan_column(*affine("normal", (2, 5), intercept=1e30).planned)
    with pytest.raises(PlanError, match="even with 1-bit weights"):
        plan_column(*affine("normal", (2, 5)).planned, parameter_sets=[])


def test_a_model_of_zeros_is_served_whatever_its_error() -> None:
    model = affine("zero", (3, 20), intercept=1e6)
    plan = plan_column(*model.planned, max_score_error=0.0)
    assert plan.parameters == column_plans(*model.planned)[0].parameters
    assert on_grid_error(model, plan.model) <= plan.score_error_bound


def test_the_guides_model() -> None:
    path = mnist.find(mnist.MODEL)
    if path is None:
        pytest.skip("the MNIST model is not at hand: SEALSERVE_DATA=DIRECTORY")
    model = load_model(path, trust_pickle=True)
    plan = plan_column(model.weights, model.intercept, InputGrid.of(model.feature_count, 0.0, 1.0))
    assert (plan.parameters.parameter_set.name, plan.weight_bits) == ("column-2048-54", 14)
    assert plan.score_error_bound == pytest.approx(0.0454, abs=5e-5)
