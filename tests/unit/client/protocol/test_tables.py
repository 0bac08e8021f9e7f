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
    "complex without an imaginary part, in a list": ([[1.0, 2.0, 3 + 0j]], "complex numbers"),
    "complex object": (with_value(1j), "row 1, feature 2 is of type complex"),
    "dates": (ROWS.astype("datetime64[s]"), "dates"),
    "time differences": (ROWS.astype("timedelta64[s]"), "time differences"),
    "date objects": (with_value(datetime.date(2020, 1, 1)), "of type date"),
    "a frame's dates": (framed(pd.to_datetime(["2020-01-01"] * 3)), "row 0, column 'weight' is of type Timestamp"),
    "a frame of dates": (FRAME.astype("datetime64[ns]"), "dates"),
    "text of digits": ([["1", "2", "3"]], "text"),
    "bytes of digits": ([[b"1", b"2", b"3"]], "bytes"),
    "text among numbers": (ROWS.astype(str), "text"),
    "text object": (with_value("1.5"), "row 1, feature 2 is of type str"),
    "text in a frame": (framed(["1", "2", "3"]), "column 'weight' is of type str"),
    "text categories": (framed(pd.Categorical(["a", "b", "a"])), "column 'weight' is of type str"),
    "a set": (with_value({1.0}), "of type set"),
    "records": (np.zeros(3, [("age", float)]), "records"),
    "a number of 401 digits": (with_value(10**400), "too large"),
    "a number of 401 digits among floats": ([[1.0, 2.0, 10**400]], "too large"),
    "a signalling decimal": (with_value(Decimal("sNaN")), "no number"),
    "ragged": ([[1.0], [1.0, 2.0]], "all of one length"),
    "sparse and complex": (scipy.sparse.csr_array(ROWS.astype(complex)), "complex numbers"),
}


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
    with pytest.raises(FeatureCountError, match=r"x\.reshape\(1, -1\)"):
        PLAIN.rows(row)


def test_a_series_is_matched_by_its_labels() -> None:
    backwards = FRAME[list(reversed(NAMES))].assign(more=9.0)
    np.testing.assert_array_equal(NAMED.rows([row for _, row in backwards.iterrows()]), ROWS)
    np.testing.assert_array_equal(PLAIN.rows([row for _, row in FRAME.iterrows()]), ROWS)


@pytest.mark.parametrize("labels", [["age", "height", "Weight"], ["age", "age", "height"], [0, 1, 2]])
def test_a_series_with_other_labels_is_refused(labels: list[Any]) -> None:
    with pytest.raises(FeatureNameError, match="age, height, weight"):
        NAMED.rows([pd.Series(ROWS[0], index=labels)])


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
