"""Refusals: each refused row and feature is named, with the column's name, and no value is told."""

from typing import Any

import numpy as np
import pytest

from sealserve.errors import InputError, NotFiniteError, OffGridError, OutOfRangeError
from sealserve.he.quantization import InputGrid
from sealserve.protocol.refusal import refusal, refusal_of_integers
from sealserve.protocol.text import MAX_COLUMN_CHARACTERS

GRID = InputGrid.of(3, [-1.0, 0.0, 5.0], [1.0, 10.0, 5.0], [0.25, 2.5, 1.0])  # 8, 4 and no levels
KEEPING = InputGrid.of(3, [0.0, -1.0, 5.0], [1.0, 1.0, 6.0], [1 / 255, 0.5, 1.0], keeps=[True, True, False])
NAMES = ("mean radius", "it's", "\x1b[2J\n")
MOST = np.finfo(np.float64).max
CLIPPING = "pass clip=True (--clip) for the prediction at the nearest end of the range, which may be another"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("clip", [False, True], ids=["refusing", "clipping"])
def test_what_is_not_finite_is_named_by_row_and_feature(value: float, clip: bool) -> None:
    rows = np.tile(GRID.minimum, (4, 1))
    rows[2, 1] = value
    what = "missing (NaN)" if np.isnan(value) else "infinite"
    error = refusal(GRID, rows, clip=clip)
    assert type(error) is NotFiniteError
    assert str(error) == f"row 2, feature 1 is {what}: replace it"
    rows[3, 0] = value
    assert str(refusal(GRID, rows, clip=clip)) == (
        f"row 2, feature 1 is {what}; row 3, feature 0 is {what}: replace them"
    )


def test_a_single_row_has_no_number() -> None:
    """In a stream its number would not be 0."""
    error = refusal(GRID, np.array([[0.0, -2.0, 5.0]]))
    assert type(error) is OutOfRangeError
    assert str(error).startswith("feature 1 is outside the model's range")


@pytest.mark.parametrize(
    ("feature", "value", "said"),
    [(0, 1.1250001, "-1..1"), (0, -1.5, "-1..1"), (1, -1.2500001, "0..10"), (2, 5.00001, "5..5"), (2, -MOST, "5..5")],
)
def test_what_is_out_of_range_is_named_without_its_value(feature: int, value: float, said: str) -> None:
    rows = np.tile(GRID.minimum, (4, 1))
    rows[1, feature], rows[3, 0] = value, 9.5
    assert GRID.quantize(rows).is_refused.tolist() == [False, True, False, True]
    error = refusal(GRID, rows)
    assert type(error) is OutOfRangeError
    places, advice = str(error).split(": ")
    if feature == 0:
        assert places == "rows 1, 3, feature 0 is outside the model's range -1..1"
    else:
        assert places == (
            f"row 1, feature {feature} is outside the model's range {said}; "
            "row 3, feature 0 is outside the model's range -1..1"
        )
    assert not any(character.isdigit() for character in advice)
    assert isinstance(error, ValueError)


def test_both_reasons_are_one_error_that_says_which_feature_has_which() -> None:
    error = refusal(GRID, np.array([[0.0, 0.0, 5.0], [9.0, np.nan, 5.0]]))
    assert type(error) is NotFiniteError
    assert str(error) == (
        "row 1, feature 0 is outside the model's range -1..1; row 1, feature 1 is missing (NaN): replace what is not "
        f"finite; outside the range scores have no guarantee, so scale the features, or {CLIPPING}"
    )


def test_many_places_are_counted() -> None:
    grid = InputGrid.of(20, 0.0, 1.0)
    text = str(refusal(grid, np.full((1234, 20), np.nan)))
    assert text.count("missing (NaN)") == 5
    assert text.count("rows 0, 1, 2, 3, 4 and 1,229 more, feature ") == 5
    assert text.endswith("; and 15 more features: replace them")
    assert len(text) < 500
    assert str(refusal(grid, np.full((6, 6), 2.0)[:, :1] * np.ones(20))).count("and 1 more, feature") == 5
    rows = np.full((9, 20), 0.5)
    rows[8, :6] = 2.0
    assert "; and 1 more feature: " in str(refusal(grid, rows))


def test_a_column_of_many_bad_rows_hides_no_other() -> None:
    rows = np.tile(GRID.minimum, (100, 1))
    rows[:, 0], rows[99, 1], rows[50, 1] = 9.5, np.nan, np.inf
    assert str(refusal(GRID, rows, NAMES)).startswith(
        "rows 0, 1, 2, 3, 4 and 95 more, column 'mean radius' (feature 0) is outside the model's range -1..1; row 50, "
        'column "it\'s" (feature 1) is infinite; row 99, column "it\'s" (feature 1) is missing (NaN): '
    )


def test_rows_that_changed_meanwhile_have_an_error_too() -> None:
    assert "rows changed while they were predicted" in str(refusal(GRID, GRID.minimum[None]))


def test_all_reasons_are_one_error_that_says_which_feature_has_which() -> None:
    rows = np.array([[0.002, 0.0, 5.0], [0.0, 9.0, 5.0], [0.0, 0.0, np.inf]])
    assert KEEPING.quantize(rows).is_refused.all()
    error = refusal(KEEPING, rows)
    assert type(error) is NotFiniteError
    assert str(error) == (
        "row 0, feature 0 is not on the model's grid, 0 and multiples of 0.00392157 above it; row 1, feature 1 is "
        "outside the model's range -1..1; row 2, feature 2 is infinite: replace what is not finite; outside the range "
        f"scores have no guarantee, so scale the features, or {CLIPPING}; round what is off the grid"
    )
    assert type(refusal(KEEPING, rows[:2])) is OutOfRangeError
    assert type(refusal(KEEPING, rows[:2], clip=True)) is OffGridError


def test_columns_are_named_and_nothing_in_a_name_is_taken_for_the_errors_own_words() -> None:
    rows = np.tile(GRID.minimum, (3, 1))
    rows[0, 0], rows[2] = 9.5, np.nan
    assert str(refusal(GRID, rows, NAMES)) == (
        "row 0, column 'mean radius' (feature 0) is outside the model's range -1..1; row 2, column 'mean radius' "
        '(feature 0) is missing (NaN); row 2, column "it\'s" (feature 1) is missing (NaN); row 2, column '
        "'\\x1b[2J\\n' (feature 2) is missing (NaN): replace what is not finite; outside the range scores have no "
        f"guarantee, so scale the features, or {CLIPPING}"
    )
    forged = ("x' (feature 0) is right; column 'y", "b", "c")
    assert str(refusal(GRID, rows[:1], forged)).startswith("column \"x' (feature 0) is right; column 'y\" (feature 0) ")


@pytest.mark.parametrize("character", ["x", "\n", "\U0010ffff", "'"])
def test_names_of_any_length_make_a_short_text(character: str) -> None:
    names = (character * 100_000,) * 20
    grid = InputGrid.of(20, 0.0, 1.0)
    text = str(refusal(grid, np.full((1234, 20), np.nan), names))
    assert text.count("missing (NaN)") == 5
    assert text.isprintable()
    assert len(text) < 5 * (MAX_COLUMN_CHARACTERS + 90)


def test_the_cost_of_clipping_is_said_where_it_would_help() -> None:
    rows = np.array([[9.5, 0.0, 5.0]])
    assert str(refusal(GRID, rows)).endswith(f"no guarantee there; scale the feature, or {CLIPPING}")
    rows[0, 1] = np.nan
    assert "clip" not in str(refusal(GRID, rows, clip=True))


@pytest.mark.parametrize("dtype", [np.int64, np.int8])
def test_integers_off_the_levels_are_named(dtype: Any) -> None:
    rows = np.array([[0, 0, 0], [9, 0, 1], [0, -1, 0]], dtype)
    error = refusal_of_integers(GRID, rows, NAMES)
    assert type(error) is InputError
    assert str(error) == (
        "row 1, column 'mean radius' (feature 0) is not within 0..8; row 1, column '\\x1b[2J\\n' (feature 2) is not "
        'within 0..0; row 2, column "it\'s" (feature 1) is not within 0..4: quantized rows must be within 0..levels of '
        "the model's grid"
    )
    assert str(refusal_of_integers(GRID, rows[2:])).startswith("feature 1 is not within 0..4: ")
