"""The grid: rows of features, and the integers that the SDK rounds them to."""

from typing import Any

import numpy as np
from google.protobuf import json_format

from sealserve.he.quantization import InputGrid
from sealserve.he.row_constraints import RowConstraints
from sealserve.v1 import model_pb2
from tests.vectors.make.json_text import number

INF, NAN = float("inf"), float("nan")
FLOAT32 = float(np.float32(0.1))
CASES: dict[str, tuple[model_pb2.Input, list[list[float]]]] = {
    "one range for all features": (
        model_pb2.Input(feature_count=3, minimum=[-1.0], maximum=[1.0], step=[0.25]),
        [[-1.0, 0.0, 1.0], [0.1, -0.1, 0.9], [-0.0, 1e-300, -1e-300], [1.12, -1.12, 0.0], [1.2, 0.0, 0.0]],
    ),
    "halves: either neighbour is right, this is the even one": (
        model_pb2.Input(feature_count=2, minimum=[0.0], maximum=[8.0], step=[1.0]),
        [[0.5, 1.5], [2.5, 3.5], [7.5, 6.5]],
    ),
    "ranges that are no multiples of their steps": (
        model_pb2.Input(feature_count=4, minimum=[0.0] * 4, maximum=[2.5, 3.5, 0.3, 1.0], step=[1.0, 1.0, 0.1, 0.3]),
        [[2.5, 3.5, 0.3, 1.0], [2.49, 3.51, 0.1, 0.5], [0.0, 3.99, 0.34, 1.04], [2.51, 0.0, 0.0, 0.0]],
    ),
    "no levels": (
        model_pb2.Input(feature_count=2, minimum=[0.1, 5.0], maximum=[0.1, 5.25], step=[1.0, 1.0]),
        [[0.1, 5.0], [FLOAT32, 5.25], [0.1, 5.1], [0.11, 5.0], [0.1, 4.9], [0.1, 5.3]],
    ),
    "what is no number": (
        model_pb2.Input(feature_count=2, minimum=[0.0], maximum=[1.0], step=[0.5]),
        [[NAN, 0.0], [0.0, INF], [-INF, 0.0], [0.0, 0.0]],
    ),
    "copies in 32 bits at the ends of a range": (
        model_pb2.Input(feature_count=2, minimum=[-0.1], maximum=[0.1], step=[2.0**-30]),
        [[FLOAT32, -FLOAT32], [0.1, -0.1], [0.1000001, 0.0]],
    ),
    "features that keep their grid": (
        model_pb2.Input(feature_count=2, minimum=[0.0], maximum=[1.0], step=[0.1], keeps=[True, False]),
        [[0.1, 0.14], [FLOAT32, 0.16], [0.3, 0.55], [0.3001, 0.0], [0.3002, 0.0], [0.14, 0.0]],
    ),
    "all features keep their grid": (
        model_pb2.Input(feature_count=2, minimum=[-2.0], maximum=[2.0], step=[1.0], keeps=[True]),
        [[-2.0, 2.0], [0.001, -0.001], [0.0, 0.002], [1.5, 0.0]],
    ),
    "groups": (
        model_pb2.Input(
            feature_count=5,
            minimum=[0.0, 0.0, -1.0, 0.0, 0.0],
            maximum=[1.0, 1.0, 3.0, 1.0, 1.0],
            step=[1.0, 0.25, 2.0, 0.25, 1.0],
            keeps=[True, True, True, False, True],
            group=[1, 2, 1, 0, 2],
            exactly_one=[True, False],
        ),
        [
            [1.0, 0.0, -1.0, 0.3, 0.0],
            [0.0, 1.0, 3.0, 1.0, 0.0],
            [0.0, 0.0, 3.0, 0.0, 1.0],
            [0.0, 0.0, -1.0, 0.0, 0.0],  # none of the first group
            [1.0, 0.0, 3.0, 0.0, 0.0],  # two of the first group
            [1.0, 1.0, -1.0, 0.0, 1.0],  # two of the second group
            [1.0, 0.25, -1.0, 0.0, 0.0],  # neither minimum nor maximum
            [0.0, 0.0, 1.0, 0.0, 0.0],
            [0.9996, 0.0, -0.9985, 0.0, 0.0002],
        ],
    ),
}


def content() -> dict[str, Any]:
    """What the file has."""
    return {"cases": [_case(name, *case) for name, case in CASES.items()]}


def _case(name: str, message: model_pb2.Input, rows: list[list[float]]) -> dict[str, Any]:
    count = message.feature_count
    minimum, maximum, step = (np.array(values) for values in (message.minimum, message.maximum, message.step))
    keeps = np.array(message.keeps or [False])
    constraints = RowConstraints.of(count, message.group, message.exactly_one)
    grid = InputGrid.of(count, minimum, maximum, step, keeps, constraints)
    integers, is_refused = grid.quantize(np.array(rows))
    return {
        "name": name,
        "input": json_format.MessageToDict(message),
        "levels": grid.levels.tolist(),
        "rows": [list(map(number, row)) for row in rows],
        "cells": [
            None if refused else row for row, refused in zip(integers.tolist(), is_refused.tolist(), strict=True)
        ],
    }
