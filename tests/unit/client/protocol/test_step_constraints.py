"""What published steps tell of rows: groups and norms that no row can break."""

import dataclasses

import numpy as np
import pytest

from sealserve.he.quantization import InputGrid
from sealserve.protocol.column import Column
from sealserve.protocol.model import Model
from sealserve.protocol.schema import Schema
from sealserve.protocol.step_constraints import step_constraints
from sealserve.steps.arithmetic import Affine, Norm, Normalize
from sealserve.steps.intervals import Bins, BinsColumn
from sealserve.steps.program import Program
from sealserve.steps.ranges import Group, GroupKind, Ranges
from sealserve.steps.step import ValueKind
from tests.support.step_models import served_with_steps

UNKNOWN = Ranges.of(np.full(2, -np.inf), np.full(2, np.inf), may_be_missing=True)
BINS = Bins([0, 1], [BinsColumn(np.array([0.0, 1.0])), BinsColumn(np.array([5.0]))], one_hot=True)


def program(outputs: list[int], *steps: object) -> Program:
    """Steps after bins of two columns, which are values 2 to 6."""
    return Program([ValueKind.NUMBER] * 2, [BINS, *steps], outputs)  # type: ignore[list-item]


def test_one_hot_groups_are_exclusive_and_not_checked() -> None:
    constraints = step_constraints(program([2, 3, 4, 5, 6]).ranges(UNKNOWN))
    assert constraints.group.tolist() == [1, 1, 1, 2, 2]
    assert constraints.exactly_one.tolist() == [True, True]
    assert not constraints.is_checked.any()


def test_a_group_that_lacks_a_value_may_have_none() -> None:
    constraints = step_constraints(program([6, 2, 0, 4]).ranges(UNKNOWN))
    assert constraints.group.tolist() == [2, 1, 0, 1]
    assert constraints.exactly_one.tolist() == [False, False]


def test_a_scaled_group_is_none() -> None:
    assert step_constraints(program([7, 8, 9], Affine([2, 3, 4], multiply=np.full(3, 2.0))).ranges(UNKNOWN)).is_none


def test_normalized_values_have_a_norm() -> None:
    constraints = step_constraints(program([7, 0, 8], Normalize([0, 1], Norm.L2)).ranges(UNKNOWN))
    [norm] = constraints.norms
    assert norm.members.tolist() == [0, 2]
    assert norm.bound == 1.0
    assert not len(constraints.group)


def test_a_feature_is_in_one_group_or_norm() -> None:
    groups = (
        Group(GroupKind.NORM, np.array([0, 1, 2])),
        Group(GroupKind.AT_MOST_ONE, np.array([0, 1])),
        Group(GroupKind.EXACTLY_ONE, np.array([1, 3])),
    )
    constraints = step_constraints(Ranges.of_flags(4, groups))
    assert constraints.group.tolist() == [1, 1, 0, 0]
    assert [norm.members.tolist() for norm in constraints.norms] == [[2]]


def described(grid: InputGrid) -> Model:
    """What a client knows of a model with two columns, before it has fetched the steps."""
    model = served_with_steps().model
    return dataclasses.replace(model, grid=grid, schema=Schema.of([Column("a"), Column("b")]), steps=None)


def test_a_client_knows_that_features_are_indicators() -> None:
    grid = described(InputGrid.of(5, 0.0, 1.0, 1.0, True)).with_steps(program([2, 3, 4, 5, 6])).grid
    assert grid.has_indicators_only
    rows = np.array([[1.0, 0, 0, 0, 1], [np.nan] * 5, [0, 0, 1, 1, 0]])
    integers, is_refused = grid.quantize(rows)
    assert is_refused.tolist() == [False, True, False]
    assert integers.tolist() == [[1, 0, 0, 0, 1], [1, 0, 0, 1, 0], [0, 0, 1, 1, 0]]
    assert integers[1].tolist() == grid.dummy_integers.tolist(), "an admissible row"


@pytest.mark.parametrize(
    ("grid", "outputs"),
    [
        (InputGrid.of(5, [0.5, 0, 0, 0, 0], 1.0, 0.5, True), [2, 3, 4, 5, 6]),
        (InputGrid.of(5, 0.0, [2.0, 1, 1, 1, 1], 1.0, True), [2, 3, 4, 5, 6]),
        (InputGrid.of(5, 0.0, 1.0, 1.0, [False, True, True, True, True]), [2, 3, 4, 5, 6]),
        (InputGrid.of(5, 0.0, 1.0, 1.0, True), [2, 3, 4, 5, 0]),
    ],
    ids=["another minimum", "another maximum", "no grid", "a column"],
)
def test_other_features_are_compared_with_the_grid(grid: InputGrid, outputs: list[int]) -> None:
    """A hostile service may describe any grid for its steps."""
    assert described(grid).with_steps(program(outputs)).grid is grid
