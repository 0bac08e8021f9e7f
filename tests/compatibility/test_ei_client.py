"""Unmodified encrypted-inference 0.9 clients against a real server: equal numbers, exact errors."""

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from encrypted.inference.eiclient import EILinearRegressionClient
from sklearn.linear_model import LogisticRegression

from sealserve.client import Client
from sealserve.ei import EIClient
from sealserve.errors import (
    CiphertextFault,
    FeatureCountError,
    InputError,
    InputMismatchError,
    KeyNotFoundError,
    MalformedCiphertextError,
    NoSuchMethodError,
    NotFiniteError,
    OutOfRangeError,
    ParameterError,
    ReplyError,
)
from sealserve.key_registry import KeyRegistry
from sealserve.protocol.item import Residues, SealCiphertext
from sealserve.protocol.wire import scores_to_proto
from sealserve.v1 import prediction_pb2
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.keys.registered_keys import RegisteredKeys
from tests.support.digits import Digits
from tests.support.ei_user import EIUser
from tests.support.raw import assert_error
from tests.support.serving import HANG_SECONDS, linear, registered_keys, running_server, served

RANDOM = np.random.default_rng(14)
WIDE = linear(RANDOM.normal(size=(2, 5000)), [1.0, -1.0])
TALL = linear(RANDOM.normal(size=(30, 8)))


@dataclass(frozen=True)
class Service:
    """A server of several models, and the keys that are registered with it."""

    address: str
    keys: RegisteredKeys


@pytest.fixture(scope="module")
def service(digits_model: Digits) -> Iterator[Service]:
    keys = registered_keys()
    models = {"digits": digits_model.estimator, "wide": WIDE, "tall": TALL}
    registry = ModelRegistry(served(name, model, keys=keys) for name, model in models.items())
    with running_server(registry, keys=keys) as address:
        yield Service(address, keys)


@pytest.fixture
def client(service: Service, ei_user: EIUser) -> Iterator[EIClient]:
    with connected(service.address, ei_user) as client:
        yield client


def connected(address: str, user: EIUser, model: str = "digits", **options: Any) -> EIClient:
    """A client with the user's keys, which are made once for all tests."""
    return EIClient(
        address,
        model=model,
        client=user.client,
        evaluation_keys=user.evaluation_keys,
        timeout_seconds=HANG_SECONDS,
        **options,
    )


def test_predictions_are_the_models(client: EIClient, digits_model: Digits) -> None:
    rows = digits_model.X[:5]
    assert np.abs(client.decision_function(rows) - digits_model.scores[:5]).max() < 1e-4
    np.testing.assert_array_equal(client.predict(rows), digits_model.estimator.predict(rows))


def test_only_the_transport_changes(service: Service, ei_user: EIUser, digits_model: Digits) -> None:
    """A user's program that calls encrypt and decrypt as the guide does."""
    own = ei_user.client
    with EIClient(service.address, model="digits", client=own, timeout_seconds=HANG_SECONDS) as transport:
        assert transport.key_id == ""
        record = transport.register_keys()
        assert transport.key_id == record.key_id
        assert record.parameter_set == "ei-8192"
        response = transport.score(own.encrypt(digits_model.X[0]))
    assert np.abs(own.decrypt(response) - digits_model.scores[0]).max() < 1e-4


def test_registered_keys_serve_another_connection(service: Service, ei_user: EIUser, digits_model: Digits) -> None:
    with connected(service.address, ei_user) as first:
        key_id = first.register_keys().key_id
    own = ei_user.client
    with EIClient(service.address, model="digits", client=own, key_id=key_id, timeout_seconds=HANG_SECONDS) as second:
        assert np.abs(own.decrypt(second.score(own.encrypt(digits_model.X[1]))) - digits_model.scores[1]).max() < 1e-4


def test_a_client_makes_its_own_keys(service: Service, digits_model: Digits) -> None:
    with EIClient(service.address, model="digits", timeout_seconds=HANG_SECONDS) as client:
        assert isinstance(client.client, EILinearRegressionClient)
        assert client.predict(digits_model.X[:1]) == digits_model.estimator.predict(digits_model.X[:1])
        assert len(client.key_id) == 64


def test_a_model_that_changes_between_two_rows_labels_all_rows_alike(ei_user: EIUser) -> None:
    keys, X = registered_keys(), RANDOM.random((40, 2))
    old = LogisticRegression().fit(X, X[:, 0] > 0.5)
    new = LogisticRegression().fit(X, np.floor(3 * X[:, 0]))
    registry = ModelRegistry([served("model", old, keys=keys)])
    with running_server(registry, keys=keys) as address, connected(address, ei_user, "") as client:
        first, encrypt = client.predict(X[:2]), client.client.encrypt

        def changing(row: Any) -> Any:
            if row[0] == X[1, 0]:
                registry.put(served("model", new, keys=keys))
                registry.put(served("another", old))
            return encrypt(row)

        client.client = type("Changing", (), {"encrypt": staticmethod(changing), "decrypt": client.client.decrypt})()
        np.testing.assert_array_equal(first, old.predict(X[:2]))
        np.testing.assert_array_equal(client.predict(X[:3]), new.predict(X[:3]))


@pytest.mark.parametrize("keeps_previous", [False, True], ids=["one each", "previous too"])
def test_no_row_fails_while_replicas_serve_two_versions(ei_user: EIUser, keeps_previous: bool) -> None:
    keys, rows = registered_keys(), RANDOM.random((8, 2))
    old, new = (linear([weights]) for weights in ([1.0, 2.0], [3.0, -1.0]))
    before, after = (served("line", model, keys=keys) for model in (old, new))
    registries = [ModelRegistry([before]), ModelRegistry([])]
    registries[1].put(after, before if keeps_previous else None, 3600.0)
    with (
        running_server(registries[0], keys=keys) as first,
        running_server(registries[1], keys=keys) as second,
        connected(f"ipv4:{first},{second}", ei_user, "line") as client,
    ):
        scores = np.concatenate([client.predict(row[None]) for row in rows] + [client.predict(rows)]).ravel()
    expected = np.concatenate([rows, rows])
    errors = [np.abs(scores - model.decision(expected).ravel()) for model in (old, new)]
    assert np.minimum(*errors).max() < 1e-3
    if keeps_previous:
        assert max(errors[0].max(), errors[1].max()) > 0.1
        assert min(error[2:].max() for error in errors) < 1e-3, "after one retry it keeps to one version"


def test_rows_of_several_ciphertexts(service: Service, ei_user: EIUser) -> None:
    row = RANDOM.random((1, WIDE.feature_count))
    with connected(service.address, ei_user, "wide") as client:
        assert len(ei_user.client.encrypt(row[0])) == 2
        assert np.abs(client.predict(row) - WIDE.decision(row)).max() < 1e-4


def test_replies_longer_than_a_message(service: Service, ei_user: EIUser) -> None:
    row = RANDOM.random((1, TALL.feature_count))
    with connected(service.address, ei_user, "tall") as client:
        assert client.model.offers[-1].cost.reply_bytes > client.model.limits.max_message_bytes
        assert np.abs(client.predict(row) - TALL.decision(row)).max() < 1e-4


def test_keys_that_expired_or_were_deleted_are_registered_again(service: Service, ei_user: EIUser) -> None:
    row = RANDOM.random((1, TALL.feature_count))
    with connected(service.address, ei_user, "tall") as client, KeyRegistry(service.address) as registry:
        first = client.register_keys(ttl_seconds=0.2)
        registry.delete(first.key_id)
        client.register_keys(ttl_seconds=0.2)
        time.sleep(0.3)
        with pytest.raises(KeyNotFoundError):
            registry.get(first.key_id)
        assert np.abs(client.predict(row) - TALL.decision(row)).max() < 1e-4
        registry.delete(first.key_id)
        assert np.abs(client.predict(row) - TALL.decision(row)).max() < 1e-4
        assert client.key_id == first.key_id


def test_ciphertexts_of_other_keys_are_answered_with_noise(service: Service, ei_user: EIUser) -> None:
    """No arithmetic can tell; SECURITY.md says so."""
    stranger = EILinearRegressionClient()
    row = RANDOM.random(TALL.feature_count)
    with connected(service.address, ei_user, "tall") as client:
        scores = stranger.decrypt(client.score(stranger.encrypt(row)))
    assert np.abs(scores - TALL.decision([row])[0]).max() > 1.0


@pytest.mark.parametrize(
    ("row", "error"),
    [
        (np.zeros(63), FeatureCountError),
        (np.full(64, np.nan), NotFiniteError),
        (np.full(64, 1.1), OutOfRangeError),
        (["text"] * 64, InputError),
    ],
    ids=["a feature missing", "NaN", "out of range", "text"],
)
def test_bad_rows_have_their_error(client: EIClient, row: object, error: type[InputError]) -> None:
    with pytest.raises(error):
        client.predict([row])


@pytest.mark.parametrize("value", [1.01, np.nan])
def test_a_refused_row_is_sent_as_a_dummy(
    client: EIClient, digits_model: Digits, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service must not learn, from what is sent, whether its range refuses a row."""
    sent, encrypted = list[int](), list[list[float]]()
    score, encrypt = client.score, client.client.encrypt

    def recorded_score(ciphertexts: list[str]) -> list[str]:
        sent.append(len(ciphertexts))
        return score(ciphertexts)

    def recorded_encrypt(row: list[float]) -> list[str]:
        encrypted.append(list(row))
        ciphertexts: list[str] = encrypt(row)
        return ciphertexts

    monkeypatch.setattr(client, "score", recorded_score)
    monkeypatch.setattr(client.client, "encrypt", recorded_encrypt)
    rows = digits_model.X[:2].copy()
    client.predict(rows)
    rows[0, 5] = value
    with pytest.raises(InputError, match=r"^row 0, feature 5 is"):
        client.predict(rows)
    assert sent[:2] == sent[2:]
    assert encrypted[2] == [0.0] * 64, "the grid's minimum"
    assert encrypted[3] == encrypted[1]


def test_rows_out_of_range_are_clipped_when_asked(service: Service, ei_user: EIUser, digits_model: Digits) -> None:
    rows = digits_model.X[:1] * 3 - 1
    with connected(service.address, ei_user, clip=True) as client:
        expected = digits_model.estimator.decision_function(np.clip(rows, 0, 1))
        assert np.abs(client.decision_function(rows) - expected).max() < 1e-4


def test_bad_ciphertexts_have_their_error(client: EIClient, ei_user: EIUser, digits_model: Digits) -> None:
    good = ei_user.client.encrypt(digits_model.X[0])
    data = base64.b64decode(good[0])

    def error_of(*ciphertexts: bytes) -> object:
        with pytest.raises((MalformedCiphertextError, InputMismatchError)) as caught:
            client.score([base64.b64encode(text).decode() for text in ciphertexts])
        return caught.value

    for bad in (b"", data[:-1], data[:20], data[: len(data) // 2], RANDOM.bytes(len(data)), data + b"\0"):
        error = error_of(bad)
        assert isinstance(error, MalformedCiphertextError)
        assert error.reason in (CiphertextFault.LENGTH, CiphertextFault.HEADER)
        assert error.index == 0
    assert_error(error_of(), InputMismatchError("ciphertext_count", 1, 0))
    assert_error(error_of(data, data), InputMismatchError("ciphertext_count", 1, 2))
    for text in ("no base64!", "é", 7):
        with pytest.raises(InputError):
            client.score([text])  # type: ignore[list-item]
    assert np.abs(ei_user.client.decrypt(client.score(good)) - digits_model.scores[0]).max() < 1e-4


def test_a_service_that_keeps_no_keys(digits_server: str, ei_user: EIUser) -> None:
    with connected(digits_server, ei_user) as client, pytest.raises(ParameterError, match="--key-store"):
        client.score(ei_user.client.encrypt(np.zeros(64)))


def test_a_regressor_has_no_decision_function(service: Service, ei_user: EIUser) -> None:
    with connected(service.address, ei_user, "wide") as client, pytest.raises(NoSuchMethodError):
        client.decision_function(np.zeros((0, 5000)))


def test_replies_that_would_end_the_process_are_refused(
    client: EIClient, ei_user: EIUser, digits_model: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = [base64.b64decode(text) for text in client.score(ei_user.client.encrypt(digits_model.X[0]))]
    spoiled: dict[str, list[Any]] = {
        "none": [],
        "too few": good[:-1],
        "too many": good + good[:1],
        "truncated": [good[0][:-1], *good[1:]],
        "of SEAL 4.4": [good[0][:4] + b"\4" + good[0][5:], *good[1:]],
        "random": [RANDOM.bytes(len(good[0])), *good[1:]],
        "residues": [Residues(b"", b"")] * 10,
    }
    for what, bad in spoiled.items():
        pieces = [SealCiphertext(piece) if isinstance(piece, bytes) else piece for piece in bad]
        response = prediction_pb2.PredictResponse(scores=scores_to_proto(0, pieces))
        with client._connections.use(0) as methods:
            monkeypatch.setattr(methods, "predict_serialized", lambda *_, response=response, **__: response)
        with pytest.raises(ReplyError):
            print(what, client.score(ei_user.client.encrypt(digits_model.X[0])))


def test_the_row_layout_needs_no_keys_beside_it(service: Service, digits_model: Digits) -> None:
    estimator: LogisticRegression = digits_model.estimator
    with Client(service.address, model="digits", timeout_seconds=HANG_SECONDS) as client:
        np.testing.assert_array_equal(client.predict(digits_model.X), estimator.predict(digits_model.X))
