"""Attack: a service that changes what rows mean, or which rows are accepted, after a user looked.

It widens a range, renames columns or exchanges labels: at first contact, or in the middle of a
stream. A client with a pin sends nothing that depends on a feature under such a description; a
client without one, which is the switch to the old behaviour, follows it.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from sealserve import errors
from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.protocol import wire
from sealserve.protocol.pin import Pin
from sealserve.v1 import errors_pb2, model_pb2, prediction_pb2
from tests.support.command_line import fails
from tests.support.hostile_service import abort, description, running_hostile

ENOUGH: dict[str, Any] = {"timeout_seconds": 20.0}
ROWS = np.full((3000, 2), 0.5)
Response = prediction_pb2.StreamPredictResponse
STALE = errors_pb2.Error(stale_config=errors_pb2.StaleConfig(current_config_id="changed"))


def with_client(address: str, rows: Any, **options: Any) -> Any:
    with Client(address, layout="row", connections=1, **ENOUGH | options) as client:
        return client.predict(rows)


def with_stream(address: str, rows: Any, **options: Any) -> Any:
    with Client(address, layout="row", connections=1, **ENOUGH | options) as client:
        return list(client.stream(rows, rows_per_item=1000))


def with_async_client(address: str, rows: Any, **options: Any) -> Any:
    async def predict() -> Any:
        async with AsyncClient(address, layout="row", connections=1, **ENOUGH | options) as client:
            return await client.predict(rows)

    return asyncio.run(predict())


ALL = pytest.mark.parametrize("predict", [with_client, with_stream, with_async_client], ids=["sync", "stream", "async"])
Predict = Callable[..., Any]


def labelled() -> model_pb2.Model:
    message = description()
    message.output.task = model_pb2.Output.TASK_CLASSIFICATION
    message.output.classes.strings.values[:] = ["benign", "malignant"]
    message.input.feature_names[:] = ["age", "size"]
    return message


def changed(change: Callable[[model_pb2.Model], object]) -> model_pb2.Model:
    message = labelled()
    message.config_id = "changed"
    change(message)
    return message


def put(values: Any, new: list[Any]) -> None:
    values[:] = new


def as_regression(message: model_pb2.Model) -> None:
    message.output.ClearField("classes")
    message.output.task = model_pb2.Output.TASK_REGRESSION


def as_group(message: model_pb2.Model) -> None:
    put(message.input.keeps, [True])
    put(message.input.group, [1, 1])
    put(message.input.exactly_one, [True])


CHANGES: dict[str, tuple[Callable[[model_pb2.Model], object], str]] = {
    "a wider range": (
        lambda m: put(m.input.maximum, [1.0, 2.0]),
        r"the maximum of column 'size' \(feature 1\) is 2.0, not 1.0",
    ),
    "a narrower range": (
        lambda m: put(m.input.minimum, [0.5, 0.0]),
        r"the minimum of column 'age' \(feature 0\) is 0.5, not 0.0",
    ),
    "another step": (lambda m: put(m.input.step, [0.5]), r"the step of column 'age' \(feature 0\) is 0.5"),
    "a group of features": (as_group, r"the flag that it keeps its grid of column 'age' \(feature 0\) is True"),
    "columns exchanged": (lambda m: put(m.input.feature_names, ["size", "age"]), "column 0 is 'size', not 'age'"),
    "no column names": (lambda m: put(m.input.feature_names, []), "no names of columns"),
    "labels exchanged": (
        lambda m: put(m.output.classes.strings.values, ["malignant", "benign"]),
        "label 0 is 'malignant', not 'benign'",
    ),
    "another link": (lambda m: setattr(m.output, "link", model_pb2.Output.LINK_SOFTMAX), "the link is softmax"),
    "labels of another type": (
        lambda m: put(m.output.classes.integers.values, [0, 1]),
        "the type of the labels is int, not str",
    ),
    "another task": (as_regression, "the task is regression"),
}
UNPINNED: dict[str, Callable[[model_pb2.Model], object]] = {
    "a version": lambda m: setattr(m, "version", "2"),
    "limits": lambda m: setattr(m.limits, "max_open_items", 3),
    "a cost": lambda m: setattr(m.offers[0].cost, "server_seconds", 1.0),
    "an error bound": lambda m: setattr(m.offers[0], "score_error_bound", 1.0),
    "minus zero": lambda m: put(m.input.minimum, [-0.0]),
    "one value for each feature": lambda m: put(m.input.maximum, [1.0, 1.0]),
}


def pin_of(message: model_pb2.Model) -> Pin:
    return Pin.of(wire.model_from_proto(message))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.pin"
    pin_of(labelled()).save(path)
    return path


def stale_for_ever() -> dict[str, Any]:
    def stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Response]:
        yield Response(window=prediction_pb2.Window(max_bytes_in_flight=1 << 30))
        for request in requests:
            if request.HasField("header"):
                yield Response(item_id=request.item_id, error=STALE)

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        abort(context, "stale", STALE)

    return {"StreamPredict": stream, "Predict": call}


@ALL
@pytest.mark.parametrize("what", CHANGES)
def test_another_model_at_first_contact_gets_nothing(what: str, saved: Path, predict: Predict) -> None:
    change, text = CHANGES[what]
    with running_hostile(changed(change), **stale_for_ever()) as (service, address):
        with pytest.raises(errors.UnexpectedModelError, match=text):
            predict(address, ROWS, expect=saved)
        assert service.calls == ["GetModel"]
        assert service.headers == []


@ALL
def test_a_digest_alone_is_enough(predict: Predict) -> None:
    expected, message = pin_of(labelled()), changed(CHANGES["a wider range"][0])
    with (
        running_hostile(message) as (service, address),
        pytest.raises(errors.UnexpectedModelError, match=f"{pin_of(message).digest}, not {expected.digest}"),
    ):
        predict(address, ROWS, expect=expected.digest)
    assert service.calls == ["GetModel"]


@ALL
@pytest.mark.parametrize(
    "rows", [pytest.param(ROWS, id="streams", marks=pytest.mark.slow), pytest.param(ROWS[:1], id="one item")]
)
@pytest.mark.parametrize("is_pinned", [True, False], ids=["pinned", "old behaviour"])
def test_a_model_that_changes_in_the_middle(*, is_pinned: bool, rows: Any, saved: Path, predict: Predict) -> None:
    """The first description is the one that is expected, each later one has a wider range."""
    answers = iter([labelled()])
    wider = changed(CHANGES["a wider range"][0])

    def get_model(request: Any, context: grpc.ServicerContext) -> Any:
        return model_pb2.GetModelResponse(model=next(answers, wider))

    with running_hostile(GetModel=get_model, **stale_for_ever()) as (service, address):
        if is_pinned:
            with pytest.raises(errors.UnexpectedModelError, match=r"the maximum of column 'size' \(feature 1\)"):
                predict(address, rows, expect=saved)
            assert {header.config_id for header in service.headers} == {labelled().config_id}
        else:
            outcome: Any = None
            try:
                outcome = predict(address, rows, timeout_seconds=1.0)
            except (errors.StaleConfigError, errors.DeadlineError) as error:
                outcome = error
            assert outcome is not None
            assert "changed" in {header.config_id for header in service.headers}, "it follows, and sends"


@pytest.mark.parametrize("what", UNPINNED)
def test_what_does_not_change_a_meaning_is_not_pinned(what: str) -> None:
    assert pin_of(changed(UNPINNED[what])).digest == pin_of(labelled()).digest
    pin_of(labelled()).check(wire.model_from_proto(changed(UNPINNED[what])))


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_a_meaning_changes_the_digest(what: str) -> None:
    assert pin_of(changed(CHANGES[what][0])).digest != pin_of(labelled()).digest


def test_a_file_that_was_changed_is_refused(saved: Path) -> None:
    content = json.loads(saved.read_text())
    content["grid"]["maximum"] = 1e6
    saved.write_text(json.dumps(content))
    with pytest.raises(errors.InputError, match="the file was changed"):
        Client("127.0.0.1:1", expect=saved)
    with pytest.raises(errors.InputError, match="the file was changed"):
        AsyncClient("127.0.0.1:1", expect=saved)


# The command line


def test_commands_save_and_expect(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sealserve.cli.main import main

    rows, looked_at = tmp_path / "X.npy", tmp_path / "looked_at.pin"
    np.save(rows, ROWS[:1])
    with running_hostile(labelled()) as (_, address):
        assert main(["models", "show", "--address", address, "--save", str(looked_at)]) == 0
        assert pin_of(labelled()).digest in capsys.readouterr().out
    assert looked_at.read_text() == saved.read_text()
    with running_hostile(changed(CHANGES["labels exchanged"][0])) as (service, address):
        for command in (["predict", "--input", rows], ["bench", "--seconds", "0.1"]):
            line = fails(capsys, *command, "--address", address, "--expect", looked_at)
            assert "label 0 is 'malignant', not 'benign'" in line
        assert set(service.calls) == {"GetModel"}
