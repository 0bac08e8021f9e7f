"""The fields of sealserve.v1: no message carries a secret key, a plaintext feature or a score."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor

import sealserve.v1
from sealserve.v1 import steps_pb2

MODULES = [
    importlib.import_module(f"sealserve.v1.{module.name}")
    for module in pkgutil.iter_modules(sealserve.v1.__path__)
    if module.name.endswith("_pb2")
]

# Fields that could carry features, scores or keys by their type: bytes, and repeated numbers. Each
# is here with what it carries instead. A new one fails the test until somebody has thought about
# it.
CARRIERS = {
    "Chunk.ciphertexts": "encrypted features",
    "PredictRequest.ciphertexts": "encrypted features",
    "KeyChunk.data": "evaluation keys and public encryption keys",
    "PutKeyRequest.data": "evaluation keys and public encryption keys",
    "ItemHeader.reply_forms": "the forms that the client reads",
    "Offer.ciphertext_forms": "the forms that the server reads",
    "Residues.c0": "encrypted scores",
    "Residues.c1": "encrypted scores",
    "PackedPair.c0": "encrypted scores",
    "PackedPair.c1": "encrypted scores",
    "EncryptedScores.seal_ciphertext": "encrypted scores",
    "EncryptionParameters.parms_id": "a digest of the parameters",
    "EncryptionParameters.coeff_modulus": "the primes",
    "EncryptionParameters.ciphertext_scale": "a parameter",
    "Input.minimum": "the declared range",
    "Input.maximum": "the declared range",
    "Input.step": "the declared grid",
    "Input.keeps": "the declared grid",
    "Input.group": "the declared groups",
    "Input.exactly_one": "the declared groups",
    "IntegerLabels.values": "labels of the model",
    "BooleanLabels.values": "labels of the model",
    "DoubleLabels.values": "labels of the model",
    "Curve.scores": "numbers of the model",
    "Curve.probabilities": "numbers of the model",
    "Offer.score_scale": "a number of the offer",
    "Offer.score_centers": "numbers of the offer",
    "Offer.score_radii": "numbers of the offer",
    "Offer.score_error_bound": "a bound",
    "Offer.input_rounding_error_bound": "a bound",
    "Offer.weight_rounding_error_bound": "a bound",
    "Offer.expected_score_error": "a statistic of the operator's rows",
    "ObservedError.score_error": "a statistic of the operator's rows",
    "ObservedError.rms_score_error": "a statistic of the operator's rows",
    "ObservedError.label_disagreement": "a statistic of the operator's rows",
    "ObservedError.expected_label_disagreement": "a statistic of the operator's rows",
    "Cost.server_seconds": "a time",
    "ItemDone.server_seconds": "a time",
    "Column.minimum": "the declared range",
    "Column.maximum": "the declared range",
    "GetInputStepsResponse.piece": "published steps",
}
FORBIDDEN_WORDS = ("secret", "private_key", "plaintext", "feature_value", "decrypted", "noise_budget")


def nested(message: Any) -> Iterator[Any]:
    """A message type and those declared within it."""
    yield message
    for inner in message.nested_types:
        yield from nested(inner)


def message_types() -> list[Any]:
    tops = [top for module in MODULES for top in module.DESCRIPTOR.message_types_by_name.values()]
    return [message for top in tops for message in nested(top)]


def reachable(message: Any, seen: dict[str, Any]) -> dict[str, Any]:
    """The message types that a message can hold, itself included, by name."""
    if message.full_name not in seen:
        seen[message.full_name] = message
        for field in message.fields:
            if field.message_type is not None:
                reachable(field.message_type, seen)
    return seen


def is_carrier(field: Any) -> bool:
    if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return True
    is_text_or_message = field.cpp_type in (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE)
    return field.is_repeated and not is_text_or_message


def carriers(messages: list[Any]) -> set[str]:
    return {f"{message.name}.{field.name}" for message in messages for field in message.fields if is_carrier(field)}


def methods() -> list[Any]:
    services = [service for module in MODULES for service in module.DESCRIPTOR.services_by_name.values()]
    return [method for service in services for method in service.methods]


def test_the_walk_sees_the_messages() -> None:
    names = {message.full_name for message in message_types()}
    assert {f"sealserve.v1.{name}" for name in ("Error", "Model", "EncryptionParameters", "Residues")} <= names
    assert {method.name for method in methods()} >= {"GetModel", "ListModels", "Predict", "StreamPredict"}
    for method in methods():
        for message in (method.input_type, method.output_type):
            others = {n for n in reachable(message, {}) if not n.startswith("google.protobuf.")} - names
            assert not others, "a message of another package, which this test would have to walk too"


def test_every_field_that_could_carry_a_payload_is_known() -> None:
    steps = reachable(steps_pb2.InputSteps.DESCRIPTOR, {})
    others = [message for message in message_types() if message.full_name not in steps]
    assert carriers(others) == set(CARRIERS)


def test_steps_which_are_full_of_numbers_are_in_no_request() -> None:
    steps = reachable(steps_pb2.InputSteps.DESCRIPTOR, {})
    assert "sealserve.v1.Trees" in steps
    for method in methods():
        assert not reachable(method.input_type, {}).keys() & steps.keys(), method.name


@pytest.mark.parametrize("word", FORBIDDEN_WORDS)
def test_no_field_is_named_for_what_must_not_travel(word: str) -> None:
    named = [f"{message.name}.{field.name}" for message in message_types() for field in message.fields]
    named += [message.name for message in message_types()]
    assert not [name for name in named if word.replace("_", "") in name.replace("_", "").lower()]


def test_requests_carry_ciphertexts_keys_and_no_number_in_floating_point() -> None:
    sent = [message for method in methods() for message in reachable(method.input_type, {}).values()]
    assert {CARRIERS[name] for name in carriers(sent)} == {
        "encrypted features",
        CARRIERS["KeyChunk.data"],
        CARRIERS["ItemHeader.reply_forms"],
    }


def test_scores_come_back_encrypted_only() -> None:
    predicted = [method.output_type for method in methods() if method.containing_service.name == "PredictionService"]
    received = [message for output in predicted for message in reachable(output, {}).values()]
    assert {CARRIERS[name] for name in carriers(received)} == {"encrypted scores", "a time"}
