"""Listeners: gRPC servers on a Unix socket or on loopback, and who may call them.

No option makes the agent listen for other machines: it takes plaintext.
"""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sealserve._rpc.unix_socket import private_socket
from sealserve.agent.caller_token import Token
from sealserve.agent.refusals import UNAUTHENTICATED
from sealserve.agent.servicer import MAX_STREAMS, InferenceServicer
from sealserve.errors import InputError
from sealserve.inference import open_inference_pb2_grpc
from sealserve.protocol.address import parse_address, path_of

MAX_MESSAGE_BYTES = 64 << 20
"""Of a request or a reply: 10,000 rows of 784 features as float64."""
THREADS = 64 + MAX_STREAMS
"""The most calls that are answered at a time; others wait, up to as many again."""

_HEALTH = frozenset(
    {
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
        "/grpc.health.v1.Health/Check",
    }
)
"""What needs no token on a Unix socket. It tells nothing of models."""


class Listener:
    """A gRPC server at one address, which must be of this machine.

    Args:
        address: unix:PATH or HOST:PORT.
        servicer: answers the calls.
        token: that callers have to send; None: they need none.

    Attributes:
        address: where it listens, with the port that the system chose for 0.

    Raises:
        InputError: the address is malformed, of other machines, or in use.
    """

    def __init__(self, address: str, servicer: InferenceServicer, token: Token | None) -> None:
        parsed, path = parse_address(address), path_of(address)
        if not parsed.is_local or len(parsed.hosts) > 1:
            raise InputError(f"cannot listen on {address}: the agent takes plaintext, and listens on loopback only")
        open_methods = _HEALTH if path else frozenset()
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, thread_name_prefix="call"),
            interceptors=[] if token is None else [_TokenCheck(token, open_methods)],
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.so_reuseport", 0),  # no other process gets calls for this port
            ],
            maximum_concurrent_rpcs=2 * THREADS,
        )
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, self._server)
        self._health = health.HealthServicer(experimental_non_blocking=False)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            with private_socket(path) if path else contextlib.nullcontext():
                port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise InputError(f"cannot listen on {address}: it is in use, or no address of this machine") from error
        self.address = address if path else f"{address.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Answer calls."""
        self._server.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, and end those under way after the grace period."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_seconds).wait()
        if path := path_of(self.address):
            Path(path).unlink(missing_ok=True)


class _TokenCheck(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses calls without the token before their requests are read.

    Args:
        token: the token.
        open_methods: those that need none.
    """

    def __init__(self, token: Token, open_methods: frozenset[str]) -> None:
        self._token = token
        self._open_methods = open_methods

    def intercept_service(self, continuation: Callable[[Any], Any], details: grpc.HandlerCallDetails) -> Any:
        """Return the method's handler, or one that refuses."""
        if details.method in self._open_methods:
            return continuation(details)
        given = [value for name, value in details.invocation_metadata if name == "authorization"]
        if len(given) == 1 and self._token.accepts(given[0]):
            return continuation(details)
        return grpc.stream_stream_rpc_method_handler(_refuse)


def _refuse(_: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    context.abort_with_status(UNAUTHENTICATED.status)
    raise AssertionError("abort raises")
