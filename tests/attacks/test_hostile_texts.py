"""Attack: a service whose names, versions and error texts drive the terminal of who reads them.

Every command and every error type meets a text that clears the screen, sets its title, forges a
line and reverses the direction of writing. What reaches stdout and stderr has no control character
but the newline at the end of a line. The switch to the old behaviour shows each text as it is.
"""

import asyncio
import csv
import dataclasses
import sys
import traceback
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import grpc
import numpy as np
import pandas as pd
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2

from sealserve import errors
from sealserve.aio import AsyncClient
from sealserve.cli.main import main
from sealserve.cli.predictions_table import write_table
from sealserve.client import Client
from sealserve.errors import SealserveError, ServiceError
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.schema import Schema
from sealserve.protocol.text import printable, quoted
from sealserve.protocol.wire import error_to_proto
from sealserve.v1 import errors_pb2, keys_pb2, model_pb2, prediction_pb2
from tests.support.hostile_service import Method, abort, description, running_hostile
from tests.support.recording_service import accepted, described, recording_service
from tests.support.serving import HANG_SECONDS, linear, served

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\nsealserve: error: forged\n\u202egnp\u2028\x9b31m\x00\u200b"
KEY_ID = "a" * 64
Response = prediction_pb2.StreamPredictResponse


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old behaviour: a text is shown as it comes."""

    def unchanged(text: str, max_characters: int = 0) -> str:
        return text

    monkeypatch.setattr(printable, "__code__", unchanged.__code__)  # wherever it is imported by name


def assert_harmless(shown: str) -> None:
    assert all(line.isprintable() for line in shown.split("\n")), shown
    assert not any(line.startswith("sealserve: error: forged") for line in shown.split("\n"))


def details() -> dict[str, errors_pb2.Error]:
    """Every error that travels, with hostile texts in all of its fields."""
    made = {"none": errors_pb2.Error(message=HOSTILE)}
    for kind in ServiceError.__subclasses__():
        hints = get_type_hints(kind)
        fields = {field.name: _hostile(hints[field.name]) for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        made[kind.__name__] = error_to_proto(kind(**fields))
        made[kind.__name__].message = HOSTILE
    return made


def _hostile(hint: Any) -> Any:
    if hint is str:
        return HOSTILE
    return next(iter(hint)) if issubclass(hint, Enum) else hint()


DETAILS = details()


def failing(detail: errors_pb2.Error | None = None) -> Method:
    """A method that fails with a hostile status, and a detail where there is one."""

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        abort(context, "x\x1b[2J\x07\nforged \u202e\x9b", detail)

    return call


def outcome(address: str) -> SealserveError:
    with Client(address, layout="row", timeout_seconds=2.0) as client, pytest.raises(SealserveError) as caught:
        client.predict(np.full((1, 2), 0.5))
    assert isinstance(caught.value, SealserveError)
    return caught.value


@pytest.mark.parametrize("name", DETAILS)
def test_every_error_of_a_call_is_harmless(name: str) -> None:
    """In its text and in a traceback, which shows its cause, too."""
    fails = failing(DETAILS[name])
    with running_hostile(Predict=fails, GetKey=fails, RegisterKey=fails) as (_, address):
        error = outcome(address)
    assert type(error).__name__ == (name if name != "none" else "ServiceError")
    assert_harmless(str(error))
    assert_harmless(repr(error))
    assert_harmless("".join(traceback.format_exception(error)))


def test_the_status_of_a_call_without_a_detail_is_harmless() -> None:
    with running_hostile(Predict=failing()) as (_, address):
        error = outcome(address)
    assert isinstance(error, errors.CallError)
    assert "forged" in str(error)
    assert_harmless("".join(traceback.format_exception(error)))


def test_the_status_of_an_asynchronous_call_is_harmless() -> None:
    async def predict(address: str) -> None:
        async with AsyncClient(address, layout="row", timeout_seconds=2.0) as client:
            await client.predict(np.full((1, 2), 0.5))

    with running_hostile(Predict=failing()) as (_, address), pytest.raises(errors.CallError) as caught:
        asyncio.run(predict(address))
    assert_harmless("".join(traceback.format_exception(caught.value)))


@pytest.mark.parametrize("name", DETAILS)
def test_every_error_of_an_item_is_harmless(name: str) -> None:
    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield Response(window=prediction_pb2.Window(max_bytes_in_flight=1 << 30))
        for request in requests:
            if request.HasField("header"):
                yield Response(item_id=request.item_id, error=DETAILS[name])

    with (
        running_hostile(StreamPredict=stream) as (_, address),
        Client(address, layout="row", timeout_seconds=0.5, connections=1) as client,
    ):
        try:
            ((_, error),) = client.stream(np.full((1, 2), 0.5))
        except SealserveError as raised:
            error = raised
    assert isinstance(error, SealserveError)
    assert_harmless(str(error))
    assert_harmless("".join(traceback.format_exception(error)))


# Columns, which errors of rows name


@pytest.fixture
def quoted_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old behaviour: a name between quotes is shown as it comes."""

    def unchanged(text: str, max_characters: int = 0) -> str:
        return f"'{text}'"

    monkeypatch.setattr(quoted, "__code__", unchanged.__code__)


FORGED = HOSTILE + "' (feature 0) is right; row 7, column 'b"
BAD_ROWS: dict[str, Any] = {
    "out of range": [[0.5, 9.0]],
    "infinite": [[np.inf, 0.5]],
    "missing, of many rows": np.full((2000, 2), np.nan),
    "text": [[0.5, "x"]],
    "too large": [[10**400, 0.5]],
    "a frame of text": pd.DataFrame([["x", 0.5]]),
    "a series of text": [pd.Series(["x", 0.5], index=[FORGED, FORGED + "2"])],
    "a series of other labels": [pd.Series([0.5, 0.5])],
    "a frame of other names": pd.DataFrame([[0.5, 0.5]]),
}


def errors_of_rows(rows: Any) -> list[SealserveError]:
    """Every error that a client raises or returns for rows of a model with hostile names."""
    served_model = served("line", linear(np.ones((1, 2)))).model
    model = dataclasses.replace(described(served_model, layout="row"), schema=Schema(2, (FORGED, FORGED + "2")))
    found = list[SealserveError]()
    with (
        recording_service(model, lambda sent: accepted(model, sent)) as service,
        Client(service.address, layout="row", timeout_seconds=HANG_SECONDS) as client,
    ):
        for act in (
            lambda: client.predict(rows),
            lambda: client.decrypt(client.send(client.encrypt(rows[: client.offer().rows_per_item]))),
        ):
            with pytest.raises(SealserveError) as caught:
                act()
            assert isinstance(caught.value, SealserveError)
            found.append(caught.value)
        found += [result for _, result in client.stream(rows) if isinstance(result, SealserveError)]
    return found


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_names_of_columns_in_errors_are_harmless(kind: str) -> None:
    found = errors_of_rows(BAD_ROWS[kind])
    assert len(found) >= 3
    for text in {*map(str, found), "".join(traceback.format_exception(found[0]))}:
        assert_harmless(text)
    if "of other" not in kind:
        assert all("column " in str(error) for error in found)
        assert not any("row 7, column 'b'" in str(error) for error in found)


@pytest.mark.usefixtures("quoted_as_it_is")
def test_names_of_columns_did_pass_it_on_when_they_were_shown_as_they_are() -> None:
    for error in errors_of_rows(BAD_ROWS["out of range"]):
        assert HOSTILE in str(error)
        assert "row 7, column 'b" in str(error)


# The command line


def labelled(**fields: Any) -> model_pb2.Model:
    """A description whose texts are hostile wherever a description may have them."""
    message = description(version=HOSTILE, **fields)
    message.output.task = model_pb2.Output.TASK_CLASSIFICATION
    message.output.classes.strings.values[:] = [HOSTILE + "0", HOSTILE + "1"]
    message.input.feature_names[:] = [HOSTILE + "0", HOSTILE + "1"]
    return message


def key(**fields: Any) -> keys_pb2.Key:
    time = Timestamp(seconds=1_800_000_000)
    return keys_pb2.Key(
        key_id=KEY_ID,
        kind=keys_pb2.KEY_KIND_EVALUATION_KEYS,
        parameter_set=HOSTILE,
        owner=HOSTILE,
        create_time=time,
        expire_time=time,
        **fields,
    )


def answering() -> dict[str, Any]:
    """Methods that answer with hostile texts."""
    return {
        "ListModels": lambda request, context: model_pb2.ListModelsResponse(models=[labelled()]),
        "GetKey": lambda request, context: keys_pb2.GetKeyResponse(key=key()),
        "ListKeys": lambda request, context: keys_pb2.ListKeysResponse(keys=[key()]),
        "RegisterKey": lambda requests, context: keys_pb2.RegisterKeyResponse(key=key()),
        "Check": lambda request, context: health_pb2.HealthCheckResponse(status=99),
        "Predict": failing(),
        "StreamPredict": failing(),
    }


def refusing() -> dict[str, Any]:
    names = ("GetModel", "ListModels", "GetKey", "ListKeys", "RegisterKey", "DeleteKey", "Check", "Predict")
    return {name: failing(errors_pb2.Error(message=HOSTILE)) for name in names} | {"StreamPredict": failing()}


def commands(folder: Path) -> dict[str, list[str]]:
    rows, named, file = folder / "X.npy", folder / "named.csv", folder / "key"
    np.save(rows, np.full((3, 2), 0.5))
    named.write_text("a,b\n0.5,0.5\n")
    file.write_bytes(b"key")
    return {
        "models list": ["models", "list"],
        "models list --json": ["models", "list", "--json"],
        "models show": ["models", "show"],
        "models show --json": ["models", "show", "--json"],
        "models show --save": ["models", "show", "--save", str(folder / "pin")],
        "predict": ["predict", "--input", str(rows)],
        "predict in columns": ["predict", "--input", str(rows), "--layout", "column"],
        "predict other columns": ["predict", "--input", str(named)],
        "predict into a file": ["predict", "--input", str(rows), "--output", str(folder / "out.csv")],
        "bench": ["bench", "--seconds", "0.1", "--warm-up", "0"],
        "health": ["health"],
        "keys register": ["keys", "register", str(file)],
        "keys show": ["keys", "show", KEY_ID],
        "keys list": ["keys", "list"],
        "keys list --json": ["keys", "list", "--json"],
        "keys delete": ["keys", "delete", KEY_ID],
    }


@pytest.mark.parametrize("behaviour", [answering, refusing])
def test_every_command_is_harmless(behaviour: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_hostile(labelled(), **behaviour()) as (_, address):
        for name, words in commands(tmp_path).items():
            exit_code = main([*words, "--address", address, "--timeout", "1"])
            captured = capsys.readouterr()
            assert captured.out or captured.err or exit_code == 0, name
            assert "Traceback" not in captured.err
            for shown in (captured.out, captured.err):
                assert_harmless(shown)
    if behaviour is answering:
        assert_harmless((tmp_path / "pin").read_text())


@pytest.mark.parametrize("field", ["name", "config_id"])
def test_a_hostile_identifier_is_refused_in_one_line(field: str, capsys: pytest.CaptureFixture[str]) -> None:
    with running_hostile(description(**{field: HOSTILE})) as (_, address):
        assert main(["models", "show", "--address", address]) == 1
    shown = capsys.readouterr().err
    assert_harmless(shown)
    assert shown.count("\n") == 1


@pytest.mark.usefixtures("as_it_is")
def test_commands_did_pass_it_on_when_it_was_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with running_hostile(labelled(), **answering()) as (_, address):
        assert main(["models", "show", "--address", address]) == 0
        assert HOSTILE in capsys.readouterr().out
        assert main(["predict", "--input", "missing.npy", "--address", address]) == 1
    with running_hostile(labelled(), Predict=failing(errors_pb2.Error(message=HOSTILE))) as (_, address):
        assert str(outcome(address)) == HOSTILE


def test_a_label_is_quoted_in_a_file_and_printable_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the file it is exact, for the next program; quotes keep it one field of one row."""
    labels, path = np.array([HOSTILE.replace("\x00", ""), 'a,"b"', "plain"]), tmp_path / "labels.csv"
    with path.open("wb") as file:
        write_table(labels, (), file, ".csv")
    with path.open(newline="", encoding="utf-8") as file:
        assert [row for (row,) in csv.reader(file)] == labels.tolist()
    write_table(labels, (), sys.stdout.buffer, ".csv", is_shown=True)
    shown = capsys.readouterr().out
    assert_harmless(shown)
    assert shown.splitlines()[1:] == ['"a,""b"""', "plain"]


def test_values_of_the_interface_stay_as_they_are() -> None:
    """Labels and names are returned and compared; records and errors are shown."""
    with running_hostile(labelled(), **answering()) as (_, address):
        with Client(address) as client:
            model = client.model
        with KeyRegistry(address) as registry:
            record = registry.get(KEY_ID)
    assert model.output.classes == (HOSTILE + "0", HOSTILE + "1")
    assert model.schema.column_names == (HOSTILE + "0", HOSTILE + "1")
    assert_harmless(model.version)
    assert_harmless(record.tenant + record.parameter_set)
