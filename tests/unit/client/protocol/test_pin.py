"""Pins: an encoding that any language can write, and files that people can read."""

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealserve.errors import InputError, UnexpectedModelError
from sealserve.he.quantization import InputGrid
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.output import Curve, Link, Output, Pairwise, Task
from sealserve.protocol.pin import Pin, PinnedContent
from sealserve.protocol.schema import Schema

CONTENT = PinnedContent(
    Schema(2, ("age", "größe")),
    InputGrid.of(2, [-0.0, 0.0], [1.0, 2.0], [0.5, 0.25]),
    Output(Task.CLASSIFICATION, 1, ("no", "yes"), Link.LOGISTIC),
)


def text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def test_the_encoding_is_the_documented_one() -> None:
    """Written by hand from the module's docstring."""
    encoded = b"".join(
        [
            text("sealserve-pin-1"),
            struct.pack("<II", 2, 2),
            text("age"),
            text("größe"),
            struct.pack("<I", 0),
            struct.pack("<I6d", 2, 0.0, 0.0, 1.0, 2.0, 0.5, 0.25),
            b"\x00\x00",
            struct.pack("<I", 0),
            text("classification"),
            struct.pack("<I", 1),
            text("logistic"),
            b"\x00\x00",
            text("str"),
            struct.pack("<I", 2),
            text("no"),
            text("yes"),
            struct.pack("<I", 1),
            text("none"),
            struct.pack("<I", 0),
        ]
    )
    assert CONTENT.digest == hashlib.sha256(encoded).hexdigest()
    assert CONTENT.digest == "1644f5979bbcb35138cc9ad9234f7c517d42f267647be003839005d090d0a281"


def test_curves_are_encoded_as_documented() -> None:
    curves = Curve((-0.0, 1.0), (0.25, 0.5)), Curve((3.0,), (1.0,))
    content = PinnedContent(
        CONTENT.schema, CONTENT.grid, Output(Task.CLASSIFICATION, 2, (0, 1), Link.CURVES, curves=curves)
    )
    end = text("none") + struct.pack("<II4dI2d", 2, 2, 0.0, 1.0, 0.25, 0.5, 1, 3.0, 1.0)
    assert b"".join(content._encoded()).endswith(struct.pack("<I", 1) + end)


@st.composite
def contents(draw: st.DrawFn) -> PinnedContent:
    count = draw(st.integers(1, 3))
    names = draw(st.just([]) | st.lists(st.text(max_size=5), min_size=count, max_size=count, unique=True))
    lows = draw(st.lists(st.floats(-1e6, 1e6), min_size=count, max_size=count))
    steps = draw(st.lists(st.floats(0.125, 8.0), min_size=count, max_size=count))
    kinds: list[st.SearchStrategy[Any]] = [
        st.text(max_size=5).filter(lambda label: not label.endswith("\0")),  # no output has such a label
        st.integers(-(2**63), 2**63 - 1),
        st.floats(-1e9, 1e9),
        st.booleans(),
    ]
    labels = draw(st.sampled_from(kinds).flatmap(lambda kind: st.lists(kind, min_size=2, max_size=2, unique=True)))
    output = draw(
        st.sampled_from(
            [
                Output(Task.CLASSIFICATION, 1, tuple(labels), Link.LOGISTIC),
                Output(Task.MULTILABEL, 2, tuple(labels), keeps_zero_rows=True),
                Output(Task.REGRESSION, 1, scalar_target=True),
                Output(Task.REGRESSION, 1, link=Link.LOG),
                Output(Task.CLASSIFICATION, 2, tuple(labels), Link.LOGISTIC, member_count=2),
                Output(Task.CLASSIFICATION, 1, tuple(labels), Link.CURVES, curves=(Curve((0.0,), (0.5,)),)),
                Output(Task.CLASSIFICATION, 1, tuple(labels), Link.CURVES, curves=(Curve((0.0,), (0.25,)),)),
                Output(Task.CLASSIFICATION, 3, (1, 2, 3)),
                Output(Task.CLASSIFICATION, 3, (1, 2, 3), pairwise=Pairwise.VOTES),
                Output(Task.CLASSIFICATION, 3, (1, 2, 3), pairwise=Pairwise.CONFIDENCES),
            ]
        )
    )
    return PinnedContent(Schema(count, tuple(names)), InputGrid.of(count, lows, [v + 1 for v in lows], steps), output)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=contents(), other=contents())
def test_files_keep_everything_and_different_contents_differ(
    one: PinnedContent, other: PinnedContent, tmp_path: Path
) -> None:
    path = tmp_path / "pin"
    Pin(one.digest, one).save(path)
    assert path.read_text().isascii()
    back = Pin.read(path)
    assert back.digest == one.digest
    assert back.content is not None
    assert back.content.difference(one) == ""
    assert back.content.to_json() == one.to_json()
    is_equal = one.difference(other) == ""
    assert is_equal == (one.digest == other.digest)


def with_groups(*group: int, exactly_one: bool = True) -> PinnedContent:
    constraints = RowConstraints.of(2, group, [exactly_one] * max(group, default=0))
    return dataclasses.replace(CONTENT, grid=InputGrid.of(2, 0.0, 1.0, 1.0, True, constraints))


def test_groups_are_pinned(tmp_path: Path) -> None:
    """The encoding is that of the module's docstring."""
    pinned = with_groups(1, 1)
    encoded = b"".join(pinned._encoded())
    grid = struct.pack("<I6d", 2, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0) + b"\x01\x01"
    assert grid + struct.pack("<3I", 1, 1, 1) + b"\x01" + text("classification") in encoded
    Pin(pinned.digest, pinned).save(tmp_path / "pin")
    back = Pin.read(tmp_path / "pin").content
    assert back is not None
    assert back.digest == pinned.digest
    others = [with_groups(), with_groups(1, 2), with_groups(1, 1, exactly_one=False), with_groups(0, 1)]
    for other in others:
        assert back.difference(other) == "its groups of features are others"
    assert len({content.digest for content in (pinned, *others)}) == 5


def test_a_digest_is_a_pin_of_its_own() -> None:
    assert Pin.read(CONTENT.digest.upper()) == Pin(CONTENT.digest)
    with pytest.raises(InputError, match="cannot be saved"):
        Pin(CONTENT.digest).save("pin")


@pytest.mark.parametrize(
    "data",
    [
        "",
        "[]",
        "nonsense",
        "{}",
        '{"format": "sealserve-pin-9"}',
        '{"format": "sealserve-pin-1"}',
        '{"format": "sealserve-pin-1", "columns": {}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_pin_is_refused(data: str, tmp_path: Path) -> None:
    path = tmp_path / "pin"
    path.write_text(data)
    with pytest.raises(InputError, match="is no pin of a model"):
        Pin.read(path)
    with pytest.raises(InputError, match="a digest"):
        Pin.read(tmp_path / "missing")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("grid.maximum", 3.0),
        ("grid.features", 3),
        ("grid.step", [0.5, float("nan")]),
        ("grid.features", 1 << 60),
        ("grid.groups", {"group": [1, 1], "exactly_one": [True]}),
        ("grid.groups", {"group": [1 << 70, 1], "exactly_one": [True]}),
        ("grid.groups", []),
        ("columns.names", ["a\ud800", "b"]),
        ("columns.count", 1),
        ("steps", [{"kind": "tomorrow's"}]),
        ("output.task", "regression"),
        ("output.classes", ["yes", "no"]),
        ("output.labels", "int"),
        ("digest", "0" * 64),
    ],
)
def test_no_part_of_a_file_can_be_changed(place: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "pin"
    Pin(CONTENT.digest, CONTENT).save(path)
    content = json.loads(path.read_text())
    *outer, name = place.split(".")
    (content[outer[0]] if outer else content)[name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError):
        Pin.read(path)


def test_a_hostile_name_is_escaped_in_the_difference_and_in_the_file(tmp_path: Path) -> None:
    hostile = PinnedContent(Schema(2, ("age", "\x1b[2J\n")), CONTENT.grid, CONTENT.output)
    assert CONTENT.difference(hostile).isprintable()
    error = UnexpectedModelError(CONTENT.difference(hostile))
    assert "column 1 is" in str(error)
    Pin(hostile.digest, hostile).save(tmp_path / "pin")
    assert all(line.isprintable() for line in (tmp_path / "pin").read_text().splitlines())


def test_columns_without_names_stay_so_in_a_file(tmp_path: Path) -> None:
    kinds = ColumnKind.NUMBER, ColumnKind.STRING, ColumnKind.UNUSED
    schema = Schema.of([Column("", kind, allows_missing=True) for kind in kinds])
    content = dataclasses.replace(CONTENT, schema=schema, steps_id="0" * 64)
    Pin(content.digest, content).save(tmp_path / "pin")
    read = Pin.read(tmp_path / "pin").content
    assert read is not None
    assert read.schema == schema
    assert content.difference(read) == ""
