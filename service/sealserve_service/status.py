"""One table: domain error -> gRPC status; a failed call carries the typed Error in its details."""

from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
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
    errors.InternalError: grpc.StatusCode.INTERNAL,
}


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: errors.ServiceError) -> NoReturn:
    """End a call with the error's status, text and typed details."""
    code = _CODES[type(error)]
    packed = Any()
    packed.Pack(error_to_proto(error))
    details = Status(code=code.value[0], message=str(error), details=[packed])
    metadata = (("grpc-status-details-bin", details.SerializeToString()),)
    await context.abort(code, str(error), metadata)
    raise AssertionError("abort raises")
