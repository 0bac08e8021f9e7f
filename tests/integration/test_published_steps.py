"""Models with published steps: clients compute the features, and a service scores them."""

import asyncio
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sealserve._rpc import connections
from sealserve._rpc.channel import Endpoint
from sealserve._rpc.status import typed_error
from sealserve.aio import AsyncClient
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import (
    FeatureNameError,
    InputError,
    NotFiniteError,
    OutOfRangeError,
    PlanError,
    RequirementError,
    StaleConfigError,
    UnexpectedModelError,
)
from sealserve.protocol.pin import Pin
from sealserve.steps.arithmetic import Affine
from sealserve.steps.program import Program
from sealserve.steps.step import ValueKind
from sealserve.steps.text import Text, Tokens
from sealserve.v1 import model_pb2, model_pb2_grpc
from sealserve_service.catalog.registry import ModelRegistry, publish_steps
from tests.support.libraries import library
from tests.support.raw import RawClient
from tests.support.serving import HANG_SECONDS, linear, running_server, served
from tests.support.step_models import (
    COLUMNS,
    FEATURES,
    INTERCEPT,
    PROGRAM,
    ROWS,
    WEIGHTS,
    expected_scores,
    served_with_steps,
)

SERVED = served_with_steps()
FRAME = pd.DataFrame(ROWS)
TOLERANCE = SERVED.model.offers[0].score_error_bound


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running_server(ModelRegistry([SERVED])) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        yield client


TABLES: dict[str, Any] = {
    "dictionary": ROWS,
    "DataFrame": FRAME,
    "columns in another order": FRAME[FRAME.columns[::-1]],
    "nullable": FRAME.convert_dtypes(),
    "categories": FRAME.astype({"city": "category"}),
    "categories with gaps, nullable": FRAME.convert_dtypes().astype({"city": "category", "note": "category"}),
    "strings on Arrow": FRAME.astype({"city": "string[pyarrow]", "note": "string[pyarrow]"}),
    "arrays": {name: FRAME[name].to_numpy() for name in FRAME},
    "pandas on Arrow": FRAME.convert_dtypes(dtype_backend="pyarrow"),
    "Arrow": pa.Table.from_pandas(FRAME),
    "dictionaries": FRAME.to_dict("records"),
    "Series": [row for _, row in FRAME.iterrows()],
    "objects": FRAME.to_numpy(object),
    "rows": [tuple(row) for row in FRAME.to_numpy(object)],
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_is_scored_whatever_holds_it(client: Client, kind: str) -> None:
    np.testing.assert_array_equal(client.features(TABLES[kind]), FEATURES)
    np.testing.assert_allclose(client.predict(TABLES[kind]), expected_scores(), atol=TOLERANCE)


def test_a_table_of_polars_is_scored_whatever_its_types(client: Client) -> None:
    polars = library("polars")
    table = polars.DataFrame(ROWS)
    cities = [table["city"].cast(kind) for kind in (polars.Categorical, polars.Enum(["Rome", "Oslo"]))]
    small = table.with_columns(table["age"].cast(polars.UInt8), table["children"].cast(polars.Int8))
    for given in (table, table[:, ::-1], small, *map(table.with_columns, cities), table.to_dicts(), table.to_dict()):
        np.testing.assert_array_equal(client.features(given), FEATURES)
        np.testing.assert_allclose(client.predict(given), expected_scores(), atol=TOLERANCE)
    for wrong, text in (
        (table.drop("age"), "missing: age"),
        (table.with_columns(table["age"].cast(polars.String)), "column 'age' is one of numbers"),
        (table.with_columns(table["age"].alias("city")), "column 'city' is one of strings"),
        (table.lazy(), r"not computed yet: pass X\.collect\(\)"),
    ):
        with pytest.raises(InputError, match=text):
            client.predict(wrong)


@pytest.mark.parametrize("layout", ["row", "column"])
def test_streams_and_asyncio_compute_the_same(address: str, layout: str) -> None:
    async def predict() -> tuple[Any, Any]:
        async with AsyncClient(address, layout=layout, timeout_seconds=HANG_SECONDS) as client:
            return await client.features(FRAME), await client.predict(FRAME)

    features, scores = asyncio.run(predict())
    np.testing.assert_array_equal(features, FEATURES)
    np.testing.assert_allclose(scores, expected_scores(), atol=TOLERANCE)
    with Client(address, layout=layout, timeout_seconds=HANG_SECONDS) as client:
        for rows in (FRAME, FRAME.to_dict("records")):
            found = dict(client.stream(rows))
            np.testing.assert_allclose([found[k] for k in range(4)], expected_scores(), atol=TOLERANCE)


REFUSED: dict[str, tuple[dict[str, Any], type[InputError], str]] = {
    "missing": ({"children": [0, np.nan, 2, 3]}, NotFiniteError, "row 1, column 'children' is missing"),
    "no integer": ({"children": [0, 1, 2, 0.5]}, InputError, "row 3, column 'children' is no integer"),
    "out of range": (
        {"age": [0, 1, 121, 3]},
        OutOfRangeError,
        "row 2, column 'age' is outside the column's range 0..120",
    ),
    "unknown": ({"city": ["Rome", "Oslo", "Lima", None]}, InputError, "row 2, column 'city' has a value that"),
    "no text": ({"note": ["good", None, "", "bad"]}, NotFiniteError, "row 1, column 'note' is missing"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_value_that_a_column_or_a_step_refuses_is_named_after_the_answer(client: Client, what: str) -> None:
    changes, kind, text = REFUSED[what]
    for call in (client.features, client.predict):
        with pytest.raises(kind, match=text):
            call(ROWS | changes)
    found = client.predict(ROWS | changes, errors="return")
    assert [isinstance(value, kind) for value in found].count(True) == 1


def test_a_feature_outside_the_grid_is_refused_as_before(client: Client) -> None:
    rows = ROWS | {"note": ["good", "good good", "", "bad"]}
    assert client.features(rows)[1, 6] == 2.0
    with pytest.raises(OutOfRangeError, match="row 1, feature 6, of column 'note', is outside the model's range"):
        client.predict(rows)


KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "text in a column of numbers": ({"age": ["a", 1, 2, 3]}, "column 'age' is one of numbers"),
    "numbers in a column of strings": (
        {"city": [1, 2, 3, 4]},
        "column 'city' is one of strings, and has values of type int",
    ),
    "mixed": ({"city": ["Rome", 2, None, 4.5]}, "column 'city' is one of strings, and has values of type float, int"),
    "bytes": ({"note": [b"good"] * 4}, "column 'note' is one of strings, and has values of type bytes"),
    "dates": ({"age": np.zeros(4, "M8[s]")}, "column 'age' is one of numbers: the rows hold dates"),
    "two": ({"age": ["a"] * 4, "note": [1] * 4}, "column 'age' .*; column 'note' "),
}


@pytest.mark.parametrize("what", KINDS)
def test_a_column_of_another_kind_is_refused_unsent(client: Client, what: str) -> None:
    changes, text = KINDS[what]
    for table in (ROWS | changes, pd.DataFrame(ROWS | changes)):
        with pytest.raises(InputError, match=text):
            client.predict(table)


def test_columns_that_are_missing_superfluous_or_twice_are_named(client: Client) -> None:
    with pytest.raises(FeatureNameError, match="missing: age; unexpected: Age, extra"):
        client.predict(FRAME.rename(columns={"age": "Age"}).assign(extra=1))
    with pytest.raises(FeatureNameError, match="of the same name: age"):
        client.predict(FRAME[[*FRAME.columns, "age"]])
    with pytest.raises(InputError, match="rows of 5 columns"):
        client.predict(FRAME.to_numpy(object)[:, :4])
    with pytest.raises(InputError, match="different lengths"):
        client.predict(ROWS | {"age": [1.0]})


def test_clipping_moves_numbers_into_the_range_of_their_column(address: str) -> None:
    beyond = ROWS | {"age": [60.0, None, -5.0, 500.0]}
    with Client(address, clip=True, timeout_seconds=HANG_SECONDS) as client:
        np.testing.assert_array_equal(client.features(beyond), FEATURES)
        np.testing.assert_allclose(client.predict(beyond), expected_scores(), atol=TOLERANCE)


def test_steps_are_fetched_once_and_again_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = ModelRegistry([SERVED])
    halved = Program(
        PROGRAM.columns, [*PROGRAM.steps, Affine([2], divide=np.array([2.0]))], [6, 7, 9, 14, 10, 11, 12, 13]
    )
    fetched, call = list[str](), connections.call

    def counted(of_client: Any, method: str, *arguments: Any) -> Any:
        fetched.append(method)
        return call(of_client, method, *arguments)

    monkeypatch.setattr("sealserve.client.call", counted)
    with running_server(registry) as own_address, Client(own_address, timeout_seconds=HANG_SECONDS) as client:
        for _ in range(2):
            np.testing.assert_allclose(client.predict(FRAME), expected_scores(), atol=TOLERANCE)
        assert fetched.count("get_input_steps") == 1
        registry.put(publish_steps(served("steps", linear(WEIGHTS, INTERCEPT + 1)), COLUMNS, PROGRAM))
        np.testing.assert_allclose(client.predict(FRAME), expected_scores() + 1, atol=TOLERANCE)
        assert fetched.count("get_input_steps") == 1, "the steps are the same"
        registry.put(publish_steps(served("steps", linear(WEIGHTS, INTERCEPT)), COLUMNS, halved))
        changed = FEATURES * [1, 1, 1, 0.5, 1, 1, 1, 1] @ WEIGHTS.T + INTERCEPT
        np.testing.assert_allclose(client.predict(FRAME), changed, atol=TOLERANCE)
        assert fetched.count("get_input_steps") == 2


def test_the_description_has_the_digest_and_not_the_steps(address: str) -> None:
    with RawClient(address) as raw:
        model = raw.models.GetModel(model_pb2.GetModelRequest(model="steps"), timeout=HANG_SECONDS).model
        [listed] = raw.models.ListModels(model_pb2.ListModelsRequest(), timeout=HANG_SECONDS).models
        assert model.input.steps_id == listed.input.steps_id == SERVED.model.steps_id
        assert model.input.steps_bytes == len(SERVED.steps)
        assert list(model.requires) == ["steps"]
        assert b"Oslo" not in model.SerializeToString()
        stub = model_pb2_grpc.ModelServiceStub(raw.channel)
        request = model_pb2.GetInputStepsRequest(model="steps", steps_id=model.input.steps_id)
        pieces = [response.piece for response in stub.GetInputSteps(request, timeout=HANG_SECONDS)]
        assert b"".join(pieces) == SERVED.steps
        for steps_id in ("", "0" * 64):
            request.steps_id = steps_id
            with pytest.raises(grpc.RpcError) as caught:
                list(stub.GetInputSteps(request, timeout=HANG_SECONDS))
            found = typed_error(caught.value, Endpoint("", uses_tls=False))
            assert isinstance(found, StaleConfigError)
            assert found.current_config_id == model.config_id


def test_a_pin_holds_the_columns_and_the_steps(address: str, tmp_path: Any) -> None:
    path = tmp_path / "pin"
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        Pin.of(client.model).save(path)
    assert Pin.read(path).digest == Pin.of(SERVED.model).digest
    with Client(address, expect=path, timeout_seconds=HANG_SECONDS) as client:
        np.testing.assert_allclose(client.predict(FRAME), expected_scores(), atol=TOLERANCE)
    nullable = (dataclasses.replace(COLUMNS[0], allows_missing=False), *COLUMNS[1:])
    longer = Program(PROGRAM.columns, [*PROGRAM.steps, Affine([0])], PROGRAM.outputs)
    for columns, steps, text in (
        (
            nullable,
            PROGRAM,
            "column 0 takes other values: number, 0..120, not missing; expected was: .*, or missing",
        ),
        (COLUMNS, longer, "its steps are others"),
    ):
        other = publish_steps(served("steps", linear(WEIGHTS, INTERCEPT)), columns, steps)
        with (
            running_server(ModelRegistry([other])) as own_address,
            Client(own_address, expect=path, timeout_seconds=HANG_SECONDS) as client,
            pytest.raises(UnexpectedModelError, match=text),
        ):
            client.predict(FRAME)


def test_a_stream_refuses_a_dictionary_of_columns(client: Client) -> None:
    with pytest.raises(InputError, match="not a dictionary of columns"):
        list(client.stream(ROWS))


def test_features_without_the_steps_are_not_computed() -> None:
    model = dataclasses.replace(SERVED.model, steps=None)
    with pytest.raises(RequirementError, match="does not fetch"):
        model.features(model.schema.rows(FRAME))


def test_steps_with_a_text_that_is_no_unicode_are_not_served() -> None:
    text = Text([4], Tokens.WORDS, vocabulary=("\ud800",))
    steps = Program(PROGRAM.columns, [*PROGRAM.steps, text], PROGRAM.outputs)
    with pytest.raises(PlanError, match="half a character"):
        publish_steps(served("steps", linear(WEIGHTS, INTERCEPT)), COLUMNS, steps)


def test_the_command_shows_columns_and_steps(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "--address", address]) == 0
    shown = capsys.readouterr().out
    for line in (
        "  age +number, 0..120, or missing",
        "  owner +boolean, 0..1, not missing",
        "  city +string, or missing",
        "steps +1 Impute, 2 Affine, 1 Missing, 1 Bins, 1 OneHot, 1 Text; ",
        "features +8",
    ):
        assert re.search(rf"^{line}", shown, re.MULTILINE), line
    assert main(["models", "show", "--json", "--address", address]) == 0
    assert json.loads(capsys.readouterr().out)["steps"][0] == "Impute"


def test_steps_of_other_columns_or_features_are_not_served() -> None:
    model = served("steps", linear(WEIGHTS, INTERCEPT))
    fewer = Program(PROGRAM.columns, PROGRAM.steps, PROGRAM.outputs[:-1])
    numbers = Program([ValueKind.NUMBER], [], [0] * 8)
    for columns, steps in ((COLUMNS, fewer), (COLUMNS[:-1], PROGRAM), (COLUMNS, numbers)):
        with pytest.raises(PlanError, match="other columns or features"):
            publish_steps(model, columns, steps)
