"""`sealserve agent`: the Open Inference Protocol on this machine, answered by a service."""

import logging
import os
import signal
import socket
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sealserve.cli.command import Command, add_service_options, credentials
from sealserve.errors import InputError

if TYPE_CHECKING:
    from sealserve.agent.caller_token import Token
    from sealserve.agent.models import Models

_GRACE_SECONDS = 10.0
_STREAM_THREADS = 16
_MAX_PORT = 65_535

_logger = logging.getLogger(__name__)


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    add_service_options(parser, "--target")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="serve this model only; may be repeated"
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="unix:PATH|127.0.0.1:PORT",
        help="where to take gRPC; may be repeated (a Unix socket of this user in $XDG_RUNTIME_DIR/sealserve)",
    )
    parser.add_argument("--http", type=_port, metavar="PORT", help="take REST on 127.0.0.1, too, and show /metrics")
    token = parser.add_mutually_exclusive_group()
    token.add_argument(
        "--agent-token-file",
        type=Path,
        metavar="FILE",
        help="the token that callers send; made if it is missing (agent.token, beside the default socket)",
    )
    token.add_argument("--no-agent-token", action="store_true", help="answer every process that can connect")
    parser.add_argument("--encrypt-processes", type=int, default=0, metavar="N", help="encrypt batches in so many")
    parser.add_argument("--clip", action="store_true", help="move features outside the range to its nearest end")
    parser.add_argument("--check", action="store_true", help="check that the service can be used, print how, and end")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    parser.add_argument("--log-format", default="text", choices=("text", "json"), help="of the log on stderr")


def run(arguments: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    import waitress  # noqa: F401  # it is missed first where the extra is not installed

    from sealserve._codec.private_memory import keep_private
    from sealserve.cli.log import log_to_stderr

    keep_private()
    log_to_stderr(arguments.log_level, arguments.log_format)
    with _models(arguments) as models:
        return _check(models) if arguments.check else _serve(arguments, models)


@contextmanager
def _models(arguments: Namespace) -> "Iterator[Models]":
    from sealserve.agent.models import LIST_SECONDS, ModelClient, Models

    given = credentials(arguments)

    def connect(name: str) -> ModelClient:
        return ModelClient(
            arguments.address,
            model=name,
            credentials=given,
            clip=arguments.clip,
            encrypt_processes=arguments.encrypt_processes if name else 0,
            timeout_seconds=arguments.timeout if name else LIST_SECONDS,
        )

    models = Models(connect, arguments.model)
    try:
        yield models
    finally:
        models.close()


def _check(models: "Models") -> int:
    """Print each model with what the agent would use; the exit code is 1 if one is missing.

    Raises:
        SealserveError: the service cannot be reached, or a model cannot be used.
    """
    listed = models.listed()
    for name in listed:
        offer = models.client(name).offer()
        print(f"{name}: {offer.parameters.parameter_set.name}, {offer.rows_per_item} rows an item")  # noqa: T201
    if not models.are_ready:
        raise InputError("the service does not list all models that are to be served, or none")
    return 0


def _serve(arguments: Namespace, models: "Models") -> int:
    from concurrent.futures import ThreadPoolExecutor

    from sealserve.agent import http_listener
    from sealserve.agent.inference import Inference
    from sealserve.agent.listener import Listener
    from sealserve.agent.rest import RestApplication
    from sealserve.agent.servicer import InferenceServicer
    from sealserve.agent.telemetry import Telemetry

    stop = _stop_socket()
    token, telemetry = _token(arguments), Telemetry()
    inference = Inference(models, telemetry, arguments.timeout)
    workers = ThreadPoolExecutor(_STREAM_THREADS, thread_name_prefix="stream")
    servicer = InferenceServicer(inference, telemetry, workers)
    listeners = list[Listener]()
    with ExitStack() as leaving:
        for address in arguments.listen or [_default_address()]:
            listeners.append(Listener(address, servicer, token))
            leaving.callback(listeners[-1].stop, _GRACE_SECONDS)  # also if the next address is none
        for listener in listeners:
            listener.start()
        places = [listener.address for listener in listeners]
        if arguments.http is not None:
            port = leaving.enter_context(
                http_listener.serving(RestApplication(inference, telemetry, token), arguments.http, _GRACE_SECONDS)
            )
            places.append(f"http://127.0.0.1:{port}")
        print(f"agent of {arguments.address} on {', '.join(places)}", flush=True)  # noqa: T201
        stop.recv(1)
        _logger.info("stopping: requests under way finish, new ones are refused")
    workers.shutdown(wait=False)
    return 0


def _stop_socket() -> socket.socket:
    """Return a socket that becomes readable at SIGTERM or Ctrl-C.

    The interpreter itself writes to it. A handler in Python runs in the main thread, which may wait
    and not notice: the system may hand the signal to any other thread.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
    return reader


def _token(arguments: Namespace) -> "Token | None":
    from sealserve.agent.caller_token import read_or_make
    from sealserve.agent.run_files import TOKEN, make_private, run_directory

    if arguments.no_agent_token:
        _logger.warning("no token: every process that can connect gets predictions of this agent's tenant")
        return None
    path: Path | None = arguments.agent_token_file
    if path is None:
        make_private(run_directory())
        path = run_directory() / TOKEN
    token = read_or_make(path)
    _logger.info("callers send the token in %s", path)
    return token


def _default_address() -> str:
    from sealserve.agent.run_files import SOCKET, make_private, run_directory

    if os.name != "posix":
        return "127.0.0.1:8001"
    make_private(run_directory())
    return f"unix:{run_directory() / SOCKET}"


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= _MAX_PORT:
        return int(text)
    raise ArgumentTypeError(f"{text!r} is not a port")


COMMAND = Command(
    "agent",
    "take plaintext on this machine from any language, and ask a service encrypted",
    "  sealserve agent --target inference.example.org:50051 --token-file token.txt\n"
    "  sealserve agent --target 127.0.0.1:50051 --listen 127.0.0.1:8001 --http 8000",
    configure,
    run,
    extra="agent",
)
