"""The image as a sidecar: the agent beside the service, confined alike, and asked on its socket."""

import json

import pytest

from tests.support.containers import Container, running_agent, wait_until
from tests.support.digits import Digits

pytestmark = pytest.mark.slow

# What another container of the pod does: read the token, and ask on the socket.
PROGRAM = """
import json, pathlib, sys
import grpc
from sealserve.inference import open_inference_pb2 as oip
from sealserve.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
rows = json.loads(sys.argv[1])
request = oip.ModelInferRequest(model_name="digits")
values = request.inputs.add(name="rows", datatype="FP64", shape=[len(rows), len(rows[0])]).contents
values.fp64_contents.extend(value for row in rows for value in row)
token = pathlib.Path("/run/agent/sealserve/agent.token").read_text().strip()
with grpc.insecure_channel("unix:/run/agent/sealserve/agent.sock") as channel:
    stub = GRPCInferenceServiceStub(channel)
    reply = stub.ModelInfer(request, metadata=[("authorization", f"Bearer {token}")], timeout=60)
(labels,) = (output for output in reply.outputs if output.name == "label")
print(json.dumps(list(labels.contents.int64_contents)))
"""


def test_the_agent_is_a_sidecar(image: str, container: Container, digits_model: Digits) -> None:
    with running_agent(image, container) as agent:
        health = ("sealserve", "health", f"--address={agent.address}")
        wait_until(lambda: agent.run(*health).stdout == "SERVING\n", agent)
        rows = digits_model.X[:5]
        asked = agent.run("/opt/sealserve/bin/python", "-c", PROGRAM, json.dumps(rows.tolist()))
        assert json.loads(asked.stdout) == digits_model.estimator.predict(rows).tolist(), asked.stderr
        modes = agent.run("stat", "--format=%a %U", "/run/agent/sealserve", "/run/agent/sealserve/agent.sock")
        assert [line.split()[0] for line in modes.stdout.splitlines()] == ["700", "600"]
