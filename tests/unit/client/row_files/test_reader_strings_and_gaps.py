"""Files of tables with strings, flags and gaps: every format has the rows that pandas has."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import feather, parquet

from sealserve.errors import FeatureCountError, FeatureNameError, InputError
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.schema import Schema
from sealserve.row_files.reader import RowsFile

COLUMNS = (
    Column("age", allows_missing=True),
    Column("city", ColumnKind.STRING, allows_missing=True),
    Column("owner"),
    Column("id", ColumnKind.UNUSED),
    Column("note", ColumnKind.TEXT),
)
SCHEMA = Schema.of(COLUMNS)
NAMELESS = Schema.of([Column("", column.kind, column.allows_missing) for column in COLUMNS])
FRAME = pd.DataFrame(
    {
        "age": [30.5, np.nan, 61.0, 5.0],
        "city": ["Bern", " Ulm", None, 'a "b", c'],
        "owner": [True, False, True, True],
        "id": ["x7", "x8", "x9", None],
        "note": ["good", "NA", "", "füße\nzwei"],
    }
)
ROWS = [
    [30.5, "Bern", 1.0, None, "good"],
    [None, " Ulm", 0.0, None, "NA"],
    [61.0, None, 1.0, None, ""],
    [5.0, 'a "b", c', 1.0, None, "füße\nzwei"],
]  # None: missing, or not read


def as_listed(rows: NDArray[Any]) -> list[list[Any]]:
    """Rows with None for NaN."""
    return [[None if value != value else value for value in row] for row in rows.tolist()]


def write_objects(path: Path, frame: pd.DataFrame) -> None:
    frame.to_json(path, orient="records", lines=True, force_ascii=False)


WRITERS: dict[str, Callable[[Path, pd.DataFrame], Any]] = {
    "rows.csv": lambda path, frame: frame.to_csv(path, index=False),
    "rows.tsv": lambda path, frame: frame.to_csv(path, index=False, sep="\t"),
    "quoted.csv": lambda path, frame: frame.to_csv(path, index=False, quoting=1, encoding="utf-8-sig"),
    "rows.jsonl": write_objects,
    "rows.parquet": lambda path, frame: frame.to_parquet(path),
    "groups.parquet": lambda path, frame: parquet.write_table(pa.table(frame), path, row_group_size=3),
    "categories.parquet": lambda path, frame: frame.astype(
        {name: "category" for name in frame if name.lower() == "city"}
    ).to_parquet(path),
    "nullable.parquet": lambda path, frame: frame.convert_dtypes().to_parquet(path),
    "rows.arrow": lambda path, frame: feather.write_feather(frame, path),
    "dictionaries.arrow": lambda path, frame: feather.write_feather(
        pa.table({name: pa.array(frame[name]).dictionary_encode() for name in frame}), path
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_has_the_same_rows(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, FRAME)
    assert as_listed(RowsFile(tmp_path / name).read(SCHEMA)) == ROWS


@pytest.mark.parametrize("name", WRITERS)
def test_columns_are_found_by_name_in_any_order_and_others_are_left_out(name: str, tmp_path: Path) -> None:
    frame = FRAME[["note", "owner", "city", "age"]].assign(label="yes")
    WRITERS[name](tmp_path / name, frame)
    assert as_listed(RowsFile(tmp_path / name).read(SCHEMA)) == ROWS
    WRITERS[name](tmp_path / name, frame.drop(columns="city"))
    with pytest.raises(FeatureNameError, match="missing: city"):
        RowsFile(tmp_path / name).read(SCHEMA)


@pytest.mark.parametrize("name", WRITERS)
def test_a_model_without_names_takes_columns_in_its_order(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, FRAME.rename(columns=str.upper))
    assert as_listed(RowsFile(tmp_path / name).read(NAMELESS)) == ROWS
    WRITERS[name](tmp_path / name, FRAME.drop(columns="id"))
    with pytest.raises(FeatureCountError, match="the file has 4 columns, and the model takes 5"):
        RowsFile(tmp_path / name).read(NAMELESS)


def read(text: str, columns: tuple[Column, ...], header: bool | None = None, **said: Any) -> list[list[Any]]:
    file = RowsFile(Path("rows.csv"), header=header, content=io.BytesIO(text.encode()), **said)
    return as_listed(file.read(Schema.of(columns)))


def columns(*kinds: ColumnKind, allows_missing: bool = True) -> tuple[Column, ...]:
    names = ("a", "b", "c")
    return tuple(Column(name, kind, allows_missing) for name, kind in zip(names, kinds, strict=False))


NUMBER, STRING, TEXT, BOOLEAN = ColumnKind.NUMBER, ColumnKind.STRING, ColumnKind.TEXT, ColumnKind.BOOLEAN


@pytest.mark.parametrize("field", ["", '""', "NA", "NaN", "nan", "None", "null", "NULL", "n/a", "N/A", "<NA>", "#N/A"])
@pytest.mark.parametrize("allows_missing", [True, False])
def test_a_gap_is_what_pandas_takes_for_one_whatever_the_model_says(field: str, allows_missing: bool) -> None:
    """Whether a gap is refused must not be seen by the service: it is read, and refused later."""
    text = f"a,b\n1,x\n{field},{field}\n"
    assert pd.read_csv(io.StringIO(text)).isna().to_numpy().tolist() == [[False, False], [True, True]]
    assert read(text, columns(NUMBER, STRING, allows_missing=allows_missing)) == [[1.0, "x"], [None, None]]


def test_a_column_of_texts_without_gaps_has_every_field_as_it_is() -> None:
    for field in ("", "NA", "null", " two words "):
        assert read(f"a,b\n1,{field}\n", columns(NUMBER, TEXT, allows_missing=False)) == [[1.0, field]]
    assert read("a,b\n1,\n", columns(NUMBER, TEXT)) == [[1.0, None]]


@pytest.mark.parametrize("words", [("True", "False"), ("true", "false"), ("TRUE", "FALSE")])
def test_flags_are_one_and_zero_in_a_column_of_flags(words: tuple[str, str]) -> None:
    yes, no = words
    assert read(f"a,b\n{yes},x\n{no},y\n", columns(NUMBER, STRING)) == [[1.0, "x"], [0.0, "y"]]
    assert read(f"a,b\n{yes},x\n,y\n{no},z\n", columns(NUMBER, STRING)) == [[1.0, "x"], [None, "y"], [0.0, "z"]]
    assert read(f"a\n{yes}\n0\n{no}\n", columns(BOOLEAN)) == [[1.0], [0.0], [0.0]]
    for other in ("1", "37.5", "yes"):
        with pytest.raises(InputError, match=r"column 'a' \(feature 0\) is not a number: .*1 and 0 for true and false"):
            read(f"a\n{yes}\n{other}\n{no}\n", columns(NUMBER))


def test_flags_of_a_model_without_steps() -> None:
    file = RowsFile(Path("rows.csv"), content=io.BytesIO(b"age,owner\n30,True\n5,False\n"))
    assert file.read(Schema(2, ("age", "owner"))).tolist() == [[30.0, 1.0], [5.0, 0.0]]
    file = RowsFile(Path("rows.csv"), content=io.BytesIO(b"True,False\nFalse,False\n"))
    assert file.read(Schema(2)).tolist() == [[1.0, 0.0], [0.0, 0.0]], "the first line is no header"


def test_a_fault_names_the_column_and_the_line() -> None:
    with pytest.raises(InputError, match=r"line 3, column 'a' \(feature 0\) is not a number"):
        read("b,a\nx,1\ny,many\n", columns(NUMBER, STRING))
    for row, fault in (
        ({"a": "many", "b": "x"}, "'a' .* is not a number"),
        ({"a": 1, "b": 5}, "'b' .* is not a string"),
    ):
        lines = f'{{"a": 1, "b": "x"}}\n{json.dumps(row)}\n'
        file = RowsFile(Path("rows.jsonl"), content=io.BytesIO(lines.encode()))
        with pytest.raises(InputError, match=f"line 2, column {fault}"):
            file.read(Schema.of(columns(NUMBER, STRING)))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_column_of_another_type_is_named(name: str, tmp_path: Path) -> None:
    for frame, text in (
        (FRAME.assign(age="old"), r"column 'age' \(feature 0\) holds (large_)?string, not numbers"),
        (FRAME.assign(city=[1, 2, 3, 4]), r"column 'city' \(feature 1\) holds int64, not strings: pass strings"),
        (FRAME.assign(note=pd.Timestamp("2020-01-01")), r"column 'note' \(feature 4\) holds timestamp.*, not strings"),
    ):
        WRITERS[name](tmp_path / name, frame)
        with pytest.raises(InputError, match=text):
            RowsFile(tmp_path / name).read(SCHEMA)


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_a_column_of_gaps_only_is_one_of_any_kind(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name, FRAME.assign(age=None, city=None))
    found = as_listed(RowsFile(tmp_path / name).read(SCHEMA))
    assert [row[:2] for row in found] == [[None, None]] * 4


def test_a_small_file_of_many_strings_has_a_limit(tmp_path: Path) -> None:
    values = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), ["x" * 1000])
    feather.write_feather(pa.table({"a": values}), tmp_path / "rows.arrow")
    schema = Schema.of([Column("a", STRING)])
    assert RowsFile(tmp_path / "rows.arrow", max_bytes=10_000_000).read(schema)[99_999, 0] == "x" * 1000
    with pytest.raises(InputError, match="more than 100,000 bytes"):
        RowsFile(tmp_path / "rows.arrow", max_bytes=100_000).read(schema)


@pytest.mark.parametrize("name", ["rows.npy", "rows.npz"])
def test_an_array_holds_no_strings_and_may_have_gaps(name: str, tmp_path: Path) -> None:
    (np.save if name == "rows.npy" else np.savez)(tmp_path / name, np.array([[1.0, np.nan]]))
    with pytest.raises(InputError, match=r"column 'b' is one of strings.*: save the rows as \.csv"):
        RowsFile(tmp_path / name).read(Schema.of(columns(NUMBER, STRING)))
    assert as_listed(RowsFile(tmp_path / name).read(Schema.of(columns(NUMBER, NUMBER)))) == [[1.0, None]]


@pytest.mark.parametrize(
    ("text", "kinds", "rows"),
    [
        ("1,x\n2,y\n", (NUMBER, STRING), [[1.0, "x"], [2.0, "y"]]),
        ("b,a\nx,1\n", (NUMBER, STRING), [[1.0, "x"]]),
        ("1,2019\n", (NUMBER, STRING), [[1.0, "2019"]]),
        ("True,x\n", (NUMBER, STRING), [[1.0, "x"]]),
    ],
)
def test_a_header_is_told_by_the_columns_of_numbers(text: str, kinds: Any, rows: Any) -> None:
    assert read(text, columns(*kinds)) == rows


@pytest.mark.parametrize(
    ("text", "kinds"), [("x,y\nu,v\n", (STRING, STRING)), (",x\n1,y\n", (NUMBER, STRING)), ("words\n", (TEXT,))]
)
def test_a_first_line_that_may_be_either_is_refused_until_it_is_said(text: str, kinds: Any) -> None:
    nameless = tuple(Column("", kind, allows_missing=True) for kind in kinds)
    with pytest.raises(InputError, match="--header or --no-header"):
        read(text, nameless)
    assert len(read(text, nameless, header=True)) == len(read(text, nameless, header=False)) - 1


def test_a_header_with_other_names_is_no_row() -> None:
    with pytest.raises(FeatureNameError, match="missing: a"):
        read("A,b\n1,x\n", columns(NUMBER, STRING))


def test_columns_are_chosen() -> None:
    text = "a,b,z\n1,x,3\n"
    assert read(text, columns(NUMBER, STRING), chosen=("b", "a")) == [[1.0, "x"]]
    assert read("9,x,1\n", columns(NUMBER, STRING), chosen=("2", "1"), header=False) == [[1.0, "x"]]
    assert read("k,a,b\n7,1,x\n", columns(NUMBER, STRING), index="k") == [[1.0, "x"]]
    assert read("7,1,x\n", columns(NUMBER, STRING), index="0") == [[1.0, "x"]]


def test_a_single_column_may_have_gaps() -> None:
    """Pandas writes them in quotes, as a line without any field would be blank."""
    frame = pd.DataFrame({"a": ["x", None, "y"]})
    assert read(frame.to_csv(index=False), columns(STRING)) == [["x"], [None], ["y"]]
    with pytest.raises(InputError, match="line 3 is blank"):
        read("a\nx\n\ny\n", columns(STRING))
