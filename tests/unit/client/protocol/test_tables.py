"""What users hand in as rows: real numbers are read as they are, and nothing else is cast."""

import datetime
import itertools
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse
from numpy.typing import NDArray

from sealserve.errors import FeatureCountError, FeatureNameError, InputError
from sealserve.protocol.schema import Schema
from sealserve.protocol.tables import floats, is_table, row_blocks

NAMES = ("age", "height", "weight")
ROWS = np.array([[1.0, 0.5, 0.0], [0.0, 0.25, 2.0], [3.0, 0.0, 0.0]])
NAMED, PLAIN = Schema(3, NAMES), Schema(3)
FRAME = pd.DataFrame(ROWS, columns=list(NAMES))

SAME: dict[str, Any] = {
    "array": ROWS,
    "list": ROWS.tolist(),
    "tuple of arrays": tuple(ROWS),
    "big-endian": ROWS.astype(">f8"),
    "half floats": ROWS.astype(np.float16),
    "long doubles": ROWS.astype(np.longdouble),
    "Fortran order": np.asfortranarray(ROWS),
    "objects": ROWS.astype(object),
    "decimals": [[Decimal(value) for value in row] for row in ROWS],
    "fractions": [[Fraction(value) for value in row] for row in ROWS],
    "frame": FRAME,
    "frame of mixed types": FRAME.astype({"age": np.int8, "height": object, "weight": "Float64"}),
    "frame of categories": FRAME.astype({"weight": "category"}),
    "arrow table": pa.table({name: ROWS[:, column] for column, name in enumerate(NAMES)}),
    "csr_matrix": scipy.sparse.csr_matrix(ROWS),
    "coo_array": scipy.sparse.coo_array(ROWS),
    "dia_array": scipy.sparse.dia_array(ROWS),
    "no mask": np.ma.array(ROWS),
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("schema", [NAMED, PLAIN], ids=["named", "plain"])
def test_numbers_are_read_as_they_are(kind: str, schema: Schema) -> None:
    rows = schema.rows(SAME[kind])
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, ROWS)


def with_value(value: Any) -> NDArray[Any]:
    rows = ROWS.astype(object)
    rows[1, 2] = value
    return rows


def framed(values: Any) -> pd.DataFrame:
    return FRAME.assign(weight=values)


REFUSED: dict[str, tuple[Any, str]] = {
    "complex": (ROWS.astype(complex), "complex numbers"),
    "complex without an imaginary part, in a list": ([[1.0, 2.0, 3 + 0j]], "^feature 2 is of type complex"),
    "complex object": (with_value(1j), "row 1, feature 2 is of type complex"),
    "dates": (ROWS.astype("datetime64[s]"), "dates"),
    "time differences": (ROWS.astype("timedelta64[s]"), "time differences"),
    "date objects": (with_value(datetime.date(2020, 1, 1)), "of type date"),
    "a frame's dates": (
        framed(pd.to_datetime(["2020-01-01"] * 3)),
        r"rows 0, 1, 2, column 'weight' \(feature 2\) is of type Timestamp",
    ),
    "a frame of dates": (
        FRAME.astype("datetime64[ns]"),
        r"^column 'age' \(feature 0\) holds dates, column 'height' \(feature 1\) holds dates, .*, not numbers: ",
    ),
    "a frame with a complex column": (
        framed([1j, 2, 3]),
        r"^column 'weight' \(feature 2\) holds complex numbers, not numbers: ",
    ),
    "a list of arrays of dates": (list(ROWS.astype("datetime64[ns]")), "dates"),
    "a list of numbers and dates": ([[1.0, 2.0, np.datetime64("2020-01-01")]], "^feature 2 is of type datetime64"),
    "text of digits": ([["1", "2", "3"]], "^feature 0 is of type str, not a number; feature 1 is of type str"),
    "bytes of digits": ([[b"1", b"2", b"3"]], "^feature 0 is of type bytes"),
    "one text in a list": ([[1.0, 2.0, 3.0], [1.0, "2", 3.0]], "^row 1, feature 1 is of type str, not a number: "),
    "a list of texts": (["1", "2"], "the rows hold text, not numbers"),
    "text among numbers": (ROWS.astype(str), "text"),
    "text object": (with_value("1.5"), "row 1, feature 2 is of type str"),
    "text in a frame": (framed(["1", "2", "3"]), r"column 'weight' \(feature 2\) is of type str"),
    "text categories": (framed(pd.Categorical(["a", "b", "a"])), r"column 'weight' \(feature 2\) is of type str"),
    "a set": (with_value({1.0}), "of type set"),
    "records": (np.zeros(3, [("age", float)]), "records"),
    "a number of 401 digits": (with_value(10**400), "^row 1, feature 2 is too large"),
    "a number of 401 digits among floats": ([[1.0, 2.0, 10**400]], "^feature 2 is too large"),
    "a signalling decimal": (with_value(Decimal("sNaN")), "^row 1, feature 2 is too large, or no number"),
    "all of text": (
        ROWS.astype(str).astype(object),
        "rows 0, 1, 2, feature 1 is of type str, not a number",
    ),
    "ragged": ([[1.0], [1.0, 2.0]], "all of one length"),
    "sparse and complex": (scipy.sparse.csr_array(ROWS.astype(complex)), "complex numbers"),
}


def test_a_text_in_rows_of_a_model_with_names_is_named_by_them() -> None:
    for rows in ([[1.0, "x", 2.0]], FRAME.assign(height="x").iloc[:1]):
        with pytest.raises(InputError, match=r"^column 'height' \(feature 1\) is of type str, not a number: pass"):
            NAMED.rows(rows)


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("error")
def test_what_is_no_number_is_refused_and_never_cast(kind: str) -> None:
    rows, text = REFUSED[kind]
    with pytest.raises(InputError, match=text) as caught:
        PLAIN.rows(rows)
    assert "1.5" not in str(caught.value), "an error must not tell a value"


MASK = np.array([[0, 0, 0], [0, 0, 1], [0, 0, 0]], np.bool_)
MISSING: dict[str, Any] = {
    "None": with_value(None),
    "NaN": with_value(float("nan")),
    "NaT": with_value(pd.NaT),
    "NA": with_value(pd.NA),
    "nullable column": FRAME.astype("Float64").assign(weight=pd.array([0.0, None, 0.0], "Float64")),
    "masked": np.ma.array(ROWS, mask=MASK),
    "masked integers": np.ma.array(ROWS.astype(int), mask=MASK),
    "masked rows": list(np.ma.array(ROWS, mask=MASK)),
    "arrow null": pa.table({"age": ROWS[:, 0], "height": ROWS[:, 1], "weight": [0.0, None, 0.0]}),
}


@pytest.mark.parametrize("kind", MISSING)
def test_missing_values_are_nan(kind: str) -> None:
    """A mask is not dropped, and what is missing is nothing but that."""
    rows = PLAIN.rows(MISSING[kind])
    assert np.argwhere(np.isnan(rows)).tolist() == [[1, 2]]


@pytest.mark.parametrize("row", [ROWS[0], ROWS[0].tolist(), pd.Series(ROWS[0])], ids=["array", "list", "Series"])
def test_a_single_row_says_how_to_pass_it(row: Any) -> None:
    with pytest.raises(FeatureCountError, match=r"x\.reshape\(1, -1\), or a Series x as \[x\]"):
        PLAIN.rows(row)
    np.testing.assert_array_equal(PLAIN.rows([row]), ROWS[:1])


def test_a_series_is_matched_by_its_labels() -> None:
    backwards = FRAME[list(reversed(NAMES))].assign(more=9.0)
    np.testing.assert_array_equal(NAMED.rows([row for _, row in backwards.iterrows()]), ROWS)
    np.testing.assert_array_equal(PLAIN.rows([row for _, row in FRAME.iterrows()]), ROWS)


@pytest.mark.parametrize(
    ("labels", "difference"),
    [
        (["age", "height", "Weight"], "missing: weight"),
        (["age", "age", "height"], "missing: weight; unexpected: age"),
        ([0, 1, 2], "missing: age, height, weight"),
    ],
)
def test_a_series_with_other_labels_is_refused_with_the_difference_only(labels: list[Any], difference: str) -> None:
    with pytest.raises(FeatureNameError) as caught:
        NAMED.rows([pd.Series(ROWS[0], index=labels)])
    assert str(caught.value) == f"the labels of a Series must be the model's columns, each once; {difference}"


def test_a_label_is_named_by_the_place_of_its_column_in_the_model() -> None:
    row = FRAME.astype(object).iloc[0][["weight", "height", "age"]]
    row["weight"], row["more"] = "text", 10**400
    with pytest.raises(InputError) as caught:
        NAMED.rows([row])
    assert str(caught.value).startswith(
        "column 'weight' (feature 2) is of type str, not a number; column 'more' is too large, or no number"
    )


def test_of_a_frame_with_other_columns_the_difference_is_said_whatever_they_hold() -> None:
    wide = FRAME.assign(customer="C1", when=pd.Timestamp("2020-01-01"))
    with pytest.raises(FeatureNameError, match=r"they differ: unexpected: customer, when$"):
        NAMED.rows(wide)
    with pytest.raises(InputError, match=r"^rows 0, 1, 2, column 'customer' \(feature 3\) is of type str"):
        Schema(5).rows(wide)


@pytest.mark.parametrize("names", [(), *itertools.permutations(NAMES, 2), NAMES])
def test_no_choice_of_names_tells_which_value_is_no_number(names: tuple[str, ...]) -> None:
    """A row with a text is refused, whatever columns a service says that its model has."""
    schema, row = Schema(len(names) or 3, names), FRAME.astype(object).iloc[0]
    schema.rows([row])
    row["weight"] = "text"
    with pytest.raises(InputError, match="not a number"):
        schema.rows([row])


def test_the_labels_in_an_error_are_printable() -> None:
    with pytest.raises(FeatureNameError) as caught:
        Schema(1, ("\x1b[2J\n",)).rows([FRAME.iloc[0]])
    assert str(caught.value).isprintable()


def test_a_sparse_matrix_has_a_cap_and_its_width_is_checked_first() -> None:
    huge = scipy.sparse.csr_array((1_000_000, 3_000))
    with pytest.raises(InputError, match=r"22\.4 GiB as an array: pass it to stream"):
        Schema(3_000).rows(huge)
    with pytest.raises(FeatureCountError):
        PLAIN.rows(huge)


TABLES: dict[str, Callable[[], Any]] = {
    "array": lambda: ROWS,
    "frame with other labels": lambda: FRAME.set_axis([5, 1, 0]),
    "arrow table": lambda: SAME["arrow table"],
    "coo_array": lambda: SAME["coo_array"],
}


@pytest.mark.parametrize("kind", TABLES)
def test_blocks_are_rows_by_position(kind: str) -> None:
    table = TABLES[kind]()
    assert is_table(table)
    np.testing.assert_array_equal(floats(row_blocks(table)(1, 3)), ROWS[1:3])


@pytest.mark.parametrize("rows", [ROWS.tolist(), iter(ROWS), ROWS[0], FRAME["age"], "text", None])
def test_anything_else_is_no_table(rows: Any) -> None:
    assert not is_table(rows)
