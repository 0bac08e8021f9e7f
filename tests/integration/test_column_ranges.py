"""Ranges of columns: what `--input-ranges` says of a model whose features clients compute."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler

from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import InputError, OutOfRangeError
from sealserve.protocol.column import ColumnKind
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.sources import load_source
from sealserve_service.models.errors import InputRangeError, InputRangeMissingError
from sealserve_service.settings.model_source import ModelSource
from tests.support.command_line import fails
from tests.support.serving import HANG_SECONDS, LIMITS, running_server
from tests.support.tables import labels, table

PRODUCTS = (120, 20, 14_400, 2_400, 400)  # age, rooms, their squares and product
COLUMNS = ["age", "income", "rooms", "city"]
RANGES = "name,min,max,step\nage,0,120,\nincome,0,500000,\nrooms,0,20,1\n"


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return table(np.random.default_rng(21), 400)[COLUMNS]


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of products of columns. Nothing but their ranges tells those of the products."""
    products = make_pipeline(SimpleImputer(), PolynomialFeatures(2, include_bias=False), StandardScaler())
    pipeline = make_pipeline(
        make_column_transformer(
            (products, ["age", "rooms"]),
            (OneHotEncoder(), ["city"]),
            (make_pipeline(SimpleImputer(), StandardScaler()), ["income"]),
        ),
        LogisticRegression(),
    )
    path = tmp_path_factory.mktemp("model") / "model.joblib"
    joblib.dump(pipeline.fit(frame, labels(frame, np.random.default_rng(22))), path)
    return path


def loaded(model: Path, ranges: str | None, folder: Path, **said: Any) -> ServedModel:
    if ranges is not None:
        (folder / "ranges.csv").write_text(ranges)
        said["input_ranges"] = folder / "ranges.csv"
    source = ModelSource("model", model, publish=("steps",), **said)
    return load_source(source, trust_pickle=True, limits=LIMITS, accept_disagreement=True)


def test_ranges_of_columns_give_those_of_features_and_are_published(
    model: Path, frame: pd.DataFrame, tmp_path: Path
) -> None:
    served = loaded(model, RANGES, tmp_path)
    age, income, rooms, city = served.model.schema.columns
    assert (age.range, age.kind) == ((0, 120), ColumnKind.NUMBER)
    assert (income.range, rooms.range, rooms.kind) == ((0, 500_000), (0, 20), ColumnKind.INTEGER)
    assert city.kind is ColumnKind.STRING
    grid = served.model.grid
    assert all(np.isclose(grid.maximum, maximum).any() for maximum in PRODUCTS)
    pipeline, rows = joblib.load(model), frame.reset_index(drop=True)
    with running_server(ModelRegistry([served])) as address, Client(address, timeout_seconds=HANG_SECONDS) as client:
        assert np.mean(client.predict(rows[:50]) == pipeline.predict(rows[:50])) >= 0.98
        for changes, kind, text in (
            ({"age": 121.0}, OutOfRangeError, "row 1, column 'age' is outside the column's range 0..120"),
            ({"rooms": 2.5}, InputError, "row 1, column 'rooms' is no integer"),
        ):
            with pytest.raises(kind, match=text):
                client.predict(pd.concat([rows[:1], rows[1:2].assign(**changes)]))
    with (
        running_server(ModelRegistry([served])) as address,
        Client(address, timeout_seconds=HANG_SECONDS, clip=True) as client,
    ):
        old = rows[:1].assign(age=500.0)
        assert client.predict(old).tolist() == pipeline.predict(old.assign(age=120.0)).tolist()


def test_one_range_and_one_step_are_those_of_all_columns_of_numbers(model: Path, tmp_path: Path) -> None:
    served = loaded(model, None, tmp_path, input_range=(0.0, 1000.0), input_step=1.0)
    columns = served.model.schema.columns
    assert [column.range for column in columns[:3]] == [(0, 1000)] * 3
    assert [column.kind for column in columns[:3]] == [ColumnKind.INTEGER] * 3
    mixed = loaded(model, "name,min,max\nage,0,120\n", tmp_path, input_range=(0.0, 1000.0)).model.schema.columns
    assert [column.range for column in mixed[:3]] == [(0, 120), (0, 1000), (0, 1000)]


def test_flags_may_be_declared(model: Path, tmp_path: Path) -> None:
    columns = loaded(model, f"{RANGES}".replace("rooms,0,20", "rooms,0,1"), tmp_path).model.schema.columns
    assert columns[2].kind is ColumnKind.BOOLEAN


def test_rows_and_ranges_go_together(model: Path, frame: pd.DataFrame, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    frame.to_csv(rows, index=False)
    grid = loaded(model, "name,min,max\nage,0,120\nrooms,0,20\n", tmp_path, calibration=rows).model.grid
    assert all(np.isclose(grid.maximum, maximum).any() for maximum in PRODUCTS)
    frame.assign(age=130.0).to_csv(rows, index=False)
    with pytest.raises(InputRangeError, match=r"the calibration rows: rows 0, .*column 'age' is outside the column's"):
        loaded(model, RANGES, tmp_path, calibration=rows)


def test_without_ranges_the_text_names_the_columns_that_need_one(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputRangeMissingError) as caught:
        loaded(model, "name,min,max\nage,0,120\n", tmp_path)
    text = str(caught.value)
    assert "features that clients compute is unknown: give typical rows with --calibration FILE" in text
    assert "--input-ranges FILE: of income, rooms" in text


FAULTS = {
    "city,0,1,": "column 'city' (feature 3) has no range: it is string",
    "rooms,0,20,0.5": "give a step of 1 if its values are integers",
    "rooms,0.5,20,1": "its range begins and ends with one",
    "rooms,20,0,": "the range of a column is empty",
    "Age,0,1,": "is of column 'Age', which the model does not have: it has age, income, rooms, city",
}


@pytest.mark.parametrize("line", FAULTS)
def test_what_does_not_fit_the_columns_is_named(line: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputRangeError) as caught:
        loaded(model, f"name,min,max,step\n{line}\n", tmp_path)
    assert FAULTS[line] in str(caught.value)
    assert "ranges.csv" in str(caught.value)


def test_a_group_of_columns_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputRangeError, match=r"'rooms'.*is in a group, and its model has published steps"):
        loaded(model, "name,min,max,exactly_one\nage,0,1,\nrooms,0,1,g\n", tmp_path)


@pytest.fixture
def options(model: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "ranges.csv").write_text(RANGES)
    return [str(model), "--trust-pickle", "--publish", "steps", "--input-ranges", str(tmp_path / "ranges.csv")]


def test_inspect_reads_the_same_ranges(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *options, "--json", "--accept-disagreement"]) == 0
    columns = json.loads(capsys.readouterr().out)["model"]["schema"]["columns"]
    assert [column["maximum"] for column in columns] == [120, 500_000, 20, None]
    assert "give typical rows" in fails(capsys, "inspect", *options[:4])


def test_advice_is_what_the_options_take(
    options: list[str], model: Path, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features have no names and no ranges of their own here: no advice may say so."""
    frame[:20].to_csv(tmp_path / "rows.csv", index=False)
    main(["inspect", *options, "--calibration", str(tmp_path / "rows.csv"), "--weights", "open", "--hiding-bits", "40"])
    shown = capsys.readouterr().out
    assert "row: verdict" in shown
    assert "--input-step" not in shown
    assert "narrow --input-range " not in shown
