"""Vectors of published steps, for interpreters in other languages.

`python -m tests.support.step_vectors` writes tests/vectors/steps, a file for each program:

    steps      a serialized InputSteps, in base64
    columns    the kind of each column, "number" or "text"
    rows       rows of columns: numbers, strings, null for a missing text, and "NaN", "Infinity" or
               "-Infinity" for numbers that JSON has not
    refused    which rows a step refuses
    features   the features of each row; null for a refused row. Up to 1e-12, relative
    grid       the minimum, the maximum and the step of each feature
    cells      the integer of each feature on this grid; null for a row that steps or grid refuse.
               They are exact
"""

import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from sealserve.he.quantization import InputGrid
from sealserve.protocol import wire
from sealserve.steps.arithmetic import Affine, Matrix, Monomials, Norm, Normalize
from sealserve.steps.categories import Categories, Lookup, LookupColumn, OneHot, OneHotColumn
from sealserve.steps.elementwise import Elementwise, Function
from sealserve.steps.gaps import Impute, Missing
from sealserve.steps.intervals import Bins, BinsColumn, Piecewise, PiecewiseColumn, Table, TableColumn
from sealserve.steps.program import Program
from sealserve.steps.step import Step, ValueKind
from sealserve.steps.text import StripAccents, Text, Tokens
from sealserve.steps.trees import CategorySplit, Trees
from tests.support.serving import ROOT
from tests.support.step_models import PROGRAM, ROWS

FOLDER = ROOT / "tests/vectors/steps"
NUMBERS: list[list[Any]] = [
    [0.5, -1.25],
    [0.1, 3.0],
    [float(np.float32(0.1)), 1.0],
    [math.nan, 0.0],
    [-0.0, math.nan],
    [math.inf, -math.inf],
    [1e-300, 1e300],
    [2.0, 2.0],
]
TEXTS: list[list[Any]] = [
    ["Rome"],
    ["rome "],
    [""],
    [None],
    ["the quick  brown\tfox, the fox"],
    ["caf\u00e9 CAFE\u0301 Stra\u00dfe \u0130x \u039f\u0394\u039f\u03a3"],
    ["\u0c5c \U0001f600 \u6771\u4eac \u0663x\u00b2 a_b"],
]
TREES = Trees(
    [0, 1],
    node_counts=np.array([5, 3, 1]),
    left=np.array([1, 3, 0, 0, 0, 1, 0, 0, 0]),
    right=np.array([2, 4, 0, 0, 0, 2, 0, 0, 0]),
    features=np.array([0, 1, 0, 0, 0, 1, 0, 0, 0]),
    thresholds=np.array([float(np.float32(0.1)), 0.0, 0, 0, 0, 0, 0, 0, 0]),
    misses_left=np.array([True, False, False, False, False, True, False, False, False]),
    rounds_to_float32=True,
    category_splits=[CategorySplit(5, np.array([1, 2]), np.array([0, 3]))],
)
STEPS: dict[str, Step] = {
    "impute": Impute([0, 1], np.array([7.0, 8.0])),
    "impute_number": Impute([0, 1], np.array([7.0, 8.0]), missing_number=2.0),
    "missing": Missing([0, 1]),
    "affine": Affine([0, 1], np.array([0.1, 0.2]), np.array([3.0, 7.0]), np.array([0.3, -1.0]), np.array([1e-3, 0.5])),
    "one_hot": OneHot([0], [OneHotColumn(Categories(np.array([0.0, 0.1, 2.0])), np.array([1, 2, 1, 3, 0]), 3)]),
    "lookup": Lookup([1], [LookupColumn(Categories(np.array([0.0, 3.0])), np.array([0.25, 4.0, -1.0, 9.0]))]),
    "lookup_refusing": Lookup(
        [1], [LookupColumn(Categories(np.array([0.0, 3.0]), refuses_missing=True, refuses_unknown=True), np.ones(4))]
    ),
    "bins": Bins([0, 1], [BinsColumn(np.array([0.1, 0.5, 0.5]), missing_bin=4), BinsColumn(np.array([1.0]), True, 0)]),
    "bins_one_hot": Bins([0, 0], [BinsColumn(np.array([0.1, 0.5]))] * 2, one_hot=True),
    "table": Table(
        [0, 1],
        [
            TableColumn(np.array([0.0, 0.1, 0.1, 2.0]), np.array([0.0, 0.2, 0.6, 1.0])),
            TableColumn(np.array([-1.25, 3.0]), np.array([0.0, 1.0]), tolerance=1e-7),
        ],
    ),
    "piecewise": Piecewise(
        [0, 1],
        [
            PiecewiseColumn(np.array([0.1, 1.0]), np.array([0.0, 0.1, 1.0]), np.arange(18.0).reshape(3, 3, 2) / 8),
            PiecewiseColumn(np.zeros(0), np.zeros(1), np.array([[[1.0], [0.5]]]), period=(0.0, 0.75)),
        ],
    ),
    "monomials": Monomials([0, 1], np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1, 1, 1])),
    "normalize_l1": Normalize([0, 1], Norm.L1),
    "normalize_l2": Normalize([0, 1], Norm.L2),
    "normalize_max": Normalize([0, 1], Norm.MAX),
    "matrix": Matrix([0, 1], np.array([[1.0, -0.5], [0.25, 0.0]]), np.array([0.125, -1.0])),
    "trees": TREES,
    **{
        f"elementwise_{function.value}": Elementwise([0, 1], function, *parameters)
        for function, parameters in {
            **dict.fromkeys((f for f in Function), ()),
            Function.CLIP: (np.zeros(2), np.ones(2)),
            Function.YEO_JOHNSON: (np.array([0.5, 2.0]),),
            Function.BOX_COX: (np.array([0.0, -0.5]),),
            Function.NORMAL_QUANTILE: (np.full(2, -5.0), np.full(2, 5.0)),
            Function.GREATER: (np.array([0.1, 1.0]),),
        }.items()
    },
}
TEXT_STEPS: dict[str, Step] = {
    "missing_text": Missing([0]),
    "one_hot_text": OneHot([0], [OneHotColumn(Categories(texts=("Rome", "")), np.array([1, 2, 0, 3]), 3)]),
    "text_words": Text([0], Tokens.WORDS, vocabulary=("the", "fox", "the fox", "caf\u00e9"), ngram_max=2),
    "text_accents": Text(
        [0],
        Tokens.WORDS,
        vocabulary=("cafe", "strasse", "stra\u00dfe", "\u03bf\u03b4\u03bf\u03c2", "i\u0307x", "ix"),
        strip_accents=StripAccents.UNICODE,
        stop_words=("the",),
    ),
    "text_ascii": Text([0], Tokens.WORDS, vocabulary=("cafe", "strae", "ix"), strip_accents=StripAccents.ASCII),
    "text_characters": Text(
        [0], Tokens.CHARACTERS, vocabulary=("o", "  ", "k ", "\u0c5c", "the"), ngram_max=3, lowercase=False
    ),
    "text_in_words": Text(
        [0], Tokens.CHARACTERS_IN_WORDS, vocabulary=(" r", "me ", " the ", "fox"), ngram_min=2, ngram_max=5
    ),
    "text_hashed": Text([0], Tokens.WORDS, hash_width=16, ngram_max=2, alternates_sign=True),
}


def programs() -> dict[str, tuple[Program, list[list[Any]]]]:
    """Each program, with its rows."""
    found = {"branches": (PROGRAM, [list(row) for row in zip(*ROWS.values(), strict=True)])}
    found["branches"][1][1][0] = math.nan
    found["branches"][1].append([10.0, 2, True, "Lima", "bad good bad"])
    for steps, kinds, rows in (
        (STEPS, [ValueKind.NUMBER] * 2, NUMBERS),
        (TEXT_STEPS, [ValueKind.TEXT], TEXTS),
    ):
        for name, step in steps.items():
            found[name] = Program(kinds, [step], range(len(kinds), len(kinds) + step.width)), rows
    return found


def vector(program: Program, rows: list[list[Any]]) -> dict[str, Any]:
    """Compute what a file says of a program."""
    is_text = any(kind is ValueKind.TEXT for kind in program.columns)
    array = np.empty((len(rows), program.column_count), object if is_text else np.float64)
    array[:] = rows
    found = program.features(array)
    # A grid whose steps are no power of two, with a range that most features are in.
    grid = InputGrid.of(program.feature_count, -2.0, 8.0, 0.1)
    integers, is_refused = grid.quantize(found.values)
    return {
        "steps": base64.b64encode(wire.steps_to_bytes(program).data).decode(),
        "columns": [kind.value for kind in program.columns],
        "rows": [list(map(_to_json, row)) for row in rows],
        "refused": found.is_refused.tolist(),
        "features": [
            None if refused else list(map(_to_json, row))
            for row, refused in zip(found.values.tolist(), found.is_refused.tolist(), strict=True)
        ],
        "grid": {"minimum": -2.0, "maximum": 8.0, "step": 0.1},
        "cells": [
            None if refused else row for row, refused in zip(integers.tolist(), is_refused.tolist(), strict=True)
        ],
    }


def text_of(content: dict[str, Any]) -> str:
    """Write a vector: a line for each key, and one for each row."""
    lines = []
    for key, value in content.items():
        if isinstance(value, list) and value and isinstance(value[0], list | None):
            inner = ",\n    ".join(json.dumps(row, ensure_ascii=True) for row in value)
            lines.append(f"  {json.dumps(key)}: [\n    {inner}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=True)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _to_json(value: Any) -> Any:
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def write(folder: Path = FOLDER) -> None:
    """Write all files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (program, rows) in programs().items():
        (folder / f"{name}.json").write_text(text_of(vector(program, rows)))


if __name__ == "__main__":
    write()
