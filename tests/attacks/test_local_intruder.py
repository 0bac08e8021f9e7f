"""An intruder on the consumer's machine, or a page in its browser, at the agent.

Each attack succeeds without its protection, which a test switches off, and fails with it.
"""

import contextlib
import hmac
import http.client
import io
import json
import logging
import os
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import waitress
import waitress.buffers

from sealserve.agent import caller_token, listener, run_files
from sealserve.agent.models import Models
from sealserve.agent.rest import RestApplication
from sealserve.cli.log import TextFormatter
from sealserve.errors import CredentialsError, InputError
from sealserve.inference import open_inference_pb2 as pb
from tests.support.agents import reason, request, running_agent
from tests.support.digits import Digits
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until

TOKEN = "a-token-of-this-test"  # noqa: S105
ROW = np.zeros((1, 64))
CONNECTIONS, BODIES, PIECE = 8, 8, 1 << 20
KEPT_BYTES = CONNECTIONS * BODIES * PIECE
ON_OFF = pytest.mark.parametrize("is_protected", [False, True], ids=["unprotected", "protected"])


def post(port: int, headers: dict[str, str], body: bytes | None = None, path: str = "/v2/models/digits/infer") -> int:
    """Ask for a prediction over HTTP as anything on this machine may; return the status."""
    message = {"inputs": [{"name": "rows", "datatype": "FP64", "shape": [1, 64], "data": ROW.tolist()}]}
    data = json.dumps(message).encode() if body is None else body
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
    try:
        connection.putrequest("POST", path, skip_host=True)
        for name, value in ({"Host": f"127.0.0.1:{port}", "Content-Length": str(len(data))} | headers).items():
            connection.putheader(name, value)
        connection.endheaders(data)
        return connection.getresponse().status
    finally:
        connection.close()


# A page in a browser


PAGES: dict[str, dict[str, str]] = {
    "a name that was bound to loopback": {"Host": "evil.example:{port}"},
    "such a name without a port": {"Host": "evil.example"},
    "another port of loopback": {"Host": "127.0.0.1:1"},
    "an address of another machine": {"Host": "192.0.2.1:{port}"},
    "no host": {"Host": ""},
    "another site": {"Origin": "https://evil.example"},
    "a file or a sandbox": {"Origin": "null"},
    "a page of this machine": {"Origin": "http://127.0.0.1:{port}"},
    "a picture of another site": {"Sec-Fetch-Site": "cross-site"},
    "a script of another port": {"Sec-Fetch-Site": "same-site"},
}


@ON_OFF
@pytest.mark.parametrize("name", PAGES)
def test_a_page_gets_no_prediction(
    digits_server: str, name: str, is_protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent needs no token here: a page is refused even where nothing else is."""
    if not is_protected:
        monkeypatch.setattr(RestApplication, "_check", lambda *_: None)
    with running_agent(digits_server) as agent:
        headers = {key: value.format(port=agent.http_port) for key, value in PAGES[name].items()}
        assert post(agent.http_port, headers) == (403 if is_protected else 200)


def test_no_answer_invites_a_page(digits_server: str) -> None:
    with running_agent(digits_server) as agent:
        connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=HANG_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/v2")
            headers = dict(connection.getresponse().headers)
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert headers["Cache-Control"] == "no-store"


# Another process of this machine


@ON_OFF
@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"bearer {TOKEN}", TOKEN, "Bearer é"]
)
def test_without_the_token_there_is_no_prediction(digits_server: str, given: str, is_protected: bool) -> None:
    metadata = [("authorization", given)] if given.isascii() else []
    with running_agent(digits_server, token=TOKEN if is_protected else None) as agent:
        headers = {"Authorization": given.encode().decode("latin-1")}
        assert post(agent.http_port, headers) == (401 if is_protected else 200)
        for call in (
            lambda: agent.stub.ModelInfer(request("digits", ROW), metadata=metadata),
            lambda: list(agent.stub.ModelStreamInfer(iter([request("digits", ROW)]), metadata=metadata)),
            lambda: agent.stub.ModelMetadata(pb.ModelMetadataRequest(name="digits"), metadata=metadata),
            lambda: agent.stub.ServerReady(pb.ServerReadyRequest(), metadata=metadata),
        ):
            if is_protected:
                with pytest.raises(grpc.RpcError) as failed:
                    call()
                assert reason(failed.value) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
            else:
                call()


def test_with_the_token_there_is(digits_server: str) -> None:
    metadata = [("authorization", f"Bearer {TOKEN}")]
    with running_agent(digits_server, token=TOKEN) as agent:
        assert len(agent.stub.ModelInfer(request("digits", ROW), metadata=metadata).outputs) == 3
        assert post(agent.http_port, {"Authorization": f"Bearer {TOKEN}"}) == 200
        with pytest.raises(grpc.RpcError) as failed:
            agent.stub.ModelInfer(request("digits", ROW), metadata=[*metadata, ("authorization", "Bearer x")])
        assert reason(failed.value)[0] == "UNAUTHENTICATED", "two are none"


def test_a_token_is_compared_in_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests of one length go into compare_digest, whatever a caller sends."""
    compared, whole = list[tuple[bytes, bytes]](), hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return whole(one, other)

    token = caller_token.Token(TOKEN)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    answers = [token.accepts(given) for given in ("", "Bearer a", f"Bearer {TOKEN}", b"x" * 5000)]
    assert answers == [False, False, True, False]
    assert {(len(one), len(other)) for one, other in compared} == {(32, 32)}
    assert len(compared) == 4


def test_a_unix_socket_is_for_its_user_and_tells_others_nothing(digits_server: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with running_agent(digits_server, token=TOKEN, address=f"unix:{path}") as agent:
        assert path.stat().st_mode & 0o777 == 0o600
        assert agent.stub.ServerLive(pb.ServerLiveRequest()).live, "health needs no token here"
        assert agent.stub.ServerReady(pb.ServerReadyRequest()).ready
        with pytest.raises(grpc.RpcError) as failed:
            agent.stub.ModelMetadata(pb.ModelMetadataRequest(name="digits"))
        assert reason(failed.value)[0] == "UNAUTHENTICATED"
    assert not path.exists()


@pytest.mark.parametrize(
    "address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:7", "example.org:7", "ipv4:127.0.0.1:1,192.0.2.1:1"]
)
def test_the_agent_never_listens_for_other_machines(digits_server: str, address: str) -> None:
    with pytest.raises(InputError, match="loopback only"), running_agent(digits_server, address=address):
        pass


def test_nobody_shares_its_port(digits_server: str) -> None:
    with (
        running_agent(digits_server) as agent,
        pytest.raises(InputError, match="in use"),
        running_agent(digits_server, address=agent.address),
    ):
        pass


def test_files_that_others_may_use_are_refused(tmp_path: Path) -> None:
    private = tmp_path / "run"
    run_files.make_private(private)
    assert private.stat().st_mode & 0o777 == 0o700
    run_files.make_private(private)
    token = private / "token"
    caller_token.read_or_make(token)
    assert token.stat().st_mode & 0o777 == 0o600
    text = token.read_text().strip()
    assert len(text) >= 43
    assert caller_token.read_or_make(token).accepts(f"Bearer {text}"), "the next start has the same one"
    token.chmod(0o640)
    with pytest.raises(CredentialsError, match="chmod 600"):
        caller_token.read_or_make(token)
    private.chmod(0o750)
    with pytest.raises(InputError, match="0700"):
        run_files.make_private(private)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(InputError, match="0700"):
        run_files.make_private(tmp_path / "link")


# What it makes the agent hold


@pytest.mark.parametrize(
    "shape", [(1 << 31, 1 << 31), (1 << 62, 1), (-1, 64), (0, 1 << 62), (1 << 24, 64), (1 << 24,)], ids=str
)
@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "typed"])
def test_a_giant_shape_costs_nothing(digits_server: str, shape: tuple[int, ...], is_raw: bool) -> None:
    message = pb.ModelInferRequest(model_name="digits")
    message.inputs.add(name="rows", datatype="UINT8", shape=shape)
    if is_raw:
        message.raw_input_contents.append(b"\0" * 64)
    with running_agent(digits_server) as agent:
        agent.infer("digits", ROW)
        with traced_memory():
            with pytest.raises(grpc.RpcError) as failed:
                agent.stub.ModelInfer(message, timeout=HANG_SECONDS)
            _, peak = tracemalloc.get_traced_memory()
    assert reason(failed.value)[0] == "INVALID_ARGUMENT"
    assert peak < 4 << 20


@contextlib.contextmanager
def traced_memory() -> Iterator[None]:
    """Trace what Python allocates while the context lasts."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def contradicting() -> dict[str, pb.ModelInferRequest]:
    """Requests whose contents are not what their heads say."""
    both = request("digits", ROW)
    both.inputs[0].contents.fp64_contents.extend([0.0] * 64)
    surplus = request("digits", ROW)
    surplus.raw_input_contents.append(b"")
    few = request("digits", ROW, ROW)
    del few.raw_input_contents[1]
    long, short = request("digits", ROW), request("digits", ROW)
    long.raw_input_contents[0] += b"\0" * 8
    short.raw_input_contents[0] = short.raw_input_contents[0][:-1]
    other_field = request("digits", ROW, is_raw=False)
    other_field.inputs[0].datatype = "FP32"
    two_fields = request("digits", ROW, is_raw=False)
    two_fields.inputs[0].contents.int_contents.append(1)
    half = request("digits", ROW.astype("f2"))
    del half.raw_input_contents[:]
    nothing = request("digits", ROW)
    del nothing.raw_input_contents[:]
    return {
        "both raw and typed": both,
        "more raw contents than inputs": surplus,
        "fewer raw contents than inputs": few,
        "too long": long,
        "too short": short,
        "another field": other_field,
        "two fields": two_fields,
        "FP16 that is not raw": half,
        "no contents": nothing,
    }


@pytest.mark.parametrize("name", contradicting())
def test_contents_that_contradict_their_shape_get_no_label(digits_server: str, name: str) -> None:
    with running_agent(digits_server) as agent:
        with pytest.raises(grpc.RpcError) as failed:
            agent.stub.ModelInfer(contradicting()[name], timeout=HANG_SECONDS)
        assert reason(failed.value) == ("INVALID_ARGUMENT", "INPUT")
        assert agent.infer("digits", ROW)["label"].shape == (1,), "the agent goes on"


def test_a_message_that_is_too_long_is_not_taken(digits_server: str) -> None:
    message = request("digits", ROW)
    message.raw_input_contents[0] = b"\0" * (listener.MAX_MESSAGE_BYTES + 1)
    with running_agent(digits_server) as agent, pytest.raises(grpc.RpcError) as failed:
        agent.stub.ModelInfer(message, timeout=HANG_SECONDS)
    call: Any = failed.value
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@ON_OFF
def test_plaintext_is_not_written_into_files(
    digits_server: str, is_protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waitress's defaults write a body of a megabyte into a file."""
    files, make = list[Any](), waitress.buffers.TempfileBasedBuffer.newfile

    def newfile(buffer: Any) -> Any:
        files.append(buffer)
        return make(buffer)

    monkeypatch.setattr(waitress.buffers.TempfileBasedBuffer, "newfile", newfile)
    if not is_protected:
        whole = waitress.create_server
        kept = ("host", "port", "threads")
        monkeypatch.setattr(waitress, "create_server", lambda app, **o: whole(app, **{name: o[name] for name in kept}))
    rows = np.zeros((4000, 64))
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "rows",
                    "datatype": "FP64",
                    "shape": list(rows.shape),
                    "parameters": {"binary_data_size": rows.nbytes},
                }
            ],
            "outputs": [{"name": "none"}],
        }
    ).encode()
    with running_agent(digits_server) as agent:
        body = head + rows.tobytes()
        assert post(agent.http_port, {"Inference-Header-Content-Length": str(len(head))}, body) == 400
    assert bool(files) is not is_protected


@ON_OFF
@pytest.mark.parametrize("is_chunked", [False, True], ids=["long", "chunked"])
def test_bodies_without_the_token_fill_no_memory(
    digits_server: str, is_protected: bool, is_chunked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other users can connect to loopback. A body was kept until its request was refused."""
    if not is_protected:
        monkeypatch.setattr(RestApplication, "takes", lambda *_: True)
    head = "POST /v2/models/digits/infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n" if is_chunked else f"Content-Length: {BODIES * PIECE + 1}\r\n\r\n"
    piece = b"%x\r\n" % PIECE + b"\0" * PIECE + b"\r\n" if is_chunked else b"\0" * PIECE
    bodies = BODIES * piece
    with running_agent(digits_server, token=TOKEN) as agent, traced_memory(), contextlib.ExitStack() as leaving:
        for _ in range(CONNECTIONS):
            connection = leaving.enter_context(socket.create_connection(("127.0.0.1", agent.http_port)))
            connection.sendall(head.format(port=agent.http_port).encode())
            with contextlib.suppress(OSError):  # a refused connection ends before all is sent
                connection.sendall(bodies)
        wait_until(lambda: not _unread_bytes(agent.http_port))
        kept, _ = tracemalloc.get_traced_memory()
    assert (kept < KEPT_BYTES // 2) is is_protected, kept


def _unread_bytes(port: int) -> int:
    """Return how many bytes the system holds that a listener on loopback has not read yet."""
    unread, name = 0, f"0100007F:{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        to_send, received = (int(queue, 16) for queue in queues.split(":"))
        unread += received * (local == name) + to_send * (remote == name)
    return unread


@ON_OFF
@pytest.mark.parametrize("begun", [b"", b"0\r\nX: "], ids=["line of a chunk", "trailers"])
def test_chunks_without_the_token_are_not_read(
    digits_server: str, begun: bytes, is_protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waitress searches an endless line again whenever more comes: 30 MB held it for a minute."""
    if not is_protected:
        monkeypatch.setattr(RestApplication, "takes", lambda *_: True)
    head = "POST /v2/models/digits/infer HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with (
        running_agent(digits_server, token=TOKEN) as agent,
        socket.create_connection(("127.0.0.1", agent.http_port)) as connection,
    ):
        connection.sendall(head.format(port=agent.http_port).encode() + begun + b"0" * 100)
        connection.settimeout(HANG_SECONDS if is_protected else 0.5)
        answer = b""
        with contextlib.suppress(TimeoutError):
            answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 401 ") is is_protected
    assert (b"Connection: close" in answer) is is_protected


@pytest.mark.parametrize("is_chunked", [False, True], ids=["long", "chunked"])
def test_what_follows_a_refused_request_is_no_part_of_it(digits_server: str, is_chunked: bool) -> None:
    """The body of a page's request is itself a request, one that the agent would answer."""
    with running_agent(digits_server) as agent, socket.create_connection(("127.0.0.1", agent.http_port)) as connection:
        host = f"Host: 127.0.0.1:{agent.http_port}\r\n"
        hidden = f"GET /v2 HTTP/1.1\r\n{host}\r\n".encode()
        head = f"POST /v2/models/digits/infer HTTP/1.1\r\n{host}Origin: null\r\n"
        head += "Transfer-Encoding: chunked" if is_chunked else f"Connection: close\r\nContent-Length: {len(hidden)}"
        connection.sendall(f"{head}\r\n\r\n".encode() + hidden)
        connection.settimeout(HANG_SECONDS)
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answers.startswith(b"HTTP/1.1 403 ")
    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"sealserve-agent" not in answers


# What leaves the machine


class Tap(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """Stands between an agent and a service, and keeps all that the agent sends."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self.sent = list[bytes]()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Hand a call of any method on."""
        self.sent.append(details.method.encode())
        self.sent += [f"{name}: {value!r}".encode() for name, value in details.invocation_metadata]

        def tapped(requests: Iterator[bytes]) -> Iterator[bytes]:
            for message in requests:
                self.sent.append(message)
                yield message

        def answer(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            call = self._channel.stream_stream(details.method, None, None)
            yield from call(tapped(requests), timeout=context.time_remaining())

        return grpc.stream_stream_rpc_method_handler(answer)


@contextlib.contextmanager
def tapped(target: str) -> Iterator[tuple[str, Tap]]:
    """Run a tap before a service; give its address."""
    with grpc.insecure_channel(target) as channel:
        tap = Tap(channel)
        server = grpc.server(ThreadPoolExecutor(16), handlers=[tap])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}", tap
        finally:
            server.stop(None).wait()


PATIENT = "patient-4711-Meier"


@ON_OFF
def test_nothing_that_a_caller_wrote_leaves_the_machine(
    digits_server: str, digits_model: Digits, is_protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of patients in ids, models, versions, tensors, outputs, parameters and metadata.

    Without the list of the service's models, an agent asks the service for the model that a caller
    names.
    """
    if not is_protected:
        monkeypatch.setattr(Models, "client", lambda self, name: self._connect(name))
    row = digits_model.X[:1] * 0.9 + 0.03  # its floats occur nowhere else
    good = request("digits", row, id=PATIENT, names=[PATIENT])
    good.parameters[PATIENT].string_param = PATIENT
    good.inputs[0].parameters[PATIENT].string_param = PATIENT
    bad = [
        request(PATIENT, row),
        request("digits", row, version=PATIENT),
        request("digits", row, outputs=[PATIENT]),
        request("digits", row, row, names=[PATIENT, "other"]),
    ]
    with tapped(digits_server) as (target, tap), running_agent(target) as agent:
        metadata = [("x-request-id", PATIENT), ("x-patient", PATIENT), ("user-agent", PATIENT)]
        for message in [good, *bad]:
            with contextlib.suppress(grpc.RpcError):
                response = agent.stub.ModelInfer(message, timeout=HANG_SECONDS, metadata=metadata)
                assert response.id == PATIENT
        list(agent.stub.ModelStreamInfer(iter([good]), timeout=HANG_SECONDS, metadata=metadata))
        agent.stub.ModelReady(pb.ModelReadyRequest(name=PATIENT, version=PATIENT))
        post(agent.http_port, {"X-Patient": PATIENT}, path=f"/v2/models/{PATIENT}/infer")
    assert any(method.endswith(b"/Predict") for method in tap.sent), "there were predictions"
    seen = b"\n".join(tap.sent)
    assert (PATIENT.encode() not in seen) is is_protected
    for value in row[0][row[0] > 0.04]:
        for text in (value.tobytes(), np.float32(value).tobytes(), repr(float(value)).encode()):
            assert text not in seen, "a feature"


def test_logs_and_metrics_hold_nothing_that_a_caller_wrote(digits_server: str, digits_model: Digits) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        with running_agent(digits_server, token=TOKEN) as agent:
            metadata = [("authorization", f"Bearer {TOKEN}")]
            row = digits_model.X[:1]
            for message in (
                request("digits", row, id=PATIENT),
                request(PATIENT, row),
                request("digits", row + 4711.0, outputs=[PATIENT]),
                request("digits", row * 0 + 4711.5),
                request("digits", np.full((1, 64), PATIENT, object)),
            ):
                with contextlib.suppress(grpc.RpcError):
                    agent.stub.ModelInfer(message, metadata=metadata)
            connection = http.client.HTTPConnection("127.0.0.1", agent.http_port, timeout=HANG_SECONDS)
            with contextlib.closing(connection):
                connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
                metrics = connection.getresponse().read().decode()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    text = stream.getvalue() + metrics
    assert "status=INVALID_ARGUMENT" in text
    assert "sealserve_agent_requests_total" in metrics
    for secret in (PATIENT, "4711", TOKEN):
        assert secret not in text


# A target that is none


def _speaks_http(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def _speaks_noise(connection: socket.socket) -> None:
    connection.sendall(os.urandom(4096))


@contextlib.contextmanager
def socket_server(speak: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that says the same to everyone."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    speak(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def other_grpc_server() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("target", "code"),
    [
        (lambda: socket_server(_speaks_http), "UNAVAILABLE"),
        (lambda: socket_server(_speaks_noise), "UNAVAILABLE"),
        (other_grpc_server, "FAILED_PRECONDITION"),
    ],
    ids=["HTTP", "noise", "another gRPC service"],
)
def test_a_target_that_speaks_something_else_is_reported(target: Any, code: str) -> None:
    with target() as address, running_agent(address) as agent:
        with pytest.raises(grpc.RpcError) as failed:
            agent.infer("digits", ROW)
        assert reason(failed.value)[0] == code
        assert not agent.stub.ServerReady(pb.ServerReadyRequest()).ready
        assert agent.stub.ServerLive(pb.ServerLiveRequest()).live
