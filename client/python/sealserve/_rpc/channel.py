"""Channels: TLS or plaintext, and a token on every call. Loads neither NumPy nor SEAL."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio

from sealserve._rpc.no_proxy import is_exempt
from sealserve.credentials import Credentials, pem
from sealserve.errors import UsageError
from sealserve.protocol.address import Address, parse_address

# A group of scores has about a megabyte, but at least one polynomial pair. The longest pair has
# 2^15 coefficients and 15 primes. A unary reply has at most Limits.max_message_bytes.
MAX_REPLY_BYTES = 16 << 20

# While a call waits, pings find out whether the connection still lives; services permit one in 5 s.
_PING_SECONDS, _PONG_SECONDS = 10, 10
# How long a connection may take to open. One to a process that is paused would never open.
_OPENING_SECONDS = 5
# How often a name is looked up again at most, which happens whenever a connection ends: by then
# there may be other replicas.
_LOOK_UP_SECONDS = 1
# The thread that takes streamed responses of a unary request waits for them itself, as that of a
# unary response does: grpc.experimental.ChannelOptions.
_SINGLE_THREADED = ("SingleThreadedUnaryStream", 1)


class Endpoint(NamedTuple):
    """Where a connection leads.

    Attributes:
        address: of the service, as the caller gave it.
        uses_tls: whether the client speaks TLS to it.
    """

    address: str
    uses_tls: bool


def open_channel(address: str, credentials: Credentials | None = None) -> grpc.Channel:
    """Open a channel with a connection of its own.

    By default channels to one address share a connection, and so reach one process of a service.

    Raises:
        CredentialsError: a file of the credentials cannot be used.
        InputError: the address is malformed.
    """
    credentials = credentials or Credentials()
    service = parse_address(address)
    certificates, options = _security(service, credentials)
    options.append(_SINGLE_THREADED)
    if certificates is not None:
        channel = grpc.secure_channel(service.target, certificates, options=options)
    else:
        channel = grpc.insecure_channel(service.target, options=options)
    return grpc.intercept_channel(channel, _TokenOnEveryCall(credentials.token)) if credentials.token else channel


def open_aio_channel(address: str, credentials: Credentials | None = None) -> grpc.aio.Channel:
    """Open a connection for asyncio; its calls need the metadata that `token_metadata` returns.

    Raises:
        CredentialsError: a file of the credentials cannot be used.
        InputError: the address is malformed.
        UsageError: this process is a fork of one that has opened one.
    """
    service = parse_address(address)
    _check_process()
    certificates, options = _security(service, credentials or Credentials())
    if certificates is not None:
        return grpc.aio.secure_channel(service.target, certificates, options=options)
    return grpc.aio.insecure_channel(service.target, options=options)


_aio_process_ids = list[int]()


def _check_process() -> None:
    if not _aio_process_ids:
        _aio_process_ids.append(os.getpid())
    if _aio_process_ids != [os.getpid()]:
        raise UsageError(
            "gRPC's asyncio does not survive a fork: start this process by another method (spawn, forkserver), or "
            "use sealserve.client.Client"
        )


def endpoint(address: str, credentials: Credentials | None) -> Endpoint:
    """Return where such a connection leads."""
    return Endpoint(address, (credentials or Credentials()).uses_tls(address))


def token_metadata(credentials: Credentials | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that identifies the caller, for every call."""
    return (_authorization(credentials.token),) if credentials and credentials.token else ()


def _security(
    service: Address, credentials: Credentials
) -> tuple[grpc.ChannelCredentials | None, list[tuple[str, Any]]]:
    """Return certificates, or None for plaintext, and the options of a connection."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.keepalive_time_ms", 1000 * _PING_SECONDS),
        ("grpc.keepalive_timeout_ms", 1000 * _PONG_SECONDS),
        ("grpc.http2.ping_timeout_ms", 1000 * _PONG_SECONDS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.min_reconnect_backoff_ms", 1000 * _OPENING_SECONDS),
        ("grpc.dns_min_time_between_resolutions_ms", 1000 * _LOOK_UP_SECONDS),
    ]
    if service.may_be_several:
        options.append(("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'))
    if service.is_local or all(map(is_exempt, service.hosts)):
        # A proxy is another machine. It could read plaintext, and it does not reach this machine.
        options.append(("grpc.enable_http_proxy", 0))
    if credentials.server_name:
        options.append(("grpc.ssl_target_name_override", credentials.server_name))
    if credentials.uses_tls(service.target):
        certificates = grpc.ssl_channel_credentials(
            pem(credentials.ca_certificate), pem(credentials.client_key), pem(credentials.client_certificate)
        )
        return certificates, options
    return None, options


def _authorization(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


_Continuation = Callable[[Any, Any], Any]


class _CallDetails(NamedTuple):
    """The details of a call, as gRPC's interceptors expect them."""

    method: str
    timeout: float | None
    metadata: list[tuple[str, str]]
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _TokenOnEveryCall(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]  # generic in the stubs only
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds the token to the metadata.

    gRPC's own call credentials do not work in plaintext, not even on loopback.
    """

    def __init__(self, token: str) -> None:
        self._header = _authorization(token)

    def intercept_unary_unary(self, continuation: _Continuation, client_call_details: Any, request: Any) -> Any:
        """Call with the token."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: _Continuation, client_call_details: Any, request: Any) -> Any:
        """Call with the token."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: _Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Call with the token."""
        return continuation(self._with_token(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: _Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Call with the token."""
        return continuation(self._with_token(client_call_details), request_iterator)

    def _with_token(self, details: Any) -> _CallDetails:
        metadata = [*(details.metadata or ()), self._header]
        return _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
