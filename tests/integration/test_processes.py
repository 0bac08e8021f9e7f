"""Real serving processes: one or several on a port, their death, their orderly end."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from sealserve.client import Client

PROGRAM = """
import sys
from sealserve_service.settings import Settings
from sealserve_service.process.supervisor import run
path, address, processes = sys.argv[1:]
model, input_range = ("line=" + path,), ("0,1",)
sys.exit(run(Settings(address=address, processes=processes, model=model, input_range=input_range, weights="open")))
"""


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "line.npz"
    np.savez(path, coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    return path


@contextmanager
def running(model_path: Path, processes: int, address: str = "127.0.0.1:0") -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-c", PROGRAM, str(model_path), address, str(processes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[-1], psutil.Process(process.pid)
        finally:
            process.kill()


def predict(address: str) -> float:
    with Client(address, timeout_seconds=20) as client:
        return float(client.predict([[1.0, 0.5]])[0])


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def workers(supervisor: psutil.Process) -> set[int]:
    return {child.pid for child in supervisor.children() if is_alive(child) and "spawn_main" in str(child.cmdline())}


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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
        command = [sys.executable, "-c", PROGRAM, str(model_path), address, str(processes)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert f"AddressError: cannot listen on {address}" in result.stderr


def test_a_second_service_on_a_shared_port_is_refused(model_path: Path) -> None:
    with running(model_path, 2) as (address, _):
        command = [sys.executable, "-c", PROGRAM, str(model_path), address, "2"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert f"AddressError: cannot listen on {address}" in result.stderr


def test_a_worker_that_cannot_start_ends_the_service_with_its_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "missing.npz"), "127.0.0.1:0", "2"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "StartError" in result.stderr
    assert "missing.npz" in result.stderr
