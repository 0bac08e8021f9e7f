"""How many honest scores copy a head, beside the rank of features that rows really have."""

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures

from sealserve.he.quantization import InputGrid
from sealserve.he.row_constraints import RowConstraints
from sealserve_service.models.folding import fold
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.declared import known_ranges
from sealserve_service.planning.extraction import scores_to_copy
from sealserve_service.planning.grid import input_ranges

RNG = np.random.default_rng(11)


def rank(features: NDArray[np.float64]) -> int:
    return int(np.linalg.matrix_rank(np.hstack([features, np.ones((len(features), 1))])))


def grid_of(model: LinearModel) -> InputGrid:
    """The grid of a model whose steps tell all ranges."""
    assert model.published is not None
    ranges = input_ranges(model, declared=known_ranges(model.published.ranges))
    return ranges.grid(ranges.own_step, np.ones(model.feature_count, np.bool_))


def test_a_linear_model_takes_one_score_more_than_features() -> None:
    assert scores_to_copy(InputGrid.of(7, -1.0, 1.0)) == rank(RNG.uniform(-1, 1, (50, 7))) == 8


def test_a_feature_of_one_value_adds_nothing() -> None:
    rows = RNG.uniform(-1, 1, (50, 7))
    rows[:, 2:4] = 5.0
    assert scores_to_copy(InputGrid.of(7, rows.min(axis=0), rows.max(axis=0))) == rank(rows) == 6


@pytest.mark.parametrize("exactly_one", [True, False])
def test_the_features_of_an_exactly_one_group_add_up(exactly_one: bool) -> None:
    rows = np.hstack([np.eye(4)[RNG.integers(0, 4, 90)], RNG.uniform(0, 1, (90, 3))])
    rows[:30, :4] *= exactly_one  # else none of the group is set in some rows
    constraints = RowConstraints.of(7, [1] * 4 + [0] * 3, [exactly_one])
    grid = InputGrid.of(7, 0.0, 1.0, [1.0] * 4 + [1 / 255] * 3, [True] * 4 + [False] * 3, constraints)
    assert scores_to_copy(grid) == rank(rows) == 8 - exactly_one


def test_categories_that_refuse_what_is_unknown_are_exactly_one() -> None:
    frame = pd.DataFrame({"city": RNG.choice(list("abcd"), 300), "size": RNG.choice(["s", "m", "l"], 300)})
    encoder = make_column_transformer((OneHotEncoder(), ["city", "size"]))
    model = fold(make_pipeline(encoder, LogisticRegression()).fit(frame, np.arange(300) % 2))
    features = model.features(frame.to_numpy(object))
    assert scores_to_copy(grid_of(model)) == rank(features) == 1 + 3 + 2


def test_an_ensemble_takes_as_many_scores_as_kept_leaves_and_one_unless_rows_show_fewer() -> None:
    X = RNG.normal(size=(4000, 6))
    y = (X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) > 0).astype(int)
    model = fold(HistGradientBoostingClassifier(max_iter=12, max_leaf_nodes=8, early_stopping=False).fit(X, y))
    grid, features = grid_of(model), model.features(X)
    assert scores_to_copy(grid) == 12 * 7 + 1
    assert scores_to_copy(grid, features) == rank(features) < 12 * 7 + 1, "trees have equal splits"
    assert scores_to_copy(grid, features[:85]) == 12 * 7 + 1, "too few rows to tell"


def test_rows_of_any_units_have_their_rank() -> None:
    rows = RNG.uniform(-1, 1, (300, 4)) * np.array([1e-9, 1.0, 1e9, 1.0]) + np.array([0, 1e3, 0, 5])
    rows = np.hstack([rows, rows[:, 1:2] - 2 * rows[:, 3:4]])
    grid = InputGrid.of(5, rows.min(axis=0), rows.max(axis=0))
    assert (scores_to_copy(grid), scores_to_copy(grid, rows)) == (6, 5)


def test_a_polynomial_has_a_constant_of_its_own() -> None:
    rows = RNG.uniform(0, 1, (200, 3))
    features = PolynomialFeatures(2).fit_transform(rows)
    grid = InputGrid.of(features.shape[1], features.min(axis=0), features.max(axis=0))
    assert scores_to_copy(grid) == rank(features) == 10
