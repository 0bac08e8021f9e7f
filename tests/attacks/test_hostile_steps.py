"""A hostile service chooses the steps: to exhaust a client, to crash it, or to read its rows.

Each program is refused before work is spent on it, with a typed error. What the client sends does
not depend on what a step or a column refuses.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import random
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from sealserve._codec.codec import RowCodec
from sealserve.aio import AsyncClient
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import InputError, ParameterError, RequirementError, SealserveError
from sealserve.he.quantization import InputGrid, Quantized
from sealserve.protocol import wire
from sealserve.protocol.column import Column
from sealserve.protocol.schema import Schema
from sealserve.protocol.wire import _steps
from sealserve.row_files.reader import RowsFile
from sealserve.steps import limits, text
from sealserve.steps.arithmetic import Monomials
from sealserve.steps.step import ValueKind
from sealserve.steps.trees import Trees
from sealserve.v1 import model_pb2, steps_pb2
from tests.support.hostile_service import running_hostile
from tests.support.recording_service import Answer, Event, Sent, accepted, described, recording_service
from tests.support.serving import HANG_SECONDS
from tests.support.step_models import PROGRAM, ROWS, served_with_steps
from tests.support.step_vectors import programs

SERVED = served_with_steps()
SPARE_BYTES = 8 << 20  # caches of NumPy and protobuf
STEPS = steps_pb2.InputSteps.FromString(SERVED.steps)


def of(*steps: steps_pb2.Step, columns: int = 1, outputs: int = 1) -> steps_pb2.InputSteps:
    """A program of columns of numbers."""
    return steps_pb2.InputSteps(
        columns=[steps_pb2.VALUE_KIND_NUMBER] * columns,
        steps=steps,
        outputs=[steps_pb2.ValueRange(first=0, count=outputs)],
    )


def step(first: int = 0, count: int = 1, **kind: Any) -> steps_pb2.Step:
    return steps_pb2.Step(inputs=[steps_pb2.ValueRange(first=first, count=count)], **kind)


def trees(**changes: Any) -> steps_pb2.Step:
    lists: dict[str, Any] = {
        "node_counts": [3],
        "left": [1, 0, 0],
        "right": [2, 0, 0],
        "features": [0, 0, 0],
        "thresholds": [0.5, 0, 0],
        "misses_left": [False] * 3,
    }
    return step(trees=steps_pb2.Trees(**(lists | changes)))


def chain(depth: int) -> steps_pb2.Step:
    """A tree whose every second node is a leaf."""
    inner = np.arange(0, 2 * depth, 2)
    left, right = np.zeros(2 * depth + 1, int), np.zeros(2 * depth + 1, int)
    left[inner], right[inner] = inner + 1, inner + 2
    zeros = [0] * (2 * depth + 1)
    return trees(
        node_counts=[2 * depth + 1], left=left, right=right, features=zeros, thresholds=zeros, misses_left=zeros
    )


def one_hot(width: int, places: list[int], **categories: Any) -> steps_pb2.Step:
    column = steps_pb2.OneHotColumn(categories=steps_pb2.Categories(**categories), width=width, places=places)
    return step(one_hot=steps_pb2.OneHot(columns=[column]))


def words(**arguments: Any) -> steps_pb2.InputSteps:
    message = steps_pb2.Text(**({"tokens": 1, "strip_accents": 1, "ngram_min": 1, "ngram_max": 1} | arguments))
    program = of(steps_pb2.Step(inputs=[steps_pb2.ValueRange(first=0, count=1)], text=message))
    program.columns[0] = steps_pb2.VALUE_KIND_TEXT
    program.outputs[0].first = 1
    return program


def words_of_steps(*arguments: dict[str, Any]) -> steps_pb2.InputSteps:
    """A program of several steps of one text."""
    program = words(**arguments[0])
    for more in arguments[1:]:
        program.steps.extend(words(**more).steps)
    return program


def affine() -> steps_pb2.Step:
    return step(affine=steps_pb2.Affine())


MANY_CALLS = limits.MAX_RULES + 1
HUGE = (1 << 32) - 1
REFUSED: dict[str, tuple[Any, str]] = {
    "cycle": (of(step(first=1, affine=steps_pb2.Affine())), "does not exist yet"),
    "cycle in a tree": (of(trees(left=[1, 1, 0], right=[1, 2, 0])), "cycles"),
    "parent after its child": (of(trees(left=[1, 0, 1], right=[2, 0, 2])), "cycles"),
    "two parents": (
        of(
            trees(
                node_counts=[5],
                left=[1, 3, 3, 0, 0],
                right=[2, 4, 4, 0, 0],
                features=[0] * 5,
                thresholds=[0] * 5,
                misses_left=[0] * 5,
            )
        ),
        "several nodes",
    ),
    "child in another tree": (of(trees(left=[4, 0, 0])), "not in its tree"),
    "deep tree": (of(chain(limits.MAX_DEPTH + 1)), "deeper"),
    "nodes that are not there": (of(trees(node_counts=[HUGE])), "too large"),
    "many nodes": (of(trees(node_counts=[limits.MAX_NODES + 1])), "more than"),
    "set of categories": (
        of(trees(category_splits=[steps_pb2.CategorySplit(node=0, left=[HUGE])])),
        "too large",
    ),
    "table of categories": (
        of(
            trees(
                node_counts=[3] * 300,
                left=[1, 0, 0] * 300,
                right=[2, 0, 0] * 300,
                features=[0] * 900,
                thresholds=[0] * 900,
                misses_left=[0] * 900,
                category_splits=[
                    steps_pb2.CategorySplit(node=3 * k, left=[limits.MAX_CATEGORY - 1]) for k in range(300)
                ],
            )
        ),
        "too many categories",
    ),
    "many trees": (
        of(
            trees(
                node_counts=[1] * MANY_CALLS,
                left=[0] * MANY_CALLS,
                right=[0] * MANY_CALLS,
                features=[0] * MANY_CALLS,
                thresholds=[0] * MANY_CALLS,
                misses_left=[0] * MANY_CALLS,
            )
        ),
        "operations on a row",
    ),
    "many rules": (
        steps_pb2.InputSteps(
            columns=[steps_pb2.VALUE_KIND_NUMBER],
            steps=[
                steps_pb2.Step(
                    inputs=[steps_pb2.ValueRange(count=1)] * MANY_CALLS,
                    bins=steps_pb2.Bins(columns=[steps_pb2.BinsColumn(missing_bin=0)] * MANY_CALLS),
                )
            ],
            outputs=[steps_pb2.ValueRange(count=1)],
        ),
        "rules for",
    ),
    "many splits": (
        of(trees(category_splits=[steps_pb2.CategorySplit()] * MANY_CALLS)),
        "rules for",
    ),
    "endless inputs": (of(step(count=HUGE, affine=steps_pb2.Affine())), "inputs"),
    "endless outputs": (of(affine(), outputs=HUGE), "longer"),
    "a range of nothing": (of(step(count=0, affine=steps_pb2.Affine())), "empty"),
    "many inputs of many steps": (
        of(*[step(count=1 << 20, affine=steps_pb2.Affine())] * 5, columns=1),
        "inputs together",
    ),
    "wide one-hot": (of(one_hot(HUGE, [0, 0, 0], numbers=[1.0])), "outputs"),
    "many wide one-hots": (of(*[one_hot(1 << 20, [0, 0, 0], numbers=[1.0])] * 3), "values"),
    "wide hash": (words(hash_width=HUGE), "hashes"),
    "many sizes of n-grams": (
        words_of_steps(*[{"hash_width": 1, "ngram_max": limits.MAX_NGRAM}] * 17),
        "operations on a row",
    ),
    "long n-grams": (words(vocabulary=["a"], ngram_max=HUGE), "n-grams"),
    "long words": (words(vocabulary=["a"], min_word_length=HUGE), "length of words"),
    "long term": (words(vocabulary=["a" * (limits.MAX_TEXT_BYTES + 1)]), "bytes"),
    "many steps": (of(*[affine()] * (limits.MAX_STEPS + 1)), "too many steps"),
    "many terms": (words(vocabulary=map(str, range(limits.MAX_CATEGORIES + 1))), "categories and terms"),
    "many operations": (
        of(
            *[step(monomials=steps_pb2.Monomials(degrees=[32, *[0] * ((1 << 18) - 1)], factors=[0] * 32))] * 5,
        ),
        "operations on a row",
    ),
    "high degree": (
        of(step(piecewise=steps_pb2.Piecewise(columns=[steps_pb2.PiecewiseColumn(origins=[0], degree=HUGE, width=1)]))),
        "numbers are needed",
    ),
    "many factors": (of(step(monomials=steps_pb2.Monomials(degrees=[33], factors=[0] * 33))), "factors"),
    "matrix of another shape": (of(step(matrix=steps_pb2.Matrix(weights=[1.0] * 3, intercepts=[0.0] * 2))), "shape"),
    "text as a number": (words(vocabulary=["a"]), "other columns"),
    "not finite": (of(step(affine=steps_pb2.Affine(multiply=[np.nan]))), "not finite"),
    "division by zero": (of(step(affine=steps_pb2.Affine(divide=[0.0]))), "divide is 0"),
    "mixed categories": (of(one_hot(1, [1, 1, 0, 0], numbers=[1.0], texts=["a"])), "either numbers or texts"),
    "no steps and no outputs": (steps_pb2.InputSteps(), "no columns"),
    "no bytes": (b"", "no columns"),
    "no message": (b"\xff\xff", "malformed"),
}


def serve(data: bytes, *, sent: bytes | None = None, **changes: Any) -> Any:
    """Run a hostile service that publishes these steps, or that announces them and sends others."""
    model = wire.model_to_proto(SERVED.model)
    model.input.steps_id, model.input.steps_bytes = hashlib.sha256(data).hexdigest(), max(1, len(data))
    for name, value in changes.items():
        setattr(model.input, name, value)
    sending = data if sent is None else sent

    def pieces(request: Any, context: grpc.ServicerContext) -> Iterator[model_pb2.GetInputStepsResponse]:
        for start in range(0, len(sending), 1 << 20):
            yield model_pb2.GetInputStepsResponse(piece=sending[start : start + (1 << 20)])

    return running_hostile(model, GetInputSteps=pieces)


def failure(address: str) -> SealserveError:
    """The error of a client that predicts."""
    with Client(address, timeout_seconds=HANG_SECONDS) as client, pytest.raises(SealserveError) as caught:
        client.predict(ROWS)
    return caught.value


# Steps that are refused


@pytest.mark.parametrize("what", REFUSED)
def test_steps_that_are_absurd_are_refused_with_little_memory(what: str) -> None:
    message, expected = REFUSED[what]
    data = message if isinstance(message, bytes) else message.SerializeToString()
    tracemalloc.start()
    try:
        before = time.process_time()
        with pytest.raises(ParameterError, match=expected):
            SERVED.model.with_steps(wire.steps_from_bytes(data))
        assert time.process_time() - before < HANG_SECONDS
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 60 * len(data) + SPARE_BYTES


@pytest.mark.parametrize("what", ["cycle", "deep tree", "no message"])
def test_a_client_sends_nothing_after_absurd_steps(what: str) -> None:
    message, expected = REFUSED[what]
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with serve(data) as (service, address):
        error = failure(address)
    assert isinstance(error, ParameterError)
    assert expected in str(error)
    assert service.calls == ["GetModel", "GetInputSteps"]


def test_without_the_limit_a_few_bytes_take_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack, as it would be."""
    message, _ = REFUSED["many inputs of many steps"]
    data = message.SerializeToString()
    monkeypatch.setattr(_steps, "MAX_INPUTS", 1 << 40)
    tracemalloc.start()
    try:
        with pytest.raises(ParameterError):
            wire.steps_from_bytes(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak > 100_000 * len(data)


def test_a_value_that_is_read_again_and_again_takes_memory_for_a_few_rows_only() -> None:
    """The attack: if values alone bound a block, 32 rows of 2^19 inputs each are one block."""
    inputs = [steps_pb2.ValueRange(first=0, count=1)] * (1 << 19)
    monomials = steps_pb2.Monomials(degrees=[1], factors=[0])
    message = of(steps_pb2.Step(inputs=inputs, monomials=monomials))
    rows = np.ones((32, 1))

    def peak(rows_a_block: int | None) -> int:
        program = wire.steps_from_bytes(message.SerializeToString())
        if rows_a_block is not None:
            vars(program)["_rows_a_block"] = rows_a_block
        tracemalloc.start()
        try:
            program.features(rows)
            program.refusing_columns(rows)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(len(rows)) > 32 * 8 * (1 << 19)
    assert peak(None) < 8 * 8 * (1 << 19)


def test_tables_of_categories_of_many_steps_take_no_more_than_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a few hundred bytes has a table of 4 MB."""
    nodes = 64
    splits = [steps_pb2.CategorySplit(node=3 * k, left=[limits.MAX_CATEGORY - 1]) for k in range(nodes)]
    one = trees(
        node_counts=[3] * nodes,
        left=[1, 0, 0] * nodes,
        right=[2, 0, 0] * nodes,
        features=[0] * 3 * nodes,
        thresholds=[0] * 3 * nodes,
        misses_left=[0] * 3 * nodes,
        category_splits=splits,
    )
    data = of(*[one] * 12).SerializeToString()

    def peak() -> int:
        tracemalloc.start()
        try:
            with contextlib.suppress(ParameterError):
                wire.steps_from_bytes(data)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with pytest.raises(ParameterError, match="categories of nodes together"):
        wire.steps_from_bytes(data)
    assert peak() <= limits.MAX_MEMBERSHIPS + SPARE_BYTES
    monkeypatch.setattr(_steps, "MAX_MEMBERSHIPS", 1 << 40)
    assert peak() > 2 * limits.MAX_MEMBERSHIPS


def test_no_ranges_are_derived_of_hostile_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 2^20 products take half a minute. What is read off the grid needs none of them."""

    def ranges(*_: Any) -> Any:
        raise AssertionError("ranges are derived")

    monkeypatch.setattr(Monomials, "ranges", ranges)
    unit = InputGrid.of(2, 0.0, 1.0, 1.0, keeps=True)
    model = dataclasses.replace(SERVED.model, schema=Schema.of([Column("x")]), grid=unit)
    products = step(monomials=steps_pb2.Monomials(degrees=[1], factors=[0]))
    encoded = one_hot(2, [1, 2, 0, 0], numbers=[0.0, 1.0])
    encoded.inputs[0].first = 1
    program = of(products, encoded)
    for first, is_quick in ((1, False), (2, True)):
        program.outputs[0].first, program.outputs[0].count = first, 2
        found = model.with_steps(wire.steps_from_bytes(program.SerializeToString()))
        assert found.grid.has_indicators_only == is_quick


def test_without_the_check_of_children_a_cycle_has_no_deepest_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack, as it would be: a tree that leads back to its root is as deep as any limit."""
    message, _ = REFUSED["cycle in a tree"]
    monkeypatch.setattr(Trees, "_check_children", lambda self: None)
    for limit in (10, 1000):
        monkeypatch.setattr("sealserve.steps.trees.MAX_DEPTH", limit)
        with pytest.raises(ParameterError, match=f"deeper than {limit}"):
            wire.steps_from_bytes(message.SerializeToString())


def unknown() -> Iterator[tuple[str, bytes]]:
    later = of(affine())
    data = later.SerializeToString()
    yield "kind", of(steps_pb2.Step(inputs=[steps_pb2.ValueRange(first=0, count=1)])).SerializeToString()
    kind = b"\xfa\x01\x00"  # field 31, which no kind has
    inputs = steps_pb2.Step(inputs=[steps_pb2.ValueRange(first=0, count=1)]).SerializeToString()
    body = inputs + kind
    yield (
        "field",
        steps_pb2.InputSteps(columns=[steps_pb2.VALUE_KIND_NUMBER]).SerializeToString()
        + b"\x12"
        + bytes([len(body)])
        + body,
    )
    elementwise, normalize = steps_pb2.Elementwise(), steps_pb2.Normalize()
    elementwise.function, normalize.norm = 99, 99  # type: ignore[assignment]
    yield "function", of(step(elementwise=elementwise)).SerializeToString()
    yield "norm", of(step(normalize=normalize)).SerializeToString()
    yield "tokens", words(vocabulary=["a"], tokens=99).SerializeToString()
    yield "accents", words(vocabulary=["a"], strip_accents=99).SerializeToString()
    later.columns[0] = 99  # type: ignore[call-overload]
    yield "value", later.SerializeToString()
    assert data


UNKNOWN = dict(unknown())


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_is_of_a_later_version_asks_for_an_update(what: str) -> None:
    with serve(UNKNOWN[what]) as (service, address):
        error = failure(address)
    assert isinstance(error, RequirementError)
    assert "update sealserve" in str(error)
    assert service.calls == ["GetModel", "GetInputSteps"]


# The bytes of the steps


@pytest.mark.parametrize(
    ("sent", "changes", "expected"),
    [
        (SERVED.steps[:-1] + b"\x00", {}, "SHA-256"),
        (SERVED.steps[:-1], {}, "another size"),
        (SERVED.steps + b"\x00", {}, "another size"),
        (b"", {}, "another size"),
        (None, {"steps_bytes": limits.MAX_STEPS_BYTES + 1}, "bytes"),
        (None, {"steps_bytes": 0}, "bytes"),
        (None, {"steps_id": "x" * 64}, "SHA-256"),
        (None, {"steps_id": "0" * 63}, "SHA-256"),
        (None, {"steps_id": ""}, "each column is a feature"),
    ],
)
def test_other_bytes_than_described_are_refused(sent: bytes | None, changes: dict[str, Any], expected: str) -> None:
    with serve(SERVED.steps, sent=sent, **changes) as (service, address):
        error = failure(address)
    assert isinstance(error, ParameterError)
    assert expected in str(error)
    assert set(service.calls) <= {"GetModel", "GetInputSteps"}


@pytest.mark.parametrize("piece", [b"", b"\x00" * 1000], ids=["empty", "full"])
def test_a_stream_of_pieces_without_end_is_left(piece: bytes) -> None:
    seen = list[int]()

    def endless(request: Any, context: grpc.ServicerContext) -> Iterator[model_pb2.GetInputStepsResponse]:
        while context.is_active():
            seen.append(len(piece))
            yield model_pb2.GetInputStepsResponse(piece=piece)

    async def predict(address: str) -> None:
        async with AsyncClient(address, timeout_seconds=HANG_SECONDS) as client:
            await client.predict(ROWS)

    with running_hostile(wire.model_to_proto(SERVED.model), GetInputSteps=endless) as (_, address):
        assert "another size" in str(failure(address))
        with pytest.raises(ParameterError, match="another size"):
            asyncio.run(predict(address))


def test_empty_messages_take_no_more_than_thirty_times_their_bytes() -> None:
    """The worst of a program's bytes: steps without content, two bytes each."""
    program = f"""
from pathlib import Path
from sealserve.errors import ParameterError
from sealserve.protocol import wire

def peak():  # of this program: what getrusage says includes the process that started it
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10

data = bytes([18, 0]) * {4 << 20}
before = peak()
try:
    wire.steps_from_bytes(data)
except ParameterError:
    print(peak() - before)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    grown = int(found.stdout)
    assert 8 << 20 < grown <= 30 * (8 << 20) + SPARE_BYTES
    with pytest.raises(ParameterError, match="more than 16777216"):
        wire.steps_from_bytes(bytes(limits.MAX_STEPS_BYTES + 1))


def test_mutated_steps_are_refused_with_a_typed_error_or_compute_something() -> None:
    """Of every kind of step. Whatever survives its reader can be applied to any row."""
    random_bytes, refused, applied = random.Random(18), 0, 0
    for name, (program, rows) in programs().items():
        data = wire.steps_to_bytes(program).data
        is_text = any(kind is ValueKind.TEXT for kind in program.columns)
        array = np.empty((len(rows), program.column_count), object if is_text else np.float64)
        array[:] = rows
        for _ in range(40):
            mutated = bytearray(data)
            for _ in range(random_bytes.choice((1, 1, 2, 8))):
                mutated[random_bytes.randrange(len(mutated))] = random_bytes.randrange(256)
            try:
                survivor = wire.steps_from_bytes(bytes(mutated))
            except (ParameterError, RequirementError):
                refused += 1
                continue
            if tuple(survivor.columns) == tuple(program.columns) and survivor.value_count < 1 << 16:
                found = survivor.features(array)
                survivor.refusing_columns(array)
                assert found.values.shape == (len(rows), survivor.feature_count), name
                assert np.isnan(found.values[found.is_refused]).all(), name
                applied += 1
    assert refused > 200
    assert applied > 200


def test_columns_that_make_no_sense_are_refused() -> None:
    def changed(**fields: Any) -> model_pb2.Model:
        message = wire.model_to_proto(SERVED.model)
        for name, value in fields.items():
            setattr(message.input.columns[0], name, value)
        return message

    for fields, expected in (
        ({"name": "city"}, "one name"),
        ({"name": "a" * 5000}, "bytes"),
        ({"minimum": np.nan}, "range"),
        ({"minimum": 121.0}, "range"),
        ({"kind": 99}, "update sealserve"),
        ({"kind": 0}, "update sealserve"),
        ({"kind": model_pb2.Column.KIND_STRING}, "no range"),
    ):
        with pytest.raises(ParameterError, match=expected):
            wire.model_from_proto(changed(**fields))
    without = wire.model_to_proto(SERVED.model)
    del without.input.columns[:]
    with pytest.raises(ParameterError, match="no columns"):
        wire.model_from_proto(without)
    both = wire.model_to_proto(SERVED.model)
    both.input.feature_names.extend("abcdefgh")
    with pytest.raises(ParameterError, match="beside the names"):
        wire.model_from_proto(both)
    unread = wire.model_to_proto(SERVED.model)
    for column in unread.input.columns:
        column.ClearField("minimum")
        column.ClearField("maximum")
        column.kind = model_pb2.Column.KIND_UNUSED
    with pytest.raises(ParameterError, match="no step reads any"):
        wire.model_from_proto(unread)
    nameless = wire.model_to_proto(SERVED.model)
    for column in nameless.input.columns:
        column.name = ""
    assert wire.model_from_proto(nameless).schema.column_names == ()


# What is sent


MODEL = described(SERVED.model, layout="row")
SAME = {"age": [60.0], "children": [1], "owner": [True], "city": ["Rome"], "note": ["good"]}
ONE_ROW: dict[str, dict[str, Any]] = {
    "good": SAME,
    "missing": SAME | {"children": [np.nan]},
    "out of range": SAME | {"age": [1e9]},
    "unknown": SAME | {"city": ["Lima"]},
    "no text": SAME | {"note": [None]},
    "off the grid": SAME | {"note": ["good good"]},
    "long": SAME | {"note": ["x" * 20_000]},
    "no integer": SAME | {"children": [0.5]},
}


def trace_of(rows: Any, **arguments: Any) -> list[Event]:
    """What a service sees of a client that predicts rows twice: an error says nothing to it."""

    def answer(sent: Sent) -> Answer:
        return accepted(MODEL, sent)

    with recording_service(MODEL, answer) as service:
        service.steps = SERVED.steps
        with Client(service.address, timeout_seconds=HANG_SECONDS, **arguments) as client:
            for _ in range(2):
                with contextlib.suppress(InputError):
                    client.predict(rows)
        return list(service.trace)


def refuse_first(self: RowCodec, rows: NDArray[Any]) -> Quantized:
    """Refuse rows before anything is sent, as a client would without dummies."""
    quantized = self.model.grid.quantize(self.model.features(rows))
    if quantized.is_refused.any():
        raise self.refusal(rows)
    return quantized


@pytest.mark.parametrize("what", ["missing", "out of range", "unknown", "no text", "off the grid", "no integer"])
def test_a_client_that_refused_first_would_tell_what_a_step_refuses(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RowCodec, "quantize", refuse_first)
    assert trace_of(ONE_ROW[what]) != trace_of(ONE_ROW["good"])


def test_what_is_sent_does_not_depend_on_what_a_column_or_a_step_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "MAX_CHARACTERS", 10_000)
    traces = [trace_of(rows) for rows in ONE_ROW.values()]
    assert traces.count(traces[0]) == len(traces)
    assert any(event[0] == "Predict" for event in traces[0])


def trace_of_file(rows: dict[str, Any], path: Path) -> list[Event]:
    """What a service sees of `sealserve predict` for a file of rows."""
    frame = pd.DataFrame(rows)
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    with recording_service(MODEL, lambda sent: accepted(MODEL, sent)) as service:
        service.steps = SERVED.steps
        main(["predict", "--address", service.address, "--input", str(path)])
        return list(service.trace)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_sent_of_a_file_does_not_depend_on_what_is_refused(suffix: str, tmp_path: Path) -> None:
    traces = [trace_of_file(rows, tmp_path / f"rows{suffix}") for what, rows in ONE_ROW.items() if what != "long"]
    assert traces.count(traces[0]) == len(traces)
    assert any("redict" in event[0] for event in traces[0])


def read_first(self: RowsFile, schema: Schema) -> NDArray[Any]:
    """Read a file and refuse what its columns do not take, before anything is sent."""
    rows = READ(self, schema)
    if schema.is_refused(rows, clip=False).any():
        raise InputError("refused")
    return rows


READ = RowsFile.read


@pytest.mark.parametrize("what", ["missing", "out of range", "no text", "no integer"])
def test_a_reader_that_refused_first_would_tell_what_a_column_refuses(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowsFile, "read", read_first)
    path = tmp_path / "rows.parquet"
    assert trace_of_file(ONE_ROW[what], path) != trace_of_file(ONE_ROW["good"], path)


def test_rows_for_which_a_step_has_no_memory_travel_as_dummies(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trace_of(ONE_ROW["good"])

    def no_memory(*arguments: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("sealserve.steps.text.Text.ngrams", no_memory)
    assert trace_of(ONE_ROW["good"]) == expected


def test_steps_take_one_path_for_all_rows() -> None:
    """The same calls of the interpreter, whatever the values are."""

    def calls(rows: NDArray[Any]) -> list[str]:
        found = list[str]()
        for known in PROGRAM.steps:
            kind = type(known)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(kind, "apply", _noted(kind.apply, found))
                PROGRAM.features(rows)
        return found

    rows = [SERVED.model.schema.rows(rows) for rows in ONE_ROW.values()]
    seen = [calls(each) for each in rows]
    assert seen.count(seen[0]) == len(seen)
    assert len(seen[0]) >= len(PROGRAM.steps)


def _noted(function: Any, found: list[str]) -> Any:
    def note(step: Any, values: Any, is_refused: Any) -> Any:
        found.append(f"{type(step).__name__} {values.shape}")
        return function(step, values, is_refused)

    return note
