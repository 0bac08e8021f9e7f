"""Channels: TLS or plaintext, and a token on every call. Loads neither NumPy nor SEAL."""

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio

from sealserve.credentials import Credentials, pem
from sealserve.protocol.address import host_of, is_loopback

# A group of scores has about a megabyte, but at least one polynomial pair. The longest pair has
# 2^15 coefficients and 15 primes. A unary reply has at most Limits.max_message_bytes.
MAX_REPLY_BYTES = 16 << 20


def open_channel(address: str, credentials: Credentials | None = None) -> grpc.Channel:
    """Open a channel with a connection of its own.

    By default channels to one address share a connection, and so reach one process of a service.

    Raises:
        CredentialsError: a file of the credentials cannot be used.
    """
    credentials = credentials or Credentials()
    certificates, options = _security(address, credentials)
    if certificates is not None:
        channel = grpc.secure_channel(address, certificates, options=options)
    else:
        channel = grpc.insecure_channel(address, options=options)
    return grpc.intercept_channel(channel, _TokenOnEveryCall(credentials.token)) if credentials.token else channel


def open_aio_channel(address: str, credentials: Credentials | None = None) -> grpc.aio.Channel:
    """Open a connection for asyncio; its calls need the metadata that `token_metadata` returns.

    Raises:
        CredentialsError: a file of the credentials cannot be used.
    """
    certificates, options = _security(address, credentials or Credentials())
    if certificates is not None:
        return grpc.aio.secure_channel(address, certificates, options=options)
    return grpc.aio.insecure_channel(address, options=options)


def token_metadata(credentials: Credentials | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that identifies the caller, for every call."""
    return (_authorization(credentials.token),) if credentials and credentials.token else ()


def _security(address: str, credentials: Credentials) -> tuple[grpc.ChannelCredentials | None, list[tuple[str, Any]]]:
    """Return certificates, or None for plaintext, and the options of a connection."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if credentials.server_name:
        options.append(("grpc.ssl_target_name_override", credentials.server_name))
    if credentials.uses_tls(address):
        certificates = grpc.ssl_channel_credentials(
            pem(credentials.ca_certificate), pem(credentials.client_key), pem(credentials.client_certificate)
        )
        return certificates, options
    if is_loopback(host_of(address)):  # a proxy is another machine, which could read plaintext
        options.append(("grpc.enable_http_proxy", 0))
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
