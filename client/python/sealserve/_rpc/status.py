"""Status codes of gRPC, and the typed errors of `sealserve.errors` that they become."""

from typing import Any

import grpc
from google.rpc.status_pb2 import Status

from sealserve import errors
from sealserve._rpc.channel import Endpoint
from sealserve.protocol.text import MAX_MESSAGE_CHARACTERS, printable
from sealserve.protocol.wire import error_from_proto
from sealserve.v1 import errors_pb2

# The text with which gRPC's own server refuses a call because it has too many.
_TOO_MANY_CALLS = "Concurrent RPC limit exceeded"
# Parts of gRPC's texts for a stream that broke. The last one is grpc.aio's, for a stream that broke
# during a write.
_BROKEN_STREAM = ("RST_STREAM", "Stream removed", "Internal error from Core")
_REFUSED_SECONDS = 1.0


# Parts of gRPC's texts -> why a connection could not be opened with TLS, and what to do.
_TLS_FAULTS = {
    "WRONG_VERSION_NUMBER": "it answers in plaintext; serve it with TLS, or allow plaintext with "
    "Credentials(insecure=True)",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not of a trusted authority, or not valid now; name the authority "
    "with Credentials(ca_certificate=...)",
    "Hostname Verification Check failed": "its certificate has another name; name it with Credentials(server_name=...)",
}
# What a service that speaks TLS does to a client that does not, among others.
_HUNG_UP = ("Socket closed", "Connection reset")


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


def typed_error(error: Any, endpoint: Endpoint | None = None) -> errors.SealserveError:
    """Return the typed error that a failed call carries, or that of its status.

    Args:
        error: the failed call, a grpc.RpcError.
        endpoint: where the call went, if that is known.
    """
    code, details = error.code(), _details(error)
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    if detail := _detail(packed):
        return error_from_proto(detail)
    # A server that begins to shut down ends calls that arrive at that moment with CANCELLED.
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or any(s in details for s in _BROKEN_STREAM):
        return errors.UnavailableError(_unreachable(details, endpoint))
    if code is grpc.StatusCode.UNAUTHENTICATED:  # without a detail, which a stranger does not get
        return errors.UnauthenticatedError()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_MANY_CALLS in details:
        return errors.QuotaExceededError("concurrent_calls", _REFUSED_SECONDS)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.DeadlineError("the answer did not come within timeout_seconds")
    return errors.CallError(f"the call failed with {code.name}: {details}")


def _unreachable(details: str, endpoint: Endpoint | None) -> str:
    if endpoint is None:
        return f"the service cannot be reached: {details}"
    where = f"the service at {endpoint.address} cannot be reached {'with TLS' if endpoint.uses_tls else 'in plaintext'}"
    if endpoint.uses_tls:
        fault = next((fault for part, fault in _TLS_FAULTS.items() if part in details), "")
    else:
        is_hung_up = any(part in details for part in _HUNG_UP)
        fault = "it hung up, as one does that speaks TLS; see Credentials for how to ask for TLS" if is_hung_up else ""
    return f"{where}: {fault} ({details})" if fault else f"{where}: {details}"


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
