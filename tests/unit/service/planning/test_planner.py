"""Plans keep their two bounds and their promised errors; nothing cheaper or better fits."""

import dataclasses
import itertools
import math
import re
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.errors import PlanError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.row import RowPacking
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve_service.models.loading import load_model
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.hiding import cap_bits, fits, hides, noise_width, private_reply_bits, told_bits
from sealserve_service.planning.noise import zero_noise
from sealserve_service.planning.rounding import open_noise
from sealserve_service.planning.row import RowPlan
from tests.support import mnist
from tests.support.affine_models import (
    Affine,
    affine,
    affine_models,
    extreme_rows,
    integer_scores,
    keeping,
    random_rows,
    tightest,
)
from tests.support.plans import column_plans, is_exact, plan_column, plan_row, row_plans

every_set = pytest.mark.parametrize(
    "parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda parameter_set: parameter_set.name
)
any_model = given(affine_models())
SHAPES = [(1, 1), (10, 784), (3, 5000), (200, 16)]


def plans_of(model: Affine) -> list[RowPlan]:
    """The plans of a model, those that another one makes superfluous included."""
    return [
        plan
        for parameter_set in LAYOUTS["row"].open_parameter_sets
        for plan in row_plans(*model.planned, parameter_sets=[parameter_set])
    ]


# The two bounds, in Python integers and from the polynomials that are multiplied


def absolute_sum(plan: RowPlan, model: QuantizedModel) -> int:
    """A': all absolute weights that enter one polynomial of the reply, at most."""
    packed = plan.packing.pack_weights(model.weights)  # 40 bits each: int64 has room for the sum
    return int(np.abs(packed).sum(axis=(1, 2)).max())


def leaves_room_for_noise(plan: RowPlan, model: QuantizedModel, plain_modulus: int) -> bool:
    if plain_modulus >= plan.parameters.parameter_set.modulus:
        return False
    places = plan.packing.rows * plan.packing.classes
    most = open_noise(EncryptionParameters(plan.parameters.parameter_set, plain_modulus), places)
    return 43 * absolute_sum(plan, model) + 1 <= most


def extreme_scores(model: QuantizedModel, grid: InputGrid) -> list[tuple[int, int]]:
    """The least and the greatest integer score of each class."""
    products = model.weights.astype(object) * grid.levels.astype(object)
    lows, highs = np.minimum(products, 0).sum(axis=1), np.maximum(products, 0).sum(axis=1)
    return [(b + low, b + high) for b, low, high in zip(model.intercept, lows, highs, strict=True)]


def least_plain_modulus(model: QuantizedModel, grid: InputGrid) -> int:
    """The least t that wraps no score and holds every feature."""
    return max(int(grid.levels.max()) + 1, *(high - low + 2 for low, high in extreme_scores(model, grid)))


def assert_bounds(model: Affine, plan: RowPlan) -> None:
    t = plan.parameters.plain_modulus
    assert leaves_room_for_noise(plan, plan.model, t)
    assert t >= least_plain_modulus(plan.model, model.grid)
    assert t & (t - 1) == 0
    assert t < 2 * max(2, least_plain_modulus(plan.model, model.grid)), "a smaller power of two would do"
    for (low, high), center, radius in zip(
        extreme_scores(plan.model, model.grid), plan.score_centers, plan.score_radii, strict=True
    ):
        assert max(high - center, center - low) == radius <= t // 2 - (radius > 0)


@settings(deadline=None, max_examples=60)
@any_model
def test_neither_wrap_nor_noise(model: Affine) -> None:
    for plan in plans_of(model):
        assert_bounds(model, plan)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_neither_wrap_nor_noise_in_large_models(shape: tuple[int, int]) -> None:
    model = affine("normal", shape)
    plans = plans_of(model)
    assert plans
    for plan in plans:
        assert_bounds(model, plan)


@settings(deadline=None, max_examples=50)
@any_model
def test_centers_and_radii_hold_every_score(model: Affine) -> None:
    for plan in row_plans(*model.planned):
        rows = np.concatenate([extreme_rows(plan.model, model.grid), random_rows(model.grid, 20)])
        distances = np.abs(integer_scores(plan.model, rows) - np.array(plan.score_centers, object))
        assert distances.max(axis=0).tolist() == list(plan.score_radii)


@every_set
def test_one_more_in_a_weight_leaves_no_room_for_noise(parameter_set: ParameterSet) -> None:
    model = tightest(parameter_set, 2, 1000, 1)
    plan = row_plans(*model.planned, parameter_sets=[parameter_set])[0]
    assert plan.packing.classes == 2
    np.testing.assert_array_equal(plan.model.weights, model.weights)
    weights = model.weights.copy()
    weights[0, np.abs(weights[0]).argmin()] *= 2  # 1 becomes 2
    past = row_plans(weights, model.intercept, model.grid, parameter_sets=[parameter_set])[0]
    assert past.packing.classes == 2
    assert past.weight_bits == plan.weight_bits - 1
    integers = QuantizedModel.of(weights, model.intercept, model.grid, 1.0)
    assert not leaves_room_for_noise(plan, integers, plan.parameters.plain_modulus)


@pytest.mark.parametrize(("second", "bits_of_t"), [(2**40 - 2, 41), (2**40 - 1, 42)])
def test_one_more_in_the_range_of_scores_doubles_t(second: int, bits_of_t: int) -> None:
    # The planner stops at 40 bits: 2^40 stays 2^40.
    plan = row_plans(np.array([[2.0**40, -second]]), np.zeros(1), InputGrid.of(2, 0, 1, 1))[-1]
    assert plan.model.weights.tolist() == [[2**40, -second]]
    assert plan.parameters.plain_modulus == 2**bits_of_t


@pytest.mark.parametrize(("levels", "bits_of_t"), [(2**20 - 1, 20), (2**20, 21)])
def test_t_is_above_every_feature(levels: int, bits_of_t: int) -> None:
    plan = plan_row(np.zeros((1, 2)), np.zeros(1), InputGrid.of(2, 0, [1, levels], 1))
    assert plan.parameters.plain_modulus == 2**bits_of_t


def fits_with_one_more_bit(model: Affine, plan: RowPlan) -> bool:
    """Whether the plan's set and packing have room for twice the scale."""
    doubled = QuantizedModel.of(*model.planned, 2 * plan.model.score_scale)
    t = 1 << (least_plain_modulus(doubled, model.grid) - 1).bit_length()
    farthest = max(max(-low, high) for low, high in extreme_scores(doubled, model.grid))
    return leaves_room_for_noise(plan, doubled, t) and t < 2**60 and farthest < 2**60


@settings(deadline=None, max_examples=50)
@any_model
def test_every_plan_has_the_most_bits(model: Affine) -> None:
    for plan in plans_of(model):
        assert plan.weight_bits == 40 or not fits_with_one_more_bit(model, plan)


# Errors


def float_scores(model: Affine, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the model itself says, in float64."""
    scores: NDArray[np.float64] = rows @ model.weights.T + model.intercept
    return scores


def plan_scores(plan: RowPlan, quantized_rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """What a client reads."""
    scores: NDArray[np.float64] = (integer_scores(plan.model, quantized_rows) / plan.model.score_scale).astype(float)
    return scores


def on_grid_error(model: Affine, plan: RowPlan) -> float:
    """The greatest error of rows on the grid.

    They are random rows, and rows where the weights' rounding errors add up.
    """
    residual = plan.model.weights / plan.model.score_scale - model.weights * model.grid.step
    worst = [np.where(sign * residual > 0, model.grid.levels, 0) for sign in (1, -1)]
    rows = np.concatenate([*worst, extreme_rows(plan.model, model.grid), random_rows(model.grid, 20)])
    expected = float_scores(model, model.grid.minimum + model.grid.step * rows)
    return float(np.abs(plan_scores(plan, rows) - expected).max())


def off_grid_error(model: Affine, plan: RowPlan) -> float:
    """The greatest error of rows within the range.

    They are as far from the grid as they can be, in the direction that the weights make worst.
    """
    grid = model.grid
    below = random_rows(grid, 10) + np.random.default_rng(1).choice([-0.4999, 0.4999, 0.1], (10, grid.feature_count))
    away = [0.4999 * sign * np.sign(model.weights) for sign in (1, -1)]
    middles = [grid.levels // 2 + shift for shift in away]
    bounds = [np.where(np.concatenate(away) > 0, grid.maximum, grid.minimum)]
    rows = np.concatenate([*(grid.minimum + grid.step * np.concatenate([below, *middles]), *bounds)])
    rows = np.clip(rows, grid.minimum, grid.maximum)
    return float(np.abs(plan_scores(plan, grid.quantize(rows).integers) - float_scores(model, rows)).max())


@settings(deadline=None, max_examples=60)
@any_model
def test_error_bounds_hold(model: Affine) -> None:
    for plan in row_plans(*model.planned):
        assert on_grid_error(model, plan) <= plan.score_error_bound
        both = plan.score_error_bound + plan.input_rounding_error_bound
        assert off_grid_error(model, plan) <= both * (1 + 1e-12)  # what float64 loses in adding up the bound itself


def test_error_bounds_are_reached() -> None:
    model = affine("normal", (10, 200))
    model = Affine(model.weights, model.intercept, InputGrid.of(200, -1.0, 1.0))
    for plan in row_plans(*model.planned):
        bounds = plan.score_error_bound, plan.input_rounding_error_bound
        assert bounds[0] * 0.999 <= on_grid_error(model, plan)
        assert bounds[1] * 0.999 <= off_grid_error(model, plan)


@pytest.mark.parametrize(("maximum", "expected"), [(0.0, 0.0), (0.9, 2.7), (1.0, 3.0), (1.1, 3.0), (20.0, 3.0)])
def test_rounding_of_a_narrow_range(maximum: float, expected: float) -> None:
    (plan,) = row_plans(np.array([[-3.0]]), np.zeros(1), InputGrid.of(1, 0.0, maximum, 2.0))[:1]
    assert plan.input_rounding_error_bound == pytest.approx(expected)


# Choice


def cost(plan: RowPlan) -> int:
    return plan.request_bytes + plan.reply_bytes


def without_scores(plan: RowPlan) -> int:
    return plan.request_bytes + plan.packing.polynomials * plan.parameters.parameter_set.polynomial_bytes


@settings(deadline=None, max_examples=50)
@any_model
def test_plans_are_sorted_and_none_is_beaten(model: Affine) -> None:
    plans = row_plans(*model.planned)
    offered = [(cost(plan), plan.score_error_bound) for plan in plans]
    for (low_cost, large_error), (high_cost, small_error) in itertools.pairwise(offered):
        assert low_cost < high_cost
        assert large_error > small_error
    for left_out in plans_of(model):
        assert any(least <= cost(left_out) and error <= left_out.score_error_bound for least, error in offered)


@pytest.mark.parametrize("shape", [(1, 1), (10, 784), (7, 300), (20, 200), (3, 5000)], ids=str)
def test_no_packing_is_overlooked(shape: tuple[int, int]) -> None:
    model = affine("normal", shape)
    plans = row_plans(*model.planned)
    peak = float(np.abs(model.weights * model.grid.step)[:, model.grid.levels > 0].max())
    for parameter_set in LAYOUTS["row"].open_parameter_sets:
        N = parameter_set.poly_modulus_degree
        for classes in range(1, min(shape[0], max(1, N // shape[1])) + 1):
            packing = RowPacking(N, shape[1], shape[0], classes)
            tried = dataclasses.replace(plans[0], parameters=EncryptionParameters(parameter_set, 2), packing=packing)
            bits = next(
                bits
                for bits in range(39, 0, -1)
                if fits_with_one_more_bit(
                    model,
                    dataclasses.replace(tried, model=QuantizedModel.of(*model.planned, 2.0 ** (bits - 1) / peak)),
                )
            )
            # A score takes 8 bytes of a reply: a packing of fewer rows is no cheaper for that.
            assert any(without_scores(plan) <= without_scores(tried) and plan.weight_bits >= bits for plan in plans)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_cheapest_plan_with_the_wanted_error_is_chosen(shape: tuple[int, int]) -> None:
    model = keeping(affine("normal", shape))
    plans = row_plans(*model.planned)
    for number, plan in enumerate(plans):
        chosen = plan_row(*model.planned, max_score_error=plan.score_error_bound)
        assert (cost(chosen), chosen.score_error_bound) == (cost(plan), plan.score_error_bound)
        if number:
            chosen = plan_row(*model.planned, max_score_error=np.nextafter(plans[number - 1].score_error_bound, 0))
            assert chosen.score_error_bound == plan.score_error_bound


def test_the_total_error_is_that_of_one_score() -> None:
    """A score that only its features' rounding moves, and one that only its weights' does."""
    grid = InputGrid.of(2, 0.0, [10.0, 1000.0], 1.0, keeps=[False, True])
    plan = row_plans(np.array([[1.0, 0.0], [0.0, math.pi / 4]]), np.zeros(2), grid)[0]
    assert plan.input_rounding_error_bound == pytest.approx(0.5)
    both = plan.score_error_bound + plan.input_rounding_error_bound
    assert plan.score_error_bound > 1e-6
    assert plan.input_rounding_error_bound <= plan.total_error_bound < both - plan.score_error_bound / 2


def test_an_error_that_is_out_of_reach() -> None:
    model = keeping(affine("normal", (10, 784)))
    best = row_plans(*model.planned)[-1]
    with pytest.raises(PlanError) as refused:
        plan_row(*model.planned, max_score_error=np.nextafter(best.score_error_bound, 0))
    name, bits = best.parameters.parameter_set.name, best.weight_bits
    assert f"{name} with {bits}-bit weights, is proven to {best.score_error_bound:.3g}" in str(refused.value)
    assert plan_row(*model.planned, max_score_error=best.score_error_bound).weight_bits == bits


def test_a_set_that_is_too_small_for_the_default_error() -> None:
    model = affine("normal", (10, 20000))
    widest = float((np.abs(model.weights * model.grid.step) @ model.grid.levels).max())
    cheapest, *_ = row_plans(*model.planned)
    chosen = plan_row(*model.planned)
    assert cheapest.score_error_bound > widest / 1024 >= chosen.score_error_bound
    with pytest.raises(PlanError, match=re.escape(f"within {widest / 1024:.3g}: the best, row-2048-44 with")):
        plan_row(*model.planned, parameter_sets=LAYOUTS["row"].open_parameter_sets[:1])


def test_intercepts_beyond_any_scale() -> None:
    model = affine("normal", (2, 5), intercept=1e30)
    with pytest.raises(PlanError, match="even with 1-bit weights"):
        plan_row(*model.planned)
    with pytest.raises(PlanError, match="even with 1-bit weights"):
        plan_row(*affine("normal", (2, 5)).planned, parameter_sets=[])


def test_a_model_of_zeros_is_served_whatever_its_error() -> None:
    model = affine("zero", (3, 20), intercept=1e6)
    plan = plan_row(*model.planned, max_score_error=0.0)
    assert cost(plan) == cost(row_plans(*model.planned)[0])
    assert on_grid_error(model, plan) <= plan.score_error_bound


def test_the_guides_model() -> None:
    path = mnist.find(mnist.MODEL)
    if path is None:
        pytest.skip("the MNIST model is not at hand: SEALSERVE_DATA=DIRECTORY")
    model = load_model(path, trust_pickle=True)
    given = plan_row(model.weights, model.intercept, InputGrid.of(model.feature_count, 0.0, 1.0))
    # A whole bit of the weights goes to the room for rounding: 14 took more than 3/4 of it.
    assert given.score_error_bound == pytest.approx(0.0906, abs=5e-5)
    planned = plan_row(model.weights, model.intercept, input_ranges(model, input_range=(0.0, 1.0)))
    assert planned.score_error_bound == pytest.approx(0.0538, abs=5e-5)
    for plan, weight_bits, byte_count in ((given, 13, 82_728), (planned, 14, 85_298)):
        assert plan.parameters.parameter_set.name == "row-2048-54"
        assert (plan.weight_bits, plan.packing.classes, plan.packing.rows) == (weight_bits, 2, 1)
        assert cost(plan) == byte_count


# Mode private


@settings(deadline=None, max_examples=40)
@given(affine_models(), st.sampled_from([1, 20, 40, 60]))
def test_private_plans_have_the_width_that_hides_and_room_for_it(model: Affine, hiding_bits: int) -> None:
    for parameter_set in LAYOUTS["row"].private_parameter_sets:
        for plan in row_plans(*model.planned, hiding_bits=hiding_bits, parameter_sets=[parameter_set]):
            largest, kept = absolute_sum(plan, plan.model), plan.packing.rows * plan.packing.score_count
            assert plan.noise_width == noise_width(plan.parameters)
            assert fits(plan.parameters, largest, plan.noise_width)
            places = plan.packing.rows * plan.packing.classes
            assert plan.reply_bits == private_reply_bits(plan.parameters, places) is not None
            assert is_exact(plan, 43 * largest + 1 + 2 * zero_noise(parameter_set) + 2 * plan.noise_width)
            assert hides(parameter_set, largest, kept, plan.noise_width, hiding_bits)
            assert plan.parameters.plain_modulus >= least_plain_modulus(plan.model, model.grid)


def is_capped(plan: RowPlan, rows: int, classes: int) -> bool:
    """Whether an item of so many rows tells less of u than the cap, or more rows than features."""
    assert plan.noise_width is not None
    told = told_bits(plan.parameters, plan.noise_width, rows * classes)
    return told < cap_bits(plan.parameters.parameter_set) or rows > plan.packing.feature_count


@settings(deadline=None, max_examples=60)
@given(affine_models(), st.sampled_from([1, 20, 40]))
def test_every_item_of_private_rows_is_below_the_cap_or_has_more_rows_than_features(
    model: Affine, hiding_bits: int
) -> None:
    for parameter_set in LAYOUTS["row"].private_parameter_sets:
        for plan in row_plans(*model.planned, hiding_bits=hiding_bits, parameter_sets=[parameter_set]):
            packing = plan.packing
            assert all(is_capped(plan, rows, packing.classes) for rows in range(1, packing.rows + 1))
            # Not one row is left out in vain.
            fitting = dataclasses.replace(packing, max_rows=None).rows
            assert packing.rows == fitting or not is_capped(plan, packing.rows + 1, packing.classes)


@pytest.mark.parametrize(
    ("features", "scores", "classes", "rows"),
    [
        (784, 10, 5, 1),  # one row has few places
        (64, 10, 10, 3),  # rows are left out: 6 fit
        (32, 60, 30, 1),  # classes are: 60 fit
        (4, 3, 3, 341),  # an item below the cap may have more rows than features
        (20, 10, 10, 3),  # an item may not, so that rows are left out even if more rows than features fit
    ],
)
def test_the_cap_lowers_rows_and_classes(features: int, scores: int, classes: int, rows: int) -> None:
    model = affine("normal", (scores, features))
    model = Affine(model.weights, model.intercept, InputGrid.of(features, 0.0, 1.0))
    sets = LAYOUTS["row"].private_parameter_sets[:1]
    plan = plan_row(*model.planned, hiding_bits=40, parameter_sets=sets)
    assert (plan.packing.classes, plan.packing.rows) == (classes, rows)
    open_plan = plan_row(*model.planned, parameter_sets=sets)
    assert open_plan.packing.max_rows is None, "open weights need no cap"


def test_the_noise_tells_nothing_of_the_weights_but_t() -> None:
    plans = [plan_row(*affine("normal", (10, features)).planned, hiding_bits=40) for features in range(50, 65)]
    by_parameters = defaultdict[EncryptionParameters, list[RowPlan]](list)
    for plan in plans:
        by_parameters[plan.parameters].append(plan)
    several = max(by_parameters.values(), key=len)
    assert len({absolute_sum(plan, plan.model) for plan in several}) == len(several) > 3
    assert len({(plan.noise_width, plan.reply_bits) for plan in several}) == 1


@settings(deadline=None, max_examples=40)
@any_model
def test_private_columns_hide_every_row_of_a_full_batch(model: Affine) -> None:
    for parameter_set in LAYOUTS["column"].private_parameter_sets:
        for plan in column_plans(*model.planned, hiding_bits=40, parameter_sets=[parameter_set]):
            largest = int(np.abs(plan.model.weights).sum(axis=1).max())
            kept = parameter_set.poly_modulus_degree * len(model.weights)
            assert plan.noise_width == noise_width(plan.parameters)
            assert fits(plan.parameters, largest, plan.noise_width)
            assert plan.reply_bits == private_reply_bits(plan.parameters, plan.packing.rows) is not None
            assert is_exact(plan, 43 * largest + 1 + 2 * zero_noise(parameter_set) + 2 * plan.noise_width)
            assert hides(parameter_set, largest, kept, plan.noise_width, 40)
            assert plan.packing.rows == parameter_set.poly_modulus_degree


def test_private_plans_have_the_most_bits_and_open_ones_no_noise() -> None:
    model = affine("normal", (10, 784))
    for plan in row_plans(*model.planned, hiding_bits=40):
        doubled = QuantizedModel.of(*model.planned, 2 * plan.model.score_scale)
        t = 1 << (least_plain_modulus(doubled, model.grid) - 1).bit_length()
        largest, kept = absolute_sum(plan, doubled), plan.packing.rows * plan.packing.score_count
        parameter_set = plan.parameters.parameter_set
        no_room = t.bit_length() > 60
        if not no_room:
            width = noise_width(parameters := EncryptionParameters(parameter_set, t))
            no_room = not (fits(parameters, largest, width) and hides(parameter_set, largest, kept, width, 40))
        assert plan.weight_bits == 40 or no_room
    assert all(plan.noise_width is None for plan in row_plans(*model.planned))
    assert all(plan.noise_width is None for plan in column_plans(*model.planned))


def test_hiding_costs_bits_and_more_of_it_costs_more() -> None:
    model = affine("normal", (10, 784))

    def bits(hiding_bits: int | None) -> int:
        (plan, *_) = row_plans(
            *model.planned, hiding_bits=hiding_bits, parameter_sets=LAYOUTS["row"].private_parameter_sets[1:2]
        )
        return plan.weight_bits

    # Bits of hiding come off t and A' alike, half of them each.
    assert bits(None) > bits(20) == bits(40) + 10 == bits(60) + 20


def test_no_private_set_has_room_for_so_much_hiding() -> None:
    model = affine("normal", (10, 784))
    with pytest.raises(PlanError, match="even with 1-bit weights"):
        plan_row(*model.planned, hiding_bits=200)


def test_the_guides_model_in_mode_private() -> None:
    path = mnist.find(mnist.MODEL)
    if path is None:
        pytest.skip("the MNIST model is not at hand: SEALSERVE_DATA=DIRECTORY")
    model = load_model(path, trust_pickle=True)
    arguments = model.weights, model.intercept, InputGrid.of(model.feature_count, 0.0, 1.0)

    def chosen(plan: RowPlan | ColumnPlan) -> tuple[str, int, int]:
        return plan.parameters.parameter_set.name, plan.weight_bits, plan.packing.classes

    free = model.weights, model.intercept, input_ranges(model, input_range=(0.0, 1.0))
    assert chosen(plan_row(*free, hiding_bits=40)) == ("row-4096-92", 12, 5)
    wanted = plan_row(*free, hiding_bits=40, max_score_error=0.01)
    assert (wanted.parameters.parameter_set.name, wanted.packing.classes) == ("row-8192-120", 10)
    assert wanted.total_error_bound <= 0.01
    assert chosen(plan_row(*arguments, hiding_bits=40)) == ("row-4096-92", 11, 5)
    assert chosen(plan_column(*arguments, hiding_bits=40)) == ("column-8192-120", 17, 1)
    assert [chosen(plan)[:2] for plan in column_plans(*arguments, hiding_bits=40)] == [
        ("column-4096-92", 6),
        ("column-8192-120", 17),
        ("column-8192-120", 18),
        ("column-8192-120", 19),
        ("column-8192-180", 20),
        ("column-8192-180", 21),
    ]
