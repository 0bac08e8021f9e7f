"""Real serving processes: one or several on a port, their death, their orderly end."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest

from sealserve.client import Client
from tests.support.service_processes import command, is_alive, running, workers
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "line.npz"
    np.savez(path, coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    return path


def predict(address: str) -> float:
    with Client(address, timeout_seconds=20) as client:
        return float(client.predict([[1.0, 0.5]])[0])


@pytest.mark.parametrize("processes", [1, 2])
def test_serves_and_ends_on_sigterm(model_path: Path, processes: int) -> None:
    with running(model_path, processes) as (address, process):
        assert predict(address) == pytest.approx(0.5, abs=1e-2)
        family = [process, *process.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        wait_until(lambda: not any(map(is_alive, family)))


def test_several_processes_say_so_to_the_client(model_path: Path) -> None:
    with running(model_path, 2) as (address, process), Client(address) as client:
        assert client.model.limits.suggested_connections == 2
        assert len(workers(process)) == 2
        rows = np.random.default_rng(0).uniform(size=(600, 2))
        assert client.predict(rows) == pytest.approx(rows @ [1.0, -2.0] + 0.5, abs=1e-2)


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(model_path: Path) -> None:
    with running(model_path, 2) as (address, process):
        before = workers(process)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(workers(process)) == 2 and victim not in workers(process))
        for _ in range(8):
            wait_until(lambda: _answers(address))
        assert max(before) in workers(process)


def _answers(address: str) -> bool:
    return predict(address) == pytest.approx(0.5, abs=1e-2)


@pytest.mark.slow
def test_workers_end_with_their_supervisor(model_path: Path) -> None:
    with running(model_path, 2) as (_, process):
        orphans = [psutil.Process(pid) for pid in workers(process)]
        process.kill()
        wait_until(lambda: not any(map(is_alive, orphans)))


@pytest.mark.parametrize("processes", [1, 2])
def test_a_port_in_use_is_refused(model_path: Path, processes: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = subprocess.run(
            command(model_path, address, processes), capture_output=True, text=True, timeout=60, check=False
        )
    assert result.returncode == 1
    assert f"AddressError: cannot listen on {address}" in result.stderr


def test_a_second_service_on_a_shared_port_is_refused(model_path: Path) -> None:
    with running(model_path, 2) as (address, _):
        result = subprocess.run(
            command(model_path, address, 2), capture_output=True, text=True, timeout=60, check=False
        )
        assert f"AddressError: cannot listen on {address}" in result.stderr


def test_a_worker_that_cannot_start_ends_the_service_with_its_reason(tmp_path: Path) -> None:
    result = subprocess.run(
        command(tmp_path / "missing.npz", "127.0.0.1:0", 2), capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1
    assert "StartError" in result.stderr
    assert "missing.npz" in result.stderr
