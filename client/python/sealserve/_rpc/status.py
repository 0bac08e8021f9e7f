"""Status codes of gRPC, and the typed errors of `sealserve.errors` that they become."""

from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from sealserve import errors
from sealserve.protocol.text import MAX_MESSAGE_CHARACTERS, printable
from sealserve.protocol.wire import error_from_proto
from sealserve.v1 import errors_pb2

# The text with which gRPC's own server refuses a call because it has too many.
_TOO_MANY_CALLS = "Concurrent RPC limit exceeded"
# Parts of gRPC's texts for a stream that broke. The last one is grpc.aio's, for a stream that broke
# during a write.
_BROKEN_STREAM = ("RST_STREAM", "Stream removed", "Internal error from Core")
_REFUSED_SECONDS = 1.0


class FailedCall(grpc.RpcError):
    """A failed call as the cause of a typed error: its status, with a text that is safe to show.

    gRPC's own error is not: a traceback would print the service's text as it is.
    """

    def __init__(self, error: Any) -> None:
        self._code, self._details = error.code(), _details(error)
        super().__init__(f"{self._code}: {self._details}")

    def code(self) -> grpc.StatusCode:
        """Return gRPC's status code."""
        code: grpc.StatusCode = self._code
        return code

    def details(self) -> str:
        """Return the text of the status, printable."""
        return self._details


def typed_error(error: Any) -> errors.SealserveError:
    """Return the typed error that a failed call (grpc.RpcError) carries, or that of its status."""
    code, details = error.code(), _details(error)
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    if detail := _detail(packed):
        return error_from_proto(detail)
    # A server that begins to shut down ends calls that arrive at that moment with CANCELLED.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or any(s in details for s in _BROKEN_STREAM):
        return errors.UnavailableError(f"the service cannot be reached: {details}")
    if code is grpc.StatusCode.UNAUTHENTICATED:  # without a detail, which a stranger does not get
        return errors.UnauthenticatedError()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_MANY_CALLS in details:
        return errors.QuotaExceededError("concurrent_calls", _REFUSED_SECONDS)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineError("the answer did not come within timeout_seconds")
    return errors.CallError(f"the call failed with {code.name}: {details}")


def _details(error: Any) -> str:
    return printable(error.details() or "", MAX_MESSAGE_CHARACTERS)


def _detail(value: bytes) -> errors_pb2.Error | None:
    try:
        for packed in Status.FromString(value).details:
            if packed.Is(errors_pb2.Error.DESCRIPTOR):
                return errors_pb2.Error.FromString(packed.value)
    except ValueError:  # such as protobuf's DecodeError: the detail is not ours, so use the status code
        pass
    return None
