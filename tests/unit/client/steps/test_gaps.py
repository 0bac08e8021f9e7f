"""Steps for what is missing, against scikit-learn's imputers."""

import numpy as np
import pytest
from sklearn.impute import MissingIndicator, SimpleImputer

from sealserve.steps.gaps import Impute, Missing
from sealserve.steps.program import Program
from sealserve.steps.step import ValueKind
from tests.support.applied_steps import applied, column_of

RNG = np.random.default_rng(1)
ROWS = np.where(RNG.random((50, 4)) < 0.3, np.nan, RNG.normal(size=(50, 4)))


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
def test_numbers_are_filled_as_by_the_imputer(strategy: str) -> None:
    imputer = SimpleImputer(strategy=strategy).fit(ROWS)
    found = applied(Impute(range(4), imputer.statistics_), ROWS)
    np.testing.assert_array_equal(found.values, imputer.transform(ROWS))
    assert not found.is_refused.any()


def test_a_number_can_stand_for_what_is_missing() -> None:
    rows = np.array([[-1.0, 2.0], [3.0, -1.0], [0.0, 0.0]])
    imputer = SimpleImputer(missing_values=-1.0).fit(rows)
    found = applied(Impute([0, 1], imputer.statistics_, missing_number=-1.0), rows)
    np.testing.assert_array_equal(found.values, imputer.transform(rows))


def test_nan_stays_if_another_number_is_missing_or_nan_is_filled_in() -> None:
    rows = np.array([[np.nan], [-1.0]])
    for step in (Impute([0], np.array([5.0]), missing_number=-1.0), Impute([0], np.array([np.nan]))):
        assert np.isnan(applied(step, rows).values[:, 0]).tolist() == [True, False]


def test_indicators_are_those_of_the_imputer() -> None:
    expected = MissingIndicator(features="all").fit_transform(ROWS)
    np.testing.assert_array_equal(applied(Missing(range(4)), ROWS).values, expected)


def test_missing_texts_are_told_and_filled() -> None:
    rows = column_of("a", None, "")
    program = Program([ValueKind.TEXT], [Missing([0]), Impute([0], texts=("b",)), Missing([2])], [1, 3])
    np.testing.assert_array_equal(program.features(rows).values, [[0, 0], [1, 0], [0, 0]])


@pytest.mark.parametrize(
    ("numbers", "texts", "missing_number"),
    [
        (None, None, None),
        (np.zeros(1), ("a",), None),
        (np.zeros(2), None, None),
        (np.array([np.inf]), None, None),
        (None, ("a", "b"), None),
        (None, ("a",), 0.0),
        (np.zeros(1), None, np.nan),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(
    numbers: np.ndarray | None, texts: tuple[str, ...] | None, missing_number: float | None
) -> None:
    with pytest.raises(ValueError, match=r"number|text|finite|infinite"):
        Impute([0], numbers, texts, missing_number)
