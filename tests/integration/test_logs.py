"""The log: a line a call, which nobody can forge, with an id that the client knows.

It has nothing of any payload.
"""

import base64
import dataclasses
import json
import logging
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealserve._rpc.status import typed_error
from sealserve.cli.log import MAX_TEXT_CHARACTERS, JsonFormatter, TextFormatter, escaped
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import InternalError, UnauthenticatedError
from sealserve.he.bit_packing import packed_bytes
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.item import ItemHeader
from sealserve.v1 import model_pb2, model_pb2_grpc, prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.engines.base import Scoring
from sealserve_service.telemetry import call_record
from sealserve_service.telemetry.metrics import Telemetry
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support import http2
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.identities import ALL, IdentitiesFile
from tests.support.programs import serve
from tests.support.raw import Message, RawClient
from tests.support.serving import HANG_SECONDS, SETTINGS, digits_registry, running_server

FORGED = "2026-01-01 00:00:00,000 ERROR root: forged"
ENDS = ("\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
HOSTILE = [
    *(f"x{end}{FORGED}" for end in ENDS),
    *(
        "\x1b[2J\x1b[1;1H",
        "\u202egnp.exe",
        "\0",
        "x" * 100_000,
        'x" status=OK refusals={} y="',
        "\\n\\",
        "é∂\U0001f600",
    ),
]
RANGE = ("--input-range=0,1", "--input-step=0.0625")
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: \S.*|    .*")


def facts(records: Sequence[logging.LogRecord]) -> list[dict[str, Any]]:
    """What was logged of calls that have ended."""
    return [record.__dict__["fields"] for record in ends(records)]


def ends(records: Sequence[logging.LogRecord]) -> list[logging.LogRecord]:
    """The lines of calls that have ended."""
    return [record for record in records if record.name == call_record.__name__ and record.msg == "call"]


def returned_id(call: Any) -> str:
    """The id in the trailing metadata."""
    return str(dict(call.trailing_metadata()).get(call_record.REQUEST_ID, ""))


def predict(raw: RawClient, request: prediction_pb2.PredictRequest, *ids: str) -> Any:
    """Call Predict with ids of the request; returns the call, or its error, which is one."""
    metadata = tuple((call_record.REQUEST_ID, sent) for sent in ids)
    try:
        _, call = raw.predictions.Predict.with_call(request, metadata=metadata, timeout=HANG_SECONDS)
    except grpc.RpcError as error:
        return error
    return call


class Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def recorded(caplog: pytest.LogCaptureFixture) -> Iterator[list[logging.LogRecord]]:
    logger, recorder = logging.getLogger("sealserve_service"), Recorder()
    caplog.set_level(logging.DEBUG, logger.name)
    logger.addHandler(recorder)
    yield recorder.records
    logger.removeHandler(recorder)


@pytest.mark.parametrize("sent", ["a", "A-z_0.9", "f" * 64, "."])
def test_a_call_keeps_the_id_that_its_client_gave_it(
    raw: RawClient, digits_model: Digits, recorded: list[logging.LogRecord], sent: str
) -> None:
    recorded.clear()
    call = predict(raw, raw.request(digits_model.X[:3]), sent, "another")
    assert returned_id(call) == sent
    (logged,) = facts(recorded)
    assert logged["request_id"] == sent
    assert logged["method"] == "/sealserve.v1.PredictionService/Predict"
    assert (logged["status"], logged["model"], logged["layout"], logged["rows"]) == ("OK", "digits", "row", 3)
    assert logged["peer"] in ("ipv4:127.0.0.1", "ipv6:[::1]")
    bits, N = raw.codec.offer.reply_bits, raw.codec.offer.parameters.parameter_set.poly_modulus_degree
    assert bits is not None
    assert logged["received_bytes"] > logged["sent_bytes"] > packed_bytes(N, bits.c1) > 7_900
    assert 0 < logged["milliseconds"] < 1000 * HANG_SECONDS
    assert "refusals" not in logged


@pytest.mark.parametrize("sent", ["", "f" * 65, "a b", "a/b", "a=b"])
def test_other_ids_are_replaced(
    raw: RawClient, digits_model: Digits, recorded: list[logging.LogRecord], sent: str
) -> None:
    good = raw.request(digits_model.X[0])
    bad = type(good)(header=good.header)
    recorded.clear()
    returned = [returned_id(predict(raw, request, sent)) for request in (bad, good, bad)]
    logged_ids = [logged["request_id"] for logged in facts(recorded)]
    assert all(re.fullmatch("[0-9a-f]{32}", found) for found in logged_ids)
    assert len(set(logged_ids)) == 3
    assert returned == [logged_ids[0], "", logged_ids[2]], "nobody has a use for the id of a call that went well"


class BrokenScoring(Scoring):
    """Fails with a text that only the log may hold."""

    def add(self, ciphertexts: Sequence[bytes]) -> None:
        raise ValueError(f"one line\n{FORGED}\x1b[2J")

    def finish(self) -> Iterator[Any]:
        raise AssertionError


def broken(served: ServedModel) -> ServedModel:
    class BrokenEngine:
        offer = served.engines[0].offer
        holds_gil = True

        def begin(self, header: ItemHeader, owner: str) -> Scoring:
            return BrokenScoring()

    return dataclasses.replace(served, engines=(BrokenEngine(),))


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_an_internal_error_names_the_call_that_the_log_explains(
    digits_model: Digits, recorded: list[logging.LogRecord], formatter: logging.Formatter
) -> None:
    (served,) = digits_registry(digits_model.estimator).after("", ANONYMOUS)
    with running_server(ModelRegistry([broken(served)])) as address, RawClient(address) as raw:
        recorded.clear()
        request = raw.request(digits_model.X[0])
        error = predict(raw, request, "find-me")
        assert returned_id(error) == "find-me"
        detail = typed_error(error)
        assert isinstance(detail, InternalError)
        assert detail.request_id == "find-me"
        message = raw.item(1, digits_model.X[0])
        call = raw.predictions.StreamPredict(iter([message]), timeout=HANG_SECONDS)
        (made,) = [answer.error.internal.request_id for answer in call if answer.HasField("error")]
        assert returned_id(call) == made
    for request_id in ("find-me", made):
        (failure,) = [record for record in recorded if record.getMessage() == f"request {request_id} failed"]
        assert failure.levelname == "ERROR"
        lines = formatter.format(failure).splitlines()
        assert FORGED in "".join(lines)
        if isinstance(formatter, TextFormatter):
            assert all(LINE.fullmatch(line) for line in lines)
        else:
            assert "ValueError: one line" in json.loads(*lines)["traceback"]
    for record, name in zip(ends(recorded)[-2:], ("find-me", made), strict=True):
        assert record.levelname == "WARNING"
        assert facts([record])[0]["request_id"] == name
        assert facts([record])[0]["refusals"] == {"InternalError": 1}


def test_refusals_are_logged_at_info_and_a_stream_in_one_line(
    raw: RawClient, digits_model: Digits, recorded: list[logging.LogRecord]
) -> None:
    recorded.clear()
    good = raw.request(digits_model.X[0])
    predict(raw, good)
    predict(raw, type(good)(header=good.header))
    never_begun = [Message(item_id=number) for number in (5, 6, 7)]
    scored = [raw.item(8, digits_model.X[:2]), raw.item(9, digits_model.X[:1])]
    assert len(raw.stream([Message(item_id=1, header=good.header), *never_begun, *scored])) == 6
    end = time.monotonic() + HANG_SECONDS
    while len(facts(recorded)) < 3:  # the stream ends when its client has all answers already
        assert time.monotonic() < end
        time.sleep(0.01)
    assert [record.levelname for record in ends(recorded)] == ["DEBUG", "INFO", "INFO"]
    _, refused, stream = facts(recorded)
    assert (refused["status"], refused["refusals"]) == ("INVALID_ARGUMENT", {"InputMismatchError": 1})
    assert stream["refusals"] == {"OutOfSequenceError": 3, "InputMismatchError": 1}
    assert (stream["status"], stream["items"], stream["rows"]) == ("OK", 2, 3)


def record_of(message: str, *arguments: object, error: Exception | None = None, **fields: object) -> logging.LogRecord:
    information = (type(error), error, None) if error else None
    record = logging.LogRecord("sealserve_service.x", logging.INFO, "x.py", 1, message, arguments, information)
    record.__dict__["fields"] = fields
    return record


@given(st.text() | st.sampled_from(HOSTILE))
def test_no_text_can_forge_a_line(text: str) -> None:
    assert escaped(text).isprintable()
    record = record_of("a model named %s", text, error=ValueError(text), name=text, count=3, more={text: 1})
    line, *traceback = TextFormatter().format(record).splitlines()
    assert LINE.fullmatch(line)
    assert line.count(" name=") >= 1
    assert all(LINE.fullmatch(part) and part.startswith("    ") for part in traceback)
    (line,) = JsonFormatter().format(record).splitlines()
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert (found["name"], found["count"], found["more"]) == (text, 3, {text: 1})
    assert found["message"] == f"a model named {text}"[:MAX_TEXT_CHARACTERS]


def test_long_texts_are_cut() -> None:
    record = record_of("%s", "m" * 10**6, error=ValueError("e" * 10**6))
    for formatter in (TextFormatter(), JsonFormatter()):
        assert len(formatter.format(record)) < 20_000


@pytest.mark.parametrize("form", ["text", "json"])
def test_hostile_names_in_the_log_of_a_service(model_file: Path, digits_model: Digits, form: str) -> None:
    log = model_file.parent / "log"
    options = (f"--model=digits={model_file}", *RANGE, f"--log-format={form}", "--log-level=debug")
    with (
        serve(*options, log=str(log)) as program,
        RawClient(program.address) as raw,
    ):
        request = raw.request(digits_model.X[0])
        for name in HOSTILE:
            for field in ("model", "config_id", "parameter_set", "key_id"):
                wrong = type(request).FromString(request.SerializeToString())
                setattr(wrong.header, field, name)
                assert predict(raw, wrong).code() is not grpc.StatusCode.OK
                raw.stream([Message(item_id=1, header=wrong.header)])
            with pytest.raises(grpc.RpcError):
                raw.models.GetModel(model_pb2.GetModelRequest(model=name), timeout=HANG_SECONDS)
        with pytest.raises(grpc.RpcError):
            raw.call("x" * 5000, b"")
        for name in (HOSTILE[0], HOSTILE[-1]):
            path = f"/x/{name}".encode()
            assert http2.exchange(program.address, http2.call(path, b"")), "the server speaks HTTP/2"
    lines = log.read_bytes().decode().splitlines()
    assert len(lines) > 5 * len(HOSTILE)
    assert max(map(len, lines)) < MAX_TEXT_CHARACTERS
    if form == "json":
        refused = [found for found in map(json.loads, lines) if "ModelNotFoundError" in found.get("refusals", {})]
        assert {found["model"] for found in refused if "model" in found} == {name[:100] for name in HOSTILE}
    else:
        assert all(LINE.fullmatch(line) for line in lines)
        assert any(FORGED in line for line in lines), "the names are in it"


@pytest.fixture
def model_file(tmp_path: Path, digits_model: Digits) -> Path:
    path = tmp_path / "digits.npz"
    estimator = digits_model.estimator
    np.savez(path, coef=estimator.coef_, intercept=estimator.intercept_, classes=estimator.classes_)
    return path


def forms(data: bytes) -> Iterator[str]:
    """Ways to write a piece of bytes."""
    for start in range(0, len(data) - 32, max(1, len(data) // 50)):
        piece = data[start : start + 24]
        yield piece.hex()
        yield repr(piece)[2:-1]
        yield repr(list(piece))[1:-1]
        yield piece.decode("latin-1")
        for skipped in range(3):
            yield base64.b64encode(piece[skipped : 21 + skipped]).decode()


def test_nothing_of_a_payload_a_token_or_a_key_is_logged(
    model_file: Path, digits_model: Digits, ei_user: EIUser
) -> None:
    log, identities = model_file.parent / "log", IdentitiesFile(model_file.parent / "identities.toml", lab=ALL)
    credentials = Credentials(token=identities.token("lab"))
    revoked = identities.token("lab", None, "revoked = true")
    options = (f"--model=digits={model_file}", *RANGE, f"--identities={identities.path}", "--key-store=memory")
    with serve(*options, "--log-format=json", "--log-level=debug", log=str(log)) as program:
        with Client(program.address, credentials=credentials, timeout_seconds=HANG_SECONDS) as client:
            scores = client.decision_function(digits_model.X[:300])
        with RawClient(program.address, credentials=credentials) as raw:
            request = raw.request(digits_model.X[0])
            response = raw.predictions.Predict(request, timeout=HANG_SECONDS)
            broken_request = type(request).FromString(request.SerializeToString())
            broken_request.ciphertexts[0] = broken_request.ciphertexts[0][:-1] + b"x"
            broken_request.header.config_id = "another"
            predict(raw, broken_request)
        with (
            Client(program.address, credentials=Credentials(token=revoked)) as stranger,
            pytest.raises(UnauthenticatedError),
        ):
            stranger.predict(digits_model.X[:1])
        with KeyRegistry(program.address, credentials=credentials, timeout_seconds=HANG_SECONDS) as registry:
            registry.register(ei_user.evaluation_keys)
    text = log.read_text()
    lines = list(map(json.loads, text.splitlines()))
    ended = [line for line in lines if line["logger"] == call_record.__name__ and line["message"] == "call"]
    assert {line["method"].rpartition("/")[2] for line in ended} >= {"Predict", "GetModel", "RegisterKey"}
    assert {line.get("tenant") for line in ended} == {"lab", None}
    assert [line["status"] for line in ended if "tenant" not in line] == ["UNAUTHENTICATED"]
    secrets = [request.ciphertexts[0], ei_user.evaluation_keys, response.SerializeToString()]
    unescaped = text.encode().decode("unicode_escape", errors="replace")
    for secret in secrets:
        for form in forms(secret):
            assert form not in text
            assert form not in unescaped
    for token in (credentials.token, revoked):
        assert token
        assert token.removeprefix("sealserve_")[:12] not in text
    for number in (*scores.ravel()[:200], *digits_model.X[:3].ravel()):
        assert len(repr(float(number))) < 9 or repr(float(number))[:9] not in text


def test_a_stranger_is_given_no_id(model_file: Path, digits_model: Digits) -> None:
    identities = IdentitiesFile(model_file.parent / "identities.toml", lab=ALL)
    settings = SETTINGS.with_changes(identities=identities.path)
    telemetry = Telemetry()
    with (
        running_server(digits_registry(digits_model.estimator), settings, telemetry=telemetry) as address,
        grpc.insecure_channel(address) as channel,
    ):
        get_model, metadata = model_pb2_grpc.ModelServiceStub(channel).GetModel, ((call_record.REQUEST_ID, "mine"),)
        with pytest.raises(grpc.RpcError) as caught:
            get_model(model_pb2.GetModelRequest(), timeout=HANG_SECONDS, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert returned_id(caught.value) == ""
    reason = {"reason": "UnauthenticatedError", "limit": "", "tenant": ""}
    assert telemetry.registry.get_sample_value("sealserve_refusals_total", reason) == 1
