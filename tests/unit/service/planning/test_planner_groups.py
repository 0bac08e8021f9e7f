"""Groups and norms in plans: proven for every row that keeps to them, and many times tighter.

All tables and ensembles, before and after:
`python -m tests.unit.service.planning.test_planner_groups`.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.errors import PlanError
from sealserve.he.layouts import LAYOUTS, Packing
from sealserve.he.row_constraints import Norm, RowConstraints
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.planner import _absolute_sum
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.score_error import Moments, OnGrid, expected_rms
from tests.support.indicators import ENSEMBLES, TABLES, Indicators, indicator_ranges, random_forest
from tests.support.planned_models import PlannedModel, assert_decrypted_and_hidden, disguised
from tests.support.plans import column_plans, plan_column, plan_row, row_plans

LAYOUT_PLANS: dict[str, Any] = {"row": row_plans, "column": column_plans}
MODES = {"open": None, "private": 40}


KINDS = ("free", "declared", "at most one", "exactly one", "norm", "signed norm")


def constrained(random: np.random.Generator, kinds: list[tuple[str, int]], scores: int) -> PlannedModel:
    """A model with parts of so many features each, in any order: several groups and norms."""
    low, high, own = list[float](), list[float](), list[float]()
    group, exact, norms = list[int](), list[bool](), list[Norm]()
    for kind, size in kinds:
        first = len(low)
        if kind in ("at most one", "exactly one"):
            ends = [(0.0, 1.0), (-1.0, 1.0), (5.0, 7.5)][random.integers(0, 3)]
            low, high = low + [ends[0]] * size, high + [ends[1]] * size
            own += [ends[1] - ends[0]] * size
            exact.append(kind == "exactly one")
            group += [len(exact)] * size
            continue
        width = 10.0 ** random.integers(-3, 4) * random.uniform(0.5, 2, size)
        start = {"norm": [0.0], "signed norm": [-0.7]}.get(kind, [-1.0, 0.0, 3.0])
        starts = random.choice(start, size)
        low, high = [*low, *(starts * width)], [*high, *((starts + 1) * width)]
        own += list(width / random.integers(1, 40, size)) if kind == "declared" else [0.0] * size
        group += [0] * size
        if "norm" in kind:
            bound = float(width.min() * random.uniform(0.3, 1.5))
            norms.append(Norm(np.arange(first, first + size), bound))
    count = len(low)
    order = random.permutation(count)
    place = np.argsort(order)
    constraints = RowConstraints.of(
        count,
        np.array(group)[order] if exact else (),
        exact,
        norms=[Norm(place[norm.members], norm.bound) for norm in norms],
    )
    lows, highs, own_step = (np.array(values)[order] for values in (low, high, own))
    ranges = InputRanges(
        minimum=lows,
        maximum=highs,
        own_step=own_step,
        is_declared=own_step > 0,
        center=np.where(constraints.alone(count), lows + random.random(count) * (highs - lows), lows),
        constraints=constraints,
    )
    weights = random.standard_t(2, (scores, count)) / ranges.width
    shared = np.where(constraints.alone(count), 0.0, random.choice([0.0, 1e3, -30.0])) / ranges.width
    weights = (weights + shared) * (random.random(count) < 0.9)
    return PlannedModel(weights, random.normal(0, 10, scores), ranges)


parts = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([1, 2, 3, 30])), min_size=1, max_size=6)
models = st.builds(constrained, st.integers(0, 2**32).map(np.random.default_rng), parts, st.sampled_from([1, 3]))
any_plan = given(models, st.sampled_from(list(LAYOUT_PLANS)), st.sampled_from(list(MODES)), st.integers(0, 2**32))


def leaves_of_trees(trees: int = 100, leaves: int = 30) -> PlannedModel:
    """A boosted ensemble: of a tree one leaf is reached, and later trees add less."""
    random, group = np.random.default_rng(0), np.repeat(np.arange(1, trees + 1), leaves)
    ranges = indicator_ranges(np.zeros((1, len(group))), group, np.zeros(trees, np.bool_))
    return PlannedModel(random.normal(size=(1, len(group))) / np.sqrt(group), np.zeros(1), ranges)


def plans_of(model: PlannedModel, layout: str, mode: str) -> list[Plan[Packing]]:
    plans = LAYOUT_PLANS[layout](model.weights, model.intercept, model.ranges, hiding_bits=MODES[mode])
    assume(plans)
    return list(plans)


@pytest.mark.parametrize("layout", LAYOUT_PLANS)
def test_trees_take_the_ring_whose_ciphertexts_are_packed_in_the_fewest_bits(layout: str) -> None:
    """A reply has fewer bytes, too. The error that is promised by default is kept."""
    model = leaves_of_trees()
    small, large, *_ = LAYOUTS[layout].open_parameter_sets
    make: Any = {"row": plan_row, "column": plan_column}[layout]
    plan, other = (make(model.weights, model.intercept, model.ranges, parameter_sets=s) for s in (None, [large]))
    assert plan.parameters.parameter_set == small
    low, high = plan.grid.extremes(model.weights)
    assert other.score_error_bound < plan.score_error_bound <= (high - low).max() / 1024
    assert plan.request_bytes == other.request_bytes
    assert plan.reply_bytes < other.reply_bytes
    (of_small,), (of_large,) = small.data_primes, large.data_primes
    assert of_small.bit_length() <= 51 < of_large.bit_length()  # see CiphertextFormat.packs


def worst_row(plan: Plan[Packing], slopes: NDArray[np.float64], off: NDArray[np.float64]) -> NDArray[np.float64]:
    """The row that keeps to groups and norms and goes as far as it can in a direction.

    Args:
        plan: the plan.
        slopes: the direction, a unit's worth of each feature.
        off: how far to stay off the grid, in steps.
    """
    grid, constraints = plan.grid, plan.grid.constraints
    row = np.where(slopes > 0, grid.maximum, grid.minimum)
    row += np.where(grid.keeps | (grid.levels == 0), 0.0, off * grid.step)
    at_maximum = slopes * (grid.maximum - grid.minimum)
    for number, exact in enumerate(constraints.exactly_one, 1):
        members = np.flatnonzero(constraints.group == number)
        best = members[at_maximum[members].argmax()]
        row[members] = grid.minimum[members]
        if exact or at_maximum[best] > 0:
            row[best] = grid.maximum[best]
    for members, bound in constraints.norms:
        inner = slopes[members] * (np.where(slopes[members] > 0, grid.maximum[members], -grid.minimum[members]) > 0)
        inner = bound * inner / (np.linalg.norm(inner) or 1.0)
        inner = np.clip(inner, grid.minimum[members], grid.maximum[members])
        if off.any():  # where rounding moves them by half a step
            levels = np.floor((inner - grid.minimum[members]) / grid.step[members])
            inner = grid.minimum[members] + grid.step[members] * np.maximum(levels - 0.5 + off[members] * 0.01, 0)
            inner = np.clip(inner, grid.minimum[members], grid.maximum[members])
            inner = inner * min(1.0, bound / (np.linalg.norm(inner) or 1.0))
        while sum(Fraction(float(x)) ** 2 for x in inner) > Fraction(bound) ** 2:
            inner = inner * (1 - 2.0**-40)
        row[members] = inner
    return row


def worst_rows(model: PlannedModel, plan: Plan[Packing], seed: int) -> Iterator[NDArray[np.float64]]:
    """Rows where scores are extreme, and rows where their errors are."""
    grid, random = plan.grid, np.random.default_rng(seed)
    integers = plan.model.weights / grid.step
    errors = integers / plan.model.score_scale - model.weights
    for k, sign in itertools.product(range(len(model.weights)), (1, -1)):
        for slopes in (sign * integers[k], sign * errors[k], random.normal(size=grid.feature_count)):
            for share in (0.0, 0.499):
                yield worst_row(plan, slopes, -sign * share * np.sign(model.weights[k]))


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@any_plan
def test_no_row_that_keeps_to_its_groups_has_a_larger_error_than_is_proven(
    model: PlannedModel, layout: str, mode: str, seed: int
) -> None:
    """In exact rationals."""
    plan = plans_of(model, layout, mode)[0]
    scale = Fraction(plan.model.score_scale)
    size = np.abs(model.weights) @ (np.abs(plan.grid.minimum) + np.abs(plan.grid.maximum))
    for row in worst_rows(model, plan, seed):
        (integers,), (is_refused,) = plan.grid.quantize(row[None])
        assert not is_refused
        for k, intercept in enumerate(plan.model.intercept):
            score = sum(int(w) * int(x) for w, x in zip(plan.model.weights[k], integers, strict=True)) + intercept
            assert abs(score - plan.score_centers[k]) <= plan.score_radii[k]
            exact = Fraction(float(model.intercept[k])) + sum(
                Fraction(float(w)) * Fraction(float(x)) for w, x in zip(model.weights[k], row, strict=True)
            )
            bound = plan.total_error_bound * (1 + 1e-9) + 4 * np.finfo(float).eps * float(size[k])
            assert abs(Fraction(score) / scale - exact) <= bound


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@any_plan
def test_plans_keep_every_bound(model: PlannedModel, layout: str, mode: str, seed: int) -> None:
    """Noise knows no groups: A' is the sum of all absolute weights."""
    for plan in plans_of(model, layout, mode):
        parameters, largest = plan.parameters, _absolute_sum(plan.packing, plan.model)
        assert largest >= int(np.abs(plan.model.weights).sum(axis=1).max())
        extremes = plan.model.extremes(plan.grid)
        t = parameters.plain_modulus
        assert t >= max(int(plan.grid.levels.max()) + 1, *(high - low + 2 for low, high in extremes))
        members = plan.grid.constraints.members
        assert (plan.grid.keeps & (plan.grid.levels > 0))[members].all()
        assert_decrypted_and_hidden(plan)


@pytest.mark.slow
@settings(deadline=None, max_examples=15)
@given(models, st.sampled_from(list(LAYOUT_PLANS)), st.integers(0, 1000))
def test_private_steps_with_groups_depend_on_no_weight(model: PlannedModel, layout: str, seed: int) -> None:
    other = disguised(model, np.random.default_rng(seed))
    for parameter_set in LAYOUTS[layout].private_parameter_sets:
        found = [
            {
                (plan.parameters.plain_modulus, plan.packing.classes): plan.grid
                for plan in LAYOUT_PLANS[layout](
                    m.weights, m.intercept, m.ranges, hiding_bits=40, parameter_sets=[parameter_set]
                )
            }
            for m in (model, other)
        ]
        for key in found[0].keys() & found[1].keys():
            for name in ("minimum", "maximum", "step", "keeps"):
                np.testing.assert_array_equal(*(getattr(grids[key], name) for grids in found))


# Real ensembles and tables


def without_groups(ranges: InputRanges) -> InputRanges:
    """The ranges as they were known before: with grids of rows that were seen, and no groups."""
    return dataclasses.replace(
        ranges, constraints=RowConstraints(), is_declared=np.zeros(len(ranges.minimum), np.bool_)
    )


def planned(model: Indicators, ranges: InputRanges, bits: int | None, **options: Any) -> Plan[Packing]:
    return plan_row(model.weights, model.intercept, ranges, hiding_bits=bits, **options)


def item_bytes(plan: Plan[Packing]) -> int:
    return plan.request_bytes + plan.reply_bytes


def assert_better(model: Indicators, bits: int | None, gain: float) -> None:
    """The proven total is so many times smaller, no row costs more, and scores are within it."""
    before, after = planned(model, without_groups(model.ranges), bits), planned(model, model.ranges, bits)
    assert before.total_error_bound >= gain * after.total_error_bound
    assert item_bytes(after) / after.packing.rows <= item_bytes(before) / before.packing.rows
    integers, is_refused = after.grid.quantize(model.rows)
    assert not is_refused.any()
    assert np.abs(after.model.scores(integers) - model.scores).max() <= after.total_error_bound
    assert after.input_rounding_error_bound == 0


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("name", list(TABLES))
def test_tables_of_categories(name: str, mode: str) -> None:
    assert_better(TABLES[name](), MODES[mode], 10)


def assert_cheaper(model: Indicators, bits: int | None, wanted: float) -> None:
    """For the same proven error an item takes fewer bytes, because a smaller set has room."""
    ungrouped = dataclasses.replace(model.ranges, constraints=RowConstraints())
    before, after = (planned(model, ranges, bits, max_score_error=wanted) for ranges in (ungrouped, model.ranges))
    assert max(before.total_error_bound, after.total_error_bound) <= wanted
    assert item_bytes(after) < item_bytes(before)
    assert after.parameters.parameter_set.modulus < before.parameters.parameter_set.modulus


def small_forest() -> Indicators:
    return random_forest(30, 6)


@pytest.mark.parametrize("mode", list(MODES))
def test_a_small_forest(mode: str) -> None:
    model = small_forest()
    np.testing.assert_allclose(model.rows @ model.weights.T + model.intercept, model.scores, atol=1e-12)
    assert_better(model, MODES[mode], 3600)
    assert_cheaper(model, MODES[mode], 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("name", list(ENSEMBLES))
def test_ensembles(name: str, mode: str) -> None:
    model = ENSEMBLES[name]()
    np.testing.assert_allclose(model.rows @ model.weights.T + model.intercept, model.scores, atol=1e-9)
    assert_better(model, MODES[mode], 3600)


@pytest.mark.parametrize("mode", list(MODES))
def test_columns_gain_too(mode: str) -> None:
    model = small_forest()
    before, after = (
        plan_column(model.weights, model.intercept, ranges, hiding_bits=MODES[mode])
        for ranges in (without_groups(model.ranges), model.ranges)
    )
    assert before.total_error_bound >= 3600 * after.total_error_bound
    assert item_bytes(after) <= item_bytes(before)


def errors_of(plan: Plan[Packing], model: Indicators, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The root mean square of each score's error on rows."""
    errors = plan.model.scores(plan.grid.quantize(rows).integers) - (rows @ model.weights.T + model.intercept)
    rms: NDArray[np.float64] = np.sqrt((errors**2).mean(axis=0))
    return rms


def expected(plan: Plan[Packing], model: Indicators, moments: Moments) -> NDArray[np.float64]:
    return expected_rms(model.weights, model.intercept, plan.grid, plan.model, moments)


@pytest.mark.parametrize("mode", list(MODES))
def test_the_expected_error_of_independent_groups_is_the_error(mode: str) -> None:
    """Of rows whose groups are independent; of features that were taken as such it was another."""
    random = np.random.default_rng(5)
    for exact in (False, True):
        sizes = np.array([2, 5, 30, 12])
        shares = [random.dirichlet(np.full(size + (not exact), 0.4)) for size in sizes]
        chosen = [random.choice(len(share), 20_000, p=share) for share in shares]
        rows = np.hstack(
            [np.eye(len(share))[one][:, :size] for one, share, size in zip(chosen, shares, sizes, strict=True)]
        )
        ranges = indicator_ranges(rows, np.repeat(np.arange(1, 5), sizes), np.full(4, exact))
        weights = 5.0 * exact + random.normal(size=(3, len(rows[0])))
        model = Indicators(weights, np.zeros(3), rows, rows @ weights.T, ranges)
        plan = planned(model, ranges, MODES[mode])
        moments = OnGrid.of(plan.grid, rows).moments
        shown, independent = errors_of(plan, model, rows), dataclasses.replace(moments, constraints=RowConstraints())
        right, wrong = (np.abs(expected(plan, model, m) / shown - 1).max() for m in (moments, independent))
        assert right < 0.02
        assert wrong > 3 * right
        # Uniform moments, on rows that are as often of one category as of any other.
        equal = np.hstack(
            [np.eye(size + (not exact))[random.integers(0, size + (not exact), 20_000)][:, :size] for size in sizes]
        )
        np.testing.assert_allclose(
            expected(plan, model, Moments.uniform(plan.grid)), errors_of(plan, model, equal), rtol=0.05
        )
        spread = np.sqrt(Moments.uniform(plan.grid).variances(weights * plan.grid.step))
        np.testing.assert_allclose(spread, (equal @ weights.T).std(axis=0), rtol=0.05)


def test_the_expected_error_of_an_ensemble_is_close_to_what_its_rows_show() -> None:
    """Trees see the same features, so that their leaves are not independent."""
    model = small_forest()
    plan = planned(model, model.ranges, 40)
    moments = OnGrid.of(plan.grid, model.rows).moments
    shown = errors_of(plan, model, model.rows)
    assert (0.5 * shown <= expected(plan, model, moments)).all()
    assert (expected(plan, model, moments) <= 2 * shown).all()


def words(
    random: np.random.Generator, bound: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], InputRanges]:
    """Texts by tf-idf: 800 words, rows of norm 1."""
    rows = random.poisson(0.02, (300, 800)) * random.lognormal(0, 0.5, 800)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    norms = [Norm(np.arange(800), bound)] if bound else []
    unknown = np.zeros(800)
    ranges = InputRanges(
        minimum=unknown,
        maximum=np.ones(800),
        own_step=unknown,
        is_declared=np.zeros(800, np.bool_),
        center=rows.mean(axis=0),
        constraints=RowConstraints.of(800, norms=norms),
    )
    return rows, random.normal(size=(2, 800)), ranges


@pytest.mark.parametrize("mode", list(MODES))
def test_texts_of_norm_one(mode: str) -> None:
    """The range of scores is that of the norm, and errors fall with it."""
    errors, spans = [], []
    for bound in (None, 1.0):
        rows, weights, ranges = words(np.random.default_rng(4), bound)
        plan = plan_row(weights, np.zeros(2), ranges, hiding_bits=MODES[mode])
        integers, is_refused = plan.grid.quantize(rows)
        assert not is_refused.any()
        scores, exact = plan.model.scores(integers), rows @ weights.T
        assert np.abs(scores - exact).max() <= plan.total_error_bound
        errors.append(float(np.sqrt(((scores - exact) ** 2).mean(axis=0)).max()))
        spans.append(2 * max(plan.score_radii) / plan.model.score_scale)
    assert spans[0] > 8 * spans[1]
    assert errors[0] > 1.5 * errors[1]


def test_without_constraints_nothing_changes() -> None:
    """A group that holds a single feature of 0 and 1, of which at most one is set, says nothing."""
    random = np.random.default_rng(6)
    flags = InputRanges(
        minimum=np.zeros(20),
        maximum=np.ones(20),
        own_step=np.ones(20),
        is_declared=np.ones(20, np.bool_),
        center=np.full(20, 0.5),
    )
    single = dataclasses.replace(flags, constraints=RowConstraints.of(20, np.arange(1, 21), np.zeros(20, np.bool_)))
    weights = random.normal(size=(2, 20))
    for bits in MODES.values():
        one, other = (plan_row(weights, np.zeros(2), ranges, hiding_bits=bits) for ranges in (flags, single))
        assert one.score_radii == pytest.approx(other.score_radii, rel=0.5)
        assert one.parameters.parameter_set == other.parameters.parameter_set
        assert single.equal_weights_range == 20


def main() -> None:
    """Print what groups change, of every table and ensemble."""
    print(f"{'':28} {'':7} {'parameter set':14} {'t':>5} {'classes':>7} {'bytes':>9} {'on grid':>9} {'rounding':>9}")
    for name, make in {**TABLES, **ENSEMBLES}.items():
        model = make()
        declared = dataclasses.replace(model.ranges, constraints=RowConstraints())
        choices = {"seen": without_groups(model.ranges), "declared": declared, "groups": model.ranges}
        for (mode, bits), wanted, (what, ranges) in itertools.product(MODES.items(), (None, 1e-4), choices.items()):
            asked = "" if wanted is None else f"{wanted:g}"
            row = f"{name:28} {mode:7} {what:8} {asked:6}"
            try:
                plan = planned(model, ranges, bits, max_score_error=wanted)
            except PlanError as error:
                print(row, str(error)[:80])
                continue
            print(
                f"{row} {plan.parameters.parameter_set.name:14} 2^{plan.parameters.plain_modulus.bit_length() - 1:<3} "
                f"{plan.packing.classes:>4} {item_bytes(plan):>9,} {plan.score_error_bound:>9.3g} "
                f"{plan.input_rounding_error_bound:>9.3g}"
            )


if __name__ == "__main__":
    main()
