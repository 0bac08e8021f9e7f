"""Row constraints: extremes that hold for every row, and are reached."""

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.errors import InputError
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve.he.row_constraints import Norm, RowConstraints

QUICK = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32).map(np.random.default_rng)


def norm(bound: float, *members: int) -> Norm:
    return Norm(np.array(members, np.intp), bound)


def grouped_grid(random: np.random.Generator) -> InputGrid:
    """Up to seven features in two groups, on grids that are divided or not, and some in none."""
    count = int(random.integers(2, 8))
    group = random.integers(0, 3, count)
    numbers, group = np.unique(np.append(group, 0), return_inverse=True)
    group = group[:-1]
    width, low = random.choice([1.0, 3.0], count), random.choice([0.0, -2.0], count)
    constraints = RowConstraints.of(count, group, random.random(len(numbers) - 1) < 0.5)
    return InputGrid.of(count, low, low + width, width / random.integers(1, 4, count), True, constraints)


def all_rows(grid: InputGrid) -> NDArray[np.int64]:
    """Every row of integers that keeps to the groups."""

    def parts() -> Iterator[list[tuple[Any, ...]]]:
        constraints = grid.constraints
        yield [*itertools.product(*(range(grid.levels[j] + 1) for j in np.flatnonzero(constraints.alone(count))))]
        for number, exact in enumerate(constraints.exactly_one, 1):
            levels = grid.levels[constraints.group == number]
            corners = list(map(tuple, np.diag(levels)))
            yield corners if exact else [*corners, (0,) * len(levels)]

    count = grid.feature_count
    order = [np.flatnonzero(grid.constraints.alone(count))]
    order += [np.flatnonzero(grid.constraints.group == n + 1) for n in range(len(grid.constraints.exactly_one))]
    rows = np.array([sum(row, ()) for row in itertools.product(*parts())], np.int64)
    return rows[:, np.argsort(np.concatenate(order))]


@QUICK
@given(seeds)
def test_extremes_of_groups_are_reached_and_never_passed(random: np.random.Generator) -> None:
    grid = grouped_grid(random)
    weights = random.integers(-(2**40), 2**40, (3, grid.feature_count))
    model = QuantizedModel(weights, (7, -8, 2**70), 1.0)
    scores = all_rows(grid).astype(object) @ weights.T.astype(object) + np.array(model.intercept, object)
    assert model.extremes(grid) == list(zip(scores.min(axis=0), scores.max(axis=0), strict=True))


@QUICK
@given(seeds)
def test_centering_changes_no_row_and_leaves_the_least_weights(random: np.random.Generator) -> None:
    grid = grouped_grid(random)
    weights = random.normal(size=(3, grid.feature_count)) * 10.0 ** random.integers(-3, 4)
    left, common = grid.centered(weights)
    rows = all_rows(grid)
    np.testing.assert_allclose(rows @ left.T + common, rows @ weights.T, rtol=1e-9, atol=1e-9 * np.abs(weights).max())
    for number, exact in enumerate(grid.constraints.exactly_one, 1):
        members = grid.constraints.group == number
        added = (left * grid.levels)[:, members]
        if not exact:
            np.testing.assert_array_equal(left[:, members], weights[:, members])
        else:
            least, rounding = np.abs(added).sum(axis=1), 1e-12 * np.abs(weights).max()
            for shift in added.T:
                assert (least <= np.abs(added - shift[:, None]).sum(axis=1) + rounding).all()


# Norms


def normed_grid(random: np.random.Generator, count: int, bound: float) -> InputGrid:
    low = random.choice([-1.0, 0.0], count) * random.random(count)
    step = random.choice([1 / 255, 1 / 16, 0.3], count)
    high = low + np.maximum(step, np.round(random.uniform(0.5, 1.0, count) - low, 2))
    every = np.arange(count)
    constraints = RowConstraints.of(count + 2, norms=[norm(bound, *every)])
    low, high, step = np.append(low, [0, -1]), np.append(high, [1, 1]), np.append(step, [0.25, 0.5])
    return InputGrid.of(count + 2, low, high, step, False, constraints)


def aligned_row(grid: InputGrid, bound: float, slopes: NDArray[np.float64]) -> NDArray[np.float64]:
    """A row of the norm in the direction of slopes, as far as its range reaches."""
    members = grid.constraints.norms[0].members
    can = ((slopes > 0) & (grid.maximum[members] > 0)) | ((slopes < 0) & (grid.minimum[members] < 0))
    direction = np.where(can, slopes, 0.0)
    length = np.linalg.norm(direction) or 1.0
    row = np.clip(bound * direction / length, grid.minimum[members], grid.maximum[members])
    while sum(Fraction(float(x)) ** 2 for x in row) > Fraction(bound) ** 2:
        row = row * (1 - 2.0**-50)
    return row


@QUICK
@given(seeds, st.sampled_from([2, 5, 60]), st.sampled_from([0.25, 1.0]))
def test_no_row_of_a_norm_passes_its_extremes(random: np.random.Generator, count: int, bound: float) -> None:
    grid = normed_grid(random, count, bound)
    weights = random.integers(-1000, 1000, (2, count + 2))
    low, high = (ends.tolist() for ends in grid.extremes(weights))
    for k, sign in itertools.product(range(2), (1, -1)):
        slopes = sign * weights[k, :count] / grid.step[:count]
        for direction in (slopes, sign * np.sign(weights[k, :count]), random.normal(size=count)):
            inner = aligned_row(grid, bound, direction)
            # Two levels up, or down, where that is what rounding does to the nearest one half away.
            row = np.append(inner, np.where(sign * weights[k, count:] > 0, grid.maximum[count:], grid.minimum[count:]))
            (integers,), (is_refused,) = grid.quantize(row[None])
            assert not is_refused
            score = sum(int(w) * int(x) for w, x in zip(weights[k], integers, strict=True))
            assert low[k] <= score <= high[k]


def test_extremes_of_a_norm_are_close_and_never_wider_than_those_of_the_range() -> None:
    random = np.random.default_rng(1)
    grid = InputGrid.of(500, 0.0, 1.0, 2.0**-16, False, RowConstraints.of(500, norms=[norm(1.0, *range(500))]))
    weights = random.normal(size=(1, 500))
    _, high = grid.extremes(weights)
    row = aligned_row(grid, 1.0, weights[0])
    reached = weights @ grid.quantize(row[None]).integers[0]
    assert 0.99 * high <= reached <= high
    wide = InputGrid.of(500, 0.0, 1.0, 2.0**-16, False, RowConstraints.of(500, norms=[norm(1e6, *range(500))]))
    free = InputGrid.of(500, 0.0, 1.0, 2.0**-16)
    np.testing.assert_allclose(np.stack(wide.extremes(weights)), np.stack(free.extremes(weights)), rtol=1e-12)
    assert (free.extremes(weights)[1] > 5 * high).all()


# What is refused


@pytest.mark.parametrize(
    ("group", "exactly_one", "norms", "reason"),
    [
        ([1, 1], [True], [], "one number for each of 3 features"),
        ([1, 1, 2], [True], [], "each number of a group"),
        ([1, 1, 1], [True, False], [], "each group needs a feature"),
        ([2, 2, 0], [True, False], [], "each group needs a feature"),
        ([-1, 1, 1], [True], [], "each number of a group"),
        ([], [True], [], "each group needs a feature"),
        ([1, 1, 0], [True], [norm(1.0, 1, 2)], "in two groups or norms"),
        ([], [], [norm(1.0, 1), norm(2.0, 1, 2)], "in two groups or norms"),
        ([], [], [norm(1.0, 3)], "no such feature"),
        ([], [], [norm(1.0, -1)], "no such feature"),
        ([], [], [norm(0.0, 1)], "a bound above 0"),
        ([], [], [norm(np.nan, 1)], "a bound above 0"),
        ([], [], [norm(np.inf, 1)], "a bound above 0"),
        ([], [], [norm(1.0)], "needs features"),
    ],
)
def test_constraints_that_are_none_are_refused(group: Any, exactly_one: Any, norms: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        RowConstraints.of(3, group, exactly_one, norms=norms)


def test_grids_that_do_not_fit_their_constraints_are_refused() -> None:
    groups = RowConstraints.of(3, [1, 1, 0], [True])
    for keeps, high, reason in (
        ([True, False, False], 1.0, "must keep its grid"),
        (True, [1.0, 0.0, 1.0], "two values at least"),
    ):
        with pytest.raises(InputError, match=reason):
            InputGrid.of(3, 0.0, high, 1.0, keeps, groups)
    with pytest.raises(InputError, match="one number for each of 4 features"):
        InputGrid.of(4, 0.0, 1.0, 1.0, True, groups)
    for low, high in ((0.5, 1.0), (-1.0, -0.5)):
        with pytest.raises(InputError, match="must have 0 in it"):
            InputGrid.of(3, low, high, 0.1, False, RowConstraints.of(3, norms=[norm(1.0, 0)]))
    with pytest.raises(InputError, match="a feature that there is not"):
        InputGrid.of(1, 0.0, 1.0, 1.0, True, RowConstraints.of(3, norms=[norm(1.0, 2)]))


def test_only_checked_groups_are_described() -> None:
    constraints = RowConstraints.of(
        6, [3, 1, 2, 1, 3, 0], [True, False, True], is_checked=[True, False, True], norms=[norm(1.0, 5)]
    )
    assert constraints.checked.group.tolist() == [2, 1, 0, 1, 2, 0]
    assert constraints.checked.exactly_one.tolist() == [True, True]
    assert constraints.checked.norms == ()
    none = RowConstraints.of(3, [1, 1, 0], [True], is_checked=False).checked
    assert (none.group.tolist(), none.exactly_one.tolist()) == ([], [])
    assert RowConstraints.of(3, [0, 0, 0]).group.tolist() == []
