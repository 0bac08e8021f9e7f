"""Bad input over a real socket: a precise typed error, nothing lost, and the next call works."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc.status_pb2 import Status
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve.client import Client
from sealserve.errors import (
    CallError,
    CiphertextFault,
    FeatureCountError,
    InputError,
    InputMismatchError,
    LimitExceededError,
    MalformedCiphertextError,
    ModelNotFoundError,
    NotFiniteError,
    OutOfRangeError,
    ParameterSetNotOfferedError,
    SealserveError,
    ServiceError,
    UnavailableError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters
from sealserve.v1 import errors_pb2, model_pb2, parameters_pb2
from sealserve_service.catalog.registry import ModelRegistry
from tests.support.digits import Digits
from tests.support.malformed_ciphertexts import compressed, of_parameters, patched
from tests.support.raw import RawClient, Request, as_message, assert_error, assert_scores
from tests.support.seeded import seeded
from tests.support.serving import HANG_SECONDS, LIMITS, linear, running_server, served

N, PRIME = LAYOUTS["row"].open_parameter_sets[0].poly_modulus_degree, LAYOUTS["row"].open_parameter_sets[0].primes[0]
FULL_BYTES, SEEDED_BYTES = 113 + 16 * N, 113 + 8 * N + 81
RESIDUES = 113  # where they begin
C1 = RESIDUES + 8 * N


def assert_serves(raw: RawClient, digits: Digits) -> None:
    assert np.abs(raw.predict(raw.request(digits.X[0])) - digits.scores[0]).max() < 0.01


# Rows


ROW_FAULTS: dict[str, tuple[Callable[[NDArray[np.float64]], Any], type[InputError], str]] = {
    "a feature missing": (lambda row: row[:-1], FeatureCountError, "(1, 63)"),
    "a feature too many": (lambda row: np.append(row, 0.0), FeatureCountError, "(1, 65)"),
    "NaN": (lambda row: np.where(np.arange(64) == 7, np.nan, row), NotFiniteError, "feature 7"),
    "infinity": (lambda row: np.where(np.arange(64) == 8, np.inf, row), NotFiniteError, "feature 8"),
    "above the range": (lambda row: np.where(np.arange(64) == 9, 1.1, row), OutOfRangeError, "feature 9"),
    "below the range": (lambda row: np.where(np.arange(64) == 9, -0.1, row), OutOfRangeError, "feature 9"),
    "text": (lambda _: ["no number"] * 64, InputError, "numbers"),
}


@pytest.mark.parametrize("fault", ROW_FAULTS)
def test_bad_rows_never_leave_the_client(client: Client, digits_model: Digits, fault: str) -> None:
    spoil, kind, text = ROW_FAULTS[fault]
    bad = spoil(digits_model.X[1])
    for method in (client.predict, client.decision_function, client.predict_proba):
        with pytest.raises(kind) as caught:
            method([bad])
        assert text in str(caught.value)
    good = digits_model.X[:1]
    assert client.predict(good) == digits_model.estimator.predict(good)
    results = dict(client.stream([good[0], bad, good[0]]))
    assert type(results[1]) is kind
    assert results[0] == results[2] == digits_model.estimator.predict(good)[0]


def test_rows_beyond_the_range_are_clipped_when_asked(digits_server: str, digits_model: Digits) -> None:
    rows = digits_model.X[:20] * 3 - 1
    with Client(digits_server, clip=True, timeout_seconds=HANG_SECONDS) as client:
        clipped = np.clip(rows, 0, 1)
        bound = client.model.offers[0].score_error_bound
        assert np.abs(client.decision_function(rows) - digits_model.estimator.decision_function(clipped)).max() <= bound
        with pytest.raises(NotFiniteError):
            client.predict(np.full((1, 64), np.inf))


# Items


@dataclass(frozen=True)
class Fault:
    """What is done to a good request, and the error and status that follow."""

    spoil: Callable[[Request, RawClient], None]
    error: ServiceError
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT


def header_fault(field: str, value: Any, error: ServiceError, code: grpc.StatusCode = Fault.code) -> Fault:
    return Fault(lambda request, _: setattr(request.header, field, value), error, code)


def ciphertext_fault(reason: CiphertextFault, spoil: Callable[[bytes, RowCodec], bytes]) -> Fault:
    def spoiled(request: Request, raw: RawClient) -> None:
        request.ciphertexts[0] = spoil(request.ciphertexts[0], raw.codec)

    return Fault(spoiled, MalformedCiphertextError(reason, 0))


def of_size_3(data: bytes, _: RowCodec) -> bytes:
    """A well-formed SEAL ciphertext of three polynomials."""
    words = struct.pack("<Q", 3 * N) + data[RESIDUES:] + data[C1:]
    array = patched(data[89:105], 8, struct.pack("<Q", 16 + len(words))) + words
    members = patched(data[16:89], 33, struct.pack("<Q", 3))
    return patched(data[:16], 8, struct.pack("<Q", 16 + len(members) + len(array))) + members + array


NOT_FOUND, PRECONDITION = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
RANDOM = np.random.default_rng(2)
LENGTH, HEADER, PARAMETERS = CiphertextFault.LENGTH, CiphertextFault.HEADER, CiphertextFault.PARAMETERS
FORM, COEFFICIENT, TRANSPARENT = CiphertextFault.FORM, CiphertextFault.COEFFICIENT, CiphertextFault.TRANSPARENT

FAULTS = {
    "unknown model": header_fault("model", "nobody", ModelNotFoundError("nobody"), NOT_FOUND),
    "endless model name": header_fault("model", "x" * 1_000_000, ModelNotFoundError("x" * 100), NOT_FOUND),
    "no such layout": header_fault(
        "layout", parameters_pb2.LAYOUT_COLUMN, ParameterSetNotOfferedError("column", "row-2048-44"), PRECONDITION
    ),
    "layout of tomorrow": header_fault("layout", 77, ParameterSetNotOfferedError("", "row-2048-44"), PRECONDITION),
    "no layout": header_fault("layout", 0, ParameterSetNotOfferedError("", "row-2048-44"), PRECONDITION),
    "no such parameter set": header_fault(
        "parameter_set", "row-1024-27", ParameterSetNotOfferedError("row", "row-1024-27"), PRECONDITION
    ),
    "endless parameter set": header_fault(
        "parameter_set", "x" * 1_000_000, ParameterSetNotOfferedError("row", "x" * 100), PRECONDITION
    ),
    "no rows": header_fault("row_count", 0, InputMismatchError("row_count", 3, 0)),
    "too many rows": header_fault("row_count", 4, InputMismatchError("row_count", 3, 4)),
    "far too many rows": header_fault("row_count", 2**32 - 1, InputMismatchError("row_count", 3, 2**32 - 1)),
    "no ciphertexts declared": header_fault("ciphertext_count", 0, InputMismatchError("ciphertext_count", 1, 0)),
    "too many ciphertexts declared": header_fault(
        "ciphertext_count", 2**32 - 1, InputMismatchError("ciphertext_count", 1, 2**32 - 1)
    ),
    "a key where none is needed": header_fault("key_id", "k" * 64, InputMismatchError("key_id", 0, 64)),
    "too few ciphertexts": Fault(
        lambda request, _: request.ClearField("ciphertexts"), InputMismatchError("ciphertexts", 1, 0)
    ),
    "too many ciphertexts": Fault(
        lambda request, _: request.ciphertexts.append(request.ciphertexts[0]), InputMismatchError("ciphertexts", 1, 2)
    ),
    "too many bytes": Fault(
        lambda request, _: request.ciphertexts.append(bytes(LIMITS.max_message_bytes)),
        LimitExceededError("max_message_bytes", LIMITS.max_message_bytes, LIMITS.max_message_bytes + FULL_BYTES),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ),
    "empty": ciphertext_fault(LENGTH, lambda *_: b""),
    "truncated by a byte": ciphertext_fault(LENGTH, lambda data, _: data[:-1]),
    "truncated to its header": ciphertext_fault(LENGTH, lambda data, _: data[:16]),
    "a byte too long": ciphertext_fault(LENGTH, lambda data, _: data + b"\0"),
    "random, of any length": ciphertext_fault(LENGTH, lambda *_: RANDOM.bytes(1000)),
    "random, as long as a full one": ciphertext_fault(HEADER, lambda *_: RANDOM.bytes(FULL_BYTES)),
    "random, as long as a seeded one": ciphertext_fault(HEADER, lambda *_: RANDOM.bytes(SEEDED_BYTES)),
    "of size 3": ciphertext_fault(LENGTH, of_size_3),
    "compressed": ciphertext_fault(LENGTH, lambda data, _: compressed(data)),
    "of another ring": ciphertext_fault(
        LENGTH, lambda *_: of_parameters(EncryptionParameters(LAYOUTS["row"].open_parameter_sets[2], 1 << 26))
    ),
    "of another plaintext modulus": ciphertext_fault(
        PARAMETERS, lambda *_: of_parameters(EncryptionParameters(LAYOUTS["row"].open_parameter_sets[0], 1 << 20))
    ),
    **{
        f"{what} bit-flipped": ciphertext_fault(
            reason,
            lambda data, _, at=at: patched(data, at, bytes([data[at] ^ 1])),  # type: ignore[misc]
        )
        for what, at, reason in (
            ("magic", 0, HEADER),
            ("header size", 2, HEADER),
            ("major version", 3, HEADER),
            ("compression mode", 5, HEADER),
            ("reserved field", 6, HEADER),
            ("total size", 8, HEADER),
            ("parms_id", 16, PARAMETERS),
            ("end of parms_id", 47, PARAMETERS),
            ("NTT flag", 48, FORM),
            ("number of polynomials", 49, FORM),
            ("degree", 57, FORM),
            ("number of primes", 65, FORM),
            ("scale", 73, FORM),
            ("correction factor", 81, FORM),
            ("inner magic", 89, HEADER),
            ("inner size", 97, HEADER),
            ("number of residues", 105, HEADER),
        )
    },
    "first residue at its prime": ciphertext_fault(
        COEFFICIENT, lambda data, _: patched(data, RESIDUES, struct.pack("<Q", PRIME))
    ),
    "last residue of 64 ones": ciphertext_fault(
        COEFFICIENT, lambda data, _: patched(data, FULL_BYTES - 8, b"\xff" * 8)
    ),
    "second polynomial zero": ciphertext_fault(TRANSPARENT, lambda data, _: patched(data, C1, bytes(8 * N))),
    "all zero": ciphertext_fault(TRANSPARENT, lambda data, _: patched(data, RESIDUES, bytes(16 * N))),
    "seeded with residue at its prime": ciphertext_fault(
        COEFFICIENT,
        lambda data, codec: patched(seeded(codec, data), RESIDUES, struct.pack("<Q", PRIME)),
    ),
    "seeded with a generator that SEAL has not": ciphertext_fault(
        HEADER, lambda data, codec: patched(seeded(codec, data), SEEDED_BYTES - 65, b"\x09")
    ),
    "seeded with a damaged seed header": ciphertext_fault(
        HEADER, lambda data, codec: patched(seeded(codec, data), SEEDED_BYTES - 81, b"\0")
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_own_error_and_harms_nothing_else(raw: RawClient, digits_model: Digits, name: str) -> None:
    fault, rows = FAULTS[name], digits_model.X[:4]
    request = raw.request(rows[0])
    fault.spoil(request, raw)

    with pytest.raises(SealserveError) as caught:
        raw.predict(request)
    assert_error(caught.value, fault.error)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert caught.value.__cause__.code() is fault.code
    assert_serves(raw, digits_model)

    answers = raw.stream([raw.item(1, rows[1]), as_message(2, request), raw.item(3, rows[3])])
    assert_scores(answers[1], digits_model.scores[1])
    failed = answers[2]
    assert_error(failed, fault.error)
    assert_scores(answers[3], digits_model.scores[3])


def trailers(error: Any) -> dict[str, bytes]:
    """The binary metadata that a failed call ends with."""
    return {key: value for key, value in error.trailing_metadata() if key.endswith("-bin")}


def test_errors_carry_no_payload(raw: RawClient, digits_model: Digits) -> None:
    for name, fault in FAULTS.items():
        request = raw.request(digits_model.X[0])
        fault.spoil(request, raw)
        # Eight bytes from everywhere in the ciphertexts; zeros are no payload.
        pieces = {data[at : at + 8] for data in request.ciphertexts for at in range(0, len(data), 64)} - {bytes(8)}
        with pytest.raises(grpc.RpcError) as caught:
            raw.predictions.Predict(request, timeout=HANG_SECONDS)
        said = str(caught.value.details()).encode() + trailers(caught.value)["grpc-status-details-bin"]
        assert len(said) < 4096, name
        if isinstance(fault.error, MalformedCiphertextError):
            assert not [piece for piece in pieces if len(piece) == 8 and piece in said], name


def test_an_untyped_change_of_residues_is_a_score(raw: RawClient, digits_model: Digits) -> None:
    """The residues stay below their prime, so that nobody without the key can tell.

    The answer is therefore a score, made of noise.
    """
    request = raw.request(digits_model.X[0])
    request.ciphertexts[0] = patched(request.ciphertexts[0], C1 + 80, bytes([request.ciphertexts[0][C1 + 80] ^ 1]))
    response = raw.predictions.Predict(request, timeout=HANG_SECONDS)
    assert response.HasField("done")
    assert_serves(raw, digits_model)


def test_good_ciphertexts_of_other_libraries(raw: RawClient, digits_model: Digits) -> None:
    """Seeded ones, which are half as long, and any minor version of SEAL 4."""
    request = raw.request(digits_model.X[0])
    full = request.ciphertexts[0]
    for data in (seeded(raw.codec, full), patched(full, 4, b"\1"), patched(seeded(raw.codec, full), 4, b"\0")):
        request.ciphertexts[0] = data
        assert_scores(raw.predict(request), digits_model.scores[0])
        assert_scores(raw.stream([as_message(1, request)])[1], digits_model.scores[0])
    assert len(seeded(raw.codec, full)) == SEEDED_BYTES


def test_beyond_what_grpc_takes_the_call_ends_and_the_next_works(raw: RawClient, digits_model: Digits) -> None:
    request = raw.request(digits_model.X[0])
    request.ciphertexts.append(bytes(2 * LIMITS.max_message_bytes))
    with pytest.raises(CallError, match="RESOURCE_EXHAUSTED"):
        raw.predict(request)
    assert_serves(raw, digits_model)
    with pytest.raises(CallError, match="RESOURCE_EXHAUSTED"):
        raw.stream([as_message(1, request)])
    assert_serves(raw, digits_model)


METHODS = [
    "PredictionService/Predict",
    "PredictionService/StreamPredict",
    "ModelService/GetModel",
    "ModelService/ListModels",
    "ModelService/GetInputSteps",
]


@pytest.mark.parametrize("method", METHODS)
def test_messages_that_are_no_messages(raw: RawClient, digits_model: Digits, method: str) -> None:
    for data in (b"\xff\xff\xff\xff", b"\x0a", b"\x0a\x05abc"):
        with pytest.raises(grpc.RpcError) as caught:
            raw.call(method, data)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert_serves(raw, digits_model)


def test_unknown_models_are_not_found(digits_server: str, raw: RawClient) -> None:
    with Client(digits_server, model="nobody", timeout_seconds=HANG_SECONDS) as client:
        with pytest.raises(ModelNotFoundError) as caught:
            client.predict(np.zeros((1, 64)))
        assert caught.value.model == "nobody"
        assert str(caught.value) == "no model named 'nobody' is served: there are digits"
        assert [model.name for model in client.models()] == ["digits"]
    with pytest.raises(grpc.RpcError) as refused:
        raw.models.GetModel(model_pb2.GetModelRequest(model="x" * 1_000_000), timeout=HANG_SECONDS)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_nothing_serves_at_the_address() -> None:
    with Client("127.0.0.1:1", timeout_seconds=HANG_SECONDS) as client, pytest.raises(UnavailableError):
        client.predict(np.zeros((1, 64)))


def test_classes_without_weights_and_columns_without_weights() -> None:
    weights = RANDOM.normal(size=(4, 300))
    weights[1] = 0
    weights[:, 100:200] = 0
    for model in (linear(weights, [1.0, 2.0, 3.0, 4.0]), linear(np.zeros((3, 10)), [0.0, -1.0, 2.5])):
        rows = RANDOM.random((20, model.feature_count))
        with (
            running_server(ModelRegistry([served("model", model)])) as address,
            Client(address, timeout_seconds=HANG_SECONDS) as client,
        ):
            offer = client.model.offers[0]
            bound = offer.score_error_bound
            assert np.abs(client.predict(rows) - model.decision(rows)).max() <= bound


def test_ciphertexts_whose_products_cancel_out() -> None:
    """All weights are equal and the ciphertexts are c, -c, c, -c.

    The sum of products is zero, which SEAL refuses.
    """
    model = linear(np.ones((1, 8192)))
    with running_server(ModelRegistry([served("ones", model)])) as address, RawClient(address) as raw:
        parameter_set = raw.codec.offer.parameters.parameter_set
        assert len(parameter_set.data_primes) == 1
        row = RANDOM.random(model.feature_count)
        good, bad = raw.request(row), raw.request(row)
        data = good.ciphertexts[0]
        residues = np.frombuffer(data, np.uint64, offset=RESIDUES)
        negated = data[:RESIDUES] + ((parameter_set.data_primes[0] - residues) % parameter_set.data_primes[0]).tobytes()
        bad.ciphertexts[:] = [data, negated] * (len(good.ciphertexts) // 2)
        expected = MalformedCiphertextError(CiphertextFault.TRANSPARENT, 0)
        with pytest.raises(MalformedCiphertextError) as caught:
            raw.predict(bad)
        assert_error(caught.value, expected)
        answers = raw.stream([as_message(1, good), as_message(2, bad), as_message(3, good)])
        assert_error(answers[2], expected)
        for item_id in (1, 3):
            answer = answers[item_id]
            assert isinstance(answer, np.ndarray)
            assert answer[0, 0] == pytest.approx(row.sum(), rel=0.01)


def test_typed_errors_are_in_the_status_details(raw: RawClient) -> None:
    """What an SDK in another language reads: google.rpc.Status with one sealserve.v1.Error."""
    with pytest.raises(grpc.RpcError) as caught:
        raw.models.GetModel(model_pb2.GetModelRequest(model="nobody"), timeout=HANG_SECONDS)
    status = Status.FromString(trailers(caught.value)["grpc-status-details-bin"])
    assert status.code == grpc.StatusCode.NOT_FOUND.value[0]
    error = errors_pb2.Error()
    assert status.details[0].Unpack(error)
    assert error.model_not_found.model == "nobody"
