"""An upload: its header, its chunks in order, its end."""

import hashlib
from typing import Any

import pytest

from sealserve.errors import (
    InputMismatchError,
    KeyFault,
    LimitExceededError,
    MalformedKeyError,
    OutOfSequenceError,
    ServiceError,
)
from sealserve.protocol.key_record import KeyHeader, KeyKind
from sealserve_service.keys.upload import MAX_CHUNK_BYTES, Upload
from tests.support.raw import assert_error

DATA = bytes(range(100))
MAX_BYTES = 4 << 20


def header(data: bytes = DATA, **changes: Any) -> KeyHeader:
    fields: dict[str, Any] = {"key_id": hashlib.sha256(data).hexdigest(), "byte_count": len(data), "ttl_seconds": None}
    return KeyHeader(kind=KeyKind.EVALUATION_KEYS, parameter_set="ei-8192", **(fields | changes))


def test_chunks_in_order_make_the_key() -> None:
    upload = Upload(header(), MAX_BYTES)
    for first, last in ((0, 10), (10, 10), (10, 99), (99, 100)):
        upload.add_chunk(first, DATA[first:last])
    assert upload.finish() == DATA


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"key_id": "ab"}, InputMismatchError("key_id", 64, 2)),
        ({"key_id": "A" * 64}, InputMismatchError("key_id", 64, 64)),
        ({"key_id": "../" + "a" * 61}, InputMismatchError("key_id", 64, 64)),
        ({"byte_count": MAX_BYTES + 1}, LimitExceededError("max_key_bytes", MAX_BYTES, MAX_BYTES + 1)),
        ({"byte_count": 2**64 - 1}, LimitExceededError("max_key_bytes", MAX_BYTES, 2**64 - 1)),
        ({"ttl_seconds": 0.0}, InputMismatchError("ttl", 1, 0)),
        ({"ttl_seconds": -1e18}, InputMismatchError("ttl", 1, 0)),
        ({"ttl_seconds": float("nan")}, InputMismatchError("ttl", 1, 0)),
    ],
    ids=str,
)
def test_headers_of_no_key(changes: dict[str, Any], error: ServiceError) -> None:
    with pytest.raises(ServiceError) as caught:
        Upload(header(**changes), MAX_BYTES)
    assert_error(caught.value, error)


def test_chunks_out_of_order_repeated_or_too_long() -> None:
    for offset, expected in ((0, 10), (5, 10), (11, 10), (2**64 - 1, 10)):
        upload = Upload(header(), MAX_BYTES)
        upload.add_chunk(0, DATA[:10])
        with pytest.raises(OutOfSequenceError) as caught:
            upload.add_chunk(offset, DATA[10:20])
        assert_error(caught.value, OutOfSequenceError(expected, offset))
    long = bytes(MAX_CHUNK_BYTES + 1)
    with pytest.raises(LimitExceededError):
        Upload(header(long), MAX_BYTES).add_chunk(0, long)


def test_a_declared_size_that_lies() -> None:
    upload = Upload(header(), MAX_BYTES)
    with pytest.raises(MalformedKeyError) as caught:
        upload.add_chunk(0, DATA + b"x")
    assert caught.value.reason is KeyFault.LENGTH
    upload = Upload(header(), MAX_BYTES)
    upload.add_chunk(0, DATA[:-1])
    with pytest.raises(MalformedKeyError) as caught:
        upload.finish()
    assert caught.value.reason is KeyFault.LENGTH


def test_all_bytes_at_once_are_of_any_length_up_to_the_declared_one() -> None:
    long = bytes(MAX_CHUNK_BYTES + 1)
    upload = Upload(header(long), MAX_BYTES)
    upload.add(long)
    assert upload.finish() == long
    with pytest.raises(MalformedKeyError) as caught:
        upload.add(b"x")
    assert caught.value.reason is KeyFault.LENGTH


def test_other_bytes_than_declared() -> None:
    upload = Upload(header(), MAX_BYTES)
    upload.add_chunk(0, DATA[:-1] + b"x")
    with pytest.raises(MalformedKeyError) as caught:
        upload.finish()
    assert caught.value.reason is KeyFault.DIGEST
