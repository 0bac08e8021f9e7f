"""Files of vectors: JSON, and messages in protobuf's own encoding."""

import json
import math
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)


def read_json(path: Path) -> Any:
    """Read a file of JSON."""
    return json.loads(path.read_bytes())


def message_of(kind: type[M], data: bytes) -> M:
    """Parse a message. Those of the vectors have no field that the protos lack."""
    message = kind.FromString(data)
    assert message.SerializeToString(deterministic=True) == data, "the message is not in the usual encoding"
    return message


def messages_of(kind: type[M], data: bytes) -> list[M]:
    """Parse messages, each behind its length as a varint."""
    found = []
    while data:
        length = at = 0
        while True:
            length |= (data[at] & 127) << 7 * at
            at += 1
            if not data[at - 1] & 128:
                break
        assert len(data) >= at + length, "a message is cut off"
        found.append(message_of(kind, data[at : at + length]))
        data = data[at + length :]
    return found


def of_json(kind: type[M], content: Any) -> M:
    """Read a message from protobuf's JSON mapping."""
    return json_format.ParseDict(content, kind())


def number(value: Any) -> Any:
    """Read a number as JSON has it: "NaN", "Infinity" and "-Infinity" are strings."""
    return float(value.lower()) if value in ("NaN", "Infinity", "-Infinity") else value


def are_close(found: Any, expected: Any, tolerance: float = 1e-12) -> bool:
    """Whether numbers, or lists of numbers, are as equal as two machines compute them."""
    if isinstance(expected, list):
        return len(found) == len(expected) and all(
            are_close(*pair, tolerance) for pair in zip(found, expected, strict=True)
        )
    expected = number(expected)
    if isinstance(expected, float) and math.isnan(expected):
        return math.isnan(found)
    return math.isclose(found, expected, rel_tol=tolerance, abs_tol=1e-300)


def changed(data: bytes, case: Any) -> bytes:
    """The bytes of a case: with the changes that it names, then cut off or filled up with zeros."""
    found = bytearray(data)
    for change in case.get("changes", []):
        at = change["at"]
        if "flip" in change:
            found[at] ^= int(change["flip"], 16)
        else:
            new = bytes.fromhex(change["bytes"]) * change.get("times", 1)
            found[at : at + len(new)] = new
    length = case.get("length", len(found))
    return bytes(found[:length]).ljust(length, b"\0")
