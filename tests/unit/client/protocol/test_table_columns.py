"""Columns of tables, found by their names and read by their kinds."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from sealserve.errors import FeatureCountError, FeatureNameError, InputError
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.schema import Schema

NUMBERS = Schema.of([Column("0"), Column("1", ColumnKind.INTEGER, allows_missing=True)])
MIXED = Schema.of([Column("age", allows_missing=True), Column("city", ColumnKind.STRING, allows_missing=True)])
GAP = float("nan")


def test_columns_whose_names_are_numbers_are_found() -> None:
    frame = pd.DataFrame({1: [3, 4], 0: [1.5, 2.5]})
    assert NUMBERS.rows(frame).tolist() == [[1.5, 3.0], [2.5, 4.0]]


def test_numbers_stay_an_array_of_numbers_and_strings_make_objects() -> None:
    array = np.array([[1.0, 2.0]])
    assert NUMBERS.rows(array) is array
    assert NUMBERS.rows([[1, True]]).dtype == np.float64
    rows = MIXED.rows({"age": np.ma.MaskedArray([1.0, 2.0], [False, True]), "city": np.array(["a", "b"])})
    assert rows.dtype == object
    assert rows[0].tolist() == [1.0, "a"]
    assert np.isnan(rows[1, 0])


@pytest.mark.parametrize("gap", [None, GAP, pd.NA, pd.NaT, np.float64("nan")])
def test_what_is_missing_is_nan_or_none(gap: Any) -> None:
    found = MIXED.rows([[1.0, gap], [gap, "b"]])
    assert found[0].tolist() == [1.0, None]
    assert found[1, 1] == "b"
    assert np.isnan(found[1, 0])


def test_rows_that_were_read_can_be_read_again() -> None:
    """As they are, if a model changes: under the same schema, or under one that they do not fit."""
    rows = MIXED.rows([[GAP, None], [2.0, "x"]])
    again = MIXED.rows(rows)
    assert again[1].tolist() == rows[1].tolist()
    assert again[0, 1] is None
    with pytest.raises(InputError):
        Schema(2).rows(rows)
    assert Schema(2).rows(rows[:1]).shape == (1, 2)


def test_no_rows_are_read_as_no_rows() -> None:
    empties: tuple[Any, ...] = ([], {"age": [], "city": []}, pd.DataFrame({"age": [], "city": []}), np.empty((0, 2)))
    for empty in empties:
        assert MIXED.rows(empty).shape == (0, 2)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ([[1.0, "a"], [1.0]], FeatureCountError),
        (["ab", "cd"], FeatureCountError),
        (5, InputError),
        (np.zeros(2), FeatureCountError),
        (np.zeros((2, 3)), FeatureCountError),
        ({"age": np.zeros((2, 2)), "city": ["a", "b"]}, InputError),
        ({"age": [1], "city": ["a", "b"]}, FeatureCountError),
        ({"age": [1]}, FeatureNameError),
        ([{"age": 1, "city": "a"}, {"age": 1}], FeatureNameError),
        ([{"age": 1, "city": 5}], InputError),
        ([[1j, "a"]], InputError),
        ([["1", "a"]], InputError),
        ([[10**400, "a"]], InputError),
        ([[[1], "a"]], InputError),
        ([[1, ["a"]]], InputError),
    ],
)
def test_tables_that_do_not_fit_are_refused_with_a_typed_error(rows: Any, kind: type[InputError]) -> None:
    with pytest.raises(kind):
        MIXED.rows(rows)


def test_a_hostile_name_of_a_column_is_escaped() -> None:
    schema = Schema.of([Column("\x1b[2J\n", ColumnKind.STRING)])
    with pytest.raises(InputError) as caught:
        schema.rows([[5]])
    assert "\x1b" not in str(caught.value)


def test_all_columns_at_fault_are_named_up_to_five() -> None:
    schema = Schema.of([Column(str(number)) for number in range(9)])
    with pytest.raises(InputError, match=r"column '0'.*column '4'.*; and 4 more columns"):
        schema.rows([["x"] * 9])


@pytest.mark.parametrize(
    "arguments",
    [
        {"kind": ColumnKind.STRING, "minimum": 0.0},
        {"minimum": 2.0, "maximum": 1.0},
        {"maximum": GAP},
        {"kind": ColumnKind.BOOLEAN, "minimum": 2.0},
    ],
)
def test_a_column_without_a_range_of_numbers_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="range"):
        Column("a", **arguments)
