"""One table: domain error -> gRPC status; a failed call carries the typed Error in its details."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from sealserve import errors
from sealserve.wire import error_to_proto

_CODES: dict[type[errors.ServiceError], grpc.StatusCode] = {
    errors.StaleConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.KeyNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.ParameterSetNotOfferedError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MalformedCiphertextError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InputMismatchError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.OutOfSequenceError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.LimitExceededError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.QuotaExceededError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DrainingError: grpc.StatusCode.UNAVAILABLE,
    errors.ItemTimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.KeyStoreUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.MalformedKeyError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}


def abort(context: grpc.ServicerContext, error: errors.ServiceError) -> NoReturn:
    """End a call with the error's status, text and typed details."""
    packed = any_pb2.Any()
    packed.Pack(error_to_proto(error))
    code = _CODES[type(error)].value[0]
    context.abort_with_status(rpc_status.to_status(Status(code=code, message=str(error), details=[packed])))
    raise AssertionError("abort_with_status raises")


class UndecodableRequests(grpc.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses requests that do not decode, which gRPC would take for a fault of the server.

    It would answer INTERNAL and log a traceback for each.
    """

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Put the decoding of a call's requests within reach of an except."""
        handler = continuation(handler_call_details)
        if handler is None or (handler.response_streaming and not handler.request_streaming):
            return handler  # health's Watch, which wants its own kind of handler
        decode, encode = handler.request_deserializer, handler.response_serializer

        def answered(data: bytes, context: grpc.ServicerContext) -> Any:
            with _decoding(context):
                return handler.unary_unary(decode(data), context)

        def gathered(stream: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            with _decoding(context):
                return handler.stream_unary(map(decode, stream), context)

        def streamed(stream: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            with _decoding(context):
                yield from handler.stream_stream(map(decode, stream), context)

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(streamed, None, encode)
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(gathered, None, encode)
        return grpc.unary_unary_rpc_method_handler(answered, None, encode)


@contextlib.contextmanager
def _decoding(context: grpc.ServicerContext) -> Iterator[None]:
    """End a call whose request is no protobuf message of its kind: there is no item that could have a typed error."""
    try:
        yield
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not a protobuf message of this method")
