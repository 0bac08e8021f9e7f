"""Services under closed, full and ASCII-only streams, early signals, and leftovers of dead ones."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sealserve.client import Client
from sealserve_service.process import run_directory, supervisor
from sealserve_service.process.run_directory import RunDirectoryError
from tests.support.metrics import free_address
from tests.support.programs import serve
from tests.support.serving import HANG_SECONDS, ROOT
from tests.support.waiting import wait_until

FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "modèle.npz"
    np.savez(path, coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    return path


@contextlib.contextmanager
def service(model: Path, *options: str, redirection: str = "", **popen: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a service through a shell, which may close streams."""
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", f"--model={model}", "--input-range=0,1"]
    command += ["--weights=open", *options]
    shell = ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *command]
    with subprocess.Popen(shell, cwd=ROOT, stdin=subprocess.DEVNULL, **popen) as process:
        try:
            yield process
        finally:
            process.kill()


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), HANG_SECONDS):
        return True
    return False


def is_served(address: str) -> bool:
    wait_until(lambda: listens(address))
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        return bool(abs(client.predict([[1.0, 0.5]])[0] - 0.5) < 0.01)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", f">{FULL}", f"2>{FULL}", f">{FULL} 2>{FULL}"])
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_standard_streams_do_not_decide_over_a_service(model: Path, redirection: str, processes: int) -> None:
    address = free_address()
    options = (f"--address={address}", f"--processes={processes}")
    with service(
        model, *options, redirection=redirection, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        assert is_served(address)
        descriptors = Path(f"/proc/{process.pid}/fd")
        assert {(descriptors / str(number)).readlink() for number in range(3)} <= {Path(os.devnull), FULL}
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0


def test_a_reader_of_stdout_that_has_gone_stops_nothing(model: Path) -> None:
    address = free_address()
    with service(model, f"--address={address}", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        process.stdout.close()
        assert is_served(address)
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0


def test_a_name_that_stdout_cannot_write_is_escaped(model: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    with service(model, "--address=127.0.0.1:0", stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        line = process.stdout.readline().decode("ascii")
        assert line.startswith(r"serving mod\xe8le on ")
        assert is_served(line.split()[-1])


def test_an_error_of_the_run_is_none_of_listening() -> None:
    with pytest.raises(OSError, match="No space left"), supervisor._reserved_port("127.0.0.1:0"):
        raise OSError(28, "No space left on device")


def handles_sigterm(process: psutil.Process) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def test_sigterm_ends_the_first_process_of_a_container_before_it_has_loaded_anything(model: Path) -> None:
    command = [sys.executable, "-m", "sealserve.cli.main", "serve", f"--model={model}", "--address=127.0.0.1:0"]
    new_pids = [shutil.which("unshare") or "", "--user", "--map-root-user", "--pid", "--fork"]
    with subprocess.Popen([*new_pids, *command], cwd=ROOT) as outer:
        try:
            wait_until(lambda: bool(psutil.Process(outer.pid).children()))
            (first,) = psutil.Process(outer.pid).children()
            wait_until(lambda: handles_sigterm(first))
            assert "numpy" not in Path(f"/proc/{first.pid}/maps").read_text()
            first.terminate()
            assert outer.wait(HANG_SECONDS) == 128 + signal.SIGTERM
        finally:
            outer.kill()


def test_directories_of_dead_services_are_swept(model: Path, tmp_path: Path) -> None:
    def directories() -> set[Path]:
        return set(tmp_path.glob("sealserve-run-*"))

    options = (f"--model={model}", "--input-range=0,1")
    with serve(*options, TMPDIR=str(tmp_path)) as dead:
        (left,) = directories()
        dead.process.kill()
        dead.process.wait()
    assert directories() == {left}
    with serve(*options, TMPDIR=str(tmp_path)) as first:
        (own,) = directories() - {left}
        assert not left.exists()
        with serve(*options, TMPDIR=str(tmp_path)):
            assert own in directories(), "its service lives"
            assert len(directories()) == 2
        first.process.terminate()
        assert first.process.wait(HANG_SECONDS) == 0
        assert not own.exists()


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: str) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)


@pytest.mark.usefixtures("read_only")
def test_a_read_only_root_names_the_directories_that_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    wanted = r"/tmp: Read-only file system; .*mount one that can be written at /tmp, or name one in TMPDIR"  # noqa: S108
    with pytest.raises(RunDirectoryError, match=wanted), run_directory.run_directory(is_needed=True):
        pass
    with run_directory.run_directory(is_needed=False) as directory:
        assert directory is None
    assert "no heartbeat: " in caplog.text
