"""A model with published steps, made by hand: columns of every kind, features and two scores."""

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.column import Column, ColumnKind
from sealserve.steps.arithmetic import Affine
from sealserve.steps.categories import Categories, OneHot, OneHotColumn
from sealserve.steps.gaps import Impute, Missing
from sealserve.steps.intervals import Bins, BinsColumn
from sealserve.steps.program import Program
from sealserve.steps.step import ValueKind
from sealserve.steps.text import Text, Tokens
from sealserve_service.catalog.registry import ServedModel, publish_steps
from tests.support.serving import linear, served

COLUMNS = (
    Column("age", ColumnKind.NUMBER, allows_missing=True, minimum=0.0, maximum=120.0),
    Column("children", ColumnKind.INTEGER, minimum=0.0, maximum=4.0),
    Column("owner", ColumnKind.BOOLEAN),
    Column("city", ColumnKind.STRING, allows_missing=True),
    Column("note", ColumnKind.TEXT),
)
_CITY = OneHotColumn(
    Categories(texts=("Oslo", "Rome"), refuses_unknown=True), np.array([1, 2, 0, 0]), 2
)  # a missing city has neither
PROGRAM = Program(
    [ValueKind.NUMBER] * 3 + [ValueKind.TEXT] * 2,
    [
        Impute([0], np.array([40.0])),  # 5
        Affine([5], divide=np.array([120.0])),  # 6
        Missing([0]),  # 7
        Bins([1], [BinsColumn(np.array([1.0, 3.0]))]),  # 8
        Affine([8], divide=np.array([2.0])),  # 9
        OneHot([3], [_CITY]),  # 10, 11
        Text([4], Tokens.WORDS, vocabulary=("good", "bad")),  # 12, 13
    ],
    [6, 7, 9, 2, 10, 11, 12, 13],
)
WEIGHTS = np.array([[1.0, -1.0, 0.5, 2.0, -2.0, 3.0, 0.25, -0.25], [0.0, 1.0, 1.0, -1.0, 0.5, 0.5, -3.0, 3.0]])
INTERCEPT = np.array([0.5, -0.5])
ROWS = {
    "age": [60.0, None, 0.0, 120.0],
    "children": [0, 1, 2, 4],
    "owner": [True, False, True, False],
    "city": ["Rome", "Oslo", None, "Rome"],
    "note": ["good", "a bad one", "", "neither"],
}
FEATURES = np.array(
    [
        [0.5, 0, 0, 1, 0, 1, 1, 0],
        [40 / 120, 1, 0.5, 0, 1, 0, 0, 1],
        [0, 0, 0.5, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 0, 1, 0, 0],
    ]
)


def expected_scores() -> NDArray[np.float64]:
    """The scores of ROWS."""
    scores: NDArray[np.float64] = FEATURES @ WEIGHTS.T + INTERCEPT
    return scores


def served_with_steps(name: str = "steps") -> ServedModel:
    """Serve the model."""
    return publish_steps(served(name, linear(WEIGHTS, INTERCEPT)), COLUMNS, PROGRAM)
