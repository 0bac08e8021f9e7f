"""One table: domain error -> gRPC status; a failed call carries the typed Error in its details."""

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

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


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: errors.ServiceError) -> NoReturn:
    """End a call with the error's status, text and typed details."""
    code = _CODES[type(error)]
    packed = any_pb2.Any()
    packed.Pack(error_to_proto(error))
    details = Status(code=code.value[0], message=str(error), details=[packed])
    metadata = (("grpc-status-details-bin", details.SerializeToString()),)
    await context.abort(code, str(error), metadata)
    raise AssertionError("abort raises")


async def abort_undecodable(context: "grpc.aio.ServicerContext[object, object]") -> NoReturn:
    """End a call whose request is no protobuf message of its kind: there is no item that could have a typed error."""
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not a protobuf message of this method")
    raise AssertionError("abort raises")


class UndecodableRequests(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses unary requests that do not decode, which gRPC would take for a fault of the server.

    It would answer UNKNOWN and log a traceback for each.
    """

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Put the decoding of a unary call's request within reach of an except."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def decoded(data: bytes, context: "grpc.aio.ServicerContext[object, object]") -> Any:
            try:
                request = handler.request_deserializer(data)
            except DecodeError:
                await abort_undecodable(context)
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(decoded, None, handler.response_serializer)
