"""Steps, t and scale, planned together: proven for any row, and blind to private weights."""

import dataclasses
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.he.layouts import LAYOUTS, Packing
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.quantization import MAX_LEVELS, InputGrid
from sealserve_service.planning import hiding, planner, rounding
from sealserve_service.planning.column import COLUMN_RULES, MAX_WEIGHT_BITS
from sealserve_service.planning.plan import Plan, PlanningRules
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.row import ROW_RULES
from tests.support.planned_models import PlannedModel, assert_decrypted_and_hidden, disguised
from tests.support.plans import column_plans, plan_row, row_plans

RULES: dict[str, PlanningRules[Any]] = {"row": ROW_RULES, "column": COLUMN_RULES}
LAYOUT_PLANS: dict[str, Any] = {"row": row_plans, "column": column_plans}
MODES = {"open": None, "private": 40}


def ranged(random: np.random.Generator, scores: int, features: int) -> PlannedModel:
    """A model with ranges of any size and place, constants, zeros and grids of features' own."""
    width = 10.0 ** random.integers(-9, 10, features) * random.uniform(0.5, 2, features)
    low = random.choice([-0.5, 0.0, 10.0, -1000.0], features) * width * random.random(features)
    levels = random.integers(1, 300, features)
    has_own, is_constant = random.random(features) < 0.4, random.random(features) < 0.1
    weights = random.standard_t(2, (scores, features)) / width
    weights[:, random.random(features) < 0.2] = 0
    weights[:, is_constant] *= 1e4
    high = np.where(is_constant, low, low + width)
    ranges = InputRanges(
        minimum=low,
        maximum=high,
        own_step=np.where(has_own & ~is_constant, width / levels, 0.0),
        is_declared=has_own & ~is_constant & (random.random(features) < 0.5),
        center=low + random.random(features) * (high - low),
    )
    return PlannedModel(weights, random.normal(0, 10, scores), ranges)


ranged_models = st.builds(
    ranged,
    st.integers(0, 2**32).map(np.random.default_rng),
    st.sampled_from([1, 3, 10]),
    st.sampled_from([1, 2, 5, 30, 100]),
)
any_plan = given(ranged_models, st.sampled_from(list(LAYOUT_PLANS)), st.sampled_from(list(MODES)))


def plans_of(model: PlannedModel, layout: str, mode: str) -> list[Plan[Packing]]:
    plans = LAYOUT_PLANS[layout](model.weights, model.intercept, model.ranges, hiding_bits=MODES[mode])
    assume(plans)
    return list(plans)


def worst_rows(model: PlannedModel, plan: Plan[Packing], seed: int) -> NDArray[np.float64]:
    """Rows where the errors add up: at the ends, and just under half a step off the grid."""
    grid, random = plan.grid, np.random.default_rng(seed)
    residual = plan.model.weights / plan.model.score_scale - np.where(grid.levels > 0, model.weights * grid.step, 0)
    rows = [grid.minimum + random.integers(0, grid.levels + 1) * grid.step]
    for k in range(len(model.weights)):
        for sign in (1, -1):
            on_grid = np.where(sign * residual[k] > 0, grid.levels, 0)
            off = np.where(grid.keeps | (grid.levels == 0), 0, -sign * 0.499 * np.sign(model.weights[k]))
            rows.append(grid.minimum + (on_grid + off) * grid.step)
    return np.stack(rows)


@settings(deadline=None, max_examples=15)
@any_plan
def test_no_row_has_a_larger_error_than_is_proven(model: PlannedModel, layout: str, mode: str) -> None:
    """In exact rationals, also for rows half a step outside the range."""
    plan = plans_of(model, layout, mode)[0]
    scale = Fraction(plan.model.score_scale)
    for row in worst_rows(model, plan, 1)[:7]:
        (integers,), (is_refused,) = plan.grid.quantize(row[None])
        assert not is_refused
        for k, intercept in enumerate(plan.model.intercept):
            score = sum(int(w) * int(x) for w, x in zip(plan.model.weights[k], integers, strict=True)) + intercept
            assert abs(score - plan.score_centers[k]) <= plan.score_radii[k]
            exact = Fraction(float(model.intercept[k])) + sum(
                Fraction(float(w)) * Fraction(float(x)) for w, x in zip(model.weights[k], row, strict=True)
            )
            # Of a value that is kept, the grid is a float's breadth away.
            size = np.abs(model.weights[k]) @ (np.abs(plan.grid.minimum) + np.abs(plan.grid.maximum))
            bound = plan.total_error_bound * (1 + 1e-9) + 4 * np.finfo(float).eps * float(size)
            assert abs(Fraction(score) / scale - exact) <= bound


@settings(deadline=None, max_examples=15)
@any_plan
def test_plans_keep_every_bound(model: PlannedModel, layout: str, mode: str) -> None:
    for plan in plans_of(model, layout, mode):
        t = plan.parameters.plain_modulus
        extremes = plan.model.extremes(plan.grid)
        assert t >= max(int(plan.grid.levels.max()) + 1, *(high - low + 2 for low, high in extremes))
        assert plan.grid.levels.max() <= MAX_LEVELS
        assert (plan.model.weights[:, plan.grid.levels == 0] == 0).all()
        if layout == "column":
            assert np.abs(plan.model.weights).max() <= 1 << MAX_WEIGHT_BITS
        assert_decrypted_and_hidden(plan)


@settings(deadline=None, max_examples=15)
@any_plan
def test_own_grids_are_kept_or_divided_and_declared_ones_always(model: PlannedModel, layout: str, mode: str) -> None:
    ranges = model.ranges
    for plan in plans_of(model, layout, mode):
        takes_part = plan.grid.levels > 0
        assert (plan.grid.keeps == (ranges.is_declared & takes_part)).all()
        divisor = ranges.own_step[plan.grid.keeps] / plan.grid.step[plan.grid.keeps]
        np.testing.assert_allclose(divisor, np.rint(divisor), rtol=1e-9)
        constant = ranges.width == 0
        assert (plan.grid.levels[constant] == 0).all()
        if mode == "private":  # only in mode open may the grid show which features have no weight
            assert takes_part[~constant].all()


# Mode private


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(ranged_models, st.sampled_from(list(LAYOUT_PLANS)), st.integers(0, 1000))
def test_private_steps_depend_on_no_weight(model: PlannedModel, layout: str, seed: int) -> None:
    """Nor does t: each set and packing gets the same one, with the same steps."""
    other = disguised(model, np.random.default_rng(seed))
    for parameter_set in LAYOUTS[layout].private_parameter_sets:
        one, two = (published_grids(m, layout, parameter_set) for m in (model, other))
        assert one == two


def published_grids(model: PlannedModel, layout: str, parameter_set: ParameterSet) -> set[tuple[Any, ...]]:
    """What is published of the grid with each packing of private weights, good or not."""
    rules = RULES[layout]
    shape = model.weights.shape[::-1]
    packings = [(parameter_set, packing) for packing in rules.packings(parameter_set.poly_modulus_degree, *shape)]
    plans = planner._plans_with_steps(rules, packings, model.weights, model.intercept, model.ranges, 40)
    return {
        (
            plan.parameters.plain_modulus,
            plan.packing,
            *(getattr(plan.grid, name).tobytes() for name in ("minimum", "maximum", "step", "keeps")),
        )
        for plan in plans
    }


@pytest.mark.parametrize(("scores", "features"), [(1, 13), (1, 100), (3, 13), (3, 40), (10, 64), (20, 30), (4, 25)])
def test_a_finer_grid_of_private_weights_costs_no_row(scores: int, features: int) -> None:
    """Of an item: a larger t tells more of a place. Only labels that ask for it may cost rows."""
    random = np.random.default_rng([scores, features])
    unknown = np.zeros(features)
    ranges = InputRanges(
        minimum=unknown,
        maximum=unknown + 1,
        own_step=unknown,
        is_declared=np.zeros(features, bool),
        center=unknown + 0.5,
    )
    weights = random.normal(size=(scores, features))
    sets = LAYOUTS["row"].private_parameter_sets[:1]
    plans = row_plans(weights, np.zeros(scores), ranges, hiding_bits=40, parameter_sets=sets)
    rows = [plan.packing.rows for plan in plans if plan.packing.classes == plans[0].packing.classes]
    usual = plan_row(weights, np.zeros(scores), InputGrid.of(features, 0.0, 1.0), hiding_bits=40, parameter_sets=sets)
    assert plans[0].packing.classes == usual.packing.classes
    assert plans[0].packing.rows >= usual.packing.rows
    assert plans[0].total_error_bound < usual.total_error_bound / 2
    # Where rows are left out, there is a plan of up to a quarter fewer, for those who ask for more.
    if 3 < usual.packing.rows < dataclasses.replace(usual.packing, max_rows=None).rows:
        assert 0.75 * rows[0] <= rows[1] < rows[0]
        assert plans[1].total_error_bound < 0.6 * plans[0].total_error_bound


@pytest.mark.slow
def test_private_plans_of_permuted_and_rescaled_weights_publish_the_same_t_and_steps() -> None:
    random = np.random.default_rng(5)
    width = random.uniform(1, 4, 30)
    ranges = InputRanges(
        minimum=np.zeros(30),
        maximum=width,
        own_step=np.where(np.arange(30) < 5, width, 0),
        is_declared=np.zeros(30, bool),
        center=width / 2,
    )
    weights = random.normal(size=(3, 30))
    found = [
        plan_row(changed, np.zeros(3), ranges, hiding_bits=40)
        for changed in (weights, weights * 1e6, random.permuted(weights, axis=1), -weights, weights**3)
    ]
    assert len({plan.parameters.plain_modulus for plan in found}) == 1
    assert len({plan.grid.step.tobytes() for plan in found}) == 1
    open_ones = [plan_row(changed, np.zeros(3), ranges) for changed in (weights, random.permuted(weights, axis=1))]
    assert open_ones[0].grid.step.tolist() != open_ones[1].grid.step.tolist(), "in mode open they follow the weights"


def test_free_features_of_private_models_have_one_number_of_levels() -> None:
    random = np.random.default_rng(6)
    width = np.power(10.0, random.integers(-3, 4, 20), dtype=np.float64)
    unknown = np.zeros(20)
    ranges = InputRanges(
        minimum=-width, maximum=width, own_step=unknown, is_declared=np.zeros(20, bool), center=unknown
    )
    plan = plan_row(random.normal(size=(2, 20)), np.zeros(2), ranges, hiding_bits=40)
    assert len(set(plan.grid.levels.tolist())) == 1


@pytest.mark.parametrize("scores", [1, 10, 4096])
@pytest.mark.parametrize("bits", [10, 20, 30])
def test_the_largest_sum_is_the_largest_that_hides(scores: int, bits: int) -> None:
    for parameter_set in LAYOUTS["row"].private_parameter_sets:
        parameters = EncryptionParameters(parameter_set, 1 << bits)
        largest, width = hiding.largest_absolute_sum(parameters, scores, 40), hiding.noise_width(parameters)
        assert not hiding.hides(parameter_set, max(0, largest + 1), scores, width, 40)
        if largest >= 0:
            assert hiding.hides(parameter_set, largest, scores, width, 40)
            assert hiding.fits(parameters, largest, width)


@pytest.mark.parametrize("bits", [10, 20, 30])
def test_the_largest_sum_is_the_largest_that_leaves_the_reserved_room(bits: int) -> None:
    for parameter_set in LAYOUTS["row"].open_parameter_sets:
        parameters = EncryptionParameters(parameter_set, 1 << bits)
        largest, half = rounding.largest_absolute_sum(parameters, 1), Fraction(parameter_set.modulus, 2 << bits)
        most = half * Fraction(3, 4) * (1 - Fraction(1, 1 << 56))
        assert Fraction(43 * largest + 1, 2) < most <= Fraction(43 * (largest + 1) + 1, 2)


def test_a_constant_with_a_large_weight_changes_no_step() -> None:
    """A column of ones with weight 10,000 took all bits of the other weights."""
    random = np.random.default_rng(2)
    ends = np.append(np.full(10, 3.0), 1.0)
    ranges = InputRanges(
        minimum=np.append(np.full(10, -3.0), 1.0),
        maximum=ends,
        own_step=np.zeros(11),
        is_declared=np.zeros(11, bool),
        center=np.append(np.zeros(10), 1.0),
    )
    weights = random.normal(size=(1, 10))
    for mode, layout in ((None, row_plans), (40, row_plans), (None, column_plans)):
        errors = {
            weight: layout(np.append(weights, [[weight]], axis=1), np.zeros(1), ranges, hiding_bits=mode)[0]
            for weight in (0.0, 1e4)
        }
        assert errors[1e4].grid.step.tolist() == errors[0.0].grid.step.tolist()
        assert errors[1e4].total_error_bound == pytest.approx(errors[0.0].total_error_bound, rel=1e-3)
