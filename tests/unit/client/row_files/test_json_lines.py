"""JSON lines: arrays by place, objects by name."""

import pytest

from sealserve.errors import FeatureNameError, InputError, NotFiniteError
from sealserve.protocol.schema import Schema
from sealserve.row_files.columns import Columns
from sealserve.row_files.json_lines import read_json_lines

NAMED, PLAIN = Schema(2, ("age", "height")), Schema(2)
ROWS = [[1.0, 2.0], [3.0, 4.5]]


def read(*lines: str, schema: Schema = PLAIN) -> list[list[float]]:
    rows: list[list[float]] = read_json_lines((f"{line}\n" for line in lines), Columns(schema)).tolist()
    return rows


def test_arrays_and_objects() -> None:
    for schema in (NAMED, PLAIN):
        assert read("[1, 2]", "[3, 4.5]", schema=schema) == ROWS
        assert read('{"age": 1, "height": 2}', '{"height": 45e-1, "age": 3}', schema=schema) == ROWS
    assert read("[true, 2]", "[3, 4.5]") == ROWS


def test_objects_are_matched_by_name_whatever_their_order() -> None:
    assert read('{"height": 2, "id": "x", "age": 1}', '{"height": 4.5, "age": 3, "id": null}', schema=NAMED) == ROWS
    assert read('{"height": 2, "age": 1}', '{"age": 3, "height": 4.5}', schema=NAMED) == ROWS
    with pytest.raises(FeatureNameError):
        read('{"height": 2, "Age": 1}', schema=NAMED)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("", "line 2 is blank"),
        ("[1]", "line 2 has other values"),
        ("[1, 2, 3]", "line 2 has other values"),
        ('{"a": 1, "b": 2}', "line 2 has other names"),
        ('["1", 2]', "line 2, feature 0 is not a number"),
        ("[1, [2]]", "line 2, feature 1 is not a number"),
        ("[1, 2", "line 2 is not JSON"),
        ("[1, 2] [3, 4]", "line 2 is not JSON"),
        ("[NaN, 2]", "NaN and Infinity are no JSON"),
        ("[-Infinity, 2]", "NaN and Infinity are no JSON"),
        ('{"a": 1, "a": 2}', "a name occurs twice"),
        ("1", "neither an array"),
        ("[]", "neither an array"),
        (f"[1, 1{'0' * 400}]", "line 2, feature 1 is too large"),
        (f"[1, 1{'0' * 5000}]", "line 2 is not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_fault_is_named_by_its_line(line: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        read("[1, 2]", line)


def test_null_is_missing_and_no_lines_are_no_file() -> None:
    with pytest.raises(NotFiniteError, match=r"line 1, column 'height' \(feature 1\) is missing"):
        read('{"age": 1, "height": null}')
    with pytest.raises(InputError, match="the file is empty"):
        read()


def test_all_faults_are_named_by_the_names_of_the_file_or_the_model() -> None:
    with pytest.raises(NotFiniteError) as caught:
        read("[1, 2]", "[null, true]", '["x", 3]', "[1]", schema=NAMED)
    assert str(caught.value).startswith(
        "line 2, column 'age' (feature 0) is missing (null); line 3, column 'age' (feature 0) is not a number: "
    )
    with pytest.raises(InputError, match=r"^line 1, column 'b\\n' \(feature 1\) is not a number: write"):
        read('{"a": 1, "b\\n": "2"}')
