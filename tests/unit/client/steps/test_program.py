"""Programs: how steps are wired, and what happens to rows that are refused."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.steps import program as program_module
from sealserve.steps.arithmetic import Affine, Matrix
from sealserve.steps.categories import Categories, OneHot, OneHotColumn
from sealserve.steps.gaps import Impute, Missing
from sealserve.steps.intervals import Bins, BinsColumn
from sealserve.steps.program import Program
from sealserve.steps.ranges import GroupKind, Ranges
from sealserve.steps.step import Step, ValueKind
from sealserve.steps.text import Text, Tokens

NUMBER, TEXT = ValueKind.NUMBER, ValueKind.TEXT
CITY = OneHot([2], [OneHotColumn(Categories(texts=("a", "b"), refuses_unknown=True), np.array([1, 2, 0, 0]), 2)])
# As a ColumnTransformer does: a branch of two numbers, one of a category, and a column that is
# passed through.
BRANCHES = Program(
    [NUMBER, NUMBER, TEXT, NUMBER],
    [Impute([0, 1], np.array([5.0, 6.0])), Affine([4, 5], multiply=np.array([2.0, 3.0])), Missing([1]), CITY],
    [6, 7, 8, 9, 10, 3],
)
ROWS = np.array([[1.0, np.nan, "b", 0.5], [np.nan, 2.0, None, np.nan], [0.0, 0.0, "c", 7.0]], object)


def test_branches_are_joined_in_the_order_of_the_outputs() -> None:
    found = BRANCHES.features(ROWS)
    expected = [[2.0, 18.0, 1.0, 0.0, 1.0, 0.5], [10.0, 6.0, 0.0, 0.0, 0.0, np.nan], [np.nan] * 6]
    np.testing.assert_array_equal(found.values, expected)
    assert found.is_refused.tolist() == [False, False, True]
    assert (BRANCHES.column_count, BRANCHES.feature_count, BRANCHES.value_count) == (4, 6, 11)


def test_the_columns_behind_a_refusal_are_known() -> None:
    found = BRANCHES.refusing_columns(ROWS)
    assert np.argwhere(found).tolist() == [[2, 2]]
    chained = Program([NUMBER] * 3, [Affine([0, 2]), Matrix([3, 4], np.ones((1, 2)), np.zeros(1)),
                                     Bins([5], [BinsColumn(np.zeros(1))])], [6])  # fmt: skip
    assert chained.refusing_columns(np.array([[np.nan, 1.0, 1.0]])).tolist() == [[True, False, True]]


def test_rows_in_several_blocks_are_computed_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(7).normal(size=(100, 3))
    rows[5, 1] = np.nan
    program = Program([NUMBER] * 3, [Bins(range(3), [BinsColumn(np.zeros(1))] * 3, one_hot=True)], range(3, 9))
    whole = program.features(rows)
    monkeypatch.setattr(program_module, "_MOST_ROWS_A_BLOCK", 7)
    blocks = program.features(rows)
    np.testing.assert_array_equal(whole.values, blocks.values)
    assert np.flatnonzero(blocks.is_refused).tolist() == np.flatnonzero(whole.is_refused).tolist() == [5]
    assert program.features(rows[:0]).values.shape == (0, 6)


def test_the_rows_that_were_handed_in_stay_as_they_are() -> None:
    rows = np.array([[np.nan], [1.0]])
    refusing = Bins([0], [BinsColumn(np.zeros(0))])
    for steps, outputs in (([refusing], [0]), ([Affine([0]), refusing], [1])):
        found = Program([NUMBER], steps, outputs).features(rows)
        assert np.isnan(found.values[0]).all()
        found.values[:] = 9.0
        assert rows[1, 0] == 1.0


def test_groups_follow_the_values_that_become_features() -> None:
    edges = [BinsColumn(np.array([1.0, 2.0]))]
    steps = [Bins([0], edges, one_hot=True), Bins([0], edges, one_hot=True)]
    unknown = Ranges.of(np.array([np.nan]), np.array([np.nan]))

    def groups(*outputs: int) -> list[tuple[GroupKind, list[int]]]:
        found = Program([NUMBER], steps, outputs).ranges(unknown).groups
        return [(group.kind, group.members.tolist()) for group in found]

    exactly, at_most = GroupKind.EXACTLY_ONE, GroupKind.AT_MOST_ONE
    assert groups(*range(7)) == [(exactly, [1, 2, 3]), (exactly, [4, 5, 6])]
    assert groups(6, 1, 3, 2) == [(exactly, [1, 2, 3]), (at_most, [0])]
    assert groups(1, 2) == [(at_most, [0, 1])]
    assert groups(1, 1, 2) == [], "a value that is a feature twice"


class _Hungry(Step):
    """A step that has no memory for some rows."""

    @property
    def width(self) -> int:
        return 1

    def apply(self, values: NDArray[Any], is_refused: NDArray[np.bool_]) -> NDArray[Any]:
        raise MemoryError

    def ranges(self, inputs: Ranges) -> Ranges:
        return inputs


def test_rows_that_there_is_no_memory_for_are_refused() -> None:
    found = Program([NUMBER], [_Hungry([0])], [1]).features(np.zeros((3, 1)))
    assert found.is_refused.all()
    assert np.isnan(found.values).all()


@pytest.mark.parametrize(
    ("columns", "steps", "outputs"),
    [
        ([NUMBER], [Affine([1])], [0]),
        ([NUMBER], [Affine([0]), Affine([2])], [0]),
        ([NUMBER], [Affine([0])], [2]),
        ([NUMBER], [Affine([0])], []),
        ([NUMBER], [Affine([0])], [-1]),
        ([], [], [0]),
        ([TEXT], [Affine([0])], [1]),
        ([TEXT], [Missing([0])], [0]),
        ([NUMBER], [Text([0], Tokens.WORDS, vocabulary=("a",))], [1]),
        ([NUMBER], [Impute([0], texts=("a",))], [0]),
        ([TEXT], [Impute([0], np.zeros(1))], [1]),
        ([TEXT], [Impute([0], texts=("a",))], [1]),
        ([NUMBER, NUMBER, NUMBER], [CITY], [3]),
    ],
)
def test_programs_with_wrong_wires_are_refused(columns: Any, steps: Any, outputs: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Program(columns, steps, outputs)


def test_of_a_step_with_several_columns_only_the_one_that_refuses_is_named() -> None:
    """Also through a step before it that fills several columns."""
    known = Categories(texts=("a", "b"), refuses_unknown=True)
    column = OneHotColumn(known, np.array([1, 2, 0, 0]), 2)
    filled = Impute([0, 1], texts=("a", "b"))
    program = Program([ValueKind.TEXT] * 2, [filled, OneHot([2, 3], [column, column])], [4, 5, 6, 7])
    rows = np.array([["a", "x"], ["x", "b"], [None, "b"], ["x", "x"]], object)
    assert program.refusing_columns(rows).tolist() == [[False, True], [True, False], [False, False], [True, True]]
    assert [program.sources_of_feature(feature) for feature in range(4)] == [[0, 1]] * 4
    numbers = Program([ValueKind.NUMBER] * 2, [Impute([0, 1], numbers=np.zeros(2)), Affine([2, 3])], [4, 5, 0])
    assert [numbers.sources_of_feature(feature) for feature in range(3)] == [[0], [1], [0]]
