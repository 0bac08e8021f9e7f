"""The record of a call: its id, its line in the log, and the errors that it lets a client see."""

import logging
from typing import Any

import grpc
import pytest

from sealserve.errors import InternalError, KeyNotFoundError, ModelNotFoundError, QuotaExceededError
from sealserve.protocol.item import ItemHeader
from sealserve_service.telemetry.call_record import MAX_NAME_CHARACTERS, SEVERAL, CallRecord
from sealserve_service.telemetry.metrics import Telemetry, Work

METHOD = "/sealserve.v1.PredictionService/StreamPredict"


class Ended:
    """As much of a call's context as its end needs."""

    def __init__(self, code: grpc.StatusCode | None = None) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def is_active(self) -> bool:
        return True


def header(model: str) -> ItemHeader:
    return ItemHeader(
        model=model, config_id="", layout=None, parameter_set="", row_count=1, ciphertext_count=1, key_id=""
    )


def work(model: str) -> Work:
    return Work(model=model, layout="row", rows=3, ciphertexts=1)


def line(record: CallRecord, caplog: pytest.LogCaptureFixture, code: grpc.StatusCode | None = None) -> dict[str, Any]:
    """End a call and return what its line says."""
    context: Any = Ended(code)
    with caplog.at_level(logging.DEBUG):
        caplog.clear()
        record.end(context)
    (logged,) = caplog.records
    fields: dict[str, Any] = logged.__dict__["fields"]
    return fields | {"level": logged.levelname}


@pytest.mark.parametrize(
    ("asked", "model"),
    [(["", ""], "digits"), (["digits", ""], "digits"), (["digits", "iris"], SEVERAL), (["iris", ""], SEVERAL)],
)
def test_the_line_names_the_model_of_all_items(caplog: pytest.LogCaptureFixture, asked: list[str], model: str) -> None:
    record = CallRecord(METHOD, Telemetry())
    for name in asked:
        record.begin_item(header(name))
        record.count_scored(work(name or "digits"))
        record.end_item()
    facts = line(record, caplog)
    assert (facts["model"], facts["layout"], facts["items"], facts["rows"]) == (model, "row", 2, 6)
    assert (facts["status"], facts["level"]) == ("OK", "DEBUG")


def test_items_in_flight_end_with_the_call() -> None:
    telemetry = Telemetry()
    record = CallRecord(METHOD, telemetry)
    for _ in range(3):
        record.begin_item(header("digits"))
    record.end_item()
    value = telemetry.registry.get_sample_value
    assert value("sealserve_items_in_flight") == 2
    context: Any = Ended()
    record.end(context)
    assert value("sealserve_items_in_flight") == 0
    assert value("sealserve_calls_in_flight", {"method": METHOD}) == 0
    assert value("sealserve_calls_total", {"method": METHOD, "status": "OK"}) == 1


def test_names_that_an_error_repeats_are_cut_short() -> None:
    record = CallRecord(METHOD, Telemetry())
    long = "x" * 10_000
    for error in (ModelNotFoundError(long), KeyNotFoundError(long)):
        refusal = record.refuse(error)
        assert type(refusal) is type(error)
        assert list(vars(refusal).values()) == ["x" * MAX_NAME_CHARACTERS]
    busy = QuotaExceededError("deadline", 1.0)
    assert record.refuse(busy) is busy


@pytest.mark.parametrize(("sent", "is_kept"), [("", False), ("find-me", True), (b"find-me", False), ("a b", False)])
def test_an_unexpected_error_names_the_call(caplog: pytest.LogCaptureFixture, sent: str | bytes, is_kept: bool) -> None:
    record = CallRecord(METHOD, Telemetry(), sent)
    assert record.returns_id is is_kept
    refusal = record.refuse(ZeroDivisionError("a text for the log"))
    assert isinstance(refusal, InternalError)
    assert refusal.request_id == record.request_id
    assert (record.request_id == "find-me") is is_kept
    assert record.returns_id
    assert "a text for the log" in caplog.text
    assert line(record, caplog)["level"] == "WARNING"
