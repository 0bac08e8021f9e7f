"""The agent over gRPC: predictions of real models, and what it says of them."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from sealserve import __version__
from sealserve.agent.tensors import MAX_TENSORS
from sealserve.inference import open_inference_pb2 as pb
from tests.support.agent_models import COLUMNS, AgentModels, agent_models, registry_of
from tests.support.agents import Agent, reason, request, running_agent, strings
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS, registered_keys, running_server


@pytest.fixture(scope="module")
def models(digits_model: Digits) -> AgentModels:
    return agent_models(digits_model)


@pytest.fixture(scope="module")
def estimators(models: AgentModels) -> dict[str, Any]:
    return models.estimators


@pytest.fixture(scope="module")
def frame(models: AgentModels) -> pd.DataFrame:
    return models.frame


@pytest.fixture(scope="module")
def normal(models: AgentModels) -> NDArray[np.float64]:
    return models.normal


@pytest.fixture(scope="module")
def agent(models: AgentModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    keys = registered_keys()
    registry = registry_of(models, keys, tmp_path_factory.mktemp("models"))
    with running_server(registry, keys=keys) as address, running_agent(address) as agent:
        yield agent


def columns_of(frame: pd.DataFrame) -> list[NDArray[Any]]:
    """The columns of a table as arrays, strings as objects."""
    return [strings(frame[name]) if frame[name].dtype == object else frame[name].to_numpy() for name in frame]


# Predictions


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("count", [1, 3, 200])
def test_rows_get_labels_scores_and_probabilities(agent: Agent, digits_model: Digits, is_raw: bool, count: int) -> None:
    rows = digits_model.X[:count]
    found = agent.infer("digits", rows, is_raw=is_raw)
    assert list(found.outputs) == ["label", "score", "probability"]
    np.testing.assert_array_equal(found["label"], digits_model.estimator.predict(rows))
    np.testing.assert_allclose(found["score"], digits_model.scores[:count], atol=1e-2)
    np.testing.assert_allclose(found["probability"], digits_model.estimator.predict_proba(rows), atol=1e-2)
    assert bool(found.message.raw_output_contents) is is_raw, "the reply has the form of the request"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"])
def test_a_tensor_may_be_of_any_numeric_type(agent: Agent, digits_model: Digits, dtype: str) -> None:
    rows = (digits_model.X[:2] > 0.5).astype(dtype)
    found = agent.infer("digits", rows, outputs=["score"], is_raw=True)
    expected = digits_model.estimator.decision_function(rows.astype(np.float64))
    np.testing.assert_allclose(found["score"], expected, atol=1e-2)
    if dtype != "f2":
        assert (agent.infer("digits", rows, outputs=["score"], is_raw=False)["score"] == found["score"]).all()


def test_labels_may_be_strings_and_weights_private(agent: Agent, estimators: dict[str, Any], normal: Any) -> None:
    for is_raw in (True, False):
        found = agent.infer("answers", normal[:20], outputs=["label"], is_raw=is_raw)
        assert found["label"].tolist() == estimators["answers"].predict(normal[:20]).tolist()


def test_a_regression_has_predictions(agent: Agent, estimators: dict[str, Any], normal: Any) -> None:
    found = agent.infer("prices", normal[:5])
    assert list(found.outputs) == ["prediction", "score"]
    np.testing.assert_allclose(found["prediction"], estimators["prices"].predict(normal[:5]), atol=1e-2)


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("count", [1, 40])
def test_columns_of_a_table_are_tensors_by_their_names(
    agent: Agent, estimators: dict[str, Any], frame: pd.DataFrame, is_raw: bool, count: int
) -> None:
    rows = frame[:count]
    shuffled = rows[list(reversed(COLUMNS))]
    found = agent.infer("table", *columns_of(shuffled), names=list(shuffled), is_raw=is_raw)
    np.testing.assert_array_equal(found["label"], estimators["table"].predict(rows))
    np.testing.assert_allclose(found["probability"], estimators["table"].predict_proba(rows), atol=1e-2)


def test_a_column_may_have_two_dimensions(agent: Agent, frame: pd.DataFrame) -> None:
    flat = columns_of(frame[:3])
    upright = [column.reshape(-1, 1) for column in flat]
    one, other = (agent.infer("table", *tensors, names=COLUMNS, outputs=["score"]) for tensors in (flat, upright))
    assert one["score"].tolist() == other["score"].tolist()


def test_trees_predict_what_they_do_in_plaintext(agent: Agent, estimators: dict[str, Any], normal: Any) -> None:
    found = agent.infer("trees", normal[:100], outputs=["probability", "label"])
    assert list(found.outputs) == ["probability", "label"], "in the order asked for"
    np.testing.assert_allclose(found["probability"], estimators["trees"].predict_proba(normal[:100]), atol=1e-2)
    assert (found["label"] == estimators["trees"].predict(normal[:100])).mean() > 0.98


def test_no_rows_have_no_predictions(agent: Agent) -> None:
    assert agent.infer("digits", np.empty((0, 64)))["label"].shape == (0,)


def test_an_id_and_a_version_come_back(agent: Agent, digits_model: Digits) -> None:
    version = agent.stub.ModelMetadata(pb.ModelMetadataRequest(name="digits")).versions[0]
    found = agent.infer("digits", digits_model.X[:1], id="patient 7", version=version).message
    assert (found.id, found.model_name, found.model_version) == ("patient 7", "digits", version)


# What it says


def test_the_agent_names_itself_and_is_ready(agent: Agent) -> None:
    stub = agent.stub
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    metadata = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert (metadata.name, metadata.version) == ("sealserve-agent", __version__)
    assert list(metadata.extensions) == ["model_stream_infer", "binary_tensor_data"]


@pytest.mark.parametrize(("name", "version", "ready"), [("digits", "", True), ("digits", "1", False), ("x", "", False)])
def test_a_model_is_ready_if_the_service_lists_it(agent: Agent, name: str, version: str, ready: bool) -> None:
    assert agent.stub.ModelReady(pb.ModelReadyRequest(name=name, version=version)).ready is ready


def test_metadata_tell_tensors_and_properties(agent: Agent) -> None:
    digits, table = (agent.stub.ModelMetadata(pb.ModelMetadataRequest(name=name)) for name in ("digits", "table"))
    assert [(t.name, t.datatype, list(t.shape)) for t in digits.inputs] == [("rows", "FP64", [-1, 64])]
    assert [(t.name, t.datatype, list(t.shape)) for t in digits.outputs] == [
        ("label", "INT64", [-1]),
        ("score", "FP64", [-1, 10]),
        ("probability", "FP64", [-1, 10]),
    ]
    assert json.loads(digits.properties["classes"]) == list(range(10))
    assert digits.properties["weights"] == "open"
    assert float(digits.properties["score_error_bound"]) > 0
    assert {t.name: t.datatype for t in table.inputs} == {
        "age": "FP64",
        "city": "BYTES",
        "rooms": "FP64",
        "words": "BYTES",
    }
    assert json.loads(table.properties["column_names"]) == COLUMNS


def test_what_metadata_say_is_what_comes(agent: Agent, normal: Any) -> None:
    for name, rows in (("answers", normal[:2]), ("prices", normal[:2]), ("trees", normal[:2])):
        said = agent.stub.ModelMetadata(pb.ModelMetadataRequest(name=name)).outputs
        found = agent.infer(name, rows).message.outputs
        assert [(t.name, t.datatype, list(t.shape)[1:]) for t in said] == [
            (t.name, t.datatype, list(t.shape)[1:]) for t in found
        ]


def test_only_the_models_that_are_wanted_are_served(digits_server: str, digits_model: Digits) -> None:
    with running_agent(digits_server, models=["other"]) as agent:
        assert not agent.stub.ServerReady(pb.ServerReadyRequest()).ready
        with pytest.raises(grpc.RpcError) as failed:
            agent.infer("digits", digits_model.X[:1])
    assert reason(failed.value) == ("NOT_FOUND", "MODEL_NOT_FOUND")


# Refusals


ROW, GIANT = np.zeros((1, 64)), 1 << 20
REFUSED: dict[str, tuple[pb.ModelInferRequest, tuple[str, str]]] = {
    "unknown model": (request("none", ROW), ("NOT_FOUND", "MODEL_NOT_FOUND")),
    "a giant name of a model": (request("x" * GIANT, ROW), ("NOT_FOUND", "MODEL_NOT_FOUND")),
    "a giant version": (request("digits", ROW, version="x" * GIANT), ("NOT_FOUND", "MODEL_NOT_FOUND")),
    "a giant name of an output": (request("digits", ROW, outputs=["x" * GIANT]), ("INVALID_ARGUMENT", "INPUT")),
    "a giant name of an input": (request("digits", ROW[0], names=["x" * GIANT]), ("INVALID_ARGUMENT", "INPUT")),
    "many inputs": (request("digits", *[ROW[0, :1]] * (MAX_TENSORS + 1)), ("INVALID_ARGUMENT", "INPUT")),
    "many outputs": (request("digits", ROW, outputs=["label"] * (MAX_TENSORS + 1)), ("INVALID_ARGUMENT", "INPUT")),
    "no model": (request("", ROW), ("NOT_FOUND", "MODEL_NOT_FOUND")),
    "unknown version": (request("digits", ROW, version="7"), ("NOT_FOUND", "MODEL_NOT_FOUND")),
    "unknown output": (request("digits", ROW, outputs=["logits"]), ("INVALID_ARGUMENT", "INPUT")),
    "an output twice": (request("digits", ROW, outputs=["label", "label"]), ("INVALID_ARGUMENT", "INPUT")),
    "no probabilities": (request("prices", ROW[:, :6], outputs=["probability"]), ("INVALID_ARGUMENT", "INPUT")),
    "no inputs": (request("digits"), ("INVALID_ARGUMENT", "INPUT")),
    "two inputs": (request("digits", ROW, ROW), ("INVALID_ARGUMENT", "INPUT")),
    "too few columns": (request("digits", ROW[:, :5]), ("INVALID_ARGUMENT", "FEATURE_COUNT")),
    "one dimension": (request("digits", ROW[0]), ("INVALID_ARGUMENT", "INPUT")),
    "out of range": (request("digits", ROW + 9), ("INVALID_ARGUMENT", "OUT_OF_RANGE")),
    "NaN": (request("digits", ROW * np.nan), ("INVALID_ARGUMENT", "NOT_FINITE")),
    "infinite": (request("digits", ROW + np.inf), ("INVALID_ARGUMENT", "NOT_FINITE")),
    "strings": (request("digits", np.full((1, 64), "0", object)), ("INVALID_ARGUMENT", "INPUT")),
    "a missing column": (request("table", np.zeros(1), names=["age"]), ("INVALID_ARGUMENT", "FEATURE_NAME")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_has_a_status_and_a_reason(agent: Agent, name: str) -> None:
    message, expected = REFUSED[name]
    with pytest.raises(grpc.RpcError) as failed:
        agent.stub.ModelInfer(message, timeout=HANG_SECONDS)
    assert reason(failed.value) == expected


def test_clipping_takes_what_is_out_of_range(digits_server: str, digits_model: Digits) -> None:
    with running_agent(digits_server, clip=True) as agent:
        found = agent.infer("digits", digits_model.X[:1] + 9, outputs=["label"])
    assert found["label"].tolist() == digits_model.estimator.predict(np.ones((1, 64))).tolist()
