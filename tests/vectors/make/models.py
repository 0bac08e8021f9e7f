"""Models of the vectors, served by real engines.

Weights, ranges and steps are sums of few powers of two, so that every machine plans the same.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from sealserve.he.layouts import Layout
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve.protocol.output import Link, Output, Task
from sealserve_service.catalog.registry import ServedModel, describe_model
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptorOf, find_no_key
from sealserve_service.engines.offering import plan_layouts
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.plan import Plan
from tests.support.serving import LIMITS

HIDING_BITS = 40
WIDE = 2054
"""Features that take two ciphertexts of degree 2048."""

FLOWERS = LinearModel(
    np.array([[1.5, -0.25, 0.5, 0.125, -1.0], [0.5, 0.75, -0.5, 1.0, -1.0], [-2.0, 0.25, 0.25, -0.5, 2.0]]),
    np.array([0.25, 0.25, -0.5]),
    Output(Task.CLASSIFICATION, 3, ("rose", "lily", "\u03a7\u03c1\u03c5\u03c3"), Link.SOFTMAX),
    feature_names=("height", "width", "petals", "age", "is wild"),
)
FLOWERS_GRID = InputGrid.of(
    5, [0.0, 0.0, 0.0, 0.0, 0.0], [4.0, 2.0, 63.0, 8.0, 1.0], [1 / 64, 1 / 32, 1.0, 0.25, 1.0], [0, 0, 1, 0, 1]
)
FLOWERS_ROWS = [
    [0.0, 0.0, 0.0, 0.0, 0.0],  # a tie of the first two classes
    [4.0, 2.0, 63.0, 8.0, 1.0],
    [4.0, 0.0, 63.0, 8.0, 0.0],  # the greatest score of the first class, but for one feature
    [1.0625, 0.40625, 5.0, 3.1, 1.0],
    [0.0, 2.0, 0.0, 8.0, 0.0],
    [0.0, 1.984, 0.0, 0.0, 1.0],
]
WIDE_MODEL = LinearModel(
    np.array([[((7 * j) % 512 - 256) / 128 for j in range(WIDE)], [((5 * j) % 512 - 250) / 256 for j in range(WIDE)]]),
    np.array([0.5, -3.0]),
    Output(Task.REGRESSION, 2),
)
WIDE_GRID = InputGrid.of(WIDE, -1.0, 1.0, 0.125)
WIDE_ROWS = [[((3 * j) % 17 - 8) / 8 for j in range(WIDE)]]


@dataclass(frozen=True, eq=False)
class MadeModel:
    """A served model, with the integers that its engines compute with, by layout."""

    served: ServedModel
    integers: dict[Layout, QuantizedModel]


def all_models(keys: ZeroEncryptorOf) -> dict[str, MadeModel]:
    """All models, by their names."""
    return {
        "flowers": flowers("flowers"),
        "flowers_residues": flowers("flowers_residues", is_packed=False),
        "flowers_private": flowers("flowers_private", keys=keys),
        "wide": wide("wide"),
    }


def flowers(name: str, *, keys: ZeroEncryptorOf | None = None, is_packed: bool = True) -> MadeModel:
    """The model of flowers: with private weights if keys are given; otherwise with open ones."""
    return _made(name, FLOWERS, FLOWERS_GRID, keys, is_packed)


def wide(name: str) -> MadeModel:
    """A regression of more features than a polynomial has coefficients.

    Its weights take more bits than 2048-44 has room for, and so its ring is 2048-54.
    """
    return _made(name, WIDE_MODEL, WIDE_GRID, None, True)


def _made(name: str, model: LinearModel, grid: InputGrid, keys: ZeroEncryptorOf | None, is_packed: bool) -> MadeModel:
    hiding_bits = None if keys is None else HIDING_BITS
    engines, integers = list[Any](), dict[Layout, QuantizedModel]()
    for planned in plan_layouts(model, grid, modes=(hiding_bits,), accept_disagreement=True):
        plan = planned.chosen
        if not isinstance(plan, Plan):
            continue
        # A service offers residues where parameters leave no room for fewer bits. This is the same
        # model, so that both forms can be compared.
        plan = plan if is_packed else dataclasses.replace(plan, reply_bits=None)
        engines.append(planned.engine_type(plan, planned.judgement, keys or find_no_key))
        integers[engines[-1].offer.layout] = plan.model
    return MadeModel(describe_model(name, model, grid, LIMITS, engines), integers)
