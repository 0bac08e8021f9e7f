"""Rows that break a group are refused as rows out of range are: no value changes the path."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.errors import NotFiniteError, OffGridError, OutOfRangeError
from sealserve.he.quantization import InputGrid
from sealserve.he.row_constraints import RowConstraints
from sealserve.loadtest.items import random_rows
from sealserve.protocol.refusal import refusal, refusal_of_integers
from tests.support.profiled_calls import calls_of

# Exactly one of the features 0, 2 and 4, at most one of 1 and 5, and 3 is free.
GROUPS = RowConstraints.of(6, [1, 2, 1, 0, 1, 2], [True, False])
GRID = InputGrid.of(
    6, [0.0, 0, 0, -1, 5, 0], [1.0, 1, 1, 1, 7, 1], [1, 0.5, 0.25, 0.25, 2, 1], [1, 1, 1, 0, 1, 1], GROUPS
)
GOOD = np.array(
    [
        [1.0, 0, 0, 0.3, 5, 0],
        [0, 1, 1, 0.3, 5, 0],
        [0, 0, 0, -1, 7, 1],
        [0, 0, 1, 0.0, 5.0001, 0],
        [0, 0, 0.0001, 0.0, 7, 0],
    ]
)
BROKEN = np.array(
    [[0.0, 0, 0, 0, 5, 0], [1, 0, 1, 0, 5, 0], [1, 1, 0, 0, 5, 1], [1, 0, 1, 0, 7, 0], [1, 1, 1, 0, 7, 1]]
)


def test_rows_that_keep_to_their_groups_are_taken() -> None:
    integers, is_refused = GRID.quantize(GOOD)
    assert not is_refused.any()
    assert integers.tolist() == [
        [1, 0, 0, 5, 0, 0],
        [0, 2, 4, 5, 0, 0],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 4, 4, 0, 0],
        [0, 0, 0, 4, 1, 0],
    ]
    assert GRID.quantize(GOOD.astype(np.float32).astype(np.float64)).integers.tolist() == integers.tolist()


@pytest.mark.parametrize("clip", [False, True], ids=["refusing", "clipping"])
def test_rows_that_break_a_group_become_admissible_dummies(clip: bool) -> None:
    integers, is_refused = GRID.quantize(np.concatenate([BROKEN, GOOD[:1]]), clip=clip)
    assert is_refused.tolist() == [True] * len(BROKEN) + [False]
    (dummy,) = GRID.quantize(GRID.dummy[None]).integers
    assert (integers[:-1] == dummy).all()
    assert not GRID.quantize(GRID.dummy[None]).is_refused.any()
    assert not GRID.refuses_integers(dummy[None]).any()


def test_a_feature_of_a_group_has_two_values_however_fine_its_grid_is() -> None:
    """Two halves of a divided grid would pass what is proven of one."""
    row = GOOD[0].copy()
    row[1] = 0.5
    assert GRID.quantize(row[None]).is_refused.all()
    error = refusal(GRID, row[None])
    assert type(error) is OffGridError
    assert "feature 1 is not on the model's grid, 0 and multiples of 1 above it" in str(error)
    alone = InputGrid.of(6, GRID.minimum, GRID.maximum, GRID.step, GRID.keeps)
    assert not alone.quantize(row[None]).is_refused.any()


def test_clipping_moves_a_feature_of_a_group_to_an_end() -> None:
    integers, is_refused = GRID.quantize(np.array([[9.0, -1, -1, 0, 0, 2], [9.0, 9, 9, 0, 0, 2]]), clip=True)
    assert is_refused.tolist() == [False, True]
    assert integers[0].tolist() == [1, 0, 0, 4, 0, 1]


@pytest.mark.parametrize("clip", [False, True], ids=["refusing", "clipping"])
def test_no_value_changes_the_path(clip: bool) -> None:
    good, bad = np.tile(GOOD[0], (300, 1)), np.tile(GOOD[0], (300, 1))
    bad[7:12], bad[250, 2], bad[251, 0], bad[290] = BROKEN, np.nan, 0.1, np.inf
    GRID.quantize(good, clip=clip)
    paths = [calls_of(lambda rows=rows: GRID.quantize(rows, clip=clip)) for rows in (good, bad)]  # type: ignore[misc]
    assert len(paths[0]) > 5
    assert paths[0] == paths[1]


def test_the_text_names_features_and_no_value() -> None:
    error = refusal(GRID, np.concatenate([GOOD[:1], BROKEN[[0, 2]]]))
    assert type(error) is OutOfRangeError
    assert str(error) == (
        "row 1, exactly one of features 0, 2, 4 has to be at its maximum; "
        "row 2, at most one of features 1, 5 has to be at its maximum: "
        "of the features of a group, set as many to their maximum as the model expects"
    )
    both = np.concatenate([BROKEN[:1], [[np.nan, 1, 1, 9, 5, 1]]])
    error = refusal(GRID, both)
    assert type(error) is NotFiniteError
    assert str(error).startswith(
        "row 1, feature 0 is missing (NaN); row 1, feature 3 is outside the model's range -1..1; "
        "row 0, exactly one of features 0, 2, 4 has to be at its maximum; row 1, at most one of features 1, 5 has"
    ), "the other group of row 1 has another fault"


def test_the_text_names_the_columns_of_a_group() -> None:
    names = ["red", "a", "green", "b", "blue", "c"]
    assert "exactly one of column 'red' (feature 0), column 'green' (feature 2), column 'blue' (feature 4) has" in str(
        refusal(GRID, BROKEN[:1], names)
    )


def test_many_groups_and_features_are_counted() -> None:
    constraints = RowConstraints.of(80, np.repeat(np.arange(1, 9), 10), np.ones(8, np.bool_))
    grid = InputGrid.of(80, 0.0, 1.0, 1.0, True, constraints)
    text = str(refusal(grid, np.zeros((1, 80))))
    assert "exactly one of features 0, 1, 2, 3, 4 and 5 more has" in text
    assert "and 3 more groups" in text
    assert len(text) < 600


def test_integers_keep_to_the_groups_too() -> None:
    integers = GRID.quantize(GOOD).integers
    assert not GRID.refuses_integers(integers).any()
    spoiled = integers.copy()
    spoiled[0, 2], spoiled[1, 1], spoiled[2, 4] = 4, 1, 0
    quantized, is_refused = GRID.admissible_integers(spoiled)
    assert is_refused.tolist() == [True, True, True, False, False]
    assert not GRID.refuses_integers(quantized).any()
    assert str(refusal_of_integers(GRID, spoiled)) == (
        "row 1, feature 1 is neither 0 nor 2; rows 0, 2, exactly one of features 0, 2, 4 has to be at its maximum: "
        "quantized rows must be within 0..levels of the model's grid, and keep to its groups"
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32))
def test_drawn_rows_keep_to_the_groups(seed: int) -> None:
    rows: Any = random_rows(GRID, 50, seed)
    assert not GRID.refuses_integers(rows).any()
    assert (np.unique(rows[:, [0, 2, 4]], axis=0).shape[0]) == 3


@pytest.mark.parametrize("dtype", [np.float64, np.uint8, np.bool_])
def test_indicators_of_published_steps_are_told_apart_and_nothing_else(dtype: Any) -> None:
    """With the same integers as any other grid has, in one pass over the row."""
    levels = np.array([1, 3, 1, 2])
    group = [1, 2, 1, 2]
    grids = [
        InputGrid.of(4, 0.0, 1.0, 1 / levels, True, RowConstraints.of(4, group, [0, 1], is_checked=is_checked))
        for is_checked in (True, False)
    ]
    assert [grid.has_indicators_only for grid in grids] == [False, True]
    rows = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0]], dtype)
    expected, is_refused = grids[0].quantize(rows.astype(np.float64))
    quantized = grids[1].quantize(rows)
    assert not is_refused.any()
    assert not quantized.is_refused.any()
    assert quantized.integers.dtype == np.int64
    np.testing.assert_array_equal(quantized.integers, expected)
    paths = [calls_of(lambda grid=grid: grid.quantize(rows.astype(np.float64))) for grid in grids]  # type: ignore[misc]
    assert 4 * len(paths[1]) < len(paths[0])
    others = rows.astype(np.float64), np.zeros((3, 4)), np.ones((3, 4)), np.full((3, 4), np.nan)
    calls = [calls_of(lambda other=other: grids[1].quantize(other)) for other in others]  # type: ignore[misc]
    assert calls == [calls[0]] * 4, "the description decides, however many are 0"
    assert not InputGrid.of(5, 0.0, 1.0, 1.0, True, RowConstraints.of(5, [1, 1, 1, 1, 0], [0])).has_indicators_only


def test_groups_of_published_steps_are_not_checked() -> None:
    """What they compute cannot break a group; the grid is the same but for that."""
    unchecked = RowConstraints.of(6, GROUPS.group, GROUPS.exactly_one, is_checked=False)
    grid = InputGrid.of(6, GRID.minimum, GRID.maximum, GRID.step, GRID.keeps, unchecked)
    assert not grid.has_groups
    assert not grid.quantize(BROKEN).is_refused.any()
    weights = np.arange(12).reshape(2, 6)
    np.testing.assert_array_equal(np.stack(grid.extremes(weights)), np.stack(GRID.extremes(weights)))
