"""One table: domain error -> gRPC status; a failed call carries the typed Error in its details."""

from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from sealserve import errors
from sealserve.protocol.wire import error_to_proto
from sealserve_service.telemetry import calls

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
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.IdleTimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}


def abort(context: grpc.ServicerContext, error: errors.ServiceError) -> NoReturn:
    """End a call with the error's status, text and typed details."""
    calls.current().refused(error)
    packed = any_pb2.Any()
    packed.Pack(error_to_proto(error))
    code = _CODES[type(error)].value[0]
    context.abort_with_status(rpc_status.to_status(Status(code=code, message=str(error), details=[packed])))
    raise AssertionError("abort_with_status raises")
