"""Calls of the agent: streams, many callers, deadlines, cancellation, a service that goes."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import pytest

from sealserve.agent.servicer import MAX_STREAMS, REQUESTS_A_STREAM
from sealserve.inference import open_inference_pb2 as pb
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.agents import Agent, Predicted, reason, request, running_agent
from tests.support.digits import Digits
from tests.support.recording_service import RecordingService, Sent, accepted, described, recording_service
from tests.support.serving import HANG_SECONDS, digits_registry, running, running_server, served, with_limits
from tests.support.waiting import wait_until

CALLERS = 8
GONE_SECONDS = 3.0


@pytest.fixture(scope="module")
def agent(digits_server: str) -> Iterator[Agent]:
    with running_agent(digits_server) as agent:
        yield agent


# Streams


def test_a_stream_answers_each_request_under_its_id(agent: Agent, digits_model: Digits) -> None:
    count = 2 * REQUESTS_A_STREAM
    rows = digits_model.X[:count]
    requests = (request("digits", rows[place : place + 1], id=str(place)) for place in range(count))
    found = dict[int, Any]()
    for response in agent.stub.ModelStreamInfer(requests, timeout=HANG_SECONDS):
        assert not response.error_message
        found[int(response.infer_response.id)] = Predicted(response.infer_response)["label"][0]
    assert [found[place] for place in range(count)] == digits_model.estimator.predict(rows).tolist()


def test_a_request_that_fails_does_not_end_its_stream(agent: Agent, digits_model: Digits) -> None:
    row = digits_model.X[:1]
    requests = [request("digits", row, id="1"), request("digits", row + 9, id="2"), request("none", row, id="3")]
    responses = {
        response.infer_response.id: response.error_message
        for response in agent.stub.ModelStreamInfer(iter(requests), timeout=HANG_SECONDS)
    }
    assert responses.keys() == {"1", "2", "3"}
    assert not responses["1"]
    assert "outside" in responses["2"]
    assert "no model named 'none'" in responses["3"]


def test_streams_that_are_abandoned_make_room_for_others(agent: Agent, digits_model: Digits) -> None:
    def endless() -> Iterator[pb.ModelInferRequest]:
        while True:
            yield request("digits", digits_model.X[:1])

    for _ in range(2):
        calls = [agent.stub.ModelStreamInfer(endless(), timeout=HANG_SECONDS) for _ in range(MAX_STREAMS)]
        for call in calls:
            assert not next(call).error_message
        with pytest.raises(grpc.RpcError) as failed:
            next(agent.stub.ModelStreamInfer(iter([]), timeout=HANG_SECONDS))
        assert reason(failed.value) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
        for call in calls:
            call.cancel()
        wait_until(lambda: _takes_a_stream(agent))
    wait_until(lambda: sum(thread.name == "stream" for thread in threading.enumerate()) == 0)


def _takes_a_stream(agent: Agent) -> bool:
    try:
        return list(agent.stub.ModelStreamInfer(iter([]), timeout=HANG_SECONDS)) == []
    except grpc.RpcError:
        return False


# Many callers


def test_many_callers_share_items_and_get_their_own_answers(digits_model: Digits) -> None:
    telemetry, rows = Telemetry(), digits_model.X[:160]
    expected = digits_model.estimator.predict(rows)
    with (
        running_server(digits_registry(digits_model.estimator), telemetry=telemetry) as address,
        running_agent(address) as agent,
        ThreadPoolExecutor(CALLERS) as pool,
    ):

        def ask(place: int) -> Any:
            if place % 10 == 3:
                with pytest.raises(grpc.RpcError) as failed:
                    agent.infer("digits", rows[place : place + 1] + 9)
                return reason(failed.value)
            return agent.infer("digits", rows[place : place + 1], outputs=["label"])["label"][0]

        found = list(pool.map(ask, range(len(rows))))
        items = telemetry.registry.get_sample_value("sealserve_items_total", {"model": "digits", "layout": "row"})
    for place, result in enumerate(found):
        assert result == (("INVALID_ARGUMENT", "OUT_OF_RANGE") if place % 10 == 3 else expected[place])
    assert items is not None
    assert items < len(rows), "rows that waited have shared items"


def test_one_caller_shares_nothing(digits_model: Digits) -> None:
    telemetry = Telemetry()
    with (
        running_server(digits_registry(digits_model.estimator), telemetry=telemetry) as address,
        running_agent(address) as agent,
    ):
        for place in range(5):
            agent.infer("digits", digits_model.X[place : place + 1])
        items = telemetry.registry.get_sample_value("sealserve_items_total", {"model": "digits", "layout": "row"})
    assert items == 5


# Deadlines and cancellation


@contextlib.contextmanager
def stalled(digits_model: Digits) -> Iterator[tuple[Agent, RecordingService, threading.Event]]:
    """An agent of a service that answers nothing until it is released."""
    model = described(served("digits", digits_model.estimator, input_step=1 / 16).model, layout="row")
    release = threading.Event()

    def answer(sent: Sent) -> Any:
        release.wait(HANG_SECONDS)
        return accepted(model, sent)

    with recording_service(model, answer) as service, running_agent(service.address) as agent:
        try:
            yield agent, service, release
        finally:
            release.set()


@pytest.mark.parametrize("count", [1, 40], ids=["row", "batch"])
@pytest.mark.parametrize("leaves", ["deadline", "cancel"])
def test_a_caller_that_goes_ends_the_call_of_the_service(digits_model: Digits, count: int, leaves: str) -> None:
    with stalled(digits_model) as (agent, service, release):
        release.set()
        agent.infer("digits", digits_model.X[:1])  # the model is known
        release.clear()
        before = len(service.sent)
        message = request("digits", digits_model.X[:count])
        call = agent.stub.ModelInfer.future(message, timeout=1.0 if leaves == "deadline" else HANG_SECONDS)
        wait_until(lambda: len(service.sent) > before)
        if leaves == "cancel":
            call.cancel()
        else:
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert service.sent[before].has_ended.wait(HANG_SECONDS), "the service sees it"


@pytest.mark.parametrize("count", [1, 40], ids=["row", "batch"])
@pytest.mark.parametrize("leaves", ["closes", "resets"])
def test_a_caller_over_http_that_hangs_up_ends_the_call_of_the_service(
    digits_model: Digits, count: int, leaves: str
) -> None:
    with stalled(digits_model) as (agent, service, release):
        release.set()
        agent.infer("digits", digits_model.X[:1])
        release.clear()
        before = len(service.sent)
        with socket.create_connection(("127.0.0.1", agent.http_port)) as connection:
            connection.sendall(_over_http(agent, digits_model.X[:count]))
            wait_until(lambda: len(service.sent) > before)
            if leaves == "resets":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert service.sent[before].has_ended.wait(HANG_SECONDS), "the service sees it"
        release.set()
        assert agent.infer("digits", digits_model.X[:1])["label"].shape == (1,), "others are answered"


def test_requests_under_way_over_http_finish_when_the_agent_stops(digits_model: Digits) -> None:
    with contextlib.ExitStack() as connections:
        with stalled(digits_model) as (agent, service, _):
            connection = connections.enter_context(socket.create_connection(("127.0.0.1", agent.http_port)))
            connection.sendall(_over_http(agent, digits_model.X[:40]))
            wait_until(lambda: bool(service.sent))
        connection.settimeout(HANG_SECONDS)  # the service answers while the agent stops
        assert connection.recv(12) == b"HTTP/1.1 200"


def _over_http(agent: Agent, rows: Any) -> bytes:
    """A request for predictions, as bytes."""
    tensor = {"name": "rows", "datatype": "FP64", "shape": list(rows.shape), "data": rows.tolist()}
    body = json.dumps({"inputs": [tensor]})
    host = f"127.0.0.1:{agent.http_port}"
    return (
        f"POST /v2/models/digits/infer HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )


def test_a_deadline_is_the_callers(digits_model: Digits) -> None:
    with stalled(digits_model) as (agent, _, _):
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as failed:
            agent.infer("digits", digits_model.X[:1], seconds=0.5)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < HANG_SECONDS / 2


# A service that goes, and comes back


def test_a_service_that_is_gone_is_unavailable_and_comes_back_by_itself(digits_model: Digits) -> None:
    registry, row = digits_registry(digits_model.estimator), digits_model.X[:1]
    expected = digits_model.estimator.predict(row).tolist()
    with running(registry) as first:
        address = first.address
    with running_agent(address) as agent:
        assert not agent.stub.ServerReady(pb.ServerReadyRequest()).ready
        assert agent.stub.ServerLive(pb.ServerLiveRequest()).live
        for _ in range(2):
            _is_unavailable(agent, row)
            with running_server(registry, with_limits(address=address)):
                wait_until(lambda: agent.stub.ServerReady(pb.ServerReadyRequest()).ready)
                assert agent.infer("digits", row)["label"].tolist() == expected


def test_callers_of_a_service_that_is_gone_do_not_wait_for_each_other(
    digits_model: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each used to ask for the list of models by itself, after all that came before it."""
    asked = list[None]()
    with running_agent("127.0.0.1:1") as agent, ThreadPoolExecutor(2 * CALLERS) as pool:
        ask = agent.models._lister.models

        def count() -> Any:
            asked.append(None)
            return ask()

        monkeypatch.setattr(agent.models._lister, "models", count)
        list(pool.map(lambda _: _is_unavailable(agent, digits_model.X[:1], HANG_SECONDS), range(2 * CALLERS)))
    assert len(asked) <= CALLERS // 2


def _is_unavailable(agent: Agent, row: Any, seconds: float = GONE_SECONDS) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        agent.infer("digits", row, seconds=seconds)
    assert reason(failed.value) == ("UNAVAILABLE", "UNAVAILABLE")


def _has_more(found: Counter[str], name: str, count: int) -> bool:
    return found[name] > count


@pytest.mark.slow
def test_a_service_that_is_killed_under_load_gives_no_wrong_label(digits_model: Digits) -> None:
    registry, rows = digits_registry(digits_model.estimator), digits_model.X[:200]
    expected, found = digits_model.estimator.predict(rows), Counter[str]()
    with running(registry) as first:
        address = first.address
    stop = threading.Event()
    with running_agent(address) as agent, ThreadPoolExecutor(CALLERS) as pool:

        def ask(start: int) -> None:
            for place in range(start, 10**6, CALLERS):
                if stop.is_set():
                    return
                at = place % len(rows)
                try:
                    label = agent.infer("digits", rows[at : at + 1], seconds=GONE_SECONDS)["label"][0]
                except grpc.RpcError as error:
                    found[error.code().name] += 1
                else:
                    found["right" if label == expected[at] else "wrong"] += 1

        callers = [pool.submit(ask, start) for start in range(CALLERS)]
        try:
            for _ in range(2):
                right = found["right"] + CALLERS
                with running(registry, with_limits(address=address, grace_seconds=0.0)):
                    wait_until(partial(_has_more, found, "right", right))
                unavailable = found["UNAVAILABLE"]
                wait_until(partial(_has_more, found, "UNAVAILABLE", unavailable))
        finally:
            stop.set()
        for caller in callers:
            caller.result(HANG_SECONDS)
    assert found["wrong"] == 0
    assert found.keys() <= {"right", "wrong", "UNAVAILABLE", "DEADLINE_EXCEEDED"}, found
