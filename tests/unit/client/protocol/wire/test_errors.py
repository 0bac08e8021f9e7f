"""Errors on the wire: each that the service raises survives, and later ones can be read."""

import dataclasses
from enum import Enum
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve import errors
from sealserve.errors import CiphertextFault, KeyFault, ServiceError
from sealserve.he.layouts import LAYOUTS
from sealserve.protocol import wire
from sealserve.v1 import errors_pb2


def service_errors(kind: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    """The errors that travel: all that derive from ServiceError."""
    kinds = [kind for kind in kind.__subclasses__() if kind.__module__ == errors.__name__]
    return [*kinds, *(deeper for kind in kinds for deeper in service_errors(kind))]


FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=("C", "Z")), max_size=8),
    int: st.integers(0, 2**32 - 1),
    float: st.integers(0, 10**9).map(lambda milliseconds: milliseconds / 1000),
    CiphertextFault: st.sampled_from(CiphertextFault),
    KeyFault: st.sampled_from(KeyFault),
}
LAYOUT_NAMES = st.sampled_from(["", *LAYOUTS])


def instances(kind: type[ServiceError]) -> st.SearchStrategy[ServiceError]:
    hints = {field.name: get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return st.builds(kind, **{name: LAYOUT_NAMES if name == "layout" else FIELDS[hint] for name, hint in hints.items()})


def survived(error: ServiceError) -> ServiceError:
    """The error after its way over the wire."""
    return wire.error_from_proto(errors_pb2.Error.FromString(wire.error_to_proto(error).SerializeToString()))


@pytest.mark.parametrize("kind", service_errors(), ids=lambda kind: kind.__name__)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_every_error_of_the_service_survives(kind: type[ServiceError], data: st.DataObject) -> None:
    error = data.draw(instances(kind))
    message = wire.error_to_proto(error)
    assert message.WhichOneof("detail")
    assert message.message == str(error)
    back = survived(error)
    assert type(back) is kind
    assert {name: type(value) for name, value in vars(back).items()} == {n: type(v) for n, v in vars(error).items()}
    for name, value in vars(error).items():
        assert getattr(back, name) == (pytest.approx(value) if isinstance(value, float) else value)


def test_every_detail_is_an_error_of_its_own_with_the_same_fields() -> None:
    details: dict[str, Any] = {
        field.name: field.message_type for field in errors_pb2.Error.DESCRIPTOR.oneofs_by_name["detail"].fields
    }
    found = {}
    for kind in service_errors():
        error = kind(*(_least(hint) for hint in _hints(kind)))
        name = wire.error_to_proto(error).WhichOneof("detail")
        assert name is not None
        assert kind.__name__ == f"{details[name].name}Error"
        fields = {field.name.removesuffix("_seconds") for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        assert fields == set(details[name].fields_by_name)
        found[name] = kind
    assert set(found) == set(details)


def _hints(kind: type[ServiceError]) -> list[Any]:
    return [get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)]  # type: ignore[arg-type]


def _least(hint: Any) -> Any:
    return next(iter(hint)) if issubclass(hint, Enum) else hint()


@pytest.mark.parametrize(
    ("kind", "faults", "message"),
    [
        (errors.MalformedCiphertextError, CiphertextFault, errors_pb2.MalformedCiphertext),
        (errors.MalformedKeyError, KeyFault, errors_pb2.MalformedKey),
    ],
    ids=["ciphertext", "key"],
)
def test_every_reason_survives(kind: Any, faults: type[Enum], message: Any) -> None:
    assert {f"REASON_{fault.name}" for fault in faults} | {"REASON_UNSPECIFIED"} == set(message.Reason.keys())
    for fault in faults:
        back = survived(kind(fault))
        assert type(back) is kind
        assert vars(back)["reason"] is fault


@pytest.mark.parametrize("number", [0, 99, -1, 2**31 - 1])
def test_a_reason_of_tomorrow_is_some_reason(number: int) -> None:
    message = errors_pb2.Error(malformed_ciphertext=errors_pb2.MalformedCiphertext(index=3))
    message.malformed_ciphertext.reason = number  # type: ignore[assignment]
    error = wire.error_from_proto(message)
    assert isinstance(error, errors.MalformedCiphertextError)
    assert (error.index, error.reason) == (3, CiphertextFault.TRANSPARENT)


def test_an_error_of_tomorrow_keeps_its_text() -> None:
    tomorrow = b"\x0a\x04text" + b"\xfa\x07\x00"  # message = "text", and field 127, an empty message
    for data, text in ((tomorrow, "text"), (b"", "the service refused, and does not say why")):
        error = wire.error_from_proto(errors_pb2.Error.FromString(data))
        assert type(error) is ServiceError
        assert str(error) == text
    assert wire.error_to_proto(ServiceError("plain")).WhichOneof("detail") is None


@settings(deadline=None, max_examples=60)
@given(whole=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))
def test_any_duration_is_read(whole: int, nanos: int) -> None:
    message = errors_pb2.Error()
    message.draining.retry_delay.seconds, message.draining.retry_delay.nanos = whole, nanos
    error = wire.error_from_proto(message)
    assert isinstance(error, errors.DrainingError)
    assert error.retry_delay_seconds == pytest.approx(min(whole + nanos / 1e9, 1e9)), "no longer than a lock can wait"
