"""Columns of tables, found by their names and read by their kinds."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
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


NAMELESS = Schema.of([Column("", allows_missing=True), Column("", ColumnKind.STRING, allows_missing=True)])


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, "a"], [GAP, None]],
        np.array([[1.0, "a"], [None, None]], object),
        pd.DataFrame({"any": [1.0, GAP], "name": ["a", None]}),
        pd.DataFrame([[1.0, "a"], [GAP, None]]),
        pa.table({"b": [1.0, None], "a": ["a", None]}),
        [pd.Series([1.0, "a"]).tolist(), (None, None)],
    ],
)
def test_columns_without_names_are_known_by_their_order(rows: Any) -> None:
    found = NAMELESS.rows(rows)
    assert NAMELESS.column_names == ()
    assert found[0].tolist() == [1.0, "a"]
    assert np.isnan(found[1, 0])
    assert found[1, 1] is None


@pytest.mark.parametrize(
    ("rows", "kind", "text"),
    [
        ({"age": [1.0], "city": ["a"]}, FeatureNameError, "have no names: pass rows as lists or arrays, in its order"),
        ([{"age": 1.0, "city": "a"}], FeatureNameError, "have no names"),
        (pd.DataFrame({"a": [1.0]}), FeatureCountError, "rows of 2 columns are needed, and the table has 1"),
        ([["a", "b"]], InputError, "column 0 is one of numbers"),
        ([[1.0, 2.0]], InputError, "column 1 is one of strings"),
    ],
)
def test_of_columns_without_names_errors_give_the_numbers(rows: Any, kind: type[InputError], text: str) -> None:
    with pytest.raises(kind, match=text):
        NAMELESS.rows(rows)


UNUSED = Schema.of([Column("id", ColumnKind.UNUSED), Column("age"), Column("city", ColumnKind.STRING)])


@pytest.mark.parametrize(
    "rows",
    [
        {"age": [1.0], "city": ["a"]},
        {"city": np.array(["a"]), "id": [object()], "age": np.array([1])},
        [{"age": 1.0, "city": "a"}],
        pd.DataFrame({"age": [1.0], "city": ["a"]}),
        pd.DataFrame({"id": pd.Timestamp("2020-01-01"), "age": [1.0], "city": ["a"]}),
        [["x", 1.0, "a"]],
        np.array([["x", 1.0, "a"]], object),
    ],
)
def test_a_column_that_nothing_reads_may_hold_anything_or_be_left_out(rows: Any) -> None:
    [[unread, *read]] = UNUSED.rows(rows).tolist()
    assert np.isnan(unread)
    assert read == [1.0, "a"]
    assert not UNUSED.is_refused(UNUSED.rows(rows), clip=False).any()
    assert UNUSED.clipped(UNUSED.rows(rows))[0, 1:].tolist() == [1.0, "a"]


def test_other_columns_are_still_missing_or_unexpected() -> None:
    with pytest.raises(FeatureNameError, match="missing: city; unexpected: town"):
        UNUSED.rows({"age": [1.0], "town": ["a"]})


@pytest.mark.parametrize("value", ["Bern", 5, 1.5, None, b"x"])
def test_a_dictionary_of_single_values_is_no_table(value: Any) -> None:
    with pytest.raises(InputError, match=r"'city' of the dictionary is a single value.*as \[\{\.\.\.\}\]"):
        MIXED.rows({"age": [1.0], "city": value})


def test_keys_that_are_no_strings_are_names() -> None:
    assert NUMBERS.rows({1: [3], 0: [1.5]}).tolist() == [[1.5, 3.0]]
    assert NUMBERS.rows([{1: 3, 0: 1.5}, pd.Series({1: 4, 0: 2.5})]).tolist() == [[1.5, 3.0], [2.5, 4.0]]


def test_values_at_fault_are_named_by_their_rows() -> None:
    with pytest.raises(InputError) as caught:
        MIXED.rows({"age": [1.0, "old", None, "x"], "city": ["a", 2, None, 3]})
    text = str(caught.value)
    assert "column 'age' is one of numbers: rows 1, 3, a value is of type str, not a number: pass" in text
    assert "column 'city' is one of strings, and has values of type int in rows 1, 3: pass strings" in text


def test_a_single_series_says_how_to_pass_it() -> None:
    with pytest.raises(FeatureCountError, match=r"rows of 2 columns are needed: pass a Series x as \[x\]"):
        MIXED.rows(pd.Series([1.0, "a"], ["age", "city"]))


def test_texts_alone_are_a_column() -> None:
    """Where a vectorizer is all that reads them, as scikit-learn's pipelines take them."""
    texts, of_text = ["a cat", "", "the dog"], Schema.of((Column("", ColumnKind.TEXT),))
    for given in (texts, tuple(texts), np.array(texts), np.array(texts, object), pd.Series(texts)):
        assert of_text.rows(given).tolist() == [["a cat"], [""], ["the dog"]]
    assert of_text.rows([[text] for text in texts]).tolist() == [["a cat"], [""], ["the dog"]]
    with pytest.raises(InputError, match="strings"):
        of_text.rows(np.arange(3.0))
    for column in (Column("", ColumnKind.STRING), Column("", ColumnKind.NUMBER)):
        with pytest.raises((FeatureCountError, InputError)):
            Schema.of((column,)).rows(texts)
