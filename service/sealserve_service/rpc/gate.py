"""What a call passes before its handler: its credentials, the room for it, a request that comes and can be decoded.

gRPC itself would wait for the request of a call that has one, for ever and in a thread, before any code of ours
could ask who calls. On the wire, such a call is a stream of one message: so the gate takes every call as a stream,
and of a call that it refuses it neither reads nor decodes the request, at the cost of those that are being answered.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from sealserve.errors import ItemTimeoutError, ServiceError, UnauthenticatedError
from sealserve_service.rpc import status
from sealserve_service.telemetry import calls
from sealserve_service.tenants.authenticator import Authenticator


class Gate(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses calls without valid credentials, all alike, known methods or not; then those without room or request.

    Args:
        timeout_seconds: how long the request of a call that has one may take.
        readers: a thread for each call, that waits for its request.
        checks: of methods that have one request; each raises a ServiceError while calls are refused unread.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        timeout_seconds: float,
        readers: Executor,
        checks: Mapping[str, Callable[[], None]],
    ) -> None:
        self._authenticator = authenticator
        self._timeout_seconds = timeout_seconds
        self._readers = readers
        self._checks = checks

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Put a call's handler behind the gate."""
        method, handler = handler_call_details.method, continuation(handler_call_details)
        check_room = self._checks.get(method)

        def unknown(_: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            self._check(method, context)
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

        def answered(stream: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            self._check(method, context)
            try:
                if check_room is not None:
                    check_room()
            except ServiceError as error:
                status.abort(context, error)
            request = self._request(stream, handler, context)
            return handler.unary_unary(request, context)

        def watched(stream: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> Any:
            self._check(method, context)
            request = self._request(stream, handler, context)
            handler.unary_stream(request, context, send)

        def gathered(stream: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            self._check(method, context)
            with _decoding(context):
                return handler.stream_unary(map(handler.request_deserializer, stream), context)

        def streamed(stream: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            self._check(method, context)
            with _decoding(context):
                yield from handler.stream_stream(map(handler.request_deserializer, stream), context)

        if handler is None:
            return grpc.stream_unary_rpc_method_handler(unknown)
        encode = handler.response_serializer
        if handler.response_streaming and not handler.request_streaming:
            # Health's Watch, which holds no thread: it is given what sends, and returns.
            watched.experimental_non_blocking = True  # type: ignore[attr-defined]
            return grpc.stream_stream_rpc_method_handler(watched, None, encode)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(streamed, None, encode)
        behavior = gathered if handler.request_streaming else answered
        return grpc.stream_unary_rpc_method_handler(behavior, None, encode)

    def _check(self, method: str, context: grpc.ServicerContext) -> None:
        """End a call that has no valid credentials, without a detail that would tell whose service this is."""
        try:
            if not self._authenticator.lets_pass(method, context):
                calls.current().tenant = self._authenticator.authenticate(context).name
        except UnauthenticatedError as error:
            calls.current().refused(error)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))

    def _request(self, stream: Iterator[bytes], handler: Any, context: grpc.ServicerContext) -> Any:
        """Return the request of a call that has one."""
        try:
            data = self._readers.submit(next, stream, None).result(self._timeout_seconds)
        except TimeoutError:
            status.abort(context, ItemTimeoutError(self._timeout_seconds))
        if data is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call ended before its request")
        with _decoding(context):
            return handler.request_deserializer(data)


@contextlib.contextmanager
def _decoding(context: grpc.ServicerContext) -> Iterator[None]:
    """End a call whose request is no protobuf message of its kind, which gRPC would take for a fault of the server."""
    try:
        yield
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not a protobuf message of this method")
