"""`sealserve predict` for files of tables: what the estimator predicts of what pandas reads."""

import csv
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import InputError, UnavailableError
from sealserve.protocol.column import ColumnKind
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.catalog.sources import load_source
from sealserve_service.settings.model_source import ModelSource
from tests.support.command_line import fails
from tests.support.serving import HANG_SECONDS, LIMITS, running_server
from tests.support.tables import labels, table


def frame() -> pd.DataFrame:
    """A table as users have it: an id that the model drops, flags, categories with odd names."""
    random = np.random.default_rng(31)
    made = table(random, 300)
    made = made.assign(id=[f"x{number}" for number in range(len(made))], member=random.random(len(made)) < 0.5)
    made["city"] = made["city"].replace({"Ulm": " Ulm, Donau", "Genf": 'Genf "Genève"'})
    return made[["id", "age", "city", "member", "words", "income"]]


FRAME = frame()


def estimator() -> Any:
    branches = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age", "income"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city"]),
        ("passthrough", ["member"]),
        (CountVectorizer(), "words"),
    )
    return make_pipeline(branches, LogisticRegression(max_iter=500))


@pytest.fixture(scope="module")
def pipeline() -> Any:
    names = np.array(["no", "perhaps", "yes"])
    return estimator().fit(FRAME, names[labels(FRAME, np.random.default_rng(32), 3)])


@pytest.fixture(scope="module")
def address(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("model")
    joblib.dump(pipeline, folder / "model.joblib")
    FRAME.to_parquet(folder / "rows.parquet")
    source = ModelSource("table", folder / "model.joblib", calibration=folder / "rows.parquet", publish=("steps",))
    served = load_source(source, trust_pickle=True, limits=LIMITS, accept_disagreement=True)
    with running_server(ModelRegistry([served])) as address:
        yield address


WRITERS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "rows.csv": lambda frame, path: frame.to_csv(path, index=False),
    "rows.tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "rows.parquet": lambda frame, path: frame.to_parquet(path),
    "rows.jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
}


def predict(address: str, path: Path, *options: str) -> int:
    return main(["predict", "--address", address, "--input", str(path), *options])


@pytest.mark.parametrize("name", WRITERS)
def test_labels_are_those_of_the_estimator(name: str, address: str, pipeline: Any, tmp_path: Path) -> None:
    rows = FRAME[FRAME.columns[::-1]].assign(label="?")[:60]
    WRITERS[name](rows, tmp_path / name)
    assert predict(address, tmp_path / name, "--output", str(tmp_path / "labels.csv")) == 0
    found = (tmp_path / "labels.csv").read_text().split()
    assert np.mean(np.array(found) == pipeline.predict(FRAME[:60])) >= 0.98
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        assert client.predict(rows.drop(columns="label")).tolist() == found


@pytest.mark.parametrize("method", ["predict_proba", "decision_function"])
def test_probabilities_and_scores(method: str, address: str, pipeline: Any, tmp_path: Path) -> None:
    FRAME[:30].to_csv(tmp_path / "rows.csv", index=False)
    assert predict(address, tmp_path / "rows.csv", "--method", method, "--output", str(tmp_path / "out.csv")) == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        records = list(csv.reader(file))
    if method == "predict_proba":
        assert records.pop(0) == ["no", "perhaps", "yes"]
    written = np.array([list(map(float, record)) for record in records])
    np.testing.assert_allclose(written, getattr(pipeline, method)(FRAME[:30]), atol=0.02)


def test_an_interrupted_run_continues(
    address: str, pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    FRAME.to_csv(tmp_path / "rows.csv", index=False)
    command = ["--output", str(tmp_path / "labels.csv"), "--layout", "row"]
    whole, sent = Client.stream, list[int]()

    def stream(self: Client, rows: Any, **options: Any) -> Iterator[tuple[int, Any]]:
        sent.append(len(rows))
        for number, result in enumerate(whole(self, rows, **options)):
            if number == 100 and len(sent) == 1:
                raise UnavailableError("gone")
            yield result

    monkeypatch.setattr(Client, "stream", stream)
    assert predict(address, tmp_path / "rows.csv", *command) == 1
    assert "continue with --resume" in capsys.readouterr().err
    assert not (tmp_path / "labels.csv").exists()
    assert predict(address, tmp_path / "rows.csv", *command, "--resume") == 0
    assert sent[0] == 300 > sent[1]
    found = np.array((tmp_path / "labels.csv").read_text().split())
    assert np.mean(found == pipeline.predict(FRAME)) >= 0.98


def test_rows_from_stdin_go_to_stdout(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = FRAME[:5].to_csv(index=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main(["predict", "--address", address, "--input", "-"]) == 0
    assert len(capsys.readouterr().out.split()) == 5


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"income": [1.0, 2.0, 3.0], "words": ["the", None, "the"]}, "row 1: column 'words' is missing"),
    "out of range": (
        {"income": [1.0, 2.0, 1e12], "words": "the"},
        ", of column 'income', is outside the model's range",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_rows_that_are_refused_are_named_with_their_column(
    what: str, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, text = REFUSED[what]
    FRAME[:3].assign(**changes).to_parquet(tmp_path / "rows.parquet")
    assert predict(address, tmp_path / "rows.parquet") == 1
    printed = capsys.readouterr()
    assert text in printed.err
    assert "1 of 3 rows failed; nothing was written" in printed.err
    assert printed.out == ""


def test_a_file_of_other_columns_or_kinds_is_refused_unsent(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.csv"
    for rows, text in (
        (FRAME.rename(columns={"age": "Age"}), "the columns must be those of the model; missing: age; unexpected: Age"),
        (FRAME.assign(age="old"), "column 'age' (feature 1) is not a number"),
    ):
        rows.to_csv(path, index=False)
        assert text in fails(capsys, "predict", "--address", address, "--input", path)


def test_rows_of_a_table_load_a_service(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FRAME[:20].to_csv(tmp_path / "rows.csv", index=False)
    command = ["bench", "--address", address, "--input", str(tmp_path / "rows.csv"), "--seconds", "0.3"]
    assert main([*command, "--warm-up", "0"]) == 0
    assert "rows answered a second" in capsys.readouterr().out


def test_the_command_shows_what_each_column_takes(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "--address", address]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "id unused: any value, and it may be left out",
        "age number, or missing",
        "city string, or missing",
        "member number, not missing",
        "words text, not missing",
    ):
        assert words in shown


# Columns that a model of affine steps leaves out


def _scaled(*chosen: str) -> Any:
    """A scaler of columns, and a model: all of it folds into the weights."""
    return make_pipeline(make_column_transformer((StandardScaler(), list(chosen))), LogisticRegression())


AFFINE: dict[str, Callable[[], Any]] = {
    "pipeline": lambda: _scaled("age", "income"),
    "columns first": lambda: make_pipeline(
        make_column_transformer(("passthrough", ["income", "age"]), ("drop", ["words"])),
        StandardScaler(),
        LogisticRegression(),
    ),
    "union": lambda: make_pipeline(
        FeatureUnion([("a", make_column_transformer((StandardScaler(), ["age"]))), ("b", _scaled("income")[:1])]),
        LogisticRegression(),
    ),
    "search": lambda: GridSearchCV(_scaled("age", "income"), {"logisticregression__C": [1.0]}, cv=2),
    "calibrated": lambda: CalibratedClassifierCV(_scaled("age", "income"), cv=2),
    "one versus rest": lambda: OneVsRestClassifier(_scaled("age", "income")),
}


@pytest.mark.parametrize("name", AFFINE)
def test_a_column_that_nothing_reads_may_hold_anything(name: str, tmp_path: Path) -> None:
    known = FRAME.fillna({"age": 50.0})
    names = np.array(["no", "yes"])
    model = AFFINE[name]().fit(known, names[labels(known, np.random.default_rng(33))])
    joblib.dump(model, tmp_path / "model.joblib")
    known.to_csv(tmp_path / "rows.csv", index=False)
    source = ModelSource("affine", tmp_path / "model.joblib", calibration=tmp_path / "rows.csv")
    served = load_source(source, trust_pickle=True, limits=LIMITS, accept_disagreement=True)
    kinds = {column.name: column.kind for column in served.model.schema.columns}
    assert kinds == {name: ColumnKind.NUMBER if name in ("age", "income") else ColumnKind.UNUSED for name in known}
    rows, expected = known[:60], model.predict(known[:60])
    with (
        running_server(ModelRegistry([served])) as address,
        Client(address, timeout_seconds=HANG_SECONDS) as client,
    ):
        for given in (rows, rows[["income", "age"]], rows.assign(words=3.0, id=None), rows.to_dict("records")):
            assert np.mean(client.predict(given) == expected) >= 0.98
        with pytest.raises(InputError, match="income"):
            client.predict(rows.assign(income="much"))
        with pytest.raises(InputError, match="other"):
            client.predict(rows.assign(other=1.0))
