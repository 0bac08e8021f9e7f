"""Delimited text: each record is a row, or the file is refused by line and column."""

import csv
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealserve.errors import FeatureCountError, FeatureNameError, InputError, NotFiniteError
from sealserve.protocol.schema import Schema
from sealserve.row_files.columns import Columns
from sealserve.row_files.delimited import read_delimited

NAMED, PLAIN, ONE = Schema(2, ("age", "height")), Schema(2), Schema(1)
ROWS = [[1.0, 2.0], [3.0, 4.0]]


def read(text: str, schema: Schema = PLAIN, header: bool | None = None, delimiter: str = ",", **choice: Any) -> Any:
    lines = io.StringIO(text, newline="")
    return read_delimited(lines, delimiter, Columns(schema, **choice), header).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n",
        "1,2\n3,4",
        "1,2\r\n3,4\r\n",
        "1,2\r3,4\r",
        '"1","2"\n3,"4"\n',
        "1, 2\n 3 ,4\n",
        '1, "2"\n3,4\n',
        "+1.0,2e0\n3.,.4E1\n",
        "age,height\n1,2\n3,4\n",
        '"a\nb",height (cm)\n1,2\n3,4\n',
        '#id,"Smith, John"\n1,2\n3,4\n',
        "1stFlrSF,2ndFlrSF\n1,2\n3,4\n",
        "Na,K\n1,2\n3,4\n",
    ],
)
def test_every_record_is_a_row(text: str) -> None:
    assert read(text) == ROWS
    assert read(text.replace(",", "\t"), delimiter="\t") == ROWS


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file is empty"),
        ("\n1,2\n", "line 1 is blank"),
        ("1,2\n\n3,4\n", "line 2 is blank"),
        ("1,2\n3,4\n\n", "line 3 is blank"),
        ("1,2\n3\n", "line 2 has 1 fields, line 1 has 2"),
        ("1,2\n3,4,5\n", "line 2 has 3 fields, line 1 has 2"),
        ("1,2\n3,4,\n", "line 2 has 3 fields"),
        ('"a\nb",c\n1,2\n3\n', "line 4 has 1 fields"),
        ("1,2\n# 3,4\n", "line 2, feature 0 is not a number"),
        ("age,height\n1,2\n3,tall\n", r"line 3, column 'height' \(feature 1\) is not a number"),
        ("1,2\n3,1_000\n", "line 2, feature 1 is not a number"),
        ("1,2\n3,\uff14\n", "line 2, feature 1 is not a number"),
        ("1,2\n3,2020-01-01\n", "line 2, feature 1 is not a number"),
        ("1,2\n3,1j\n", "line 2, feature 1 is not a number"),
        ('1,2\n3,"4,5"\n', "line 2, feature 1 is not a number"),
        ("1,2\n3,4\0\n", "line 2, feature 1 is not a number"),
        ('1,2\n3,"4\n', "line 2: unexpected end of data"),
        ('1,2\n3,"4"5\n', "line 2: ',' expected after '\"'"),
        ("1,2\n3," + "4" * 200_000 + "\n", "line 2: field larger than field limit"),
        ("1;2\n3;4\n", "separate fields by commas"),
        ("age;height\n3;4\n", "separate fields by commas"),
        ("1\t2\n", "separate fields by commas"),
    ],
)
def test_a_fault_is_named_by_its_line(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        read(text)


@pytest.mark.parametrize("field", ["", '""', " ", "NA", "N/A", "null", "None", "?", "-", "<NA>"])
def test_a_missing_value_is_named_as_such(field: str) -> None:
    with pytest.raises(NotFiniteError, match=r"line 3, column 'height' \(feature 1\) is missing"):
        read(f"age,height\n1,2\n3,{field}\n")


def test_all_faults_are_counted_and_the_first_are_named() -> None:
    with pytest.raises(NotFiniteError) as caught:
        read("age,height\n1,x\n,2\n3,4\n", NAMED)
    assert str(caught.value) == (
        "line 2, column 'height' (feature 1) is not a number; line 3, column 'age' (feature 0) is missing: "
        "fill in what is missing, or leave its row out; write numbers such as 1.5 or -2e3, and 1 and 0 for true and "
        "false"
    )
    with pytest.raises(NotFiniteError, match=r"^lines 2, 3, 4, 5, 6 and 15 more, feature 0 is missing: fill in[^;]*$"):
        read("1\n" + "NA\n" * 20, ONE)
    with pytest.raises(InputError, match=r"line 2, feature 4 is not a number; and 15 more columns: "):
        read(",".join("1" * 20) + "\n" + ",".join("x" * 20) + "\n", Schema(20))
    with pytest.raises(InputError, match="1 and 0 for true and false"):
        read("1,2\n3,True\n")
    with pytest.raises(InputError, match=r"^line 2, feature 1 is not a number: write numbers[^;]*$"):
        read("1,2\n3,x\n")


@pytest.mark.parametrize("rest", ["3\n", "\n", '3,"4\n'])
def test_faults_before_a_line_of_another_shape_come_first(rest: str) -> None:
    with pytest.raises(InputError, match=r"^line 2, feature 1 is not a number"):
        read(f"1,2\n3,x\n{rest}")


@pytest.mark.parametrize(
    ("schema", "choice", "place"),
    [
        (NAMED, {}, "column 'height' (feature 1)"),
        (NAMED, {"index": "0"}, "column 'height' (feature 1)"),
        (PLAIN, {"index": "0"}, "column 2 (feature 1)"),
        (PLAIN, {"chosen": ("2", "0")}, "column 2 (feature 0)"),
        (PLAIN, {}, "feature 1"),
    ],
)
def test_a_file_without_names_has_those_of_the_model(schema: Schema, choice: Any, place: str) -> None:
    text = "1,2,3\n4,5,x\n" if choice else "1,2\n3,x\n"
    with pytest.raises(InputError) as caught:
        read(text, schema, header=False, **choice)
    assert str(caught.value).startswith(f"line 2, {place} is not a number")


def test_names_of_a_file_are_quoted_and_cut() -> None:
    name = "\x1b[2J' (feature 0) is right" + "x" * 1000
    with pytest.raises(InputError) as caught:
        read(f'a,"{name}"\n1,\n')
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "age,2020\n1,2\n",
        "1,x\n1,2\n",
        "NA,NA\n1,2\n",
        ",\n1,2\n",
        "nan,x\n1,2\n",
        "1_0,x\n",
        "$5,x\n1,2\n",
        "\ufeff1,x\n1,2\n",
    ],
)
def test_a_first_line_that_may_be_either_is_refused_until_it_is_said(text: str) -> None:
    with pytest.raises(InputError, match=r"line 1 has .*--header or --no-header"):
        read(text)
    records = text.count("\n")
    if records == 2:
        assert read(text, header=True) == [[1.0, 2.0]]
    with pytest.raises(InputError, match=r"line 1, feature \d is (missing|not a number)"):
        read(text, header=False)


@pytest.mark.parametrize("text", ["\ufeff1\n2\n", "1_0\n2\n", "$5\n2\n", "5%\n2\n", "\u0661\n2\n", "1;2\n2\n"])
def test_a_number_that_is_ill_written_is_no_header(text: str) -> None:
    """It would be lost, and the other rows would have the predictions of their neighbours."""
    with pytest.raises(InputError, match="line 1, feature 0 is not a number"):
        read(text, ONE)


def test_a_header_needs_rows_unless_it_is_sure() -> None:
    with pytest.raises(InputError, match="has no rows"):
        read("a,b\n")
    assert read("a,b\n", header=True) == []
    assert read("age,height\n", NAMED) == []


def test_names_that_are_numbers_are_a_header_where_the_model_has_them() -> None:
    numbered = Schema(2, ("0", "1"))
    assert read("0,1\n1,2\n3,4\n", numbered) == ROWS
    assert read("1,2\n3,4\n", numbered) == ROWS
    assert read("1,2\n3,4\n", Schema(2, ("1", "2")), header=False) == ROWS
    for first in ("1,0", "0,1,2", "1,0,x"):
        with pytest.raises(InputError, match="--header or --no-header"):
            read(f"{first}\n1,2\n", numbered)


def test_names_of_the_model_with_space_around_them() -> None:
    assert read("age, height\n1,2\n3,4\n", Schema(2, ("age", " height"))) == ROWS


@pytest.mark.parametrize(
    ("header", "difference"),
    [
        ("height,age", "in another order: number 0 is 'height', not 'age'"),
        ("Age,Height", "missing: age, height; unexpected: Age, Height"),
        ("a,b", "missing: age, height; unexpected: a, b"),
    ],
)
def test_other_names_are_refused(header: str, difference: str) -> None:
    with pytest.raises(FeatureNameError, match=difference):
        read(f"{header}\n1,2\n", NAMED)


WIDE = "id,height,2019,age\nx7,2,0,1\nx8,4,,3\n"


def test_a_wider_table_is_matched_by_name() -> None:
    """Columns that are not used may hold anything."""
    assert read(WIDE, NAMED) == ROWS
    with pytest.raises(FeatureNameError, match="2 columns are named 'age'"):
        read("age,height,age\n1,2,3\n", NAMED)
    with pytest.raises(FeatureNameError):
        read("a,b,c\n1,2,3\n", NAMED)


@pytest.mark.parametrize("chosen", [("age", "height"), ("3", "1"), ("age", "1")])
def test_columns_are_chosen(chosen: tuple[str, ...]) -> None:
    assert read(WIDE, chosen=chosen, header=True) == ROWS
    assert read(WIDE, NAMED, chosen=chosen, header=True) == ROWS


def test_chosen_columns_say_whether_there_is_a_header() -> None:
    assert read(WIDE, chosen=("age", "height")) == ROWS
    assert read("x7,2,1\nx8,4,3\n", chosen=("2", "1")) == ROWS
    with pytest.raises(InputError, match="no column 'age'"):
        read("x7,2,1\nx8,4,3\n", chosen=("age", "1"), header=False)
    for chosen in (("4", "0"), ("-1", "0"), ("length", "age")):
        with pytest.raises(InputError, match="there is no column"):
            read(WIDE, chosen=chosen, header=True)
    with pytest.raises(FeatureNameError):
        read(WIDE, NAMED, chosen=("height", "age"))


@pytest.mark.parametrize("index", ["id", "0"])
def test_an_index_is_no_feature(index: str) -> None:
    assert read("id,a,b\nx7,1,2\nx8,3,4\n", index=index) == ROWS
    assert read(",age,height\n7,1,2\n8,3,4\n", NAMED) == ROWS
    assert read("x7,1,2\nx8,3,4\n", index="0") == ROWS
    with pytest.raises(InputError, match="no column is left"):
        read("id\n1\n", ONE, index=index)


@given(st.lists(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3), min_size=1))
def test_what_csv_writes_is_read(rows: list[list[float]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    np.testing.assert_array_equal(read(text.getvalue(), Schema(3)), rows)


def test_one_field_is_another_width() -> None:
    with pytest.raises(FeatureCountError):
        read("1|2\n")
