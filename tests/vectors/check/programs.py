"""Programs: which serialized InputSteps a client refuses before it sees a row."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from sealserve.v1 import steps_pb2

NUMBER, TEXT = steps_pb2.VALUE_KIND_NUMBER, steps_pb2.VALUE_KIND_TEXT
MOST = 1 << 22
"""The most inputs of all steps together, and more than the most values that a client takes."""


class MalformedError(Exception):
    """The steps contradict themselves."""


def fault(data: bytes) -> str:
    """What is wrong with serialized steps: "malformed", or "unknown" to this client; or ""."""
    try:
        program = steps_pb2.InputSteps.FromString(data)
        if _is_unknown(program):
            return "unknown"
        kinds: list[int] = list(program.columns)
        _require(kinds and program.outputs)
        for step in program.steps:
            inputs = _read(kinds, step.inputs)
            kinds += _outputs(step, inputs)
            _require(len(kinds) <= MOST)
        _require(TEXT not in _read(kinds, program.outputs))
    except (DecodeError, MalformedError):
        return "malformed"
    return ""


def _require(condition: object) -> None:
    if not condition:
        raise MalformedError


def _is_unknown(program: steps_pb2.InputSteps) -> bool:
    """Whether a kind, a function or another enumerator is none that this client knows."""
    found: list[tuple[Any, int]] = [(steps_pb2.ValueKind, kind) for kind in program.columns]
    for step in program.steps:
        kind = step.WhichOneof("kind")
        if kind is None:
            return True
        if kind == "elementwise":
            found.append((steps_pb2.Elementwise.Function, step.elementwise.function))
        if kind == "normalize":
            found.append((steps_pb2.Normalize.Norm, step.normalize.norm))
        if kind == "text":
            found.append((steps_pb2.Text.Tokens, step.text.tokens))
            found.append((steps_pb2.Text.StripAccents, step.text.strip_accents))
    return any(number == 0 or number not in wrapper.values() for wrapper, number in found)


def _read(kinds: Sequence[int], ranges: Sequence[steps_pb2.ValueRange]) -> list[int]:
    """The kinds of the values that are read, all of which have to exist."""
    _require(sum(part.count for part in ranges) <= MOST)
    _require(ranges and all(part.count and part.first + part.count <= len(kinds) for part in ranges))
    return [kind for part in ranges for kind in kinds[part.first : part.first + part.count]]


def _outputs(step: steps_pb2.Step, inputs: list[int]) -> list[int]:
    """The kinds of a step's outputs."""
    name, count = step.WhichOneof("kind"), len(inputs)
    kind = getattr(step, str(name))
    if name in ("one_hot", "lookup"):
        needed = [TEXT if column.categories.texts or column.categories.is_text else NUMBER for column in kind.columns]
        _require(inputs == needed)
    elif name == "text":
        _require(inputs == [TEXT])
        _require(bool(kind.vocabulary) != bool(kind.hash_width))
    elif name == "impute":
        _require(bool(kind.numbers) != bool(kind.texts) and count == len(kind.numbers) + len(kind.texts))
        _require(set(inputs) == {TEXT if kind.texts else NUMBER})
    elif name != "missing":
        _require(set(inputs) == {NUMBER})
    if name == "impute":
        return inputs
    return [NUMBER] * _width(str(name), kind, count)


def _width(name: str, kind: Any, count: int) -> int:
    """The number of outputs of a step."""
    if name in ("bins", "table", "piecewise"):
        _require(len(kind.columns) == count)
        for column in kind.columns:
            edges = column.xs if name == "table" else column.edges
            _require(list(edges) == sorted(edges))
    match name:
        case "one_hot":
            for column in kind.columns:
                known = max(len(column.categories.numbers), len(column.categories.texts))
                _require(column.width and len(column.places) == known + 2 and max(column.places) <= column.width)
            return sum(column.width for column in kind.columns)
        case "bins" if kind.one_hot:
            return sum(max(len(column.edges), column.missing_bin) + 1 for column in kind.columns)
        case "piecewise":
            return sum(column.width for column in kind.columns)
        case "affine":
            lists = kind.subtract, kind.divide, kind.multiply, kind.add
            _require(all(len(values) in (0, count) for values in lists) and 0 not in kind.divide)
        case "monomials":
            _require(sum(kind.degrees) == len(kind.factors) and max(kind.factors, default=0) < count)
            return len(kind.degrees)
        case "matrix":
            _require(len(kind.weights) == len(kind.intercepts) * count)
            return len(kind.intercepts)
        case "trees":
            return _leaves(kind, count)
        case "text":
            return kind.hash_width or len(kind.vocabulary)
    return count


def _leaves(trees: steps_pb2.Trees, count: int) -> int:
    """The number of leaves of trees, each node of which but the root is the child of one node."""
    total, start = sum(trees.node_counts), 0
    lists = trees.left, trees.right, trees.features, trees.thresholds, trees.misses_left
    _require(trees.node_counts and all(len(values) == total for values in lists))
    _require(max(trees.features) < count)
    for nodes in trees.node_counts:
        inner = [k for k in range(nodes) if trees.left[start + k]]
        children = [(k, side[start + k]) for k in inner for side in (trees.left, trees.right)]
        _require(all(k < child < nodes for k, child in children))
        _require(sorted(child for _, child in children) == list(range(1, nodes)))
        start += nodes
    return sum(1 for left in trees.left if not left)
