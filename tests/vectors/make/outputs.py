"""Outputs: scores with ties and extremes, and what the SDK makes of them."""

import warnings
from typing import Any

import numpy as np
from google.protobuf import json_format

from sealserve.errors import NoSuchMethodError
from sealserve.protocol.output import Curve, Link, Output, Pairwise, Task
from sealserve.protocol.wire._models import _output_to_proto
from tests.vectors.make.json_text import number

CLASSIFICATION, MULTILABEL, REGRESSION = Task.CLASSIFICATION, Task.MULTILABEL, Task.REGRESSION
ONE: list[list[float]] = [[0.0], [-0.0], [5e-324], [-5e-324], [1.0], [-1.0], [40.0], [-40.0], [800.0], [-800.0]]
ONE += [[-745.0], [1e300], [-1e300], [1.5], [-0.5]]
THREE: list[list[float]] = [[1.0, 1.0, 0.0], [0.0, 2.0, 2.0], [3.0, 3.0, 3.0], [0.0, 0.0, 0.0], [-0.0, 0.0, -0.0]]
THREE += [[800.0, 799.0, -800.0], [-800.0, -801.0, -799.5], [1e300, 1e300, -1e300], [-1e300, -1e300, -1e300]]
THREE += [[0.25, -0.75, 1.25], [-1.0, -1.0, -2.0], [5e-324, 0.0, -5e-324]]
SIX: list[list[float]] = [row + row[::-1] for row in THREE]  # of all pairs of four, or of two members
CURVES = (
    Curve((-1.0, 0.0, 0.5), (0.0, 0.25, 1.0)),
    Curve((0.0,), (0.5,)),
    Curve((-1e300, 1e300), (0.0, 0.0)),
)
CASES: dict[str, tuple[Output, list[list[float]]]] = {
    "regression, one target": (Output(REGRESSION, 1, scalar_target=True), ONE),
    "regression, an array": (Output(REGRESSION, 1), ONE[:3]),
    "regression, several targets": (Output(REGRESSION, 3), THREE),
    "regression, log link": (Output(REGRESSION, 1, link=Link.LOG, scalar_target=True), ONE),
    "regression, log1p link": (Output(REGRESSION, 1, link=Link.LOG1P, scalar_target=True), ONE),
    "two classes": (Output(CLASSIFICATION, 1, ("no", "yes")), ONE),
    "two classes, logistic": (Output(CLASSIFICATION, 1, (False, True), Link.LOGISTIC), ONE),
    "two classes, softmax": (Output(CLASSIFICATION, 1, (-1, 1), Link.SOFTMAX), ONE),
    "two classes, modified Huber": (Output(CLASSIFICATION, 1, (0.5, 1.5), Link.MODIFIED_HUBER), ONE),
    "two classes, a curve": (Output(CLASSIFICATION, 1, ("no", "yes"), Link.CURVES, curves=CURVES[:1]), ONE),
    "classes": (Output(CLASSIFICATION, 3, (-(2**53), 0, 2**53)), THREE),
    "classes, softmax": (Output(CLASSIFICATION, 3, ("a", "", "\u00e9\U0001f600"), Link.SOFTMAX), THREE),
    "classes, one versus rest": (Output(CLASSIFICATION, 3, (1, 2, 3), Link.OVR_LOGISTIC), THREE),
    "classes, one versus rest that keeps zeros": (
        Output(CLASSIFICATION, 3, (1, 2, 3), Link.OVR_LOGISTIC, keeps_zero_rows=True),
        THREE,
    ),
    "classes, modified Huber": (Output(CLASSIFICATION, 3, (1, 2, 3), Link.MODIFIED_HUBER), THREE),
    "classes, modified Huber that keeps zeros": (
        Output(CLASSIFICATION, 3, (1, 2, 3), Link.MODIFIED_HUBER, keeps_zero_rows=True),
        THREE,
    ),
    "classes, curves": (Output(CLASSIFICATION, 3, (1, 2, 3), Link.CURVES, curves=CURVES), THREE),
    "classes without a decision function": (
        Output(CLASSIFICATION, 3, (1, 2, 3), has_no_decision_function=True),
        THREE,
    ),
    "members of two classes": (Output(CLASSIFICATION, 3, ("no", "yes"), Link.LOGISTIC, member_count=3), THREE),
    "members of three classes": (Output(CLASSIFICATION, 6, (1, 2, 3), Link.SOFTMAX, member_count=2), SIX),
    "pairs, by votes": (Output(CLASSIFICATION, 6, (1, 2, 3, 4), pairwise=Pairwise.VOTES), SIX),
    "pairs, by votes, whose scores decide": (Output(CLASSIFICATION, 6, (1, 2, 3, 4), pairwise=Pairwise.PAIRS), SIX),
    "pairs, by confidence": (Output(CLASSIFICATION, 6, (1, 2, 3, 4), pairwise=Pairwise.CONFIDENCES), SIX),
    "labels": (Output(MULTILABEL, 3, ("a", "b", "c")), THREE),
    "labels, logistic": (Output(MULTILABEL, 3, ("a", "b", "c"), Link.LOGISTIC), THREE),
    "labels, modified Huber": (Output(MULTILABEL, 3, ("a", "b", "c"), Link.MODIFIED_HUBER), THREE),
}


def content() -> dict[str, Any]:
    """What the file has."""
    return {"cases": [_case(name, *case) for name, case in CASES.items()]}


def _case(name: str, output: Output, rows: list[list[float]]) -> dict[str, Any]:
    scores = np.array(rows)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found: dict[str, Any] = {
            "name": name,
            "output": json_format.MessageToDict(_output_to_proto(output)),
            "scores": rows,
            "predictions": _listed(output.predict(scores)),
        }
        try:
            decision = output.decision_function(scores)
            found["decision_function"] = _listed(decision.reshape(len(rows), -1))
        except NoSuchMethodError:
            pass
        if output.has_probabilities:
            found["probabilities"] = _listed(output.predict_proba(scores))
    return found


def _listed(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if isinstance(values, list):
        return [_listed(value) for value in values]
    return number(values) if isinstance(values, float) else values
