"""Steps that the SDK refuses, before it sees a row."""

import base64
from typing import Any

import pytest

from sealserve.errors import ParameterError, RequirementError
from sealserve.protocol.wire import steps_from_bytes
from sealserve.v1 import steps_pb2 as pb

NUMBER, TEXT = pb.VALUE_KIND_NUMBER, pb.VALUE_KIND_TEXT
ERRORS = {"malformed": ParameterError, "unknown": RequirementError}


def content() -> dict[str, Any]:
    """What the file has."""
    cases = [(name, "malformed", data) for name, data in malformed().items()]
    cases += [(name, "unknown", data) for name, data in unknown().items()]
    for _, fault, data in cases:
        with pytest.raises(ERRORS[fault]):
            steps_from_bytes(data)
    return {
        "cases": [
            {"name": name, "fault": fault, "steps": base64.b64encode(data).decode()} for name, fault, data in cases
        ]
    }


def reads(first: int, count: int = 1) -> list[pb.ValueRange]:
    """A range of values."""
    return [pb.ValueRange(first=first, count=count)]


def program(*steps: pb.Step, columns: Any = (NUMBER, NUMBER), outputs: list[pb.ValueRange] | None = None) -> bytes:
    """Serialized steps; by default their columns are two numbers, the first of them a feature."""
    message = pb.InputSteps(columns=columns, steps=steps, outputs=reads(0) if outputs is None else outputs)
    return message.SerializeToString(deterministic=True)


def step(first: int = 0, count: int = 1, **kind: Any) -> pb.Step:
    """A step of a kind that reads a range of values."""
    return pb.Step(inputs=reads(first, count), **kind)


def tree(left: list[int], right: list[int]) -> bytes:
    """A program of one tree."""
    count = len(left)
    zeros: dict[str, Any] = {"features": [0] * count, "thresholds": [0.0] * count, "misses_left": [False] * count}
    return program(step(trees=pb.Trees(node_counts=[count], left=left, right=right, **zeros)))


def malformed() -> dict[str, bytes]:
    """Programs that contradict themselves, or take more than a client gives."""
    missing = pb.Missing()
    words = pb.Text(
        tokens=pb.Text.TOKENS_WORDS,
        strip_accents=pb.Text.STRIP_ACCENTS_NONE,
        ngram_min=1,
        ngram_max=1,
        vocabulary=["a"],
    )
    place = pb.OneHotColumn(categories=pb.Categories(numbers=[1.0]), width=1, places=[2, 0, 0])
    return {
        "cut off": program(step(missing=missing))[:-1],
        "empty": b"",
        "a step that reads its own output": program(step(2, missing=missing)),
        "a step that reads the next one": program(step(3, missing=missing), step(2, missing=missing)),
        "a step that reads nothing": program(pb.Step(missing=missing)),
        "an empty range": program(step(count=0, missing=missing)),
        "a range beyond the values": program(step(1, 2, missing=missing)),
        "a range of 2^32 - 1 values": program(step(0, 2**32 - 1, missing=missing)),
        "ranges of 2^24 values together": program(pb.Step(inputs=[pb.ValueRange(count=2**20)] * 16, missing=missing)),
        "no columns": program(columns=()),
        "no features": program(outputs=[]),
        "a feature that there is not": program(outputs=reads(2)),
        "a feature that is a text": program(columns=(TEXT,)),
        "a sum of a text": program(step(affine=pb.Affine(add=[1.0])), columns=(TEXT, NUMBER), outputs=reads(1)),
        "the words of a number": program(step(text=words)),
        "an operand too few": program(step(0, 2, affine=pb.Affine(add=[1.0]))),
        "a division by 0": program(step(affine=pb.Affine(divide=[0.0]))),
        "edges that decrease": program(step(bins=pb.Bins(columns=[pb.BinsColumn(edges=[1.0, 0.0], missing_bin=0)]))),
        "a factor that there is not": program(step(monomials=pb.Monomials(degrees=[1], factors=[1]))),
        "a place beyond the outputs": program(step(one_hot=pb.OneHot(columns=[place]))),
        "a node with one child": tree([0, 0, 0], [2, 0, 0]),
        "a tree with a cycle": tree([1, 3, 1, 0, 0], [2, 4, 4, 0, 0]),
        "a node with two parents": tree([1, 3, 3, 0, 0], [2, 4, 4, 0, 0]),
    }


def unknown() -> dict[str, bytes]:
    """Programs of a later release."""
    # A step is field 2 of InputSteps. This one reads a range of one value, and has field 1000.
    later = b"\x0a\x02\x10\x01" + b"\xc2\x3e\x00"
    function: Any = 999
    norm: Any = 99
    return {
        "a step of no kind": program(step()),
        "a step of a kind of a later release": program() + b"\x12" + bytes([len(later)]) + later,
        "a function of a later release": program(step(elementwise=pb.Elementwise(function=function))),
        "a norm of a later release": program(step(normalize=pb.Normalize(norm=norm))),
        "a kind of value of a later release": program(columns=(NUMBER, 9)),
    }
