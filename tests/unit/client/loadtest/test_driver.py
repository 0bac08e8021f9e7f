"""Callers of a load: when each makes its next call."""

import pytest

from sealserve.errors import QuotaExceededError, ReplyError, SealserveError, UnavailableError
from sealserve.loadtest.driver import LoadDriver
from sealserve.loadtest.ledger import Ledger


@pytest.mark.parametrize(
    ("error", "pauses"),
    [(UnavailableError("gone"), True), (QuotaExceededError("rows_per_minute", 2.0), True), (ReplyError(), False)],
    ids=["unavailable", "busy", "a reply that fails a check"],
)
def test_a_caller_pauses_after_a_failure_but_not_because_of_what_it_decrypts(
    error: SealserveError, pauses: bool
) -> None:
    ledger = Ledger()
    driver = LoadDriver([], ledger, seconds=0.0)

    def call() -> None:
        raise error

    assert (driver._call(call, due=0.0) > 0) == pauses  # type: ignore[arg-type]  # it returns no reply
    summary = ledger.summary(1.0)
    assert {**summary["failed"], **summary["refused"]} == {type(error).__name__: 1}
