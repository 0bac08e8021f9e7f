"""Registered keys outlive the process that took them, where their place does."""

import signal
from pathlib import Path

import grpc
import numpy as np
import pytest

from sealserve._rpc.status import typed_error
from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.errors import KeyNotFoundError, KeyStoreUnavailableError
from sealserve.key_registry import KeyRegistry
from sealserve.v1 import keys_pb2
from tests.support.azurite import Azurite, connection_string, free_port
from tests.support.ei_user import EIUser
from tests.support.programs import Program, serve
from tests.support.serving import HANG_SECONDS

WEIGHTS = np.array([[1.0, -2.0, 0.5]])
ROW = np.array([[0.5, 0.25, 1.0]])


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    np.savez(tmp_path / "line.npz", coef=WEIGHTS, intercept=np.zeros(1))
    return [f"--model={tmp_path / 'line.npz'}", "--input-range=0,1"]


def connected(program: Program, user: EIUser, key_id: str = "") -> EIClient:
    return EIClient(
        program.address,
        client=user.client,
        key_id=key_id,
        evaluation_keys=user.evaluation_keys,
        timeout_seconds=HANG_SECONDS,
    )


def assert_serves(program: Program, user: EIUser, key_id: str) -> None:
    """The keys are there: nothing registers them."""
    with connected(program, user, key_id) as client, KeyRegistry(program.address) as registry:
        assert registry.get(key_id).byte_count == len(user.evaluation_keys)
        scores = user.client.decrypt(client.score(user.client.encrypt(ROW[0])))
        assert scores == pytest.approx(WEIGHTS[0] @ ROW[0], abs=1e-4)


def registered(program: Program, user: EIUser) -> str:
    with connected(program, user) as client:
        return client.register_keys().key_id


@pytest.mark.slow
def test_keys_in_a_directory_serve_after_a_kill(options: list[str], tmp_path: Path, ei_user: EIUser) -> None:
    options.append(f"--key-store={tmp_path / 'keys'}")
    with serve(*options) as program:
        key_id = registered(program, ei_user)
        program.process.send_signal(signal.SIGKILL)
        program.process.wait(HANG_SECONDS)
    with serve(*options) as program:
        assert_serves(program, ei_user, key_id)


def test_keys_in_memory_do_not(options: list[str], ei_user: EIUser) -> None:
    with serve(*options) as program:
        key_id = registered(program, ei_user)
        assert_serves(program, ei_user, key_id)
    with serve(*options) as program, KeyRegistry(program.address) as registry, pytest.raises(KeyNotFoundError):
        registry.get(key_id)


@pytest.mark.slow
def test_services_share_a_container(options: list[str], azurite: Azurite, ei_user: EIUser) -> None:
    options.append(f"--key-store=azure:{azurite.new_container()}")
    secret = {"SEALSERVE_KEY_STORE_CONNECTION_STRING": azurite.connection_string}
    with serve(*options, **secret) as one, serve(*options, **secret) as other:
        key_id = registered(one, ei_user)
        assert_serves(other, ei_user, key_id)
        one.process.send_signal(signal.SIGKILL)
        one.process.wait(HANG_SECONDS)
    with serve(*options, **secret) as again:
        assert_serves(again, ei_user, key_id)


def test_processes_of_one_service_share_a_directory(options: list[str], tmp_path: Path, ei_user: EIUser) -> None:
    with serve(*options, f"--key-store={tmp_path / 'keys'}", "--processes=2") as program:
        key_id = registered(program, ei_user)
        for _ in range(6):  # each connection reaches either of them
            assert_serves(program, ei_user, key_id)


def test_a_key_put_into_the_container_by_its_owner(options: list[str], azurite: Azurite, ei_user: EIUser) -> None:
    from azure.storage.blob import ContainerClient

    container = azurite.new_container()
    with ContainerClient.from_connection_string(azurite.connection_string, container) as client:
        client.upload_blob("uploads/anonymous/mine.bin", ei_user.evaluation_keys)
        client.upload_blob("uploads/bob/his.bin", ei_user.evaluation_keys)
    secret = {"SEALSERVE_KEY_STORE_CONNECTION_STRING": azurite.connection_string}
    with serve(*options, f"--key-store=azure:{container}", **secret) as program:
        key_id, byte_count = ei_user.key_id, len(ei_user.evaluation_keys)
        with KeyRegistry(program.address) as registry:
            for name in ("his.bin", "../bob/his.bin", "https://account.blob.core.windows.net/keys/mine.bin", "nobody"):
                with pytest.raises(KeyNotFoundError):
                    registry.register_blob(name, key_id, byte_count)
            assert registry.register_blob("mine.bin", key_id, byte_count).key_id == key_id
        assert_serves(program, ei_user, key_id)


@pytest.mark.slow
def test_a_container_that_is_out_of_reach(options: list[str], ei_user: EIUser) -> None:
    """At the start and later, what needs no keys is served, and nothing waits for ever."""
    secret = {"SEALSERVE_KEY_STORE_CONNECTION_STRING": connection_string(free_port())}
    with serve(*options, "--key-store=azure:keys", **secret) as program:
        with Client(program.address, timeout_seconds=HANG_SECONDS) as client:
            assert client.predict(ROW)[0] == pytest.approx(WEIGHTS[0] @ ROW[0], abs=0.02)
        with KeyRegistry(program.address, timeout_seconds=HANG_SECONDS) as registry:
            request = keys_pb2.GetKeyRequest(key_id=ei_user.key_id)
            with registry._connections.use(0) as methods, pytest.raises(grpc.RpcError) as caught:
                methods.get_key(request, timeout=HANG_SECONDS)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert isinstance(typed_error(caught.value), KeyStoreUnavailableError)
        with (
            EIClient(program.address, client=ei_user.client, key_id=ei_user.key_id, timeout_seconds=5) as ei_client,
            pytest.raises(KeyStoreUnavailableError),
        ):
            ei_client.score(ei_user.client.encrypt(ROW[0]))
