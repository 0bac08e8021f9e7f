"""`sealserve agent` as a program: its files, its start and its end, and what it refuses."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import grpc
import pytest

from sealserve.agent.command import COMMAND
from sealserve.inference import open_inference_pb2 as pb
from sealserve.inference import open_inference_pb2_grpc
from tests.support.agent_programs import run_agent, running_program
from tests.support.agents import Predicted, reason, request
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS, ROOT


def test_by_default_there_is_a_private_socket_and_a_token(
    digits_server: str, digits_model: Digits, tmp_path: Path
) -> None:
    folder = tmp_path / "sealserve"
    path, token = folder / "agent.sock", folder / "agent.token"
    with running_program(digits_server, tmp_path, "--http", "0") as program:
        assert program.line.startswith(f"agent of {digits_server} on unix:{path}, http://127.0.0.1:")
        assert [file.stat().st_mode & 0o777 for file in (folder, path, token)] == [0o700, 0o600, 0o600]
        with grpc.insecure_channel(f"unix:{path}") as channel:
            stub = open_inference_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(pb.ServerReadyRequest(), timeout=HANG_SECONDS).ready
            message = request("digits", digits_model.X[:2])
            with pytest.raises(grpc.RpcError) as failed:
                stub.ModelInfer(message, timeout=HANG_SECONDS)
            assert reason(failed.value)[0] == "UNAUTHENTICATED"
            metadata = [("authorization", f"Bearer {token.read_text().strip()}")]
            found = Predicted(stub.ModelInfer(message, timeout=HANG_SECONDS, metadata=metadata))
        assert found["label"].tolist() == digits_model.estimator.predict(digits_model.X[:2]).tolist()
        assert token.read_text().strip() not in program.log.read_text()
        _holds_no_memory_that_could_be_dumped(program.process.pid)
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(HANG_SECONDS) == 0
        assert "Traceback" not in program.log.read_text()
        assert not path.exists()
        assert token.exists(), "the next start has the same one"


def _holds_no_memory_that_could_be_dumped(pid: int) -> None:
    process = Path(f"/proc/{pid}")
    limits = (process / "limits").read_text()
    (core,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    assert int((process / "coredump_filter").read_text(), 16) == 0


def test_a_crash_leaves_no_core_dump(digits_server: str, tmp_path: Path) -> None:
    with running_program(digits_server, tmp_path) as program:
        program.process.send_signal(signal.SIGSEGV)
        _, status = os.waitpid(program.process.pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert not os.WCOREDUMP(status)


def test_other_processes_of_the_user_cannot_read_its_memory() -> None:
    program = (
        "import ctypes, sealserve._codec.private_memory as memory; libc = ctypes.CDLL(None); "
        "before = libc.prctl(3, 0, 0, 0, 0); memory.keep_private(); print(before, libc.prctl(3, 0, 0, 0, 0))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["1", "0"], "PR_GET_DUMPABLE"


def test_a_check_says_what_would_be_used(digits_server: str) -> None:
    result = run_agent("--target", digits_server, "--check")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "digits: row-2048-44, 3 rows an item\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--model", "other", "--check"], "does not list all models"),
        (["--listen", "0.0.0.0:8001", "--no-agent-token"], "loopback only"),
        (["--listen", "nowhere", "--no-agent-token"], "nowhere"),
        (["--agent-token-file", "/nowhere/token"], "/nowhere/token"),
    ],
)
def test_what_cannot_work_is_one_line(digits_server: str, options: list[str], text: str) -> None:
    result = run_agent("--target", digits_server, *options)
    assert result.returncode == 1
    assert text in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_wrong_second_address_leaves_no_socket_of_the_first(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / "a.sock"
    result = run_agent("--target=127.0.0.1:1", "--no-agent-token", f"--listen=unix:{path}", "--listen=10.9.9.9:80")
    assert "listens on loopback only" in result.stderr
    assert not path.exists()


def test_a_check_without_a_service_fails_soon() -> None:
    result = run_agent("--target", "127.0.0.1:1", "--check")
    assert result.returncode == 1
    assert "cannot be reached" in result.stderr


def test_the_command_is_installed_with_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["sealserve.commands"]["agent"] == "sealserve.agent.command:COMMAND"
    assert COMMAND.extra in project["optional-dependencies"]
    assert {"waitress", "prometheus-client"} == {
        entry.partition(">")[0] for entry in project["optional-dependencies"]["agent"]
    }


def test_the_socket_may_be_in_a_directory_of_systemds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sealserve.agent.run_files import run_directory

    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path}/a:{tmp_path}/b")
    assert run_directory() == tmp_path / "a"
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert run_directory() == tmp_path / "sealserve"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert run_directory() == tmp_path / ".sealserve"
