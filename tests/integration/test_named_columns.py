"""Errors of rows name columns, in one form, whichever way the rows come in."""

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from sealserve.aio import AsyncClient
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.errors import InputError, NotFiniteError, OffGridError, OutOfRangeError, SealserveError
from sealserve_service.catalog.registry import ModelRegistry, prepare_model
from sealserve_service.planning.declared import DeclaredRanges
from sealserve_service.planning.grid import input_ranges
from tests.support.command_line import fails
from tests.support.ei_user import EIUser
from tests.support.serving import HANG_SECONDS, LIMITS, linear, registered_keys, running_server, served

NAMES = ("age", "mean radius", "has pet")
NAMED = dataclasses.replace(linear([[1.0, 2.0, 4.0]]), feature_names=NAMES)
PLACE = "column 'mean radius' (feature 1)"
ROWS = np.full((4, 3), 0.5)


@pytest.fixture(scope="module")
def address(ei_user: EIUser) -> Iterator[str]:
    keys = registered_keys()
    step = np.array([np.nan, 1.0, 1.0])
    unknown = np.full(3, np.nan)
    flagged = input_ranges(
        NAMED, input_range=(0.0, 1.0), declared=DeclaredRanges(minimum=unknown, maximum=unknown, step=step)
    )
    models = [
        served("people", NAMED, keys=keys),
        prepare_model("flagged", NAMED, flagged, LIMITS, accept_disagreement=True),
    ]
    with running_server(ModelRegistry(models), keys=keys) as address:
        yield address


def rows_with(value: Any, column: int = 1) -> Any:
    rows = ROWS.astype(object) if isinstance(value, str) else ROWS.copy()
    rows[2, column] = value
    return rows


KINDS: dict[str, Callable[[Any], Any]] = {
    "array": lambda rows: rows,
    "list": lambda rows: rows.tolist(),
    "frame": lambda rows: pd.DataFrame(rows, columns=list(NAMES)),
    "rows of a frame": lambda rows: [row for _, row in pd.DataFrame(rows, columns=list(NAMES)).iterrows()],
}
VALUES: dict[Any, tuple[type[InputError], str]] = {
    7.0: (OutOfRangeError, f"{PLACE} is outside the model's range 0..1: "),
    np.nan: (NotFiniteError, f"{PLACE} is missing (NaN): "),
    np.inf: (NotFiniteError, f"{PLACE} is infinite: "),
    "x": (InputError, f"{PLACE} is of type str, not a number: "),
}
CASES = [pytest.param(value, kind, id=f"{value}, {kind}") for value in VALUES for kind in KINDS]


def raised_by(act: Callable[[], Any]) -> SealserveError:
    with pytest.raises(SealserveError) as caught:
        act()
    assert isinstance(caught.value, SealserveError)
    return caught.value


@pytest.mark.parametrize(("value", "kind"), CASES)
def test_each_method_names_the_column(value: Any, kind: str, address: str) -> None:
    rows, (error_type, text) = KINDS[kind](rows_with(value)), VALUES[value]
    # A Series is read by itself, so that its row has no number yet.
    place = text if isinstance(value, str) and kind == "rows of a frame" else f"row 2, {text}"
    with Client(address, model="people", timeout_seconds=HANG_SECONDS) as client:
        for act in (
            lambda: client.predict(rows),
            lambda: client.scored(rows),
            lambda: client.decrypt(client.send(client.encrypt(rows))),
        ):
            error = raised_by(act)
            assert type(error) is error_type
            assert str(error).startswith(place)
        found = dict(client.stream(rows))
        assert type(found[2]) is error_type
        assert str(found[2]).startswith(text)
        assert not any(isinstance(found[index], SealserveError) for index in (0, 1, 3))
        if not isinstance(value, str):
            returned = client.predict(rows, errors="return")
            assert str(returned[2]).startswith(text)

    async def act_later() -> list[SealserveError]:
        async with AsyncClient(address, model="people", timeout_seconds=HANG_SECONDS) as client:
            with pytest.raises(SealserveError) as caught:
                await client.predict(rows)
            streamed = {index: result async for index, result in client.stream(rows)}
            assert isinstance(caught.value, SealserveError)
            return [caught.value, streamed[2]]

    raised, streamed = asyncio.run(act_later())
    assert (type(raised), type(streamed)) == (error_type, error_type)
    assert str(raised).startswith(place)
    assert str(streamed).startswith(text)


def test_a_value_off_a_declared_grid_names_the_column(address: str) -> None:
    with Client(address, model="flagged", timeout_seconds=HANG_SECONDS) as client:
        rows = np.ones((2, 3))
        client.predict(rows)
        rows[1, 2] = 0.5
        error = raised_by(lambda: client.predict(rows))
    assert type(error) is OffGridError
    assert str(error).startswith(
        "row 1, column 'has pet' (feature 2) is not on the model's grid, 0 and multiples of 1 "
    )


@pytest.mark.parametrize("value", [7.0, np.nan, "x"])
def test_the_client_of_encrypted_inference_names_the_column(value: Any, address: str, ei_user: EIUser) -> None:
    with EIClient(
        address,
        model="people",
        client=ei_user.client,
        evaluation_keys=ei_user.evaluation_keys,
        timeout_seconds=HANG_SECONDS,
    ) as client:
        error = raised_by(lambda: client.predict(rows_with(value)[2:3]))
    assert str(error).startswith(VALUES[value][1] if value == value else f"{PLACE} is missing (NaN): ")


FILES: dict[str, Callable[[Any, Path], Any]] = {
    "a.csv": lambda rows, path: pd.DataFrame(rows, columns=list(NAMES)).to_csv(path, index=False, na_rep="nan"),
    "no header.csv": lambda rows, path: pd.DataFrame(rows).to_csv(path, index=False, header=False, na_rep="nan"),
    "a.npy": lambda rows, path: np.save(path, rows),
    "a.npz": lambda rows, path: np.savez(path, rows),
    "a.parquet": lambda rows, path: pd.DataFrame(rows, columns=list(NAMES)).to_parquet(path),
    "a.jsonl": lambda rows, path: path.write_text("".join(f"{json.dumps(row)}\n" for row in rows.tolist())),
}


@pytest.mark.parametrize("name", FILES)
def test_the_command_names_the_column(
    name: str, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FILES[name](rows_with(7.0), tmp_path / name)
    command = ["--address", address, "--model", "people", "--input", str(tmp_path / name)]
    for options in ([], ["--output", str(tmp_path / "out.csv")]):
        assert main(["predict", *command, *options]) == 1
        shown = capsys.readouterr()
        assert f"row 2: {PLACE} is outside the model's range 0..1: " in shown.err
        assert "(--clip)" in shown.err
        assert not shown.out
    said = fails(capsys, "bench", *command, "--seconds", "0.1", "--warm-up", "0")
    assert f"{PLACE} is outside" in said
    assert main(["predict", *command, "--clip"]) == 0


@pytest.mark.parametrize("name", ["a.csv", "no header.csv", "a.parquet", "a.jsonl"])
def test_the_command_names_the_column_of_a_file_that_holds_no_number(
    name: str, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_with("x")
    if name == "a.parquet":
        rows[:, 1] = "x"
    FILES[name](rows, tmp_path / name)
    for command in ("predict", "bench"):
        said = fails(capsys, command, "--address", address, "--model", "people", "--input", tmp_path / name)
        assert f"{PLACE} " in said


@pytest.mark.parametrize("command", ["inspect", "serve"])
@pytest.mark.parametrize(
    ("options", "content", "text"),
    [
        (
            ["--calibration"],
            "0,0,0\n1,7,1\n",
            f"row 1, {PLACE} is outside the model's range 0..1: declare other ranges",
        ),
        (["--calibration"], "0,0,0\n1,nan,1\n", f"row 1, {PLACE}: replace them, or leave the rows out"),
        (["--calibration"], "0,0,0\n1,x,1\n", f"line 2, {PLACE} is not a number"),
        (["--calibration"], "age,mean radius,has pet\n0,,0\n", f"line 2, {PLACE} is missing"),
        (["--input-ranges"], "name,min,max\nmean radius,3,1\n", f"{PLACE}: the input range is empty"),
        (["--input-ranges"], "name,min,max\nmean radius,3,\n", f"line 2, {PLACE}: one end"),
        (
            ["--input-ranges"],
            "name,min,max\nradius,3,4\n",
            "line 2 is of column 'radius', which the model does not have",
        ),
    ],
)
def test_what_the_operator_gives_names_the_column(
    command: str,
    options: list[str],
    content: str,
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, path = tmp_path / "people.joblib", tmp_path / "given.csv"
    table = pd.DataFrame(np.random.default_rng(3).random((20, 3)), columns=list(NAMES))
    joblib.dump(LinearRegression().fit(table, table @ [1, 2, 4]), model)
    path.write_text(content)
    words = [str(model)] if command == "inspect" else ["--model", str(model), "--address", "127.0.0.1:0"]
    said = fails(capsys, command, *words, "--trust-pickle", "--input-range", "0,1", *options, path)
    assert text in said
    assert command == "inspect" or str(model) in said


@pytest.mark.parametrize("rows", [None, 3, np.array(1.0)], ids=repr)
def test_what_is_no_iterable_of_rows_is_an_input_error(rows: Any, address: str) -> None:
    async def stream() -> None:
        async with AsyncClient(address, model="people", timeout_seconds=HANG_SECONDS) as client:
            await anext(client.stream(rows))

    with Client(address, model="people", timeout_seconds=HANG_SECONDS) as client:
        for act in (lambda: list(client.stream(rows)), lambda: asyncio.run(stream())):
            error = raised_by(act)
            assert isinstance(error, InputError)
            assert "is not iterable: pass a table" in str(error)


def test_all_rows_and_columns_are_named_up_to_a_limit(address: str) -> None:
    rows = np.full((30, 3), 7.0)
    with Client(address, model="people", timeout_seconds=HANG_SECONDS) as client:
        text = str(raised_by(lambda: client.predict(rows)))
    for place in ("column 'age' (feature 0)", PLACE, "column 'has pet' (feature 2)"):
        assert f"rows 0, 1, 2, 3, 4 and 25 more, {place} is outside the model's range 0..1" in text
