"""Files that `sealserve predict`, `bench` and the service's calibration read and write."""

import csv
import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from sealserve.cli.main import main
from sealserve.cli.predictions_file import PredictionsFile
from sealserve.client import Client
from sealserve.errors import InputError, NotFiniteError, UnavailableError
from sealserve_service.catalog import sources
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.catalog.sources import load_source
from sealserve_service.models.errors import InputRangeError, UnsupportedModelError
from sealserve_service.models.folding import fold
from sealserve_service.models.loading import load_model
from sealserve_service.planning.grid import input_ranges
from sealserve_service.settings.model_source import ModelSource
from tests.support.command_line import fails
from tests.support.serving import HANG_SECONDS, LIMITS, running_server, served

LABELS = np.array(["Smith, John", "two\nlines", 'a "quoted" one\r', ""], object)
NAMES = ["age", "height", "weight"]
GENERATOR = np.random.default_rng(11)
ROWS = pd.DataFrame(GENERATOR.integers(0, 17, (30, 3)) / 16, columns=NAMES)
CLASSES = np.arange(30) % 4
ESTIMATOR = LogisticRegression(max_iter=1000).fit(ROWS, LABELS[CLASSES])
EXPECTED = ESTIMATOR.predict(ROWS).tolist()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_server(ModelRegistry([served("people", ESTIMATOR, input_step=1 / 16)])) as address:
        yield address


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    ROWS.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


def records(text: str, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def contents(path: Path) -> str:
    """The text of a file, with its ends of lines as they are."""
    return path.read_bytes().decode()


def predict(address: str, rows: Path, output: Path, *options: str) -> int:
    return main(["predict", "--address", address, "--input", str(rows), "--output", str(output), *options])


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t"), (".CSV", ",")])
def test_a_label_is_one_record(address: str, rows: Path, suffix: str, delimiter: str) -> None:
    output = rows.with_name(f"labels{suffix}")
    assert predict(address, rows, output) == 0
    assert records(contents(output), delimiter) == [[label] for label in EXPECTED]


def test_a_label_is_one_record_on_stdout(address: str, rows: Path, capfdbinary: Any) -> None:
    assert main(["predict", "--address", address, "--input", str(rows)]) == 0
    assert records(capfdbinary.readouterr().out.decode()) == [[label] for label in EXPECTED]


@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_labels_on_a_terminal_are_printable(
    address: str, rows: Path, method: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any
) -> None:
    """The header of probabilities is made of labels, too."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["predict", "--address", address, "--input", str(rows), "--method", method]) == 0
    lines = capfdbinary.readouterr().out.decode().split("\n")
    assert all(map(str.isprintable, lines))
    shown = [label.encode("unicode_escape").decode() for label in EXPECTED]
    if method == "predict":
        assert records("\n".join(lines)) == [[label] for label in shown]
    else:
        assert set(records("\n".join(lines))[0]) == set(shown)


def test_probabilities_have_a_header_of_classes(address: str, rows: Path) -> None:
    output = rows.with_name("out.csv")
    assert predict(address, rows, output, "--method", "predict_proba") == 0
    header, *found = records(contents(output))
    assert header == ESTIMATOR.classes_.tolist()
    np.testing.assert_allclose(np.array(found, float), ESTIMATOR.predict_proba(ROWS), atol=0.01)


def test_parquet_where_it_is_asked(address: str, rows: Path) -> None:
    output = rows.with_name("out.parquet")
    assert predict(address, rows, output) == 0
    assert pd.read_parquet(output).to_dict("list") == {"prediction": EXPECTED}
    assert predict(address, rows, output, "--method", "predict_proba") == 0
    found = pd.read_parquet(output)
    assert found.columns.tolist() == ESTIMATOR.classes_.tolist()
    np.testing.assert_allclose(found, ESTIMATOR.predict_proba(ROWS), atol=0.01)
    assert predict(address, rows, rows.with_name("scores.parquet"), "--method", "decision_function") == 0
    assert pd.read_parquet(rows.with_name("scores.parquet")).columns.tolist() == [f"score_{n}" for n in range(4)]


def test_options_say_how_a_file_is_read(address: str, rows: Path) -> None:
    output, wide = rows.with_name("out.csv"), rows.with_name("wide.txt")
    pd.DataFrame({"2024": "x", "c": ROWS["weight"], "a": ROWS["age"], "b": ROWS["height"]}).to_csv(wide, index=False)
    how = ["--input-format", "csv", "--header", "--columns", "2,3,1"]
    renamed = wide.read_text().replace("2024,c,a,b", "2024,weight,age,height")
    assert predict(address, wide, output, *how) == 1  # the names are not the model's
    wide.write_text(renamed)
    assert predict(address, wide, output, *how) == 0
    assert [label for (label,) in records(contents(output))] == EXPECTED
    wide.write_text("".join(f"id{line}" for line in ROWS.to_csv(header=False).splitlines(keepends=True)))
    assert predict(address, wide, output, "--input-format", "csv", "--index-column", "0") == 0
    assert [label for (label,) in records(contents(output))] == EXPECTED
    assert predict(address, wide, output, "--input-format", "csv", "--no-header", "--columns", '1, "2",3') == 0


@pytest.mark.parametrize("kind", ["csv", "npy", "parquet"])
def test_rows_come_on_stdin(address: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"rows.{kind}"
    {"csv": ROWS.to_csv, "npy": lambda path, **_: np.save(path, ROWS), "parquet": ROWS.to_parquet}[kind](
        path, index=False
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
    options = [] if kind == "csv" else ["--input-format", kind]
    assert predict(address, Path("-"), tmp_path / "out.csv", *options) == 0
    assert [label for (label,) in records(contents(tmp_path / "out.csv"))] == EXPECTED


def test_what_cannot_be_resumed_or_would_be_lost(address: str, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "--address", address, "--input"]
    said = fails(capsys, *command, "-", "--resume", "--output", rows.with_name("out.csv"))
    assert "--resume needs rows from a file" in said
    before = rows.read_bytes()
    os.link(rows, rows.with_name("linked.csv"))
    for output in (rows, rows.with_name("linked.csv")):
        assert "would replace the rows" in fails(capsys, *command, rows, "--output", output)
    assert rows.read_bytes() == before


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each stream."""
    counts, stream = list[int](), Client.stream

    def counted(self: Client, rows: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        counts.append(len(rows))
        return stream(self, rows, **options)

    monkeypatch.setattr(Client, "stream", counted)
    return counts


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_resuming_a_finished_file_does_nothing(
    address: str, rows: Path, suffix: str, method: str, streamed: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    output, how = rows.with_name(f"out{suffix}"), ["--method", method]
    assert predict(address, rows, output, *how) == 0
    before = output.read_bytes(), output.stat().st_mtime_ns
    for _ in range(2):
        assert predict(address, rows, output, *how, "--resume") == 0
        said = "is finished: nothing to do; it has a prediction for each of 30 rows, and is newer than "
        assert said in capsys.readouterr().err
    assert (output.read_bytes(), output.stat().st_mtime_ns) == before
    assert streamed == [30]
    assert sorted(path.name for path in rows.parent.iterdir()) == sorted([output.name, rows.name])


def newer(rows: Path, output: Path) -> None:
    later = output.stat().st_mtime_ns + 10**9
    os.utime(rows, ns=(later, later))


def longer(rows: Path, output: Path) -> None:
    rows.write_text(rows.read_text() + "0,0,0\n")
    os.utime(rows, ns=(0, 0))


def damaged(rows: Path, output: Path) -> None:
    output.write_bytes(output.read_bytes()[:-40])


@pytest.mark.parametrize("change", [newer, longer, damaged])
@pytest.mark.parametrize("suffix", [".npy", ".csv", ".parquet"])
def test_a_file_that_is_not_that_of_the_rows_is_written_anew(
    address: str, rows: Path, change: Callable[[Path, Path], None], suffix: str, streamed: list[int]
) -> None:
    output = rows.with_name(f"out{suffix}")
    assert predict(address, rows, output, "--method", "predict_proba") == 0
    change(rows, output)
    assert predict(address, rows, output, "--method", "predict_proba", "--resume") == 0
    assert len(streamed) == 2
    assert predict(address, rows, output, "--method", "predict", "--resume") == 0
    assert len(streamed) == 3


def test_a_run_that_ended_before_the_file_was_there_sends_nothing(
    address: str, rows: Path, streamed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = rows.with_name("out.csv")
    with monkeypatch.context() as broken:
        broken.setattr(PredictionsFile, "finish", lambda self: self.save())
        assert predict(address, rows, output) == 0
    assert not output.exists()
    assert predict(address, rows, output, "--resume") == 0
    assert streamed == [30]
    assert [label for (label,) in records(contents(output))] == EXPECTED


@pytest.mark.parametrize("output", ["out.csv", ""])
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_classes_that_change_during_a_run_are_not_mixed(
    address: str,
    rows: Path,
    output: str,
    method: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The header would be that of the old classes; an array of text would cut the new labels."""
    stream = Client.stream

    def reloaded(self: Client, rows: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        yield from stream(self, rows, **options)
        new = dataclasses.replace(self.model, output=dataclasses.replace(self.model.output, classes=tuple("abcd")))
        monkeypatch.setattr(Client, "versions", (self.model, new))

    monkeypatch.setattr(Client, "stream", reloaded)
    command = ["predict", "--address", address, "--input", str(rows), "--method", method]
    assert "classes changed" in fails(capsys, *command, *(["--output", str(rows.with_name(output))] if output else []))
    assert [path.name for path in rows.parent.iterdir()] == [rows.name]


def test_a_run_from_stdin_that_breaks_leaves_nothing(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(self: Client, rows: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        yield 0, EXPECTED[0]
        raise UnavailableError("gone")

    monkeypatch.setattr(Client, "stream", broken)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROWS.to_csv(index=False).encode())))
    command = ["predict", "--address", address, "--input", "-", "--output", str(tmp_path / "out.csv")]
    assert "gone" in fails(capsys, *command)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_and_a_sparse_matrix_in_a_stream_are_rows(address: str) -> None:
    from scipy.sparse import csr_matrix

    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        for table in (ROWS, csr_matrix(ROWS), ROWS.iloc[::-1].iloc[::-1]):
            assert [label for _, label in sorted(client.stream(table))] == EXPECTED
        series = [row for _, row in ROWS[NAMES[::-1]].iterrows()]
        assert [label for _, label in sorted(client.stream(series))] == EXPECTED
        bad = [ROWS.iloc[0], ROWS.iloc[0].to_numpy() + 1j, [0, 10**400, 0], [0, None, 0], ROWS.iloc[1]]
        found = dict(client.stream(bad))
        assert [type(found[index]) for index in (1, 2, 3)] == [InputError, InputError, NotFiniteError]
        assert [found[0], found[4]] == EXPECTED[:2]


def test_bench_sends_the_rows_of_a_file(address: str, rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "--address", address, "--seconds", "0.2", "--warm-up", "0", "--input", str(rows)]
    assert main([*command, "--json", str(rows.with_name("bench.json"))]) == 0
    assert json.loads(rows.with_name("bench.json").read_text())["answered"] > 0
    rows.write_text("0.5,0.5,2\n")
    assert "outside the model's range" in fails(capsys, *command)
    assert "outside the model's range" in fails(capsys, *command, "--replay")
    rows.write_text(",".join(NAMES))
    assert "has no rows" in fails(capsys, *command)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.parquet", "a.feather", "a.npz", "a.jsonl"])
def test_calibration_rows_come_from_any_file(name: str, tmp_path: Path) -> None:
    """A wider table is matched by name: a calibration file is often the training data."""
    joblib.dump(ESTIMATOR, tmp_path / "model.joblib")
    path, table = tmp_path / name, ROWS.assign(label="x")[["label", *NAMES[::-1]]]
    writers: dict[str, Callable[[], Any]] = {
        "a.csv": lambda: table.to_csv(path),
        "a.tsv": lambda: table.to_csv(path, sep="\t", encoding="utf-8-sig"),
        "a.parquet": lambda: table.to_parquet(path),
        "a.feather": lambda: table.to_feather(path),
        "a.npz": lambda: np.savez(path, ROWS),
        "a.jsonl": lambda: table.to_json(path, orient="records", lines=True),
    }
    writers[name]()
    source = ModelSource("people", tmp_path / "model.joblib", calibration=path)
    grid = load_source(source, trust_pickle=True, limits=LIMITS).model.grid
    expected = input_ranges(fold(ESTIMATOR), calibration=ROWS.to_numpy())
    np.testing.assert_array_equal(grid.minimum, expected.minimum)
    np.testing.assert_array_equal(grid.maximum, expected.maximum)


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz", "a.npy"])
def test_calibration_rows_of_any_kind_are_pinned_and_read_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joblib.dump(ESTIMATOR, tmp_path / "model.joblib")
    path, opened, open_file = tmp_path / name, list[Path](), Path.open
    writers: dict[str, Callable[[], Any]] = {
        "a.csv": lambda: ROWS.to_csv(path, index=False),
        "a.parquet": lambda: ROWS.to_parquet(path),
        "a.npz": lambda: np.savez(path, ROWS),
        "a.npy": lambda: np.save(path, ROWS),
    }
    writers[name]()

    def opening(self: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(self)
        return open_file(self, *arguments, **options)

    pin = sha256(path.read_bytes()).hexdigest()
    source = ModelSource("people", tmp_path / "model.joblib", calibration=path, calibration_sha256=pin)
    with monkeypatch.context() as watched:
        watched.setattr(Path, "open", opening)
        grid = load_source(source, trust_pickle=True, limits=LIMITS).model.grid
    np.testing.assert_array_equal(grid.maximum, input_ranges(fold(ESTIMATOR), calibration=ROWS.to_numpy()).maximum)
    assert opened.count(path) == 1
    path.write_bytes(path.read_bytes() + b"0,0,0\n")
    with pytest.raises(InputRangeError, match=r"is not the file it should be: its SHA-256 is"):
        load_source(source, trust_pickle=True, limits=LIMITS)


def zeros_in_npz(path: Path) -> None:
    np.savez_compressed(path, np.zeros((1 << 16, 3)))


def zeros_in_parquet(path: Path) -> None:
    pd.DataFrame(np.zeros((1 << 16, 3)), columns=NAMES).to_parquet(path)


def zeros_in_arrow(path: Path) -> None:
    pd.DataFrame(np.zeros((1 << 16, 3)), columns=NAMES).to_feather(path, compression="zstd")


@pytest.mark.parametrize(
    ("name", "write"), [("a.npz", zeros_in_npz), ("a.parquet", zeros_in_parquet), ("a.feather", zeros_in_arrow)]
)
def test_a_small_file_does_not_hold_many_calibration_rows(
    name: str, write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joblib.dump(ESTIMATOR, tmp_path / "model.joblib")
    write(path := tmp_path / name)
    monkeypatch.setattr(sources, "MAX_CALIBRATION_BYTES", 1 << 20)
    assert path.stat().st_size < 1 << 17
    source = ModelSource("people", tmp_path / "model.joblib", calibration=path)
    with pytest.raises(InputRangeError, match=r"give fewer rows"):
        load_source(source, trust_pickle=True, limits=LIMITS)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.csv", "age,height,weight\n1,2,\n", r"line 2, column 'weight' \(feature 2\) is missing"),
        ("a.csv", "", "the file is empty"),
        ("a.txt", "1,2,3\n", "its suffix is of no format"),
        ("a.parquet", "no table", "not a readable Parquet file"),
    ],
)
def test_calibration_rows_that_are_none_name_both_files(name: str, content: str, text: str, tmp_path: Path) -> None:
    joblib.dump(ESTIMATOR, tmp_path / "model.joblib")
    (tmp_path / name).write_text(content)
    source = ModelSource("people", tmp_path / "model.joblib", calibration=tmp_path / name)
    with pytest.raises(InputRangeError, match=rf"model\.joblib: the calibration rows in .*{name}: .*{text}"):
        load_source(source, trust_pickle=True, limits=LIMITS)


@pytest.mark.parametrize(
    ("label", "text"), [("end\0", "a label ends with NUL"), ("\udc80", "a label is not valid Unicode")]
)
def test_a_label_that_no_file_can_hold_is_refused_when_the_model_loads(label: str, text: str, tmp_path: Path) -> None:
    """NumPy's arrays of text would cut the one, UTF-8 has nothing for the other."""
    estimator = LogisticRegression().fit(ROWS, np.array(["a", "b"], object)[CLASSES % 2])
    estimator.classes_ = np.array(["a", label], object)
    joblib.dump(estimator, tmp_path / "model.joblib")
    with pytest.raises(UnsupportedModelError, match=text):
        load_model(tmp_path / "model.joblib", trust_pickle=True)
