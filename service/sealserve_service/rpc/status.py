"""The status of a failed call: a table from errors to gRPC statuses, and the function that uses it.

Methods of servicers raise. The interceptor hands what they raise to `fail`, which ends the call
with a status, a text, and the typed Error in the details.
"""

from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from sealserve import errors
from sealserve.protocol.wire import error_to_proto
from sealserve_service.scoring.turns import CallOverError
from sealserve_service.telemetry.call_record import REQUEST_ID, CallRecord

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
    errors.ResourceUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.MalformedKeyError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    errors.IdleTimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}


def fail(context: grpc.ServicerContext, call: CallRecord, error: Exception) -> NoReturn:
    """End a call whose method has raised.

    An unauthenticated call returns no id. It returns details only if its tenant was known before:
    id and details would tell a stranger what service answers.

    Raises:
        Exception: always; that is how a gRPC method ends a call.
    """
    if isinstance(error, grpc.RpcError) and not context.is_active():  # the client has broken off
        raise error
    if isinstance(error, CallOverError):  # nobody gets this status
        context.abort(grpc.StatusCode.CANCELLED, "")
    code: grpc.StatusCode | None = context.code()  # type: ignore[attr-defined]  # missing in the stubs
    text, metadata = "", tuple(context.trailing_metadata() or ())
    was_aborted = code is not None
    if isinstance(error, DecodeError):
        code, text = grpc.StatusCode.INVALID_ARGUMENT, "the request is not a protobuf message of this method"
    elif code is None:
        refusal = call.refuse(error)
        code, text = _CODES[type(refusal)], str(refusal)
        if call.tenant or not isinstance(refusal, errors.UnauthenticatedError):
            details = any_pb2.Any()
            details.Pack(error_to_proto(refusal))
            status = rpc_status.to_status(Status(code=code.value[0], message=text, details=[details]))
            metadata += tuple(status.trailing_metadata)
    if code is not grpc.StatusCode.UNAUTHENTICATED:
        metadata += ((REQUEST_ID, call.request_id),)
    context.set_trailing_metadata(metadata)
    if was_aborted:
        raise error
    context.abort(code, text)
    raise AssertionError("abort raises")
