"""Trees, against scikit-learn's."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from sealserve.steps import trees
from sealserve.steps.ranges import GroupKind, Ranges
from sealserve.steps.trees import CategorySplit, Trees
from tests.support.applied_steps import applied
from tests.support.tree_steps import forest_steps, hist_steps

RNG = np.random.default_rng(6)
ROWS = np.round(RNG.normal(size=(400, 5)), 1).astype(np.float32).astype(np.float64)
LABELS = (ROWS[:, 0] + ROWS[:, 1] ** 2 + RNG.normal(size=400) > 0.5).astype(int)
GAPS = np.where(RNG.random(ROWS.shape) < 0.2, np.nan, ROWS)


def at_thresholds(step: Trees) -> NDArray[np.float64]:
    """Rows whose numbers are thresholds, or next to one in either precision."""
    thresholds = step.thresholds[(step.left > 0) & np.isfinite(step.thresholds)][:200]
    near = [thresholds, np.nextafter(thresholds, np.inf), np.nextafter(thresholds, -np.inf)]
    near += [np.nextafter(thresholds.astype(np.float32), np.float32(end)).astype(np.float64) for end in (-9, 9)]
    return np.repeat(np.concatenate(near)[:, None], step.input_count, axis=1)


@pytest.mark.parametrize("rows", [ROWS, GAPS], ids=["full", "gaps"])
def test_a_row_reaches_the_leaves_of_the_forest(rows: NDArray[np.float64]) -> None:
    forest = RandomForestClassifier(12, max_depth=6, random_state=0).fit(rows, LABELS)
    step = forest_steps(forest)
    for tested in (rows, at_thresholds(step)):
        found = applied(step, tested).values
        leaves = np.split(found, np.cumsum(step.leaf_counts)[:-1], axis=1)
        for tree, of_tree, reached in zip(forest.estimators_, leaves, forest.apply(tested).T, strict=True):
            nodes = np.flatnonzero(tree.tree_.children_left < 0)
            assert (of_tree.sum(axis=1) == 1).all()
            np.testing.assert_array_equal(nodes[of_tree.argmax(axis=1)], reached)


@pytest.mark.parametrize("categorical", [None, [1]])
def test_scores_are_those_of_boosted_histograms(categorical: list[int] | None) -> None:
    rows = GAPS.copy()
    if categorical:
        rows[:, 1] = RNG.integers(0, 9, 400)
    model = HistGradientBoostingClassifier(max_iter=15, categorical_features=categorical).fit(rows[:300], LABELS[:300])
    step, weights, baseline = hist_steps(model)
    assert bool(step.category_splits) == bool(categorical)
    beyond = np.concatenate([rows, at_thresholds(step)])
    beyond[300:310, 1] = [9.0, 99.0, np.nan, 1e300, 8.5, 7.0, 254.0, 255.0, 256.0, 1.0]
    if categorical:
        beyond[310:, 1] = RNG.integers(0, 12, len(beyond) - 310)  # scikit-learn refuses what is negative
        beyond[303:305, 1] = np.nan
        beyond[301], beyond[306:309] = beyond[300], beyond[300]
    scores = applied(step, beyond).values @ weights + baseline
    np.testing.assert_allclose(scores, model.decision_function(beyond), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("categorical", [None, [1]])
@pytest.mark.parametrize("nodes_a_call", [1, 1 << 20], ids=["level by level", "all nodes at once"])
def test_a_single_row_reaches_the_leaves_that_it_reaches_among_others(
    nodes_a_call: int, categorical: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = GAPS.copy()
    if categorical:
        rows[:, 1] = RNG.integers(0, 9, 400)
    model = HistGradientBoostingClassifier(max_iter=9, categorical_features=categorical).fit(rows, LABELS)
    steps = [hist_steps(model)[0], forest_steps(RandomForestClassifier(5, random_state=0).fit(GAPS, LABELS))]
    monkeypatch.setattr(trees, "_NODES_A_CALL", nodes_a_call)
    for step in steps:
        tested = np.concatenate([rows[:60], at_thresholds(step)[::7]])
        together = applied(step, tested).values
        alone = [applied(step, row[None]).values for row in tested]
        np.testing.assert_array_equal(np.concatenate(alone), together)


def stump(**changes: Any) -> Trees:
    """A tree of one node with two leaves."""
    arguments: dict[str, Any] = {
        "inputs": [0],
        "node_counts": np.array([3]),
        "left": np.array([1, 0, 0]),
        "right": np.array([2, 0, 0]),
        "features": np.zeros(3, int),
        "thresholds": np.array([0.1, 0.0, 0.0]),
        "misses_left": np.array([True, False, False]),
    }
    return Trees(**(arguments | changes))


def goes_left(step: Trees, *numbers: float) -> list[bool]:
    return [value == 1 for value in applied(step, np.array(numbers)[:, None]).values[:, 0].tolist()]


def test_a_number_at_the_threshold_goes_left_unless_the_tree_is_strict() -> None:
    just_above = np.nextafter(0.1, 1)
    assert goes_left(stump(), 0.1, just_above, -np.inf, np.inf) == [True, False, True, False]
    assert goes_left(stump(strict=True), 0.1, np.nextafter(0.1, 0), -np.inf) == [False, True, True]


def test_inputs_are_rounded_to_float32_if_the_trees_say_so() -> None:
    threshold = float(np.float32(0.1))  # above 0.1
    step = stump(thresholds=np.array([threshold, 0.0, 0.0]), rounds_to_float32=True)
    above = np.nextafter(threshold, 1)
    assert goes_left(step, above) == [True]
    assert goes_left(stump(thresholds=step.thresholds), above) == [False]
    halfway = (threshold + float(np.nextafter(np.float32(threshold), np.float32(1)))) / 2
    even = np.float32(halfway)
    assert goes_left(step, halfway) == [bool(even <= np.float32(threshold))]
    assert goes_left(step, 1e300, -1e300) == [False, True]


def test_what_is_missing_goes_where_the_node_says() -> None:
    assert goes_left(stump(), np.nan) == [True]
    assert goes_left(stump(misses_left=np.zeros(3, bool)), np.nan) == [False]
    assert goes_left(stump(strict=True, thresholds=np.array([-1e308, 0, 0])), np.nan) == [True]


def test_categories_go_where_their_set_says_and_others_as_what_is_missing() -> None:
    split = CategorySplit(0, np.array([1, 5]), np.array([0, 7]))
    numbers = (1.0, 5.0, 0.0, 7.0, -0.0, 2.0, 8.0, 1.5, -1.0, np.nan, np.inf, 1e300)
    expected = [True, True, False, False, False]
    for side in (True, False):
        step = stump(category_splits=[split], misses_left=np.array([side, False, False]))
        assert goes_left(step, *numbers) == expected + [side] * 7


def test_exactly_one_leaf_of_a_tree_is_1() -> None:
    step = stump(
        node_counts=np.array([3, 1]),
        left=np.array([1, 0, 0, 0]),
        right=np.array([2, 0, 0, 0]),
        features=np.zeros(4, int),
        thresholds=np.zeros(4),
        misses_left=np.zeros(4, bool),
    )
    groups = step.ranges(Ranges.of(np.zeros(1), np.ones(1))).groups
    assert [(group.kind, group.members.tolist()) for group in groups] == [
        (GroupKind.EXACTLY_ONE, [0, 1]),
        (GroupKind.EXACTLY_ONE, [2]),
    ]
    assert applied(step, [[0.0], [1.0]]).values.tolist() == [[1, 0, 1], [0, 1, 1]]


def test_all_rows_take_as_many_levels_whatever_leaf_they_reach() -> None:
    """Rows of one node and of the deepest leaf are walked alike: a leaf is its own child."""
    depth = 6
    inner = np.arange(0, 2 * depth, 2)
    left, right = np.zeros(2 * depth + 1, int), np.zeros(2 * depth + 1, int)
    left[inner], right[inner] = inner + 1, inner + 2
    thresholds = np.zeros(2 * depth + 1)
    thresholds[inner] = np.arange(depth)
    step = stump(
        node_counts=np.array([2 * depth + 1]),
        left=left,
        right=right,
        features=np.zeros(2 * depth + 1, int),
        thresholds=thresholds,
        misses_left=np.zeros(2 * depth + 1, bool),
    )
    rows = np.arange(-1.0, depth)[:, None] + 0.5
    assert step._walk.depth == depth
    np.testing.assert_array_equal(applied(step, rows).values, np.eye(depth + 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"left": np.array([0, 0, 0])},
        {"right": np.array([0, 0, 0])},
        {"left": np.array([2, 0, 0])},
        {"left": np.array([3, 0, 0])},
        {"right": np.array([1, 0, 0])},
        {"left": np.array([1, 1, 0]), "right": np.array([2, 2, 0])},
        {"left": np.array([1, 0, 1]), "right": np.array([2, 0, 2])},
        {"features": np.array([1, 0, 0])},
        {"features": np.array([-1, 0, 0])},
        {"thresholds": np.array([np.nan, 0, 0])},
        {"thresholds": np.array([-np.inf, 0, 0])},
        {"thresholds": np.zeros(2)},
        {"misses_left": np.zeros(2, bool)},
        {"node_counts": np.array([2])},
        {"node_counts": np.array([0, 3])},
        {"node_counts": np.zeros(0, int)},
        {"category_splits": [CategorySplit(1, np.array([1]), np.array([2]))]},
        {"category_splits": [CategorySplit(3, np.array([1]), np.array([2]))]},
        {"category_splits": [CategorySplit(0, np.array([1]), np.array([2]))] * 2},
    ],
)
def test_what_is_no_tree_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        stump(**changes)


@pytest.mark.parametrize(("left", "right"), [([1, 1], []), ([2, 1], []), ([1], [1]), ([1 << 16], []), ([-1], [])])
def test_sets_of_categories_that_overlap_or_do_not_increase_are_refused(left: list[int], right: list[int]) -> None:
    with pytest.raises(ValueError, match="categor"):
        CategorySplit(0, np.array(left, int), np.array(right, int))
