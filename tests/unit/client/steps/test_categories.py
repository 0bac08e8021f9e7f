"""Steps for categories, against scikit-learn's encoders."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from sealserve.steps.categories import Categories, Lookup, LookupColumn, OneHot, OneHotColumn
from sealserve.steps.program import Program
from sealserve.steps.ranges import GroupKind, Ranges
from sealserve.steps.step import ValueKind
from tests.support.applied_steps import applied, column_of

RNG = np.random.default_rng(2)
CITIES = np.array(["Rome", "Oslo", "", "São Paulo", "Oslo "], object)
TRAINED = CITIES[RNG.integers(0, 5, (60, 1))]
ROWS = np.concatenate([column_of("Lima", "rome", "", "Oslo", "São Paulo"), TRAINED])  # the first two are unknown


def one_hot(encoder: OneHotEncoder, *, refuses_unknown: bool = False) -> OneHot:
    """The step of a fitted encoder of one column of strings."""
    categories, dropped = encoder.categories_[0], encoder.drop_idx_
    [groups] = getattr(encoder, "_default_to_infrequent_mappings", [None])
    places = list(range(len(categories))) if groups is None else list(groups)
    if dropped is not None and dropped[0] is not None:
        places = [-1 if place == dropped[0] else place - (place > dropped[0]) for place in places]
    unknown = -1
    if encoder.handle_unknown == "infrequent_if_exist" and groups is not None:
        unknown = max(groups)
    found = Categories(texts=tuple(categories), refuses_unknown=refuses_unknown)
    return OneHot([0], [OneHotColumn(found, np.array([*places, -1, unknown]) + 1, max(places) + 1)])


@pytest.mark.parametrize(
    "arguments",
    [
        {"handle_unknown": "ignore"},
        {"handle_unknown": "ignore", "drop": "first"},
        {"handle_unknown": "infrequent_if_exist", "max_categories": 3},
        {"handle_unknown": "infrequent_if_exist", "min_frequency": 12},
    ],
)
@pytest.mark.filterwarnings("ignore:Found unknown categories")
def test_strings_are_encoded_as_by_the_encoder(arguments: dict[str, Any]) -> None:
    encoder = OneHotEncoder(sparse_output=False, **arguments)
    encoder.fit(TRAINED)
    step = one_hot(encoder)
    found = applied(step, ROWS)
    np.testing.assert_array_equal(found.values, encoder.transform(ROWS))


def test_numbers_and_a_category_for_gaps_are_encoded_as_by_the_encoder() -> None:
    trained = np.array([[1.0], [2.5], [np.nan], [7.0], [2.5]])
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(trained)
    numbers = encoder.categories_[0][:-1]  # the last is NaN
    step = OneHot([0], [OneHotColumn(Categories(numbers), np.array([1, 2, 3, 4, 0]), 4)])
    rows = np.array([[2.5], [np.nan], [2.4], [-1e308], [1e308], [7.0], [-0.0]])
    np.testing.assert_array_equal(applied(step, rows).values, encoder.transform(rows))


def test_a_row_with_an_unknown_or_missing_category_can_be_refused() -> None:
    categories = Categories(texts=("a",), refuses_missing=True, refuses_unknown=True)
    found = applied(OneHot([0], [OneHotColumn(categories, np.array([1, 1, 1]), 1)]), column_of("a", "b", None))
    assert found.is_refused.tolist() == [False, True, True]
    assert np.isnan(found.values[1:]).all()
    lookup = Lookup([0], [LookupColumn(categories, np.array([5.0, 6.0, 7.0]))])
    assert applied(lookup, column_of("a", "b", None)).is_refused.tolist() == [False, True, True]


def test_ordinals_are_those_of_the_encoder() -> None:
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    encoder.fit(np.concatenate([TRAINED, column_of(np.nan)]))  # scikit-learn takes None as a category
    texts = tuple(encoder.categories_[0][:-1])
    step = Lookup([0], [LookupColumn(Categories(texts=texts), np.array([*range(len(texts)), -2.0, -1.0]))])
    expected = encoder.transform(np.concatenate([ROWS, column_of(np.nan)]))
    np.testing.assert_array_equal(applied(step, np.concatenate([ROWS, column_of(None)])).values, expected)


def test_target_means_are_those_of_the_encoder() -> None:
    encoder = TargetEncoder(target_type="continuous", random_state=0)
    encoder.fit(TRAINED, RNG.normal(size=len(TRAINED)))
    mean = encoder.target_mean_
    step = Lookup(
        [0],
        [LookupColumn(Categories(texts=tuple(encoder.categories_[0])), np.array([*encoder.encodings_[0], mean, mean]))],
    )
    np.testing.assert_array_equal(applied(step, ROWS).values, encoder.transform(ROWS))


def test_a_step_takes_columns_of_both_kinds() -> None:
    columns = [
        OneHotColumn(Categories(texts=("a", "b")), np.array([1, 2, 0, 0]), 2),
        OneHotColumn(Categories(np.array([1.0, 2.0])), np.array([2, 1, 0, 0]), 2),
    ]
    rows = np.array([["b", 1.0], [None, 2.0], ["a", np.nan]], object)
    program = Program([ValueKind.TEXT, ValueKind.NUMBER], [OneHot([0, 1], columns)], range(2, 6))
    np.testing.assert_array_equal(program.features(rows).values, [[0, 1, 0, 1], [0, 0, 1, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize(
    ("places", "refuses_unknown", "may_be_missing", "kind"),
    [
        ([1, 2, 0, 0], False, True, GroupKind.AT_MOST_ONE),
        ([1, 2, 0, 0], True, True, GroupKind.AT_MOST_ONE),
        ([1, 2, 0, 0], True, False, GroupKind.EXACTLY_ONE),
        ([1, 2, 2, 2], False, True, GroupKind.EXACTLY_ONE),
        ([1, 0, 2, 2], False, True, GroupKind.AT_MOST_ONE),
    ],
)
def test_a_group_says_how_many_of_its_outputs_are_1(
    places: list[int], refuses_unknown: bool, may_be_missing: bool, kind: GroupKind
) -> None:
    column = OneHotColumn(Categories(texts=("a", "b"), refuses_unknown=refuses_unknown), np.array(places), 2)
    unknown = np.array([np.nan])
    [group] = OneHot([0], [column]).ranges(Ranges.of(unknown, unknown, may_be_missing=may_be_missing)).groups
    assert (group.kind, group.members.tolist()) == (kind, [0, 1])


def test_the_range_of_a_lookup_is_that_of_the_codes_that_a_row_can_have() -> None:
    columns = [
        LookupColumn(Categories(texts=("a", "b"), refuses_unknown=True), np.array([1.0, 3.0, np.nan, 99.0])),
        LookupColumn(Categories(np.array([0.0])), np.array([0.5, 7.0, 8.0])),
    ]
    known = np.zeros(2)
    found = Lookup([0, 1], columns).ranges(Ranges.of(known, known, may_be_missing=np.array([True, False])))
    assert (found.low.tolist(), found.high.tolist()) == ([1.0, 0.5], [3.0, 8.0])
    assert (found.is_integral.tolist(), found.may_be_missing.tolist()) == ([True, False], [True, False])


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"numbers": np.zeros(1), "texts": ("a",)},
        {"numbers": np.array([1.0, 1.0])},
        {"numbers": np.array([2.0, 1.0])},
        {"numbers": np.array([np.nan])},
        {"texts": ("a", "a")},
        {"texts": ("a" * 5000,)},
        {"texts": (1,)},
    ],
)
def test_categories_that_repeat_or_are_mixed_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"categor|increase|finite"):
        Categories(**arguments)


@pytest.mark.parametrize("places", [[1, 2], [1, 2, 0, 3], [1, 2, 0, -1], [[1, 2, 0, 0]]])
def test_places_that_are_not_of_codes_and_outputs_are_refused(places: NDArray[np.intp]) -> None:
    with pytest.raises(ValueError, match=r"place"):
        OneHotColumn(Categories(texts=("a", "b")), np.array(places), 2)
