"""gRPC status codes as typed errors of `sealserve.errors`."""

from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from sealserve import errors
from sealserve.protocol.wire import error_from_proto
from sealserve.v1 import errors_pb2

# What gRPC's own server says as it refuses a call for the number of those that it has.
_TOO_MANY_CALLS = "Concurrent RPC limit exceeded"
# What gRPC says of a stream that broke; the last is grpc.aio's word if something was just being
# written.
_BROKEN_STREAM = ("RST_STREAM", "Stream removed", "Internal error from Core")
_REFUSED_SECONDS = 1.0


def typed_error(error: Any) -> errors.SealserveError:
    """Return the typed error that a failed call (grpc.RpcError) carries, or that of its status."""
    code, details = error.code(), error.details() or ""
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    if detail := _detail(packed):
        return error_from_proto(detail)
    # A server that begins to shut down ends the calls that are just arriving with CANCELLED.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or any(s in details for s in _BROKEN_STREAM):
        return errors.UnavailableError(f"the service cannot be reached: {details}")
    if code is grpc.StatusCode.UNAUTHENTICATED:  # without a detail: a stranger learns nothing of the service
        return errors.UnauthenticatedError()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_MANY_CALLS in details:
        return errors.QuotaExceededError("concurrent_calls", _REFUSED_SECONDS)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineError("the answer did not come within timeout_seconds")
    return errors.CallError(f"the call failed with {code.name}: {details}")


def _detail(value: bytes) -> errors_pb2.Error | None:
    try:
        for packed in Status.FromString(value).details:
            if packed.Is(errors_pb2.Error.DESCRIPTOR):
                return errors_pb2.Error.FromString(packed.value)
    except ValueError:  # protobuf's DecodeError is one: the detail is not ours, and the status code has to do
        pass
    return None
