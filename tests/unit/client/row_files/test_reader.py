"""A file of rows of any format: the same rows in order, or an error that names the file."""

import io
import json
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import feather, ipc, parquet

from sealserve.errors import FeatureCountError, FeatureNameError, InputError, NotFiniteError
from sealserve.protocol.schema import Schema
from sealserve.row_files.formats import FORMATS
from sealserve.row_files.reader import RowsFile

NAMES = ("age", "height", "weight")
NAMED, PLAIN = Schema(3, NAMES), Schema(3)
ROWS = np.random.default_rng(3).normal(size=(50, 3))
FRAME = pd.DataFrame(ROWS, columns=list(NAMES))
TABLE = pa.table(FRAME)


def write_stream(path: Path) -> None:
    with path.open("wb") as file, ipc.new_stream(file, TABLE.schema) as writer:
        for batch in TABLE.to_batches(7):
            writer.write_batch(batch)


def write_objects(path: Path, frame: pd.DataFrame) -> None:
    path.write_text("".join(f"{json.dumps(row, default=str)}\n" for row in frame.to_dict("records")))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.csv": lambda path: FRAME.to_csv(path, index=False),
    "no header.csv": lambda path: FRAME.to_csv(path, index=False, header=False),
    "of Excel.csv": lambda path: FRAME.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n"),
    "of Excel, no header.csv": lambda path: FRAME.to_csv(path, index=False, header=False, encoding="utf-8-sig"),
    "UPPER.CSV": lambda path: FRAME.to_csv(path, index=False),
    "a.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "a.npy": lambda path: np.save(path, ROWS),
    "one.npz": lambda path: np.savez(path, rows=ROWS),
    "X and y.npz": lambda path: np.savez_compressed(path, X=ROWS, y=np.zeros(50)),
    "a.parquet": lambda path: FRAME.to_parquet(path),
    "indexed.parquet": lambda path: FRAME.set_axis(range(5, 55)[::-1]).to_parquet(path),
    "groups.parquet": lambda path: parquet.write_table(TABLE, path, row_group_size=7),
    "a.feather": lambda path: feather.write_feather(FRAME, path),
    "a.arrow": lambda path: feather.write_feather(TABLE, path, compression="uncompressed"),
    "stream.arrows": write_stream,
    "objects.jsonl": lambda path: write_objects(path, FRAME),
    "arrays.ndjson": lambda path: path.write_text("".join(f"{row}\n" for row in ROWS.tolist())),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("schema", [NAMED, PLAIN], ids=["named", "plain"])
@pytest.mark.parametrize("from_stdin", [False, True], ids=["file", "stdin"])
def test_every_format_has_the_same_rows(name: str, schema: Schema, from_stdin: bool, tmp_path: Path) -> None:
    WRITERS[name](path := tmp_path / name)
    file = RowsFile(path)
    if from_stdin:
        file = RowsFile(Path("stdin"), file.format_name, content=Pipe(path.read_bytes()))
    rows = file.read(schema)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, ROWS)


class Pipe(io.BytesIO):
    """Bytes that can be read once, from the first to the last."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise OSError("Illegal seek")


def test_every_format_is_tested() -> None:
    assert {RowsFile(Path(name)).format_name for name in WRITERS} == set(FORMATS)


def test_an_array_is_mapped_and_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS.astype(np.float32))
    rows = RowsFile(tmp_path / "rows.npy").read(NAMED)
    assert isinstance(rows, np.memmap)
    assert rows.dtype == np.float32


WIDE = FRAME.assign(name="x", when=pd.Timestamp("2020-01-01"))[["when", "weight", "age", "name", "height"]]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.feather", "a.jsonl"])
def test_a_wider_table_is_matched_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    writers: dict[str, Callable[[], Any]] = {
        ".csv": lambda: WIDE.to_csv(path, index=False),
        ".tsv": lambda: WIDE.to_csv(path, index=False, sep="\t"),
        ".parquet": lambda: WIDE.to_parquet(path),
        ".feather": lambda: feather.write_feather(WIDE, path),
        ".jsonl": lambda: write_objects(path, WIDE),
    }
    writers[path.suffix]()
    np.testing.assert_array_equal(RowsFile(path).read(NAMED), ROWS)
    np.testing.assert_array_equal(RowsFile(path, chosen=NAMES).read(PLAIN), ROWS)
    with pytest.raises(InputError):
        RowsFile(path).read(PLAIN)


def test_a_frames_own_index_may_be_a_column_of_the_model(tmp_path: Path) -> None:
    FRAME.set_index("age").to_parquet(tmp_path / "rows.parquet")
    rows = RowsFile(tmp_path / "rows.parquet", chosen=NAMES).read(PLAIN)
    np.testing.assert_array_equal(rows, ROWS)
    assert RowsFile(tmp_path / "rows.parquet").read(Schema(2)).shape == (50, 2)


def table(values: Any, kind: Any = None) -> pa.Table:
    return TABLE.set_column(1, "height", pa.array(values, kind))


COLUMNS: dict[str, tuple[pa.Table, type[InputError], str]] = {
    "text": (table(["1"] * 50), InputError, r"column 'height' \(feature 1\) holds string, not numbers"),
    "dates": (table([0] * 50, pa.timestamp("us")), InputError, r"column 'height' \(feature 1\) holds timestamp\[us\]"),
    "lists": (table([[1.0]] * 50), InputError, r"column 'height' \(feature 1\) holds list"),
    "nothing": (table([None] * 50), InputError, r"column 'height' \(feature 1\) holds null"),
    "text categories": (table(pa.array(["a"] * 50).dictionary_encode()), InputError, "holds string"),
    "a missing value": (
        table([*[1.0] * 30, None, *[1.0] * 19]),
        NotFiniteError,
        r"row 30, column 'height' \(feature 1\) is missing \(null\): fill",
    ),
    "two of text": (
        TABLE.set_column(0, "age", pa.array(["1"] * 50)).set_column(2, "weight", pa.array([b"1"] * 50)),
        InputError,
        r"column 'age' \(feature 0\) holds string, column 'weight' \(feature 2\) holds binary, not numbers",
    ),
    "two missing values": (
        table([*[1.0] * 30, None, *[1.0] * 18, None]),
        NotFiniteError,
        r"rows 30, 49, column 'height' \(feature 1\) is missing \(null\): ",
    ),
    "a missing category": (
        table(pa.array([*[1.0] * 49, None]).dictionary_encode()),
        NotFiniteError,
        "row 49, column 'height'",
    ),
    "a missing flag": (table([True, None] * 25), NotFiniteError, "rows 1, 3, 5, 7, 9 and 20 more, column 'height'"),
    "other names": (TABLE.rename_columns(["age", "weight", "height"]), FeatureNameError, "number 1 is 'weight'"),
    "a name twice": (TABLE.append_column("age", pa.array([1.0] * 50)), FeatureNameError, "2 columns are named 'age'"),
    "too few columns": (TABLE.drop(["age"]), FeatureNameError, "missing: age"),
}


@pytest.mark.parametrize("kind", COLUMNS)
@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_columns_that_are_no_numbers_are_named(kind: str, name: str, tmp_path: Path) -> None:
    columns, error, text = COLUMNS[kind]
    if name == "rows.parquet":
        parquet.write_table(columns, tmp_path / name, row_group_size=7)
    else:
        feather.write_feather(columns, tmp_path / name)
    with pytest.raises(error, match=rf"rows\.\w+: .*{text}"):
        RowsFile(tmp_path / name).read(NAMED)


def test_a_null_among_the_values_of_a_dictionary_is_missing(tmp_path: Path) -> None:
    weights = pa.DictionaryArray.from_arrays([0] * 49 + [1], [1.0, None])
    feather.write_feather(table(weights), tmp_path / "rows.arrow")
    with pytest.raises(NotFiniteError, match=r"row 49, column 'height' \(feature 1\) is missing"):
        RowsFile(tmp_path / "rows.arrow").read(NAMED)


def test_columns_of_other_numbers(tmp_path: Path) -> None:
    numbers = pa.table(
        {
            "age": pa.array([True, False]),
            "height": pa.array([Decimal(1), Decimal(2)]),
            "weight": pa.array([3, 4], pa.uint8()).dictionary_encode(),
        }
    )
    parquet.write_table(numbers, tmp_path / "rows.parquet")
    assert RowsFile(tmp_path / "rows.parquet").read(NAMED).tolist() == [[1, 1, 3], [0, 2, 4]]


ARRAYS: dict[str, tuple[NDArray[Any], type[InputError], str]] = {
    "complex": (ROWS.astype(complex), InputError, "complex numbers"),
    "dates": (ROWS.astype("datetime64[s]"), InputError, "dates"),
    "text": (ROWS.astype(str), InputError, "text"),
    "records": (np.zeros(5, [("age", float)]), InputError, "records"),
    "a single row": (ROWS[0], FeatureCountError, r"x\.reshape\(1, -1\)"),
    "three dimensions": (ROWS[None], FeatureCountError, r"\(1, 50, 3\), not \(rows, columns\)"),
    "a number": (np.array(1.0), FeatureCountError, r"shape \(\)"),
    "too many columns": (np.zeros((5, 4)), FeatureCountError, "choose columns, or leave one out"),
    "too few columns": (np.zeros((5, 2)), FeatureCountError, "3 features are needed"),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("name", ["rows.npy", "rows.npz"])
def test_arrays_that_are_no_rows_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    array, error, text = ARRAYS[kind]
    (np.save if name == "rows.npy" else np.savez)(tmp_path / name, array)
    with pytest.raises(error, match=rf"rows\.\w+: .*{text}"):
        RowsFile(tmp_path / name).read(NAMED)


def test_archives_that_do_not_say_which_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", a=ROWS, b=ROWS)
    with pytest.raises(InputError, match="arrays a, b: name that of the rows X"):
        RowsFile(tmp_path / "rows.npz").read(NAMED)
    np.savez(tmp_path / "objects.npz", ROWS.astype(object))
    with pytest.raises(InputError, match=r"not a \.npz file with an array of numbers") as caught:
        RowsFile(tmp_path / "objects.npz").read(NAMED)
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("suffix", sorted({Path(name).suffix.lower() for name in WRITERS}))
@pytest.mark.parametrize("content", ["empty", "bytes", "cut", "npy", "npz", "parquet", "UTF-16", "Latin-1"])
def test_what_is_no_such_file_is_an_error_in_one_line(suffix: str, content: str, tmp_path: Path) -> None:
    writer = next(name for name in WRITERS if name.endswith(suffix))
    WRITERS[writer](tmp_path / f"whole{suffix}")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    WRITERS["a.npy"](tmp_path / "a.npy")
    WRITERS["one.npz"](tmp_path / "one.npz")
    WRITERS["a.parquet"](tmp_path / "a.parquet")
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(
        {
            "empty": b"",
            "bytes": bytes(range(256)),
            "cut": whole[: len(whole) // 2 - len(whole) // 2 % 2 - 20],
            "npy": (tmp_path / "a.npy").read_bytes(),
            "npz": (tmp_path / "one.npz").read_bytes(),
            "parquet": (tmp_path / "a.parquet").read_bytes(),
            "UTF-16": "age,height,weight\n1,2,3\n".encode("utf-16"),
            "Latin-1": "\xe4ge,height,weight\n1,2,3\n".encode("latin-1"),
        }[content]
    )
    if suffix.lstrip(".") == content:
        np.testing.assert_array_equal(RowsFile(path).read(NAMED), ROWS)
        return
    if content == "cut" and suffix in (".csv", ".tsv", ".jsonl", ".ndjson"):  # the end of a line is there by chance
        path.write_bytes(whole[: whole.rindex(b"," if suffix != ".tsv" else b"\t")])
    with pytest.raises(InputError, match=rf"rows\{suffix}") as caught:
        RowsFile(path).read(NAMED)
    assert "\n" not in str(caught.value)
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
def test_what_cannot_be_opened_is_an_error_of_the_system(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(IsADirectoryError):
        RowsFile(tmp_path / name).read(NAMED)
    with pytest.raises(FileNotFoundError):
        RowsFile(tmp_path / f"no {name}").read(NAMED)


@pytest.mark.parametrize("name", ["rows", "rows.txt", "rows.csv.gz", ".csv"])
def test_a_suffix_of_no_format(name: str) -> None:
    with pytest.raises(InputError, match="its suffix is of no format of rows"):
        RowsFile(Path(name))
    assert RowsFile(Path(name), "csv").format_name == "csv"


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_the_missing_extra_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WRITERS[name](path := tmp_path / name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'sealserve\[parquet\]'"):
        RowsFile(path).read(NAMED)
