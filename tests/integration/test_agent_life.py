"""Long lives of the agent: flat memory, and what callers see when it or the service is killed."""

import contextlib
import json
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import psutil
import pytest
import skops.io

from sealserve.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from tests.support.agent_programs import running_program
from tests.support.agents import Predicted, request
from tests.support.azurite import free_port
from tests.support.digits import Digits
from tests.support.programs import serve
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until

CALLERS = 8
CALL_SECONDS = 5.0
MOST_GROWTH_BYTES = 8 << 20
"""Less than a kilobyte a prediction, of 10,000."""


def options(folder: Path) -> list[str]:
    """A socket and a port, without a token."""
    return [f"--listen=unix:{folder / 'agent.sock'}", "--http=0", "--no-agent-token", "--log-level=error"]


def predict(stub: GRPCInferenceServiceStub, http: str, digits: Digits, count: int) -> None:
    """Make so many predictions: single rows, refused ones, batches, streams, and over HTTP."""
    expected, rows = digits.estimator.predict(digits.X), digits.X
    for place in range(0, count, 100):
        at = place % 200
        for row in range(at, at + 40):
            found = Predicted(stub.ModelInfer(request("digits", rows[row : row + 1]), timeout=HANG_SECONDS))
            assert found["label"][0] == expected[row]
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(request("digits", rows[:1] + 9, id=str(place)), timeout=HANG_SECONDS)
        batch = request("digits", rows[at + 40 : at + 80], is_raw=place % 200 == 0)
        assert (Predicted(stub.ModelInfer(batch, timeout=HANG_SECONDS))["label"] == expected[at + 40 : at + 80]).all()
        sent = [request("digits", rows[row : row + 1], id=str(row)) for row in range(at + 80, at + 90)]
        replies = list(stub.ModelStreamInfer(iter(sent), timeout=HANG_SECONDS))
        assert len(replies) == len(sent)
        tensor = {"name": "rows", "datatype": "FP64", "shape": [10, 64], "data": rows[at + 90 : at + 100].tolist()}
        body = json.dumps({"inputs": [tensor]}).encode()
        asked = urllib.request.Request(f"{http}/v2/models/digits/infer", body, {"Content-Type": "application/json"})  # noqa: S310
        with urllib.request.urlopen(asked, timeout=HANG_SECONDS) as answer:  # noqa: S310
            assert json.load(answer)["outputs"][0]["data"] == expected[at + 90 : at + 100].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_predictions_leave_nothing_in_memory(
    digits_server: str, digits_model: Digits, tmp_path: Path, count: int
) -> None:
    with running_program(digits_server, tmp_path, *options(tmp_path)) as program:
        _, _, http = program.line.rpartition(", ")
        with grpc.insecure_channel(f"unix:{tmp_path / 'agent.sock'}") as channel:
            stub = GRPCInferenceServiceStub(channel)
            predict(stub, http, digits_model, 1_000)  # what it keeps, it has by then
            process = psutil.Process(program.process.pid)
            before = process.memory_info().rss
            predict(stub, http, digits_model, count)
            grown = process.memory_info().rss - before
    assert grown < MOST_GROWTH_BYTES


@contextlib.contextmanager
def callers(path: Path, digits: Digits) -> Iterator["Counter[str]"]:
    """Let callers ask for single rows without end; count what they get, by status and reason."""
    rows, expected, found = digits.X[:200], digits.estimator.predict(digits.X[:200]), Counter[str]()
    stop = threading.Event()
    with grpc.insecure_channel(f"unix:{path}") as channel, ThreadPoolExecutor(CALLERS) as pool:
        stub = GRPCInferenceServiceStub(channel)

        def ask(start: int) -> None:
            at = start
            while not stop.wait(0.001):
                at = (at + CALLERS) % len(rows)
                try:
                    reply = stub.ModelInfer(request("digits", rows[at : at + 1]), timeout=CALL_SECONDS)
                except grpc.RpcError as error:
                    found[error.code().name] += 1
                    continue
                found["right" if Predicted(reply)["label"][0] == expected[at] else "wrong"] += 1

        asking = [pool.submit(ask, start) for start in range(CALLERS)]
        try:
            yield found
        finally:
            stop.set()
        for caller in asking:
            caller.result(HANG_SECONDS)


def grows(found: "Counter[str]", name: str) -> None:
    """Wait until every caller has had one more of these."""
    most = found[name] + CALLERS
    wait_until(lambda: found[name] >= most)


@pytest.mark.slow
def test_an_agent_that_is_killed_under_load_gives_no_wrong_label(
    digits_server: str, digits_model: Digits, tmp_path: Path
) -> None:
    with callers(tmp_path / "agent.sock", digits_model) as found:
        for _ in range(3):
            with running_program(digits_server, tmp_path, *options(tmp_path)) as program:
                grows(found, "right")
                program.process.kill()
                grows(found, "UNAVAILABLE")
    assert found.keys() <= {"right", "UNAVAILABLE"}, found


@pytest.mark.slow
def test_a_service_that_is_killed_under_load_gives_no_wrong_label(digits_model: Digits, tmp_path: Path) -> None:
    """The agent knows the model then, and retries until its callers' deadline."""
    skops.io.dump(digits_model.estimator, tmp_path / "digits.skops")
    address = f"127.0.0.1:{free_port()}"
    service = partial(serve, f"--model={tmp_path / 'digits.skops'}", "--input-range=0,1", address=address)
    with (
        running_program(address, tmp_path, *options(tmp_path)),
        callers(tmp_path / "agent.sock", digits_model) as found,
    ):
        for _ in range(3):
            with service() as program:
                grows(found, "right")
                program.process.kill()
                grows(found, "UNAVAILABLE")
    assert found.keys() <= {"right", "UNAVAILABLE", "DEADLINE_EXCEEDED"}, found
    assert found["DEADLINE_EXCEEDED"] < found["UNAVAILABLE"]
