"""Files of rows of any shape and encoding: as many predictions as records, or one error line.

The predictions are those of the records, in their order, by arithmetic of the test's own. After an
error there is no output at all.
"""

import contextlib
import csv
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyarrow import feather, parquet

from sealserve.cli.main import main
from sealserve.row_files.formats import SUFFIXES
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.serving import linear, running_server, served

NAMES = ("age", "height", "weight")
WEIGHTS = np.array([1.0, 2.0, 4.0])
FLAGS = {"True": 1.0, "TRUE": 1.0, "true": 1.0, "False": 0.0, "FALSE": 0.0, "false": 0.0}
VALUES = st.sampled_from([0, 0.25, 0.5, 0.75, 1])


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    plain = linear([WEIGHTS])
    named = type(plain)(plain.weights, plain.intercept, plain.output, NAMES)
    models = [served(name, model, input_step=0.25) for name, model in (("plain", plain), ("named", named))]
    with running_server(ModelRegistry(models)) as address:
        yield address


@dataclass(frozen=True)
class Ran:
    """What a run of `sealserve predict` left: its exit code, its output and its stderr."""

    code: int
    output: str
    errors: list[str] = field(default_factory=list)


def predict(address: str, model: str, name: str, content: bytes, output: str, *options: str) -> Ran:
    """Predict a file, or what comes on stdin if it has no name; nothing else may be left.

    Rows that failed are remembered in hidden files: no later run asks the service for them.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path, out = Path(folder, name), Path(folder, "out.csv")
        command = ["predict", "--address", address, "--model", model, "--timeout", "30", *options]
        printed = io.TextIOWrapper(io.BytesIO(), "utf-8")
        errors = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(contextlib.redirect_stdout(printed))
        if output == "stdin":
            stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(content))
            stack.callback(setattr, sys, "stdin", stdin)
            command += ["--input", "-", "--input-format", path.suffix[1:]]
        else:
            path.write_bytes(content)
            command += ["--input", str(path)]
        code = main([*command, "--output", str(out)] if output == "file" else command)
        left = {entry.name for entry in Path(folder).iterdir()} - {name}
        expected = set()
        if output == "file" and code == 0:
            expected = {"out.csv"}
        elif output == "file" and "rows failed; nothing was written" in errors.getvalue():
            expected = {".out.csv.partial", ".out.csv.progress"}
        assert left == expected
        text = out.read_text() if out.exists() else printed.buffer.getvalue().decode()
    return Ran(code, text, errors.getvalue().splitlines())


def assert_right_or_refused(ran: Ran, rows: NDArray[Any] | None) -> None:
    """Check a run: it predicted these rows, or it refused. None: it must refuse."""
    if ran.code == 0:
        assert rows is not None
        np.testing.assert_allclose(list(map(float, ran.output.split())), rows @ WEIGHTS, atol=1e-3)
    else:
        assert ran.output == ""
        assert sum(line.startswith("sealserve: error: ") for line in ran.errors) == 1
        assert ran.errors[-1].startswith("sealserve: error: ")
        assert "Traceback" not in "".join(ran.errors)


FIELDS = st.one_of(
    VALUES.map(str),
    st.sampled_from(
        [
            "",
            " ",
            "NA",
            "nan",
            "0" * 140_000,
            "inf",
            "1e999",
            "1_0",
            "0,5",
            "0.5 ",
            "\u0661",
            "0x1",
            "1j",
            "#",
            "# 1",
            "x",
            '"',
            "\0",
        ]
    ),
    st.sampled_from([*NAMES, "id", "2020", "\ufeff0.5", "0.5\n", "0.5;0.5", "0.5\t0.5", "True", "false", "-0.0", "2"]),
    st.text(max_size=3),
)


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, str]:
    """Draw the name and the text of a file: lines of fields, most of them numbers."""
    suffix = draw(st.sampled_from(["csv", "tsv"]))
    width = draw(st.sampled_from([3, 3, 3, 3, 1, 2, 4, 5]))
    rows = draw(st.lists(st.lists(VALUES.map(str), min_size=width, max_size=width), max_size=6))
    header = draw(st.sampled_from([None, None, NAMES, ("a", "b", "c"), ("weight", "id", "height", "age"), NAMES[::-1]]))
    records = [*([list(header)] if header else []), *rows]
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        if records and (record := records[draw(st.integers(0, len(records) - 1))]):
            position = draw(st.integers(0, len(record) - 1))
            record[position : position + draw(st.sampled_from([1, 1, 1, 0]))] = draw(st.lists(FIELDS, max_size=2))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1]))):
        more = draw(st.one_of(st.just([]), st.lists(FIELDS, max_size=4)))
        records.insert(draw(st.integers(0, len(records))), more)
    text = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    delimiter = draw(st.sampled_from([",", "\t", ",", "\t", ";", ", "])) if draw(st.booleans()) else None
    delimiter = delimiter or ("\t" if suffix == "tsv" else ",")
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    writer = csv.writer(text, delimiter=delimiter[0], lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows(records)
    written = text.getvalue().replace(delimiter[0], delimiter)
    return f"rows.{suffix}", written if draw(st.booleans()) else written.removesuffix(end)


ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Draw the content as it is, most often, or with some bytes replaced, or cut."""
    if not content or draw(st.sampled_from([True, True, True, False])):
        return content
    start = draw(st.integers(0, len(content) - 1))
    end = draw(st.sampled_from([start, start + 1, start + 7, len(content)]))
    return content[:start] + draw(st.binary(max_size=4)) + content[end:]


@dataclass(frozen=True)
class Choice:
    """What a user says of a file of text: whether it has a header, and which columns to use."""

    header: bool | None = None
    columns: tuple[str, ...] = ()
    index: str = ""

    @property
    def options(self) -> list[str]:
        """The options of `sealserve predict`."""
        header = [] if self.header is None else ["--header" if self.header else "--no-header"]
        columns = ["--columns", ",".join(self.columns)] if self.columns else []
        return [*header, *columns, *(["--index-column", self.index] if self.index else [])]


NO_CHOICE = Choice()
CHOICES = st.builds(
    Choice,
    st.sampled_from([None, None, True, False]),
    st.sampled_from([(), (), (), ("0", "1", "2"), ("3", "1", "2"), NAMES, ("age", "1", "2"), ("id",), NAMES[::-1]]),
    st.sampled_from(["", "", "", "0", "3", "id", "age", "7"]),
)


def rows_of_text(content: bytes, delimiter: str, model: str, choice: Choice = NO_CHOICE) -> NDArray[np.float64] | None:
    """Read what a file of text says, strictly and slowly; None if it says no rows for sure."""
    try:
        text = content.decode("utf-8-sig")
        records = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    if not records or len({*map(len, records)}) != 1:
        return None
    first = [cell.strip() for cell in records[0]]
    names = first if has_names(first, model, choice) else []
    try:
        positions = positions_in(names, len(first), model, choice)
        columns = [numbers_of([record[position] for record in records[bool(names) :]]) for position in positions]
        rows = list(zip(*columns, strict=True))
    except (ValueError, IndexError):
        return None
    return np.array(rows).reshape(-1, 3) if len(positions) == len(NAMES) else None


def numbers_of(fields: list[str]) -> list[float]:
    """The numbers that the fields of a column say: all are numbers, or all are flags."""
    if all(field.strip() in FLAGS for field in fields):
        return [FLAGS[field.strip()] for field in fields]
    return list(map(float, fields))


def has_names(first: list[str], model: str, choice: Choice) -> bool:
    """Whether the first record is a header: said, or all the model's names, or no number."""
    if choice.header is not None:
        return choice.header
    wanted = choice.columns or (NAMES if model == "named" else ())
    if wanted and set(wanted) <= set(first) and not all(map(is_number, wanted)):
        return True
    cells = [cell for position, cell in enumerate(first) if str(position) != choice.index]
    if choice.columns:
        cells = [first[int(c)] for c in choice.columns if c.isdecimal() and int(c) < len(first)] or first
    return not any(is_number(cell) or cell.strip() in FLAGS for cell in cells)


def positions_in(names: list[str], width: int, model: str, choice: Choice) -> list[int]:
    """The positions of the model's columns. ValueError: they are others, or are not there."""
    if choice.columns:
        positions = [position_of(column, names, width) for column in choice.columns]
    else:
        positions = list(range(width))
        if choice.index:
            positions.remove(position_of(choice.index, names, width))
    found = tuple(names[position] for position in positions) if names else ()
    if model == "named" and names and found != NAMES:
        if choice.columns or not set(NAMES) < set(found):
            raise ValueError(found)
        positions = [position_of(name, names, width) for name in NAMES]
    return positions


def position_of(column: str, names: list[str], width: int) -> int:
    if names.count(column) > 1 or (column not in names and not (column.isdecimal() and int(column) < width)):
        raise ValueError(column)
    return names.index(column) if column in names else int(column)


def rows_of_json(content: bytes, model: str) -> NDArray[np.float64] | None:
    """Read what JSON lines say; None if they say no rows for sure."""
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline=None).readlines()
        parsed = [json.loads(line) for line in lines]
        keys = NAMES if model == "named" or not isinstance(parsed[0], dict) else tuple(parsed[0])
        listed = [[row[key] for key in keys] if isinstance(row, dict) else row for row in parsed]
        return np.array(listed, float).reshape(len(parsed), 3)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError):
        return None


def rows_of_arrays(content: bytes) -> NDArray[np.float64] | None:
    """Read what NumPy reads of a .npy or .npz file; None if that is no rows within the range."""
    try:
        found = np.load(io.BytesIO(content))
        if isinstance(found, np.lib.npyio.NpzFile):
            found = found["X" if "X" in found.files else found.files[0]]
    except Exception:  # of zipfile, zlib, and NumPy
        return None
    return in_range(found)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


RUNS = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
MODELS = st.sampled_from(["plain", "named"])
OUTPUTS = st.sampled_from(["file", "stdout", "stdin"])


@given(
    file=texts(),
    encoding=ENCODINGS,
    data=st.data(),
    choice=st.one_of(st.just(NO_CHOICE), CHOICES),
    model=MODELS,
    output=OUTPUTS,
)
def text_of_any_kind(
    address: str,
    file: tuple[str, str],
    encoding: str,
    data: st.DataObject,
    choice: Choice,
    model: str,
    output: str,
) -> None:
    name, text = file
    content = data.draw(damaged(text.encode(encoding, "replace")))
    ran = predict(address, model, name, content, output, *choice.options)
    assert_right_or_refused(ran, rows_of_text(content, "\t" if name == "rows.tsv" else ",", model, choice))


@given(
    rows=st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=9),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    header=st.sampled_from([None, NAMES]),
    is_tsv=st.booleans(),
    model=MODELS,
    output=OUTPUTS,
)
def text_that_is_right(
    address: str, rows: Any, encoding: str, end: str, quoting: Any, header: Any, is_tsv: bool, model: str, output: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if is_tsv else ",", lineterminator=end, quoting=quoting)
    writer.writerows([header, *rows] if header else rows)
    name = "rows.tsv" if is_tsv else "rows.csv"
    ran = predict(address, model, name, text.getvalue().encode(encoding), output)
    assert ran.code == 0
    assert_right_or_refused(ran, np.array(rows, float))


@given(
    rows=st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=9),
    place=st.integers(0, 9),
    fault=st.sampled_from(
        ["", "0.5", "0.5,0.5", "0,0,0,0", "0,,0", "0,x,0", "#0,0,0", "0,1_0,0", "0,nan,0", '0,"1,0', "0,2,0"]
    ),
    model=MODELS,
    output=OUTPUTS,
)
def text_with_one_fault(address: str, rows: Any, place: int, fault: str, model: str, output: str) -> None:
    lines = [",".join(map(str, row)) for row in rows]
    lines.insert(place, fault)
    for header in ([], [",".join(NAMES)]):
        ran = predict(address, model, "rows.csv", "\n".join([*header, *lines, ""]).encode(), output)
        assert ran.code == 1
        assert_right_or_refused(ran, None)


JSON_VALUES: st.SearchStrategy[Any] = st.one_of(
    VALUES, VALUES, VALUES, st.sampled_from([None, "1", [], 10**400, True, 2, "x"])
)
JSON_ROWS = st.one_of(
    st.lists(VALUES, min_size=3, max_size=3),
    st.lists(VALUES, min_size=3, max_size=3),
    st.permutations(NAMES).flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, VALUES))),
    st.lists(JSON_VALUES, max_size=4),
    st.dictionaries(st.sampled_from([*NAMES, "id"]), JSON_VALUES),
    JSON_VALUES,
)


@given(rows=st.lists(JSON_ROWS, max_size=5), encoding=ENCODINGS, data=st.data(), model=MODELS, output=OUTPUTS)
def json_lines(address: str, rows: list[Any], encoding: str, data: st.DataObject, model: str, output: str) -> None:
    content = data.draw(damaged("".join(f"{json.dumps(row)}\n" for row in rows).encode(encoding)))
    ran = predict(address, model, "rows.jsonl", content, output)
    assert_right_or_refused(ran, rows_of_json(content, model))


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    """Draw an array of any number of dimensions and any type, most often one of rows."""
    shape = draw(st.sampled_from([(4, 3), (4, 3), (1, 3), (0, 3), (3,), (4, 2), (4, 4), (), (2, 2, 3), (3, 0)]))
    kinds = ["f8", "f8", ">f8", "f4", "f2", "i4", "u1", "?", "g", "c16", "M8[s]", "m8[s]", "U4", "S4", "O"]
    size = int(np.prod(shape))
    values = np.array(draw(st.lists(VALUES, min_size=size, max_size=size)), float).reshape(shape)
    if draw(st.sampled_from([False, False, False, True])) and values.size:
        values.flat[draw(st.integers(0, values.size - 1))] = draw(st.sampled_from([np.nan, np.inf, 2.0, -1e-9]))
    with np.errstate(invalid="ignore"):
        array = values.astype(draw(st.sampled_from(kinds)))
    return np.asfortranarray(array) if draw(st.booleans()) else array


def in_range(rows: NDArray[Any]) -> NDArray[np.float64] | None:
    """The rows, if they are rows of numbers within the range, to a 1,000th of a step."""
    if rows.dtype.kind not in "biuf" or rows.ndim != 2 or rows.shape[1] != 3:
        return None
    numbers = rows.astype(float)
    return numbers if ((numbers >= -0.25e-3) & (numbers <= 1 + 0.25e-3)).all() else None


@given(array=arrays(), data=st.data(), model=MODELS, output=OUTPUTS, is_npz=st.booleans())
def array_files(address: str, array: NDArray[Any], data: st.DataObject, model: str, output: str, is_npz: bool) -> None:
    file = io.BytesIO()
    (np.savez if is_npz else np.save)(file, array)
    content = data.draw(damaged(file.getvalue()))
    ran = predict(address, model, "rows.npz" if is_npz else "rows.npy", content, output)
    assert_right_or_refused(ran, rows_of_arrays(content))
    if content == file.getvalue() and in_range(array) is not None:
        assert ran.code == 0


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Draw a table of Arrow, most often one of the model's columns."""
    count = draw(st.sampled_from([4, 4, 1, 0]))
    names = draw(st.sampled_from([NAMES, NAMES, NAMES[::-1], (*NAMES, "id"), ("id", *NAMES), NAMES[:2]]))
    columns = []
    for _ in names:
        column = pa.array(draw(st.lists(VALUES, min_size=count, max_size=count)), pa.float64())
        kind = draw(st.sampled_from(["float64"] * 6 + ["float32", "bool", "null", "string", "dictionary"]))
        if kind == "dictionary":
            column = column.dictionary_encode()
        elif kind == "null" and count:
            column = pa.array([None, *column.to_pylist()[1:]], pa.float64())
        elif kind != "null":
            column = column.cast(pa.type_for_alias(kind))
        columns.append(column)
    return pa.Table.from_arrays(columns, names=list(names))


@given(table=tables(), data=st.data(), model=MODELS, output=OUTPUTS, is_parquet=st.booleans())
def arrow_files(address: str, table: pa.Table, data: st.DataObject, model: str, output: str, is_parquet: bool) -> None:
    file = pa.BufferOutputStream()
    if is_parquet:
        parquet.write_table(table, file, row_group_size=3)
    else:
        feather.write_feather(table, file)
    whole = file.getvalue().to_pybytes()
    content = data.draw(damaged(whole))
    ran = predict(address, model, "rows.parquet" if is_parquet else "rows.arrow", content, output)
    if content == whole:
        names = NAMES if model == "named" else tuple(table.column_names)
        expected = None
        if set(names) <= set(table.column_names) and len(names) == 3:
            columns = [table[name].to_pylist() for name in names]
            is_text = any(isinstance(value, str | None) for column in columns for value in column)
            has_other_order = model == "named" and tuple(table.column_names) == NAMES[::-1]
            expected = None if is_text or has_other_order else np.array(columns, float).T.reshape(-1, 3)
        assert_right_or_refused(ran, expected)
    elif ran.code == 0:  # a byte that does not matter, or that changed a value
        assert len(ran.output.split()) == table.num_rows
    else:
        assert_right_or_refused(ran, None)


def written(write: Callable[[Any, Any], None], rows: Any) -> bytes:
    file = io.BytesIO()
    write(file, rows)
    return file.getvalue()


# Files of one format, which may have the suffix of another.
WHOLE = [
    written(np.save, np.zeros((2, 3))),
    written(np.save, np.array([["a", "b", "c"]])),
    written(np.save, np.zeros((2, 3), object)),
    written(np.savez_compressed, np.zeros((2, 3))),
    written(lambda file, rows: np.savez(file, X=rows, y=np.zeros(2)), np.zeros((2, 3))),
    written(lambda file, rows: np.savez(file, a=rows, b=rows), np.zeros((2, 3))),
    written(lambda file, rows: feather.write_feather(rows, file), pa.table({name: [0.5, 1.0] for name in NAMES})),
    written(lambda file, rows: parquet.write_table(rows, file), pa.table({name: [0.5, 1.0] for name in NAMES})),
    written(lambda file, rows: parquet.write_table(rows, file), pa.table({})),
    b"age,height,weight\n0,0.5,1\n",
    b"[0, 0.5, 1]\n",
    b"PK\x05\x06" + bytes(18),  # an empty archive
]
# What fields, lines, brackets and quotes without an end are made of.
PIECES = [
    b"",
    b'"',
    b'""',
    b"\0",
    b",",
    b"0",
    b"0,",
    b"\n",
    b"\r",
    b"\r\n",
    b" ",
    b"[",
    b"[0,0,0]\n",
    b"{",
    b"\xff",
    b"\xef\xbb\xbf",
]


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Draw any bytes: noise, pieces many times, marks with nothing between, or a whole file."""
    piece = st.tuples(st.sampled_from(PIECES), st.sampled_from([1, 2, 3, 200, 200_000]))
    return draw(
        st.one_of(
            st.binary(max_size=300),
            st.lists(piece, max_size=3).map(
                lambda drawn: b"".join(part * (count if len(part) < 5 else 1) for part, count in drawn)
            ),
            st.text("\"\n\r,\t ;\0'#", max_size=30).flatmap(lambda text: ENCODINGS.map(text.encode)),
            st.sampled_from(WHOLE).flatmap(damaged),
        )
    )


@given(content=contents(), suffix=st.sampled_from(sorted(SUFFIXES)), model=MODELS, output=OUTPUTS)
def bytes_of_any_kind(address: str, content: bytes, suffix: str, model: str, output: str) -> None:
    kind = SUFFIXES[suffix]
    ran = predict(address, model, f"rows.{kind}" if output == "stdin" else f"rows{suffix}", content, output)
    if kind in ("csv", "tsv"):
        assert_right_or_refused(ran, rows_of_text(content, "\t" if kind == "tsv" else ",", model))
    elif kind == "jsonl":
        assert_right_or_refused(ran, rows_of_json(content, model))
    elif kind in ("npy", "npz"):
        assert_right_or_refused(ran, rows_of_arrays(content))
    elif ran.code == 0:  # whole, or with a byte that does not matter or has changed a value
        assert len(ran.output.split()) == 2
    else:
        assert_right_or_refused(ran, None)


CHECKS = [
    text_of_any_kind,
    text_that_is_right,
    text_with_one_fault,
    json_lines,
    array_files,
    arrow_files,
    bytes_of_any_kind,
]


COUNTS = [15, pytest.param(60, marks=pytest.mark.slow), pytest.param(4000, marks=pytest.mark.long)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: str(check.__name__))
@pytest.mark.filterwarnings("ignore::UserWarning")  # of headers that NumPy takes for those of Python 2
def test_predictions_are_of_all_records_or_of_none(address: str, check: Any, count: int) -> None:
    settings(RUNS, max_examples=count)(check)(address=address)
