"""Refusals: the table from errors to statuses, of gRPC and of HTTP, and reasons for programs.

The service's refusal of the agent is no refusal of the agent's caller: a caller cannot mend what
the agent sends. Therefore the service's UNAUTHENTICATED, for one, is FAILED_PRECONDITION here.
"""

import logging
import re
import traceback
from http import HTTPStatus
from typing import NamedTuple

import grpc
from google.protobuf import any_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from sealserve import errors
from sealserve._rpc.cancellation import CancelledError

DOMAIN = "agent.sealserve"
"""Of the reasons, in google.rpc.ErrorInfo."""

# In characters. A text may quote what the caller has sent, and gRPC takes no header over 16 KiB.
_MAX_TEXT = 1000

_logger = logging.getLogger(__name__)

# The first that fits.
_CODES: tuple[tuple[type[errors.SealserveError], grpc.StatusCode], ...] = (
    (CancelledError, grpc.StatusCode.CANCELLED),
    (errors.InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NoSuchMethodError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.ModelNotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.QuotaExceededError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.LimitExceededError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.DeadlineError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.ItemTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.IdleTimeoutError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (errors.DrainingError, grpc.StatusCode.UNAVAILABLE),
    (errors.KeyStoreUnavailableError, grpc.StatusCode.UNAVAILABLE),
    (errors.ResourceUnavailableError, grpc.StatusCode.UNAVAILABLE),
    (errors.StaleConfigError, grpc.StatusCode.UNAVAILABLE),
    (errors.KeyNotFoundError, grpc.StatusCode.UNAVAILABLE),
    (errors.UnauthenticatedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.PermissionDeniedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CredentialsError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.ParameterError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.RequirementError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.UnexpectedModelError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.CallError, grpc.StatusCode.FAILED_PRECONDITION),  # nothing that speaks sealserve.v1
)
_HTTP = {
    grpc.StatusCode.CANCELLED: HTTPStatus.REQUEST_TIMEOUT,
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_GATEWAY,
    grpc.StatusCode.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class Refusal(NamedTuple):
    """What a caller is told of an error.

    Attributes:
        code: gRPC's status.
        text: for people; it has no feature and no score.
        reason: for programs, such as "OUT_OF_RANGE".
    """

    code: grpc.StatusCode
    text: str
    reason: str

    @property
    def http_status(self) -> HTTPStatus:
        """The status of an answer over HTTP."""
        return _HTTP[self.code]

    @property
    def status(self) -> grpc.Status:
        """The status of a call, with the reason as google.rpc.ErrorInfo."""
        details = any_pb2.Any()
        details.Pack(ErrorInfo(reason=self.reason, domain=DOMAIN))
        status: grpc.Status = rpc_status.to_status(
            Status(code=self.code.value[0], message=self.text, details=[details])
        )
        return status


UNAUTHENTICATED = Refusal(
    grpc.StatusCode.UNAUTHENTICATED,
    "send the agent's token, `authorization: Bearer TOKEN`: it is in the file that the agent has named at its start",
    "UNAUTHENTICATED",
)


def refusal_of(error: Exception) -> Refusal:
    """Return what a caller is told of an error.

    One that nobody has thought of is logged by its type and place: its text may hold a feature.
    """
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Refusal(code, str(error)[:_MAX_TEXT], reason_of(type(error)))
    if isinstance(error, errors.SealserveError):
        return Refusal(grpc.StatusCode.INTERNAL, str(error)[:_MAX_TEXT], reason_of(type(error)))
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    _logger.error("a request failed: %s at %s", type(error).__name__, place)
    return Refusal(grpc.StatusCode.INTERNAL, "the agent failed; its log says where", "INTERNAL")


def reason_of(kind: type[Exception]) -> str:
    """Return the reason of a type of error: OutOfRangeError is OUT_OF_RANGE."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).upper()
