"""The table of refusals: every error has a status and a reason, and no foreign text gets out."""

import logging
from collections.abc import Iterator
from operator import attrgetter

import grpc
import pytest

from sealserve import errors
from sealserve._rpc.cancellation import CancelledError
from sealserve.agent.refusals import _CODES, _HTTP, reason_of, refusal_of
from sealserve.errors import SealserveError

OWN_FAULTS = {
    "CLIENT_CLOSED",
    "INPUT_MISMATCH",
    "INTERNAL",
    "MALFORMED_CIPHERTEXT",
    "MALFORMED_KEY",
    "OUT_OF_SEQUENCE",
    "PARAMETER_SET_NOT_OFFERED",
    "PLAN",
    "REPLY",
    "SECRET_KEY",
    "USAGE",
}
"""What a caller cannot cause, and the operator of neither side can mend: INTERNAL."""


def kinds(root: type[SealserveError] = SealserveError) -> Iterator[type[SealserveError]]:
    """The errors of the SDK that have no errors below them."""
    below = [kind for kind in root.__subclasses__() if kind.__module__ == "sealserve.errors"]
    if not below:
        yield root
    for kind in below:
        yield from kinds(kind)


@pytest.mark.parametrize("kind", sorted(kinds(), key=attrgetter("__name__")))
def test_every_error_has_its_row_or_is_a_fault_of_our_own(kind: type[SealserveError]) -> None:
    codes = [code for known, code in _CODES if issubclass(kind, known)]
    assert bool(codes) is (reason_of(kind) not in OWN_FAULTS)


def test_every_status_has_one_of_http() -> None:
    assert {code for _, code in _CODES} | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAUTHENTICATED} == set(_HTTP)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.OutOfRangeError("x"), "INVALID_ARGUMENT", "OUT_OF_RANGE"),
        (errors.UnauthenticatedError(), "FAILED_PRECONDITION", "UNAUTHENTICATED"),
        (errors.PermissionDeniedError("predict"), "FAILED_PRECONDITION", "PERMISSION_DENIED"),
        (errors.DrainingError(1.0), "UNAVAILABLE", "DRAINING"),
        (errors.ReplyError(), "INTERNAL", "REPLY"),
        (CancelledError(), "CANCELLED", "CANCELLED"),
    ],
)
def test_the_services_refusal_of_the_agent_is_none_of_the_caller(error: Exception, code: str, reason: str) -> None:
    refusal = refusal_of(error)
    assert (refusal.code.name, refusal.reason, refusal.text) == (code, reason, str(error))


def test_an_error_that_nobody_thought_of_shows_its_place_only(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        try:
            float("a feature")
        except ValueError as error:
            refusal = refusal_of(error)
    assert refusal.code is grpc.StatusCode.INTERNAL
    assert "a feature" not in refusal.text + caplog.text
    assert "ValueError at" in caplog.text
    assert "test_refusals.py" in caplog.text
