"""Connections that die in silence: paused processes, forgotten ones. Pings of other clients."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.errors import DeadlineError, KeyNotFoundError, TransportError
from sealserve.key_registry import KeyRegistry
from tests.support import http2, service_processes
from tests.support.digits import Digits
from tests.support.fault_proxy import FaultProxy
from tests.support.serving import HANG_SECONDS, digits_registry, registered_keys, running_server

SHORT_SECONDS = 0.5


class ForgetfulProxy(FaultProxy):
    """Forgets its connections, as a router does: they stay open, and carry nothing."""

    def __init__(self, address: str) -> None:
        super().__init__(int(address.rpartition(":")[2]))
        self.address = f"127.0.0.1:{self.port}"
        self._is_forgotten = threading.Event()
        self.use(self._relay_until_forgotten)

    def forget(self) -> None:
        """Forget the connections of now."""
        self._is_forgotten.set()
        self._is_forgotten = threading.Event()

    def _relay_until_forgotten(self, client: socket.socket, port: int) -> None:
        forgotten = self._is_forgotten
        with socket.create_connection(("127.0.0.1", port)) as server:
            pumps = [
                threading.Thread(target=_pump, args=(source, sink, forgotten), daemon=True)
                for source, sink in ((client, server), (server, client))
            ]
            for pump in pumps:
                pump.start()
            for pump in pumps:
                pump.join()


def _pump(source: socket.socket, sink: socket.socket, forgotten: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            if not forgotten.is_set():
                sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(digits_server: str) -> Iterator[ForgetfulProxy]:
    with ForgetfulProxy(digits_server) as proxy:
        yield proxy


def test_the_call_after_a_deadline_uses_another_connection(proxy: ForgetfulProxy, digits_model: Digits) -> None:
    with Client(proxy.address, timeout_seconds=HANG_SECONDS) as client:
        client.predict(digits_model.X[:1])
        for connections in (1, 2, 3):
            assert proxy.connection_count == connections
            proxy.forget()
            with pytest.raises(DeadlineError):
                client.predict(digits_model.X[:1], timeout_seconds=SHORT_SECONDS)
            assert client.predict(digits_model.X[:1]) == digits_model.estimator.predict(digits_model.X[:1])


def test_single_items_too(proxy: ForgetfulProxy, digits_model: Digits) -> None:
    with Client(proxy.address, timeout_seconds=HANG_SECONDS) as client:
        item = client.encrypt(digits_model.X[:1], keep=True)
        client.send(item)
        proxy.forget()
        with pytest.raises(DeadlineError):
            client.send(item, timeout_seconds=SHORT_SECONDS)
        client.decrypt(client.send(item))
        assert proxy.connection_count == 2


@pytest.mark.parametrize("rows", [1, 300], ids=["a call", "a stream"])
def test_asyncio_too(proxy: ForgetfulProxy, digits_model: Digits, rows: int) -> None:
    expected = digits_model.estimator.predict(digits_model.X[:rows])

    async def main() -> Any:
        async with AsyncClient(proxy.address, timeout_seconds=HANG_SECONDS) as client:
            await client.predict(digits_model.X[:rows])
            proxy.forget()
            with pytest.raises(TransportError):
                await client.predict(digits_model.X[:rows], timeout_seconds=SHORT_SECONDS)
            return await client.predict(digits_model.X[:rows])

    np.testing.assert_array_equal(asyncio.run(main()), expected)


def test_streams_too(proxy: ForgetfulProxy, digits_model: Digits) -> None:
    with Client(proxy.address, timeout_seconds=HANG_SECONDS) as client:
        client.predict(digits_model.X)
        proxy.forget()
        with pytest.raises(TransportError):
            client.predict(digits_model.X, timeout_seconds=SHORT_SECONDS)
        np.testing.assert_array_equal(client.predict(digits_model.X), digits_model.estimator.predict(digits_model.X))


def test_keys_and_encrypted_inference_too(digits_model: Digits) -> None:
    registry = digits_registry(digits_model.estimator)
    with running_server(registry, keys=registered_keys()) as address, ForgetfulProxy(address) as proxy:
        with KeyRegistry(proxy.address, timeout_seconds=1.0) as keys:
            assert list(keys.list()) == []
            proxy.forget()
            with pytest.raises(DeadlineError):
                keys.get("0" * 64)
            with pytest.raises(KeyNotFoundError):
                keys.get("0" * 64)
        with EIClient(proxy.address, timeout_seconds=1.0) as client:
            assert client.model.name == "digits"
            proxy.forget()
            client._model = None
            with pytest.raises(DeadlineError):
                client.model  # noqa: B018  # a property that asks the service
            assert client.model.name == "digits"


def test_a_slow_service_keeps_its_connection(proxy: ForgetfulProxy, digits_model: Digits) -> None:
    """Deadlines that are too short for anything open no connection each."""
    with Client(proxy.address, timeout_seconds=HANG_SECONDS) as client:
        for _ in range(20):
            client.predict(digits_model.X[:1])
            with contextlib.suppress(DeadlineError):
                client.predict(digits_model.X[:1], timeout_seconds=0.001)
        assert proxy.connection_count == 1


@pytest.mark.slow
def test_a_call_with_time_outlives_a_silent_connection(proxy: ForgetfulProxy, digits_model: Digits) -> None:
    """Pings find out that nothing comes, and the call is made again over another connection."""
    with Client(proxy.address, timeout_seconds=60) as client:
        client.predict(digits_model.X[:1])
        proxy.forget()
        began = time.monotonic()
        assert client.predict(digits_model.X[:1]) == digits_model.estimator.predict(digits_model.X[:1])
        assert time.monotonic() - began < 30


# Paused processes


@pytest.mark.slow
def test_a_paused_process_costs_a_client_one_attempt(tmp_path: Path) -> None:
    np.savez(tmp_path / "line.npz", coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    with service_processes.running(tmp_path / "line.npz", 2) as (address, supervisor):
        paused = min(service_processes.workers(supervisor))
        os.kill(paused, signal.SIGSTOP)
        try:
            outcomes = [predicts_in_turn(address) for _ in range(6)]
        finally:
            os.kill(paused, signal.SIGCONT)
        assert psutil.Process(paused).is_running()
    # A new connection leads to either process. Ten in a row to the paused one: once in 170 runs.
    assert all(any(outcome) for outcome in outcomes)
    for outcome in outcomes:
        first = outcome.index(True)
        assert all(outcome[first:]), "one that answers stays"


def predicts_in_turn(address: str) -> list[bool]:
    """Whether each of ten calls of one client is answered."""
    with Client(address, timeout_seconds=2.0) as client:
        return [predicts(client) for _ in range(10)]


def predicts(client: Client) -> bool:
    try:
        return bool(client.predict([[1.0, 0.5]])[0] == pytest.approx(0.5, abs=1e-2))
    except TransportError:
        return False


# Pings


@pytest.mark.slow
@pytest.mark.parametrize("with_call", [False, True])
def test_pings_every_second_are_permitted(digits_server: str, with_call: bool) -> None:
    """As Envoy sends them. By default gRPC cuts off whoever sends three."""
    path = b"/grpc.health.v1.Health/Watch"
    with http2.connected(digits_server, 1.0) as connection:
        connection.sendall(http2.opening(path) if with_call else http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0, b""))
        if with_call:
            connection.sendall(http2.frame(http2.DATA, http2.END_STREAM, 1, bytes(5)))
        answers = b""
        for number in range(6):
            connection.sendall(http2.frame(http2.PING, 0, 0, bytes([number] * 8)))
            end = time.monotonic() + 0.9
            while time.monotonic() < end:
                with contextlib.suppress(TimeoutError):
                    answers += connection.recv(1 << 16)
    kinds = [kind for kind, *_ in http2.frames(answers)]
    assert http2.GOAWAY not in kinds
    assert kinds.count(http2.PING) >= 6
