"""Description: what a model takes and gives, as the Open Inference Protocol says it. No I/O."""

import json
from typing import NamedTuple

from sealserve.agent.tensors import BYTES
from sealserve.protocol.column import ColumnKind
from sealserve.protocol.model import Model
from sealserve.protocol.output import Output, Task

PLATFORM = "sealserve"
ROWS = "rows"
"""The name of the tensor of all columns, as metadata have it. Callers may give it another."""

_ROW_COUNT = -1  # the protocol's sign for a size that varies
_LABELS = {bool: "BOOL", int: "INT64", float: "FP64", str: BYTES}


class TensorType(NamedTuple):
    """A tensor of a model: its name, datatype and shape."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def inputs_of(model: Model) -> list[TensorType]:
    """Return the tensors that a model takes: one of all columns, or one for each of a table's."""
    columns = model.schema.columns
    if model.schema.column_names and columns:
        return [
            TensorType(column.name, BYTES if column.kind.is_text else "FP64", (_ROW_COUNT,))
            for column in columns
            if column.kind is not ColumnKind.UNUSED
        ]
    datatype = BYTES if columns and all(column.kind.is_text for column in columns) else "FP64"
    return [TensorType(ROWS, datatype, (_ROW_COUNT, model.schema.column_count))]


def outputs_of(output: Output) -> list[TensorType]:
    """Return the tensors that a model gives, in the order in which they are sent."""
    scores = TensorType("score", "FP64", (_ROW_COUNT, output.score_count))
    if output.task is Task.REGRESSION:
        shape = (_ROW_COUNT,) if output.scalar_target else (_ROW_COUNT, output.score_count)
        return [TensorType("prediction", "FP64", shape), scores]
    if output.task is Task.MULTILABEL:
        labels = TensorType("label", "INT64", (_ROW_COUNT, output.score_count))
    else:
        labels = TensorType("label", _LABELS[type(output.classes[0])], (_ROW_COUNT,))
    if not output.has_probabilities:
        return [labels, scores]
    return [labels, scores, TensorType("probability", "FP64", (_ROW_COUNT, len(output.classes)))]


def properties_of(model: Model) -> dict[str, str]:
    """Return what the service says of a model beyond its tensors; lists are JSON."""
    properties = {"task": model.output.task.value, "verdict": model.verdict.value if model.verdict else "none"}
    if model.output.classes:
        properties["classes"] = json.dumps(model.output.classes)
    if model.schema.column_names:
        properties["column_names"] = json.dumps(model.schema.column_names)
    if model.schema.columns:
        properties["columns"] = json.dumps([column.words for column in model.schema.columns])
    if model.offers:
        offer = model.offers[0]
        properties["weights"] = "private" if offer.private_weights else "open"
        properties["score_error_bound"] = repr(offer.score_error_bound)
    return properties
