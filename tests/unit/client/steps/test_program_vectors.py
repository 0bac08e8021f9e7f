"""The files of tests/vectors/steps: enough for an interpreter in another language."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest

from sealserve.he.quantization import InputGrid
from sealserve.protocol import wire
from sealserve.v1 import steps_pb2
from tests.support.step_vectors import FOLDER, programs, text_of, vector

FILES = sorted(path.stem for path in FOLDER.glob("*.json"))


def number(value: Any) -> Any:
    """Read a value as JSON has it."""
    return float(value.lower()) if value in ("NaN", "Infinity", "-Infinity") else value


def read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def test_every_kind_and_function_has_a_file() -> None:
    assert set(FILES) == set(programs())
    kinds = {field.name for field in steps_pb2.Step.DESCRIPTOR.oneofs_by_name["kind"].fields}
    programs_of_files = [steps_pb2.InputSteps.FromString(base64.b64decode(read(name)["steps"])) for name in FILES]
    found = {step.WhichOneof("kind") for program in programs_of_files for step in program.steps}
    functions = {step.elementwise.function for program in programs_of_files for step in program.steps}
    assert functions == set(steps_pb2.Elementwise.Function.values())  # 0 is that of other steps
    assert found == kinds


@pytest.mark.parametrize("name", FILES)
def test_a_file_alone_gives_its_features_and_cells(name: str) -> None:
    content = read(name)
    program = wire.steps_from_bytes(base64.b64decode(content["steps"]))
    assert [kind.value for kind in program.columns] == content["columns"]
    rows = np.empty((len(content["rows"]), program.column_count), object)
    rows[:] = [list(map(number, row)) for row in content["rows"]]
    found = program.features(rows)
    assert found.is_refused.tolist() == content["refused"]
    expected = [
        [math.nan] * program.feature_count if row is None else list(map(number, row)) for row in content["features"]
    ]
    np.testing.assert_allclose(found.values, np.array(expected, np.float64), rtol=1e-12, atol=1e-300)
    integers, is_refused = InputGrid.of(program.feature_count, **content["grid"]).quantize(found.values)
    cells = [None if refused else row for row, refused in zip(integers.tolist(), is_refused.tolist(), strict=True)]
    assert cells == content["cells"]
    assert any(row is not None for row in cells)


def test_files_are_what_the_programs_give() -> None:
    """Features may differ in the last bits between machines: they are compared above."""
    for name, (program, rows) in programs().items():
        written = read(name)
        found = json.loads(text_of(vector(program, rows)))
        for key in ("steps", "columns", "rows", "refused", "grid", "cells"):
            assert written[key] == found[key], f"{name}: {key}: run python -m tests.support.step_vectors"
