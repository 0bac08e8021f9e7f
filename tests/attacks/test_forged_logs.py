"""Forged logs: a GOAWAY frame has a text, and gRPC's core logs it as it is.

A stranger so writes lines of any form into a service's log, and a service into its client's
terminal. At gRPC's own verbosity, which is what sealserve had before, both succeed.
"""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import http2
from tests.support.certificates import Authority
from tests.support.identities import ALL, IdentitiesFile
from tests.support.programs import Program, serve
from tests.support.serving import HANG_SECONDS, ROOT
from tests.support.waiting import wait_until

LINE = {"level": "ERROR", "logger": "root", "message": "forged"}
TEXT = f"x\n{json.dumps(LINE)}\n\x1b[2J\n".encode()
FRAMES = 50
# Without the variable gRPC logs as with "info"; sealserve takes an empty one for none.
VERBOSITIES = {"as it was": "info", "as it is": ""}
each_verbosity = pytest.mark.parametrize("verbosity", VERBOSITIES)


@pytest.fixture(scope="module")
def line_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "line.npz"
    np.savez(path, coef=np.ones((1, 1)), intercept=np.zeros(1))
    return path


@pytest.fixture(params=["plaintext", "TLS with identities"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    if request.param == "plaintext":
        return []
    certificate, key = Authority("a").issue("service").write(tmp_path)
    identities = IdentitiesFile(tmp_path / "identities.toml", clinic=ALL)
    identities.token("clinic")
    return [f"--tls-certificate={certificate}", f"--tls-private-key={key}", f"--identities={identities.path}"]


def connected(program: Program, is_tls: bool) -> socket.socket:
    connection = http2.connected(program.address, HANG_SECONDS)
    if not is_tls:
        return connection
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(connection)


def forge(program: Program, is_tls: bool) -> None:
    """Send frames, and wait until the service has read them: it answers a ping after them."""
    ping = http2.frame(http2.PING, 0, 0, bytes(8))
    with connected(program, is_tls) as connection:
        opening = http2.PREFACE + http2.frame(http2.SETTINGS, 0, 0, b"")
        connection.sendall(opening + FRAMES * http2.goaway(TEXT) + ping)
        received = b""
        while http2.PING not in {kind for kind, *_ in http2.frames(received)}:
            part = connection.recv(1 << 16)
            assert part, "the connection has ended"
            received += part


@each_verbosity
def test_a_stranger_writes_into_the_log(verbosity: str, options: list[str], line_model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    base = [f"--model={line_model}", "--input-range=0,1", "--log-format=json", "--log-level=info"]
    with serve(*base, *options, log=log, GRPC_VERBOSITY=VERBOSITIES[verbosity]) as program:
        forge(program, bool(options))
        if verbosity == "as it was":
            wait_until(lambda: program.said.count(json.dumps(LINE)) >= FRAMES)
            assert log.read_text().count("\x1b") >= FRAMES
            assert "GRPC_VERBOSITY is set" in program.said[0], "whoever asks for it is told"
            return
        process = program.process
        process.terminate()
        assert process.wait(HANG_SECONDS) == 0
    for line in program.said:
        assert json.loads(line)["message"] != LINE["message"]


@contextlib.contextmanager
def hostile_service() -> Iterator[str]:
    """A service that answers every connection with a GOAWAY frame; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(http2.frame(http2.SETTINGS, 0, 0, b"") + http2.goaway(TEXT))
                        connection.recv(1 << 16)

        threading.Thread(target=answer, daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def said_by(command: list[str], verbosity: str) -> list[str]:
    """Run a client; return the lines that it writes on stderr."""
    environment = os.environ | {"GRPC_VERBOSITY": VERBOSITIES[verbosity]}
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS
    )
    return ended.stderr.split("\n")


@each_verbosity
def test_a_service_writes_into_its_clients_terminal(verbosity: str) -> None:
    with hostile_service() as address:
        said = said_by(["-m", "sealserve.cli.main", "models", "list", f"--address={address}", "--timeout=2"], verbosity)
    assert (json.dumps(LINE) in said) is (verbosity == "as it was")
    assert any(line.startswith("sealserve: error: ") for line in said), said


LIBRARY = """
import contextlib, sys
from sealserve.client import Client
from sealserve.errors import SealserveError
with Client(sys.argv[1], timeout_seconds=2) as client, contextlib.suppress(SealserveError):
    client.predict([[0.0]])
"""


@each_verbosity
def test_a_service_writes_into_the_log_of_a_program_with_the_sdk(verbosity: str) -> None:
    """The program's own choice stays in force; without one gRPC is silent."""
    with hostile_service() as address:
        said = said_by(["-c", LIBRARY, address], verbosity)
    assert (json.dumps(LINE) in said) is (verbosity == "as it was")


@pytest.mark.parametrize(("text", "expected"), [("", "NONE"), ("debug", "debug"), ("ERROR", "ERROR")])
def test_the_variable_is_set_before_grpc_is_imported_unless_it_is_set_already(text: str, expected: str) -> None:
    program = "import sys, os, sealserve; print(os.environ['GRPC_VERBOSITY'], 'grpc' in sys.modules)"
    environment = os.environ | {"GRPC_VERBOSITY": text}
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [expected, "False"]
