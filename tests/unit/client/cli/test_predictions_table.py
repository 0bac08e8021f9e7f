"""Tables of predictions: what is written is read again, a record for each prediction."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from sealserve.cli.predictions_file import PredictionsFile
from sealserve.cli.predictions_table import check_output, header_of, is_table_of, write_table
from sealserve.errors import InputError
from sealserve.protocol.output import Link, Output, Task

LABELS = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: not text.endswith("\0"))


def written(predictions: Any, header: tuple[str, ...] = (), suffix: str = ".csv") -> bytes:
    file = io.BytesIO()
    write_table(np.array(predictions), header, file, suffix)
    return file.getvalue()


@given(st.lists(LABELS, min_size=1), st.sampled_from([(".csv", ","), (".tsv", "\t")]))
def test_every_label_is_one_record(labels: list[str], table: tuple[str, str]) -> None:
    text = io.StringIO(written(labels, suffix=table[0]).decode(), newline="")
    assert list(csv.reader(text, delimiter=table[1], strict=True)) == [[label] for label in labels]


def test_labels_that_are_plain_stay_plain() -> None:
    assert written(["cat", "dog"]) == b"cat\ndog\n"
    assert written(["Smith, John", 'a "b"', "two\nlines", "three\rlines"]).count(b'"\n') == 4
    assert written([3, 5]) == b"3\n5\n"
    assert written([True, False]) == b"True\nFalse\n"


@given(st.lists(st.tuples(st.floats(), st.floats()), min_size=1))
def test_floats_are_exact(rows: list[tuple[float, float]]) -> None:
    lines = written(rows, ("a", "b")).decode().splitlines()
    assert lines[0] == "a,b"
    np.testing.assert_array_equal([list(map(float, line.split(","))) for line in lines[1:]], rows)


@given(labels=st.lists(LABELS, min_size=1))
def test_parquet_has_the_labels(labels: list[str]) -> None:
    table = parquet.read_table(io.BytesIO(written(labels, suffix=".parquet")))
    assert table.to_pydict() == {"prediction": labels}


def test_parquet_has_columns_of_classes_and_of_scores() -> None:
    rows = np.random.default_rng(1).normal(size=(25_000, 2))
    table = parquet.read_table(io.BytesIO(written(rows, ("no", "yes"), ".parquet")))
    assert table.column_names == ["no", "yes"]
    np.testing.assert_array_equal(np.column_stack([column.to_numpy() for column in table.columns]), rows)
    assert parquet.read_table(io.BytesIO(written(rows, (), ".parquet"))).column_names == ["score_0", "score_1"]


def test_probabilities_have_a_header() -> None:
    output = Output(Task.CLASSIFICATION, 1, ("Smith, John", "other"), Link.LOGISTIC)
    assert header_of(output, "predict_proba") == ("Smith, John", "other")
    assert header_of(output, "predict") == header_of(output, "decision_function") == ()
    assert written([[0.25, 0.75]], header_of(output, "predict_proba")) == b'"Smith, John",other\n0.25,0.75\n'


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("values", [["a", "b\n"], [[0.5, 1.0], [0.0, 2.0]], [1, 2]], ids=["labels", "scores", "ints"])
def test_a_table_is_known_again(suffix: str, values: Any, tmp_path: Path) -> None:
    predictions = np.array(values)
    header = ("x", "y") if predictions.ndim == 2 else ()
    path = tmp_path / f"out{suffix}"
    file = PredictionsFile(path, predictions[:1], 2, {}, resume=False, header=header)
    assert not is_table_of(path, predictions[:1], 2, header)
    for index, prediction in enumerate(predictions):
        file.put(index, prediction)
    file.finish()
    assert is_table_of(path, predictions[:1], 2, header)
    assert not is_table_of(path, predictions[:1], 3, header)
    assert not is_table_of(path, np.zeros((1, 5)), 2, header)
    path.write_bytes(path.read_bytes()[:-5])
    assert suffix in (".csv", ".tsv") or not is_table_of(path, predictions[:1], 2, header)


def test_a_missing_prediction_finishes_nothing(tmp_path: Path) -> None:
    file = PredictionsFile(tmp_path / "out.csv", np.zeros(1), 3, {}, resume=False)
    file.put(0, 1.0)
    file.put(2, 1.0)
    with pytest.raises(InputError, match="rows from 1 on have no predictions"):
        file.finish()
    assert not (tmp_path / "out.csv").exists()
    assert PredictionsFile(tmp_path / "out.csv", np.zeros(1), 3, {}, resume=True).first == 1


@pytest.mark.parametrize("value", ["longer", 0.5, ["a", "b"]])
def test_a_prediction_that_has_no_room_is_not_cut_and_ends_no_run(value: Any, tmp_path: Path) -> None:
    """If one label ended the run and another did not, the service would learn which it was."""
    file = PredictionsFile(tmp_path / "out.csv", np.array(["cat"]), 2, {}, resume=False)
    file.put(1, value)
    file.put(0, "dog")
    file.save()
    assert file.first == 2, "the row is answered, and no later run asks for it"
    with pytest.raises(InputError, match="1 of 2 rows failed"):
        file.failed.raise_if_any(2, "nothing was written")
    assert file.failed.first == [(1, "the model's predictions changed during the run: start again")]


def test_outputs_are_checked_by_their_suffix(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.npy", "a.CSV", "a.tsv", "a.parquet"):
        check_output(Path(name))
    with pytest.raises(InputError, match=r"\.npy, \.csv, \.tsv, \.parquet"):
        check_output(Path("a.txt"))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"sealserve\[parquet\]"):
        check_output(Path("a.parquet"))
