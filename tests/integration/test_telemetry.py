"""Metrics of real servers: exact, from one process or several, even if one dies.

They stay few, whatever clients send.
"""

import dataclasses
import logging
import os
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from google.protobuf.message import Message as AnyMessage
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import (
    CiphertextFault,
    InputMismatchError,
    LimitExceededError,
    MalformedCiphertextError,
    SealserveError,
    StaleConfigError,
)
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.item import ItemHeader
from sealserve.v1 import model_pb2, prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.engines.base import Engine, Scoring
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.settings import Settings
from sealserve_service.telemetry import endpoint
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.metrics import Labels, Metrics, free_address, scraped, scraped_until
from tests.support.programs import serve
from tests.support.raw import Message, RawClient, assert_error, assert_scores
from tests.support.serving import (
    HANG_SECONDS,
    LIMITS,
    SETTINGS,
    digits_registry,
    registered_keys,
    running_server,
)
from tests.support.waiting import wait_until

PREDICT = "/sealserve.v1.PredictionService/Predict"
STREAM = "/sealserve.v1.PredictionService/StreamPredict"
WATCH = "/grpc.health.v1.Health/Watch"
GET_MODEL = "/sealserve.v1.ModelService/GetModel"
REGISTER = "/sealserve.v1.KeyService/RegisterKey"
DIGITS = {"model": "digits", "layout": "row"}
LINE = {"model": "line", "layout": "row"}


@contextmanager
def published(
    models: ModelRegistry, settings: Settings = SETTINGS, keys: RegisteredKeys | None = None
) -> Iterator[tuple[str, str]]:
    """A server in this process: its address and the URL of its metrics."""
    telemetry = Telemetry()
    with (
        running_server(models, settings, keys, telemetry) as address,
        endpoint.metrics_endpoint("127.0.0.1", 0, telemetry.registry) as url,
    ):
        yield address, url


@pytest.fixture
def digits_metrics(digits_model: Digits) -> Iterator[tuple[str, str]]:
    with published(digits_registry(digits_model.estimator)) as found:
        yield found


def byte_count(messages: list[Any]) -> int:
    return sum(len(message.SerializeToString()) for message in messages)


def test_calls_and_rows_are_counted_exactly(digits_metrics: tuple[str, str], digits_model: Digits) -> None:
    address, url = digits_metrics
    requests, responses, seconds = list[AnyMessage](), list[AnyMessage](), 0.0
    with ExitStack() as connections:
        clients = [connections.enter_context(RawClient(address)) for _ in range(3)]
        for number, client in enumerate(clients * 4):
            request = client.request(digits_model.X[number : number + 1 + number % 3])
            response = client.predictions.Predict(request, timeout=HANG_SECONDS)
            requests.append(request)
            responses.append(response)
            seconds += response.done.server_seconds
        metrics = scraped(url)
        rows = sum(1 + number % 3 for number in range(12))
        assert metrics("calls_total", method=GET_MODEL, status="OK") == 3
        assert metrics.labelled("calls_total")[frozenset({("method", PREDICT), ("status", "OK")})] == 12
        assert metrics("call_seconds_count", method=PREDICT) == 12
        assert metrics("call_seconds_sum", method=PREDICT) > seconds
        assert metrics("received_bytes_total", method=PREDICT) == byte_count(requests)
        assert metrics("sent_bytes_total", method=PREDICT) == byte_count(responses)
        assert metrics("items_total", **DIGITS) == 12
        assert metrics("rows_total", **DIGITS) == rows
        assert metrics("ciphertexts_total", **DIGITS) == 12
        stages = {stage: metrics("item_seconds_total", **DIGITS, stage=stage) for stage in ("load", "arithmetic")}
        assert min(stages.values()) > 0
        assert sum(stages.values()) == pytest.approx(seconds)
        assert metrics("item_seconds_total", **DIGITS, stage="reply") > 0
        assert metrics.labelled("refusals_total") == {}

        sent = [clients[0].item(number, digits_model.X[number : number + 2]) for number in range(1, 6)]
        received = list(clients[0].predictions.StreamPredict(iter(sent), timeout=HANG_SECONDS))
        metrics = scraped_until(url, lambda metrics: metrics("calls_total", method=STREAM, status="OK") == 1)
        assert metrics("received_bytes_total", method=STREAM) == byte_count(sent)
        assert metrics("sent_bytes_total", method=STREAM) == byte_count(received)
        assert metrics("items_total", **DIGITS) == 17
        assert metrics("rows_total", **DIGITS) == rows + 10
    for gauge in ("calls_in_flight", "items_in_flight", "items_waiting", "held_bytes"):
        assert not any(metrics.labelled(gauge).values()), gauge


def test_what_is_in_flight_is_seen_until_it_ends_or_its_client_goes(
    digits_metrics: tuple[str, str], digits_model: Digits
) -> None:
    address, url = digits_metrics
    with RawClient(address) as raw:
        whole = raw.item(1, digits_model.X[0])
        begun, rest = Message(item_id=1, header=whole.header), Message(item_id=1, chunk=whole.chunk)
        with raw.conversation() as leaving, raw.conversation() as staying:
            leaving.send(begun)
            leaving.send(Message(item_id=2, header=whole.header))
            staying.send(begun)
            metrics = scraped_until(url, lambda metrics: metrics("items_in_flight") == 3)
            assert metrics("calls_in_flight", method=STREAM) == 2
            assert metrics("held_bytes") == 0
            leaving.call.cancel()
            metrics = scraped_until(url, lambda metrics: metrics("calls_in_flight", method=STREAM) == 1)
            assert metrics("items_in_flight") == 1
            assert metrics("calls_total", method=STREAM, status="CANCELLED") == 1
            staying.send(rest)
            assert_scores(next(staying.answers)[1], digits_model.scores[0])
            assert scraped(url)("items_in_flight") == 0
            assert scraped(url)("rows_total", **DIGITS) == 1


def test_a_watch_of_health_is_counted_when_it_ends(
    digits_metrics: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sealserve_service")
    address, url = digits_metrics
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert scraped(url)("calls_in_flight", method=WATCH) == 1
        watch.cancel()
        metrics = scraped_until(url, lambda metrics: metrics("calls_in_flight", method=WATCH) == 0)
    assert metrics("calls_total", method=WATCH, status="CANCELLED") == 1
    assert metrics("sent_bytes_total", method=WATCH) == 2
    (line,) = [record.__dict__["fields"] for record in caplog.records if hasattr(record, "fields")]
    assert (line["method"], line["status"], line["peer"]) == (WATCH, "CANCELLED", "ipv4:127.0.0.1")


class HeldScoring(Scoring):
    """A scoring that fails when it is told to, and not before."""

    def __init__(self, let_go: threading.Event) -> None:
        self._let_go = let_go

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        assert self._let_go.wait(HANG_SECONDS)
        raise MalformedCiphertextError(CiphertextFault.FORM)

    def finish(self) -> Iterator[Any]:
        raise AssertionError


def test_a_call_of_one_item_is_seen_while_it_is_in_flight(digits_model: Digits) -> None:
    let_go = threading.Event()

    class HeldEngine:
        holds_gil = True

        def __init__(self, engine: Engine) -> None:
            self.offer = engine.offer

        def begin(self, header: ItemHeader, owner: str) -> Scoring:
            return HeldScoring(let_go)

    served = digits_registry(digits_model.estimator).get("", ANONYMOUS)
    held = dataclasses.replace(served, engines=tuple(map(HeldEngine, served.engines)))
    with published(ModelRegistry([held])) as (address, url), RawClient(address) as raw, ThreadPoolExecutor(1) as pool:
        request = raw.request(digits_model.X[0])
        answer = pool.submit(raw.predict, request)
        try:
            metrics = scraped_until(url, lambda metrics: metrics("held_bytes") == len(request.ciphertexts[0]))
            assert metrics("items_in_flight") == metrics("calls_in_flight", method=PREDICT) == 1
            assert metrics.labelled("items_total") == {}
        finally:
            let_go.set()
        with pytest.raises(MalformedCiphertextError):
            answer.result(HANG_SECONDS)
        metrics = scraped(url)
        for gauge in ("items_in_flight", "calls_in_flight", "held_bytes"):
            assert set(metrics.labelled(gauge).values()) == {0.0}


def refusal(reason: str, limit: str = "", tenant: str = "") -> Labels:
    """The labels of a refusal."""
    return frozenset({("reason", reason), ("limit", limit), ("tenant", tenant)})


def test_refusals_are_counted_by_class_of_error(digits_metrics: tuple[str, str], digits_model: Digits) -> None:
    address, url = digits_metrics
    with RawClient(address) as raw:
        good = raw.request(digits_model.X[0])
        stale, malformed, huge = (type(good).FromString(good.SerializeToString()) for _ in range(3))
        stale.header.config_id = "another"
        malformed.ciphertexts[0] = malformed.ciphertexts[0][:-1]
        huge.ciphertexts[0] = bytes(LIMITS.max_message_bytes + 1)
        for request, expected in ((stale, StaleConfigError), (malformed, MalformedCiphertextError)) * 2:
            with pytest.raises(expected):
                raw.predict(request)
        with pytest.raises(LimitExceededError):
            raw.predict(huge)
        answers = raw.stream(
            [
                Message(item_id=1, header=stale.header),
                Message(item_id=2, header=good.header),
                raw.item(3, digits_model.X[3]),
            ]
        )
        assert isinstance(answers[1], StaleConfigError)
        assert_error(answers[2], InputMismatchError("ciphertexts", 1, 0))
        assert_scores(answers[3], digits_model.scores[3])
    metrics = scraped_until(url, lambda metrics: metrics("calls_total", method=STREAM, status="OK") == 1)
    assert metrics.labelled("refusals_total") == {
        refusal("StaleConfigError"): 3,
        refusal("MalformedCiphertextError"): 2,
        refusal("LimitExceededError", "max_message_bytes"): 1,
        refusal("InputMismatchError"): 1,
    }
    assert metrics("calls_total", method=PREDICT, status="FAILED_PRECONDITION") == 2
    assert metrics("calls_total", method=PREDICT, status="INVALID_ARGUMENT") == 2
    assert metrics("calls_total", method=PREDICT, status="RESOURCE_EXHAUSTED") == 1
    assert metrics("rows_total", **DIGITS) == 1


def flood(raw: RawClient, good: prediction_pb2.PredictRequest, seed: str) -> None:
    """Send names of every kind that do not exist."""
    for number in range(20):
        name = f'{seed}{number}"}}\nsealserve_rows_total{{model="{seed}"}} 1e9\n'
        request = type(good).FromString(good.SerializeToString())
        for field in ("model", "config_id", "parameter_set", "key_id"):
            setattr(request.header, field, getattr(good.header, field) if number % 2 else name)
        request.header.layout = 1000 + number if number % 3 else good.header.layout  # type: ignore[assignment]
        request.header.key_id = name
        with pytest.raises(SealserveError):
            raw.predict(request)
        raw.stream([Message(item_id=number + 1, header=request.header)])
        with pytest.raises(grpc.RpcError) as caught:
            raw.models.GetModel(model_pb2.GetModelRequest(model=name), timeout=HANG_SECONDS)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        for path in (f"/{seed}{number}/X", f"/sealserve.v1.PredictionService/{seed}{number}"):
            with pytest.raises(grpc.RpcError) as caught:
                raw.channel.unary_unary(path, bytes, bytes)(b"", metadata=(("x-request-id", f"{seed}{number}"),))
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_labels_stay_few_under_a_flood_of_hostile_names(digits_metrics: tuple[str, str], digits_model: Digits) -> None:
    address, url = digits_metrics
    with RawClient(address) as raw:
        good = raw.request(digits_model.X[0])

        def flooded(seed: str) -> Metrics:
            calls = sum(scraped(url).labelled("calls_total").values())
            flood(raw, good, seed)
            metrics = scraped_until(url, lambda now: sum(now.labelled("calls_total").values()) == calls + 20 * 5)
            assert seed not in metrics.text
            return metrics

        first, second = flooded("sesame"), flooded("mustard")
    assert first.samples.keys() == second.samples.keys()
    assert second("calls_total", method="unknown", status="UNIMPLEMENTED") == 80
    assert second.labelled("rows_total") == {}
    reasons = {dict(labels)["reason"] for labels in second.labelled("refusals_total")}
    assert reasons == {"ModelNotFoundError", "ParameterSetNotOfferedError", "InputMismatchError"}


def test_registered_keys_and_their_cache_are_counted(ei_user: EIUser, digits_model: Digits) -> None:
    telemetry = Telemetry()
    keys = registered_keys(telemetry=telemetry)
    with (
        running_server(ModelRegistry([]), keys=keys, telemetry=telemetry) as address,
        endpoint.metrics_endpoint("127.0.0.1", 0, telemetry.registry) as url,
        KeyRegistry(address, timeout_seconds=HANG_SECONDS) as registry,
    ):
        for _ in range(2):
            registry.register(ei_user.evaluation_keys)
        for _ in range(3):
            keys.galois_keys("anonymous", ei_user.key_id)
        metrics = scraped_until(url, lambda metrics: metrics("calls_total", method=REGISTER, status="OK") == 2)
        assert metrics("registered_keys_total") == 2
        assert metrics("registered_key_bytes_total") == 2 * len(ei_user.evaluation_keys)
        assert metrics("received_bytes_total", method=REGISTER) > 2 * len(ei_user.evaluation_keys)
        assert metrics("key_cache_misses_total") == 1
        assert metrics("key_cache_hits_total") == 2
        assert metrics("key_cache_bytes") > len(ei_user.evaluation_keys)
        registry.delete(ei_user.key_id)
        assert scraped(url)("key_cache_bytes") == 0


@pytest.fixture
def line_path(tmp_path: Path) -> Path:
    path = tmp_path / "line.npz"
    np.savez(path, coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    return path


def processes_of(program: psutil.Process) -> list[psutil.Process]:
    return [child for child in program.children() if "spawn_main" in str(child.cmdline())]


def predict(address: str, row_count: int) -> None:
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        rows = np.random.default_rng(0).uniform(size=(row_count, 2))
        assert client.predict(rows) == pytest.approx(rows @ [1.0, -2.0] + 0.5, abs=1e-2)


def test_what_processes_have_counted_is_removed_when_their_supervisor_is_killed(line_path: Path) -> None:
    options = (f"--model=line={line_path}", "--input-range=0,1", "--processes=2")
    with serve(*options, f"--metrics-address={free_address()}", TMPDIR=str(line_path.parent)) as program:
        (directory,) = line_path.parent.glob("sealserve-run-*")
        program.process.kill()
        end = time.monotonic() + HANG_SECONDS
        while directory.exists():  # until they notice, and have ended in order
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.mark.slow
def test_several_processes_count_as_one_whoever_dies(line_path: Path) -> None:
    metrics_address = free_address()
    url = f"http://{metrics_address}/metrics"
    options = (
        f"--model=line={line_path}",
        "--input-range=0,1",
        "--processes=2",
        f"--metrics-address={metrics_address}",
    )
    with serve(*options, TMPDIR=str(line_path.parent)) as program, ExitStack() as streams:
        for _ in range(6):
            predict(program.address, 7)
        before = scraped(url)
        assert before("rows_total", **LINE) == 42
        assert before("calls_total", method=GET_MODEL, status="OK") == 6
        starts = before.labelled("process_start_time_seconds")
        assert {dict(labels)["process"] for labels in starts} == {"0", "1"}
        of_system = {dict(labels)["process"] for name, labels in before.samples if name == "process_open_fds"}
        assert of_system == {"supervisor", "0", "1"}
        assert set(before.labelled("ready").values()) == {1.0}
        assert list(before.labelled("model_info").values()) == [1.0]

        raws = [streams.enter_context(RawClient(program.address)) for _ in range(6)]
        conversations = [streams.enter_context(raw.conversation()) for raw in raws]
        for raw, conversation in zip(raws, conversations, strict=True):
            conversation.send(Message(item_id=1, header=raw.item(1, np.zeros(2)).header))
        scraped_until(url, lambda metrics: metrics("items_in_flight") == 6)
        victim = processes_of(psutil.Process(program.process.pid))[0]
        os.kill(victim.pid, signal.SIGKILL)

        def replaced(metrics: Metrics) -> bool:
            assert metrics("rows_total", **LINE) == 42
            assert metrics("calls_total", method=PREDICT, status="OK") == 6
            now = metrics.labelled("process_start_time_seconds")
            return now.keys() == starts.keys() and now != starts

        scraped_until(url, replaced)
        # The streams of the dead process are in flight no more: the others are.
        alive = sum(conversation.call.is_active() for conversation in conversations)
        metrics = scraped(url)
        assert metrics("items_in_flight") == metrics("calls_in_flight", method=STREAM) == alive
        for _ in range(6):
            predict(program.address, 5)
        metrics = scraped(url)
        assert metrics("rows_total", **LINE) == 72
        assert metrics("calls_total", method=PREDICT, status="OK") == 12

        (old,) = metrics.labelled("model_info")
        np.savez(line_path, coef=np.array([1.0, -3.0]), intercept=np.array(0.5))
        program.process.send_signal(signal.SIGHUP)
        metrics = scraped_until(
            url, lambda metrics: len(metrics.labelled("model_info")) == 1 and old not in metrics.labelled("model_info")
        )
        (directory,) = line_path.parent.glob("sealserve-run-*")
        assert directory.stat().st_mode & 0o777 == 0o700
        streams.close()
        program.process.terminate()
        assert program.process.wait(HANG_SECONDS) == 0
        assert not directory.exists()


def test_one_process_publishes_too_and_answers_nothing_else(line_path: Path) -> None:
    metrics_address = free_address()
    options = (f"--model=line={line_path}", "--input-range=0,1")
    with serve(*options, f"--metrics-address={metrics_address.rpartition(':')[2]}") as program:
        predict(program.address, 3)
        assert scraped(f"http://{metrics_address}/metrics")("rows_total", **LINE) == 3
        assert list(scraped(f"http://{metrics_address}/metrics?x=1").labelled("model_info").values()) == [1.0]
        for path in ("", "/", "/metrics/", "/%2e%2e/etc/passwd"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"http://{metrics_address}{path}", timeout=HANG_SECONDS)
            assert caught.value.code == 404
            assert caught.value.headers["Server"].strip() == "sealserve"
            caught.value.close()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_address_that_cannot_be_listened_on(
    line_path: Path, processes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["serve", f"--model=line={line_path}", "--input-range=0,1", "--address=127.0.0.1:0"]
    command += [f"--processes={processes}", "--weights=open"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main([*command, f"--metrics-address={address}"]) == 1
        assert f"cannot listen on {address}" in capsys.readouterr().err
    assert main([*command, "--metrics-address=nowhere"]) == 1
    assert "HOST:PORT" in capsys.readouterr().err


def test_silent_connections_do_not_pile_up_and_keep_no_probe_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest one goes. Before, the new one was dropped, and a probe with it."""
    monkeypatch.setattr(endpoint, "MAX_CONNECTIONS", 3)
    threads = threading.active_count()
    with endpoint.metrics_endpoint("127.0.0.1", 0, Telemetry().registry) as url:
        host, port = url.split("/")[2].split(":")
        with ExitStack() as silent:
            connect = partial(socket.create_connection, (host, int(port)), HANG_SECONDS)
            first, *_ = [silent.enter_context(connect()) for _ in range(4)]
            assert first.recv(1) == b""
            for path in ("/livez", "/readyz"):
                with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=HANG_SECONDS) as answer:
                    assert (answer.status, answer.read()) == (200, b"ok\n")
            assert scraped(url)("key_cache_bytes") == 0
            wait_until(lambda: threading.active_count() <= threads + 1 + 3)
    wait_until(lambda: threading.active_count() <= threads + 3)


def test_many_scrapes_at_once_take_no_more_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MAX_SCRAPES", 0)
    with endpoint.metrics_endpoint("127.0.0.1", 0, Telemetry().registry) as url:
        with pytest.raises(urllib.error.HTTPError) as caught:
            scraped(url)
        assert caught.value.code == 503
        caught.value.close()
        with urllib.request.urlopen(f"http://{url.split('/')[2]}/livez", timeout=HANG_SECONDS) as answer:
            assert answer.status == 200


def test_probes_say_no() -> None:
    state = endpoint.ServiceState(is_alive=lambda: False, is_ready=lambda: False)
    with endpoint.metrics_endpoint("127.0.0.1", 0, Telemetry().registry, state) as url:
        for path in ("/livez", "/readyz"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"http://{url.split('/')[2]}{path}", timeout=HANG_SECONDS)
            assert (caught.value.code, caught.value.read()) == (503, b"not now\n")
            caught.value.close()


def test_connections_without_a_thread_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with endpoint.metrics_endpoint("127.0.0.1", 0, Telemetry().registry) as url:
        host, port = url.split("/")[2].split(":")
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            for _ in range(endpoint.MAX_CONNECTIONS + 1):
                with socket.create_connection((host, int(port)), HANG_SECONDS) as refused:
                    assert refused.recv(1) == b""
        assert scraped(url)("key_cache_bytes") == 0


def test_a_version_that_is_served_no_more_is_not_shown() -> None:
    telemetry = Telemetry()
    with endpoint.metrics_endpoint("127.0.0.1", 0, telemetry.registry) as url:
        for name, version in (("a", "1"), ("b", "1"), ("a", "2"), ("a", "2")):
            telemetry.publish_model(name, version)
        telemetry.unpublish_model("b")
        telemetry.unpublish_model("never")
        assert scraped(url).labelled("model_info") == {frozenset({("model", "a"), ("version", "2")}): 1.0}


def test_files_that_processes_have_not_written_yet_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "gauge_livesum_0.db").touch()
    assert list(endpoint.SharedMetrics(tmp_path).collect()) == []
