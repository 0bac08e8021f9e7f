"""Address space, threads and file descriptors that run out in a real service, and come back."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sealserve.client import Client
from sealserve.errors import DeadlineError, ResourceUnavailableError, TransportError
from tests.support import programs, service_processes
from tests.support.programs import Program
from tests.support.serving import HANG_SECONDS, ROOT
from tests.support.waiting import wait_until

STREAM = "/sealserve.v1.PredictionService/StreamPredict"
STREAMS = 20
GRACE_SECONDS = 2
OLD_POOLS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from sealserve_service.rpc import server
class Lazy(ThreadPoolExecutor):
    def start(self): pass
server.CallThreads = Lazy
if sys.argv.pop(1) == "unnoticed":
    server.Server.is_serving = True
from sealserve.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""`sealserve` whose pools start their threads when they are first needed, as they once did.

Whether gRPC's thread lives may go unnoticed, as it once did too.
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "line.npz"
    np.savez(path, coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    return f"--model={path}"


@contextlib.contextmanager
def limited(process: psutil.Process, resource: int, limit: int) -> Iterator[None]:
    """Let a running process have no more of a resource for a while."""
    before = process.rlimit(resource)
    process.rlimit(resource, (limit, before[1]))
    try:
        yield
    finally:
        process.rlimit(resource, before)


@contextlib.contextmanager
def streams(address: str, timeout_seconds: float = HANG_SECONDS) -> Iterator[list[Any]]:
    """Open STREAMS streams, and give their calls."""
    ends = [queue.SimpleQueue[bytes | None]() for _ in range(STREAMS)]
    with grpc.insecure_channel(address) as channel:
        method = channel.stream_stream(STREAM, bytes, bytes)
        yield [method(iter(end.get, None), timeout=timeout_seconds) for end in ends]
        for end in ends:
            end.put(None)


def is_served(address: str, timeout_seconds: float = HANG_SECONDS) -> bool:
    with Client(address, timeout_seconds=timeout_seconds) as client:
        return bool(abs(client.predict([[1.0, 0.5]])[0] - 0.5) < 0.01)


def health(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        return int(check(health_pb2.HealthCheckRequest(), timeout=HANG_SECONDS).status)


def cap_address_space(program: Program) -> None:
    """Open streams while the service can start no thread, whose stack has 8 MB by default."""
    process = psutil.Process(program.process.pid)
    with (
        limited(process, psutil.RLIMIT_AS, process.memory_info().vms + (6 << 20)),
        streams(program.address, 2.0) as calls,
        contextlib.suppress(grpc.RpcError),
    ):
        for call in calls:
            assert next(call)


@contextlib.contextmanager
def old_service(how: str, *options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run a service with OLD_POOLS; give its address and process."""
    command = [sys.executable, "-c", OLD_POOLS, how, "serve", "--address=127.0.0.1:0", "--weights=open", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[-1], process
        finally:
            process.kill()


def test_a_cap_on_address_space_that_is_lifted_leaves_a_service_as_it_was(model: str) -> None:
    with programs.serve(model, "--input-range=0,1", f"--grace-seconds={GRACE_SECONDS}") as program:
        process = psutil.Process(program.process.pid)
        before = process.num_threads()
        with (
            limited(process, psutil.RLIMIT_AS, process.memory_info().vms),
            streams(program.address) as calls,
        ):
            for call in calls:
                assert next(call), "each is told its window"
            assert is_served(program.address)
        assert is_served(program.address)
        assert health(program.address) == health_pb2.HealthCheckResponse.SERVING
        assert program.process.poll() is None
        assert process.num_threads() <= before + 16, "gRPC's own core may add a few"
        program.process.terminate()
        assert program.process.wait(HANG_SECONDS) == 0


def test_a_file_descriptor_that_is_missing_is_unavailable_and_not_internal(model: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        programs.serve(model, "--input-range=0,1", "--weights=private", log=log) as program,
        Client(program.address, timeout_seconds=5.0) as client,
    ):
        row = [[1.0, 0.5]]
        client.predict(row)
        process = psutil.Process(program.process.pid)
        with (
            limited(process, psutil.RLIMIT_NOFILE, 3),  # SEAL opens a file for each encryption of zero
            pytest.raises(ResourceUnavailableError, match="file descriptors") as refused,
        ):
            client.predict(row)
        assert isinstance(refused.value.__cause__, grpc.RpcError)
        assert refused.value.__cause__.code() is grpc.StatusCode.UNAVAILABLE
        assert client.predict(row) == pytest.approx(0.5, abs=1e-2)
        assert program.process.poll() is None
        assert not any("InternalError" in line for line in program.said)


@pytest.mark.slow
def test_without_its_threads_at_start_such_a_service_is_wedged_and_ends_on_sigterm(model: str) -> None:
    """So it once was, and it ignored SIGTERM."""
    options = (model, "--input-range=0,1", f"--grace-seconds={GRACE_SECONDS}", "--heartbeat-seconds=0")
    with old_service("unnoticed", *options) as (address, process):
        _wedge(address, process)
        process.terminate()
        assert process.wait(GRACE_SECONDS + 10) in (0, 1)


@pytest.mark.slow
def test_a_wedged_service_of_one_process_ends_by_itself(model: str) -> None:
    with old_service("unnoticed", model, "--input-range=0,1", "--heartbeat-seconds=3") as (address, process):
        _wedge(address, process)
        assert process.wait(HANG_SECONDS) == 70


@pytest.mark.slow
def test_a_service_whose_grpc_thread_dies_ends_without_a_heartbeat(model: str) -> None:
    with old_service("noticed", model, "--input-range=0,1", "--heartbeat-seconds=0") as (address, process):
        _wedge(address, process)
        assert process.wait(HANG_SECONDS) == 70


def _wedge(address: str, process: "subprocess.Popen[str]") -> None:
    cap_address_space(Program(address, process, Path()))
    with pytest.raises((DeadlineError, TransportError)):
        is_served(address, 2.0)


@pytest.mark.slow
def test_a_process_that_answers_nothing_is_replaced(model: str, tmp_path: Path) -> None:
    options = (model, "--input-range=0,1", "--processes=2", "--heartbeat-seconds=3")
    with programs.serve(*options, log=tmp_path / "log") as program:
        supervisor = psutil.Process(program.process.pid)
        paused, other = sorted(service_processes.workers(supervisor))
        os.kill(paused, signal.SIGSTOP)
        wait_until(
            lambda: (
                len(service_processes.workers(supervisor)) == 2 and paused not in service_processes.workers(supervisor)
            )
        )
        assert other in service_processes.workers(supervisor)
        assert is_served(program.address)
        assert any("is killed" in line for line in program.said)
        program.process.terminate()
        assert program.process.wait(HANG_SECONDS) == 0


@pytest.mark.slow
def test_a_supervisor_survives_when_no_process_can_be_started(model: str, tmp_path: Path) -> None:
    with programs.serve(model, "--input-range=0,1", "--processes=2", log=tmp_path / "log") as program:
        supervisor = psutil.Process(program.process.pid)
        victim, other = sorted(service_processes.workers(supervisor))
        with limited(supervisor, psutil.RLIMIT_NOFILE, supervisor.num_fds()):
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: any("refuses a process" in line for line in program.said))
            assert is_served(program.address)
        wait_until(lambda: len(service_processes.workers(supervisor)) == 2)
        assert other in service_processes.workers(supervisor)
        assert program.process.poll() is None


@pytest.mark.parametrize("megabytes", [100, 390, 600])
def test_too_little_address_space_is_one_line_at_start(model: str, megabytes: int) -> None:
    limit: Callable[[], None] = lambda: _limit_address_space(megabytes << 20)  # noqa: E731
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "sealserve.cli.main",
            "serve",
            "--log-level=error",
            model,
            "--input-range=0,1",
            "--address=127.0.0.1:0",
        ],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_SECONDS,
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "address space" in line


def _limit_address_space(byte_count: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (byte_count, byte_count))
