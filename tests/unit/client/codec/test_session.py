"""The operations of a client, their actions performed by hand: what is asked for, and when."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sealserve._codec.batches import Batch, Result
from sealserve._codec.codec import Decrypted, RowCodec
from sealserve._codec.operation import Call, Exclusive, Finished, Operation, Pause, ScoreBatches, advance
from sealserve._codec.session import Session
from sealserve._rpc.retry import MAX_LOSSES
from sealserve._rpc.transfer_time import TransferTime
from sealserve.errors import (
    InputError,
    InternalError,
    KeyNotFoundError,
    OutOfRangeError,
    ReplyError,
    SealserveError,
    StaleConfigError,
)
from sealserve.protocol.item import EncryptedReply, ItemHeader
from sealserve.protocol.output import Scored
from sealserve.protocol.pin import Pin
from sealserve.protocol.wire import header_from_proto, model_to_proto, scores_from_proto, scores_to_proto
from sealserve.v1 import keys_pb2, model_pb2, prediction_pb2
from sealserve_service.catalog.registry import ServedModel
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.serving import linear, registered_keys, served

WEIGHTS = [[1.0, 2.0, -1.0]]
OPEN = served("line", linear(WEIGHTS))
CHANGED = served("line", linear([[3.0, 2.0, -1.0]]), input_step=1 / 128)
KEYS = registered_keys()
PRIVATE = served("line", linear(WEIGHTS), keys=KEYS, hiding_bits=20)
ROWS = np.array([[0.25, 0.5, 1.0]])


def session_of(*, layout: str = "auto", **changes: Any) -> Session:
    options = {
        "parameter_set": None,
        "clip": False,
        "seeded": False,
        "connections": None,
        "encrypt_processes": 0,
        "transfer_time": TransferTime(is_local=True),
    } | changes
    return Session("line", layout, None, **options)


class Service:
    """Performs a session's actions, and records them.

    Attributes:
        model: what is served.
        calls: the methods that were called, in order.
        described: the requests for a description.
        failures: errors of the next predictions.
        has_key: whether a registered key is there.
        pauses: how long it was asked to wait, in order.
        seconds: how long it waits in all.
    """

    def __init__(self, model: ServedModel, seconds: float = 60.0) -> None:
        self.model = model
        self.pauses: list[float] = []
        self.seconds = seconds
        self.calls: list[str] = []
        self.described: list[model_pb2.GetModelRequest] = []
        self.failures: list[SealserveError] = []
        self.has_key = False

    def run(self, operation: Operation[Any]) -> Any:
        """Take the steps of an operation."""
        answer, error = None, None
        while not isinstance(step := advance(operation, answer, error), Finished):
            answer, error = None, None
            try:
                if isinstance(step, Exclusive):
                    answer = self.run(step.operation)
                elif isinstance(step, Pause):
                    self.pauses.append(step.within(self.seconds - sum(self.pauses)))
                elif isinstance(step, ScoreBatches):
                    answer = self._score_batches(step)
                else:
                    answer = self._call(step)
            except SealserveError as failure:
                error = failure
        return step.result

    def _call(self, call: Call) -> Any:
        self.calls.append(call.method)
        methods: dict[str, Callable[[Any], Any]] = {
            "get_model": self._get_model,
            "get_key": self._get_key,
            "register_key": self._register_key,
            "predict_serialized": self.predict,
        }
        assert call.is_first_contact == (self.calls == ["get_model"])
        return methods[call.method](call.request)

    def _get_model(self, request: model_pb2.GetModelRequest) -> model_pb2.GetModelResponse:
        self.described.append(request)
        return model_pb2.GetModelResponse(model=model_to_proto(self.model.model))

    def _get_key(self, request: keys_pb2.GetKeyRequest) -> keys_pb2.GetKeyResponse:
        if not self.has_key:
            raise KeyNotFoundError(request.key_id)
        return keys_pb2.GetKeyResponse()

    def _register_key(self, messages: list[keys_pb2.RegisterKeyRequest]) -> keys_pb2.RegisterKeyResponse:
        assert messages[0].HasField("header")
        self.has_key = True
        return keys_pb2.RegisterKeyResponse()

    def predict(self, request: bytes) -> prediction_pb2.PredictResponse:
        if self.failures:
            raise self.failures.pop(0)
        message = prediction_pb2.PredictRequest.FromString(request)
        header: ItemHeader = header_from_proto(message.header)
        if header.config_id != self.model.model.config_id:
            raise StaleConfigError(self.model.model.config_id)
        (engine,) = (engine for engine in self.model.engines if engine.offer.layout is header.layout)
        scoring = engine.begin(header, ANONYMOUS.name)
        scoring.add(list(message.ciphertexts))
        return prediction_pb2.PredictResponse(scores=scores_to_proto(0, list(scoring.finish())))

    def _score_batches(self, step: ScoreBatches) -> list[Result]:
        self.calls.append(f"{len(step.batches)} batches")
        return [Result(batch, Decrypted(batch.rows @ np.array(WEIGHTS).T, True)) for batch in step.batches]


def scores(service: Service, session: Session, rows: Any = ROWS) -> float:
    return float(service.run(session.scored(rows, "raise")).scores[0, 0])


def test_the_model_is_asked_for_once() -> None:
    service, session = Service(OPEN), session_of()
    for _ in range(3):
        assert scores(service, session) == pytest.approx(0.25, abs=0.05)
    assert service.calls == ["get_model"] + 3 * ["predict_serialized"]


def test_no_rows_need_no_call_and_what_is_no_row_sends_nothing() -> None:
    service, session = Service(OPEN), session_of()
    assert service.run(session.scored(np.empty((0, 3)), "raise")).scores.shape == (0, 1)
    for rows in ([[0.0, 0.0]], [["a", "b", "c"]], [0.0, 0.0, 0.0], [[0.0, 0.0, 10**400]]):
        with pytest.raises(InputError):
            service.run(session.scored(rows, "raise"))
    assert service.calls == ["get_model"]


@pytest.mark.parametrize("value", [2.0, -1.0, np.nan, np.inf])
def test_a_refused_row_is_sent_as_a_dummy(value: float) -> None:
    service, session = Service(OPEN), session_of()
    with pytest.raises(InputError, match=r"^feature 2 is"):
        service.run(session.scored([[0.0, 0.0, value]], "raise"))
    assert service.calls == ["get_model", "predict_serialized"]
    good, bad = service.run(session.scored([[0.25, 0.5, 1.0], [0.0, 0.0, value]], "return"))
    assert good.scores == pytest.approx(0.25, abs=0.05)
    assert isinstance(bad, InputError)


@pytest.mark.parametrize("value", [2.0, np.nan])
def test_under_a_pinned_description_a_refused_row_is_not_sent_unless_errors_are_returned(value: float) -> None:
    service, session = Service(OPEN), session_of(expect=Pin.of(OPEN.model).digest)
    rows = [[0.25, 0.5, 1.0], [0.0, 0.0, value]]
    for operation in (
        lambda: session.predict("predict", rows, "raise"),
        lambda: session.scored(rows, "raise"),
        lambda: session.encrypt(rows, keep=False),
        lambda: session.encrypt_quantized(np.full((1, 3), 10**6), keep=False),
    ):
        with pytest.raises(InputError, match=r"^(row 1, feature 2|feature 0) is "):
            service.run(operation())
    assert service.calls == ["get_model"]
    assert isinstance(service.run(session.predict("predict", rows, "return"))[1], InputError)
    assert service.calls == ["get_model", "predict_serialized"]
    assert scores(service, session) == pytest.approx(0.25, abs=0.05)


def test_there_is_no_other_way_to_handle_errors() -> None:
    service, session = Service(OPEN), session_of()
    with pytest.raises(InputError, match="errors='ignore' is not 'raise' or 'return'"):
        service.run(session.scored(ROWS, "ignore"))  # type: ignore[arg-type]
    assert not service.calls


def test_many_rows_are_batches() -> None:
    service, session = Service(OPEN), session_of(layout="column")  # measured costs would choose
    model = service.run(session.model())
    count = 2 * max(offer.rows_per_item for offer in model.offers) + 1
    scored = service.run(session.scored(np.zeros((count, 3)), "raise"))
    assert scored.scores.shape == (count, 1)
    assert service.calls == ["get_model", "3 batches"]


def test_a_model_that_changed_is_asked_for_and_the_rows_are_encrypted_anew() -> None:
    service, session = Service(OPEN), session_of()
    scores(service, session)
    service.model, service.calls = CHANGED, ["get_model"]
    assert scores(service, session) == pytest.approx(0.75, abs=0.05)
    assert service.calls == ["get_model", "predict_serialized", "get_model", "predict_serialized"]


def test_another_thread_may_have_asked_meanwhile() -> None:
    service, session = Service(OPEN), session_of()
    scores(service, session)
    service.failures = [StaleConfigError(OPEN.model.config_id)]
    scores(service, session)
    assert service.calls == ["get_model"] + 3 * ["predict_serialized"], "the session has that configuration already"


def test_changes_are_followed_with_growing_pauses_until_the_time_is_over() -> None:
    service, session = Service(OPEN), session_of()
    service.failures = [StaleConfigError("another") for _ in range(40)]
    assert scores(service, session) == pytest.approx(0.25, abs=0.05)
    assert service.calls.count("predict_serialized") == 41
    assert len(service.pauses) == 40
    assert service.pauses[:2] == [0.0, 0.0]
    assert 0.0 < service.pauses[2] < 0.01 < 0.5 < max(service.pauses)

    service.seconds = 5.0 + sum(service.pauses)
    service.failures = [StaleConfigError("x") for _ in range(400)]
    with pytest.raises(StaleConfigError):
        scores(service, session)
    assert 10 < len(service.pauses) - 40 < 40


@pytest.mark.parametrize("losses", [MAX_LOSSES, MAX_LOSSES + 1])
def test_a_key_is_registered_again_so_often_and_no_more(losses: int) -> None:
    service, session = Service(OPEN), session_of()
    service.failures = [KeyNotFoundError("lost") for _ in range(losses)]
    service.failures.insert(1, StaleConfigError("x"))
    if losses > MAX_LOSSES:
        with pytest.raises(KeyNotFoundError):
            scores(service, session)
    else:
        scores(service, session)
    assert service.calls.count("get_key") == MAX_LOSSES


def test_a_configuration_that_is_known_is_not_asked_for_again() -> None:
    service, session = Service(OPEN), session_of()
    for model in (OPEN, CHANGED, OPEN, CHANGED):
        service.model = model
        scores(service, session)
    assert service.calls.count("get_model") == 2
    assert [model.config_id for model in session.versions] == [OPEN.model.config_id, CHANGED.model.config_id]


def test_the_configuration_that_a_replica_names_is_asked_for() -> None:
    service, session = Service(OPEN), session_of()
    scores(service, session)
    assert [request.config_id for request in service.described] == [""]
    service.model = CHANGED
    scores(service, session)
    assert [request.config_id for request in service.described] == ["", CHANGED.model.config_id]


def test_replicas_that_take_turns_answer_at_the_third_attempt_at_the_latest() -> None:
    service, session = Service(OPEN), session_of()
    turns = itertools.cycle([OPEN, CHANGED])
    predict = service.predict

    def take_turns(request: bytes) -> prediction_pb2.PredictResponse:
        service.model = next(turns)
        return predict(request)

    service.predict = take_turns  # type: ignore[method-assign]
    for _ in range(20):
        before = service.calls.count("predict_serialized")
        scores(service, session)
        assert service.calls.count("predict_serialized") - before <= 3


def test_no_more_than_eight_configurations_are_known() -> None:
    """And one secret key: a service that names new ones without end fills no memory."""
    service, session = Service(OPEN), session_of()
    for number in range(50):
        model = dataclasses.replace(OPEN.model, config_id=f"{number}")
        service.model = dataclasses.replace(OPEN, model=model)
        scores(service, session)
    assert [model.config_id for model in session.versions] == [f"{number}" for number in range(42, 50)]
    assert len(session._secret_keys) == 1


def test_a_reply_is_decrypted_as_it_was_encrypted_while_versions_change() -> None:
    service, session = Service(OPEN), session_of()
    item = service.run(session.encrypt(ROWS, keep=True))
    response = service._call(Call("predict_serialized", item.requests[0]))
    service.model = CHANGED
    scores(service, session)
    reply = EncryptedReply(
        header=item.header, scores=scores_from_proto(response.scores), request_bytes=0, reply_bytes=0, server_seconds=0
    )
    decrypted = session.decrypt(reply, "raise")
    assert isinstance(decrypted, Scored)
    assert decrypted.scores[0, 0] == pytest.approx(0.25, abs=0.05)


def test_a_key_is_registered_once_and_before_the_first_item() -> None:
    service, session = Service(PRIVATE), session_of()
    service.failures = [InputError("the test needs no scores")] * 2
    for _ in range(2):
        with pytest.raises(InputError):
            scores(service, session)
    assert service.calls == ["get_model", "register_key", "predict_serialized", "predict_serialized"]


@pytest.mark.parametrize("is_back", [True, False])
def test_a_key_that_is_gone_is_registered_again_unless_it_is_back(is_back: bool) -> None:
    service, session = Service(PRIVATE), session_of()
    service.run(session.register_key(1))
    service.has_key = is_back
    service.failures = [KeyNotFoundError("id"), InputError("the test needs no scores")]
    with pytest.raises(InputError):
        scores(service, session)
    again = ["get_key"] if is_back else ["get_key", "register_key"]
    assert service.calls == ["get_model", "register_key", "predict_serialized", *again, "predict_serialized"]


def test_a_batch_is_renewed_for_the_model_as_it_is_now() -> None:
    service, session = Service(OPEN), session_of()
    service.run(session.model())
    codec = session.codec(1)
    batch = Batch(7, ROWS, codec, *codec.quantize(ROWS))
    service.model, service.calls = CHANGED, ["get_model"]
    (renewed,) = service.run(session.renew(batch, StaleConfigError(CHANGED.model.config_id)))
    assert renewed.first_index == 7
    assert renewed.codec.model.config_id == CHANGED.model.config_id
    np.testing.assert_array_equal(renewed.quantized, renewed.codec.quantize(ROWS).integers)
    assert service.run(session.renew(batch, KeyNotFoundError("id"))) == [batch]
    assert service.calls == ["get_model", "get_model", "get_key", "register_key"]


def test_joined_scores_have_one_meaning() -> None:
    service, session = Service(OPEN), session_of()
    service.run(session.model())
    codec = session.codec(1)
    one, two = (Batch(index, ROWS, codec, *codec.quantize(ROWS)) for index in (0, 1))
    output = OPEN.model.output
    rows = np.concatenate([ROWS, ROWS])
    first, second = Decrypted(np.array([[1.0]]), True), Decrypted(np.array([[2.0]]), True)
    joined = session.join_scores(rows, [Result(two, second), Result(one, first)], "raise")
    assert joined.scored.scores.tolist() == [[1.0], [2.0]]
    changed = dataclasses.replace(codec.model, output=dataclasses.replace(output, scalar_target=True))
    other = dataclasses.replace(two, codec=RowCodec(changed, codec.secret_key))
    for errors in ("raise", "return"):
        for outcome in (second, Decrypted(second.scores, False), ReplyError()):
            with pytest.raises(StaleConfigError):
                session.join_scores(rows, [Result(one, first), Result(other, outcome)], errors)
        with pytest.raises(KeyNotFoundError):
            session.join_scores(rows, [Result(one, ReplyError()), Result(two, KeyNotFoundError("id"))], errors)


def test_a_reply_that_fails_a_check_comes_after_all_other_errors() -> None:
    service, session = Service(OPEN), session_of()
    service.run(session.model())
    codec, refused = session.codec(1), np.array([[0.0, 2.0, 0.0]])
    batches = [Batch(index, row, codec, *codec.quantize(row)) for index, row in enumerate((ROWS, ROWS, refused))]
    good, failing = Decrypted(np.array([[2.0]]), True), Decrypted(np.array([[9.0]]), False)
    outcomes: list[Any] = [failing, good, good]
    rows = np.concatenate([ROWS, ROWS, refused])

    def join(errors: Any) -> Any:
        return session.join_scores(rows, list(map(Result, batches, outcomes)), errors)

    with pytest.raises(OutOfRangeError, match=r"^row 2, feature 1 is outside"):
        join("raise")
    scored, failed = join("return")
    assert scored.scores.tolist() == [[0.0], [2.0], [2.0]], "nothing of the failing reply is kept"
    assert {index: type(error) for index, error in failed.items()} == {0: ReplyError, 2: OutOfRangeError}
    outcomes[1] = InternalError("x")
    with pytest.raises(InternalError):
        join("raise")
    assert {index: type(error) for index, error in join("return").errors.items()} == {
        0: ReplyError,
        1: InternalError,
        2: OutOfRangeError,
    }
    batches.pop()
    outcomes[1] = good
    with pytest.raises(ReplyError):
        join("raise")


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"connections": 0}, "connections must be at least 1"), ({"encrypt_processes": -1}, "must be at least 0")],
)
def test_numbers_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        session_of(**changes)


def test_as_many_streams_as_told_or_as_the_service_suggests() -> None:
    limits = dataclasses.replace(OPEN.model.limits, suggested_connections=3)
    assert session_of().stream_count(limits) == 3
    assert session_of(connections=2).stream_count(limits) == 2


def test_quantized_rows_are_an_array_of_integers() -> None:
    service, session = Service(OPEN), session_of()
    for rows in ([[0, 0, 0]], np.zeros((1, 3)), np.zeros(3, np.int64), np.int64(3)):
        with pytest.raises(InputError, match="array of integers"):
            service.run(session.encrypt_quantized(rows, keep=False))  # type: ignore[arg-type]


def test_a_reply_to_another_client_is_refused() -> None:
    """Also by a client that has not encrypted anything yet."""
    header = ItemHeader(
        model="line", config_id="x", layout=None, parameter_set="", row_count=1, ciphertext_count=1, key_id=""
    )
    reply = EncryptedReply(header=header, scores=[], request_bytes=0, reply_bytes=0, server_seconds=0.0)
    with pytest.raises(ReplyError):
        session_of().decrypt(reply, "raise")
