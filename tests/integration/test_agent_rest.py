"""The agent over REST: JSON, binary tensors, what it says of models, and what it refuses."""

import http.client
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from sealserve.agent.listener import MAX_MESSAGE_BYTES
from sealserve.agent.rest import MAX_JSON_BYTES
from sealserve.agent.tensors import MAX_TENSORS
from tests.support.agents import Agent, running_agent
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS

JSON = {"Content-Type": "application/json"}
INFER = "/v2/models/digits/infer"
HEAD = "Inference-Header-Content-Length"


class Response(NamedTuple):
    """What came back over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture(scope="module")
def agent(digits_server: str) -> Iterator[Agent]:
    with running_agent(digits_server) as agent:
        yield agent


def ask(agent: Agent, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
    """Make a request in a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=HANG_SECONDS)
    try:
        connection.request(method, path, body or None, headers or {})
        response = connection.getresponse()
        return Response(response.status, dict(response.headers), response.read())
    finally:
        connection.close()


def inputs(rows: Any, **changes: Any) -> dict[str, Any]:
    return {"name": "rows", "datatype": "FP64", "shape": list(rows.shape), "data": rows.tolist()} | changes


def infer(agent: Agent, message: Any, headers: dict[str, str] = JSON) -> Response:
    return ask(agent, "POST", INFER, json.dumps(message).encode(), headers)


@pytest.mark.parametrize("path", [INFER, "/v2/models/digits/versions/{version}/infer"])
def test_json_gets_json(agent: Agent, digits_model: Digits, path: str) -> None:
    rows = digits_model.X[:3]
    version = ask(agent, "GET", "/v2/models/digits").json["versions"][0]
    message = json.dumps({"id": "7", "inputs": [inputs(rows)]}).encode()
    answer = ask(agent, "POST", path.format(version=version), message, JSON)
    assert answer.status == 200
    assert (answer.json["id"], answer.json["model_name"], answer.json["model_version"]) == ("7", "digits", version)
    label, score, probability = answer.json["outputs"]
    assert label == {
        "name": "label",
        "datatype": "INT64",
        "shape": [3],
        "data": digits_model.estimator.predict(rows).tolist(),
    }
    np.testing.assert_allclose(np.reshape(score["data"], score["shape"]), digits_model.scores[:3], atol=1e-2)
    assert probability["shape"] == [3, 10]


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/octet-stream"}, JSON])
def test_binary_tensors_get_what_is_asked_for(agent: Agent, digits_model: Digits, headers: dict[str, str]) -> None:
    rows = digits_model.X[:2].astype("<f4")
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "rows",
                    "datatype": "FP32",
                    "shape": [2, 64],
                    "parameters": {"binary_data_size": rows.nbytes},
                }
            ],
            "outputs": [
                {"name": "score", "parameters": {"binary_data": True}},
                {"name": "label", "parameters": {"binary_data": False}},
            ],
        }
    ).encode()
    answer = ask(agent, "POST", INFER, head + rows.tobytes(), headers | {HEAD: str(len(head))})
    assert answer.status == 200
    length = int(answer.headers[HEAD])
    score, label = json.loads(answer.body[:length])["outputs"]
    assert score["parameters"] == {"binary_data_size": 160}
    assert label["data"] == digits_model.estimator.predict(rows).tolist()
    np.testing.assert_allclose(np.frombuffer(answer.body[length:]).reshape(2, 10), digits_model.scores[:2], atol=1e-2)


def test_all_outputs_may_be_binary(agent: Agent, digits_model: Digits) -> None:
    message = {"inputs": [inputs(digits_model.X[:1])], "parameters": {"binary_data_output": True}}
    answer = infer(agent, message)
    outputs = json.loads(answer.body[: int(answer.headers[HEAD])])["outputs"]
    assert [output["parameters"]["binary_data_size"] for output in outputs] == [8, 80, 80]
    assert answer.headers["Content-Type"] == "application/octet-stream"


def test_metadata_and_health(agent: Agent) -> None:
    assert ask(agent, "GET", "/v2").json["extensions"] == ["model_stream_infer", "binary_tensor_data"]
    assert ask(agent, "GET", "/v2/health/live").json == {"live": True}
    assert ask(agent, "GET", "/v2/health/ready").json == {"ready": True}
    assert ask(agent, "GET", "/v2/models/digits/ready").json == {"name": "digits", "ready": True}
    assert ask(agent, "GET", "/v2/models/none/ready").status == 404
    described = ask(agent, "GET", "/v2/models/digits").json
    assert described["inputs"] == [{"name": "rows", "datatype": "FP64", "shape": [-1, 64]}]
    assert [output["name"] for output in described["outputs"]] == ["label", "score", "probability"]


def test_metrics_count_requests_and_rows(agent: Agent, digits_model: Digits) -> None:
    infer(agent, {"inputs": [inputs(digits_model.X[:3])]})
    infer(agent, {"inputs": []})
    text = ask(agent, "GET", "/metrics").body.decode()
    assert 'sealserve_agent_rows_total{model="digits"}' in text
    assert 'sealserve_agent_requests_total{method="ModelInfer",status="INVALID_ARGUMENT"}' in text
    assert 'sealserve_agent_request_seconds_count{method="ModelInfer"}' in text


ROW = np.zeros((1, 64))
MALFORMED: dict[str, Any] = {
    "no object": [1],
    "no inputs": {},
    "inputs of another type": {"inputs": {}},
    "an input of another type": {"inputs": [1]},
    "no name": {"inputs": [{"datatype": "FP64", "shape": [1, 64], "data": []}]},
    "no shape": {"inputs": [{"name": "rows", "datatype": "FP64", "data": []}]},
    "a shape of fractions": {"inputs": [inputs(ROW, shape=[1.0, 64])]},
    "a giant shape": {"inputs": [inputs(ROW, shape=[1 << 40, 64])]},
    "a shape of booleans": {"inputs": [inputs(ROW, shape=[True, 64])]},
    "too few values": {"inputs": [inputs(ROW, data=[0.0])]},
    "lists of other rows": {"inputs": [inputs(ROW, data=[[0.0] * 32] * 2)]},
    "ragged lists": {"inputs": [inputs(ROW, data=[[0.0] * 32, [0.0] * 31, [0.0]])]},
    "lists and numbers": {"inputs": [inputs(ROW, data=[[0.0] * 63, 0.0])]},
    "many outputs": {"inputs": [inputs(ROW)], "outputs": [{"name": "label"}] * (MAX_TENSORS + 1)},
    "half a character": {"inputs": [inputs(ROW, datatype="BYTES", data=["\ud800"] * 64)]},
    "strings for numbers": {"inputs": [inputs(ROW, data=["0"] * 64)]},
    "an unknown datatype": {"inputs": [inputs(ROW, datatype="FP63")]},
    "an unknown output": {"inputs": [inputs(ROW)], "outputs": [{"name": "logits"}]},
    "an output without a name": {"inputs": [inputs(ROW)], "outputs": [{}]},
    "a negative binary size": {"inputs": [{**inputs(ROW), "parameters": {"binary_data_size": -1}}]},
    "NaN": {"inputs": [inputs(ROW * np.nan)]},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused(agent: Agent, name: str) -> None:
    answer = infer(agent, MALFORMED[name])
    assert answer.status == 400, answer.body
    assert answer.json.keys() == {"error", "reason"}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"{", {}),
        (b"[" * 100_000, {}),
        (b"9" * 10_000, {}),
        (b"\xff\xfe", {}),
        (b"{}", {HEAD: "3"}),
        (b"{}", {HEAD: "-1"}),
        (b"{}", {HEAD: "9" * 5000}),
        (b"{}", {HEAD: "0" * 20 + "9" * 5000}),
        (b"{} ", {HEAD: "2"}),
        (b'{"inputs": []}    ', {HEAD: "14"}),
        (b'{"inputs": [' + b"0," * (MAX_JSON_BYTES // 2) + b"0]}", {}),
    ],
)
def test_what_is_no_request_is_refused(agent: Agent, body: bytes, headers: dict[str, str]) -> None:
    assert ask(agent, "POST", INFER, body, JSON | headers).status == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v3", 404),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("POST", "/v2/models/none/infer", 404),
        ("POST", "/v2/models/digits/versions/9/infer", 404),
        ("GET", "/v2/models/none", 404),
        ("OPTIONS", INFER, 405),
        ("TRACE", "/v2", 405),
    ],
)
def test_paths_and_methods(agent: Agent, method: str, path: str, status: int) -> None:
    body = json.dumps({"inputs": [inputs(ROW)]}).encode() if method == "POST" else b""
    assert ask(agent, method, path, body, JSON).status == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
def test_other_content_is_refused(agent: Agent, headers: dict[str, str]) -> None:
    assert infer(agent, {"inputs": [inputs(ROW)]}, headers).status == 415


def test_a_body_that_is_too_long_is_refused_before_it_is_read(agent: Agent) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=HANG_SECONDS)
    try:
        connection.putrequest("POST", INFER)
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(MAX_MESSAGE_BYTES + 1))
        connection.endheaders(b"{")
        assert connection.getresponse().status == 413
    finally:
        connection.close()
