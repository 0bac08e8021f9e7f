"""Steps: the features of a row, as the comments of steps.proto have them, one number at a time."""

import bisect
import math
import struct
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from statistics import NormalDist
from typing import Any

from sealserve.v1 import steps_pb2
from tests.vectors.check.text import MOST_CHARACTERS, counts

NAN = math.nan
Values = list[Any]


class RefusedError(Exception):
    """A step refuses the row."""


def features(program: steps_pb2.InputSteps, row: Sequence[Any]) -> list[float] | None:
    """The features of a row of columns; None if a step refuses it."""
    values = list(row)
    try:
        for step in program.steps:
            kind = step.WhichOneof("kind")
            values += _KINDS[kind](getattr(step, kind), _taken(values, step.inputs))
    except RefusedError:
        return None
    return [float(value) for value in _taken(values, program.outputs)]


def _taken(values: Values, ranges: Sequence[steps_pb2.ValueRange]) -> Values:
    return [value for part in ranges for value in values[part.first : part.first + part.count]]


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _quotient(x: float, y: float) -> float:
    """A quotient of doubles, which Python refuses for 0."""
    if y:
        return x / y
    return math.copysign(math.inf, x) * math.copysign(1, y) if x and x == x else NAN


def _impute(step: steps_pb2.Impute, inputs: Values) -> Values:
    if step.texts:
        return [fill if x is None else x for x, fill in zip(inputs, step.texts, strict=True)]
    is_gap = (lambda x: x == step.missing_number) if step.HasField("missing_number") else _is_missing
    return [fill if is_gap(x) else x for x, fill in zip(inputs, step.numbers, strict=True)]


def _missing(step: steps_pb2.Missing, inputs: Values) -> Values:
    if step.HasField("missing_number"):
        return [float(x is None or x == step.missing_number) for x in inputs]
    return [float(_is_missing(x)) for x in inputs]


def _affine(step: steps_pb2.Affine, inputs: Values) -> Values:
    operations: list[tuple[Sequence[float], Callable[[float, float], float]]] = [
        (step.subtract, lambda x, y: x - y),
        (step.divide, _quotient),
        (step.multiply, lambda x, y: x * y),
        (step.add, lambda x, y: x + y),
    ]
    for operands, operation in operations:
        if operands:
            inputs = [operation(x, y) for x, y in zip(inputs, operands, strict=True)]
    return inputs


def _code(categories: steps_pb2.Categories, value: Any) -> int:
    known = list(categories.texts) if categories.texts or categories.is_text else list(categories.numbers)
    if _is_missing(value):
        if categories.refuses_missing:
            raise RefusedError
        return len(known)
    if value in known:
        return known.index(value)
    if categories.refuses_unknown:
        raise RefusedError
    return len(known) + 1


def _one_hot(step: steps_pb2.OneHot, inputs: Values) -> Values:
    found = []
    for column, x in zip(step.columns, inputs, strict=True):
        place = column.places[_code(column.categories, x)]
        found += [float(output == place) for output in range(1, column.width + 1)]
    return found


def _lookup(step: steps_pb2.Lookup, inputs: Values) -> Values:
    return [column.values[_code(column.categories, x)] for column, x in zip(step.columns, inputs, strict=True)]


def _bins(step: steps_pb2.Bins, inputs: Values) -> Values:
    found = []
    for column, x in zip(step.columns, inputs, strict=True):
        if _is_missing(x):
            if not column.HasField("missing_bin"):
                raise RefusedError
            index = column.missing_bin
        else:
            index = (bisect.bisect_left if column.closed_right else bisect.bisect_right)(column.edges, x)
        count = max(len(column.edges), column.missing_bin) + 1
        found += [float(k == index) for k in range(count)] if step.one_hot else [float(index)]
    return found


def _table(step: steps_pb2.Table, inputs: Values) -> Values:
    return [_on_table(column, x) for column, x in zip(step.columns, inputs, strict=True)]


def _on_table(column: steps_pb2.TableColumn, x: float) -> float:
    if _is_missing(x):
        return NAN
    xs, ys, tolerance = list(column.xs), list(column.ys), column.tolerance
    if x - tolerance < xs[0] or (not tolerance and x <= xs[0]):
        return ys[0]
    if x + tolerance > xs[-1] or (not tolerance and x >= xs[-1]):
        return ys[-1]
    falling = _rising([-value for value in xs[::-1]], [-value for value in ys[::-1]], -x)
    return 0.5 * (_rising(xs, ys, x) - falling)


def _rising(xs: list[float], ys: list[float], x: float) -> float:
    j = bisect.bisect_right(xs, x) - 1
    if j < 0 or j == len(xs) - 1:
        return ys[max(j, 0)]
    return (ys[j + 1] - ys[j]) / (xs[j + 1] - xs[j]) * (x - xs[j]) + ys[j]


def _piecewise(step: steps_pb2.Piecewise, inputs: Values) -> Values:
    found = []
    for column, x in zip(step.columns, inputs, strict=True):
        if column.HasField("domain") and (x < column.domain.low or x > column.domain.high):
            raise RefusedError
        if not math.isfinite(x):
            found += [NAN] * column.width
            continue
        if column.HasField("period"):
            low, high = column.period.low, column.period.high
            x = low + (x - low) % (high - low)
        piece = bisect.bisect_right(column.edges, x)
        size = (column.degree + 1) * column.width
        c = column.coefficients[piece * size : (piece + 1) * size]
        for k in range(column.width):
            value = c[column.degree * column.width + k]
            for power in range(column.degree - 1, -1, -1):
                value = value * (x - column.origins[piece]) + c[power * column.width + k]
            found.append(value)
    return found


def _monomials(step: steps_pb2.Monomials, inputs: Values) -> Values:
    ends = list(accumulate(step.degrees, initial=0))
    return [math.prod((inputs[factor] for factor in step.factors[a:b]), start=1.0) for a, b in pairwise(ends)]


def _normalize(step: steps_pb2.Normalize, inputs: Values) -> Values:
    if any(map(_is_missing, inputs)):
        return [NAN] * len(inputs)
    if step.norm == steps_pb2.Normalize.NORM_L1:
        norm = sum(map(abs, inputs))
    elif step.norm == steps_pb2.Normalize.NORM_L2:
        norm = math.sqrt(sum(x * x for x in inputs))
    else:
        norm = max(map(abs, inputs))
    return [x / (norm or 1.0) for x in inputs]


def _matrix(step: steps_pb2.Matrix, inputs: Values) -> Values:
    width = len(inputs)
    return [
        intercept + sum(w * x for w, x in zip(step.weights[k * width : (k + 1) * width], inputs, strict=True))
        for k, intercept in enumerate(step.intercepts)
    ]


# Functions


def _or_limit(function: Callable[[float], float]) -> Callable[[float], float]:
    """A function of Python's, which refuses numbers that have no finite value."""

    def guarded(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return math.inf
        except ValueError:
            return NAN

    return guarded


def _log(x: float) -> float:
    return -math.inf if x == 0 else _or_limit(math.log)(x)


def _power(x: float, exponent: float) -> float:
    return _or_limit(lambda base: base**exponent)(x)


def _yeo_johnson(x: float, a: float) -> float:
    if x >= 0:
        return math.log1p(x) if abs(a) < 2**-52 else (_power(x + 1, a) - 1) / a
    return -math.log1p(-x) if abs(a - 2) <= 2**-52 else -(_power(1 - x, 2 - a) - 1) / (2 - a)


def _box_cox(x: float, a: float) -> float:
    if x <= 0:
        return NAN
    return _log(x) if a == 0 else (_power(x, a) - 1) / a


def _quantile(p: float) -> float:
    if p in (0, 1):
        return math.inf if p else -math.inf
    return NormalDist().inv_cdf(p) if 0 < p < 1 else NAN


_E = steps_pb2.Elementwise
_FUNCTIONS: dict[int, Callable[..., float]] = {
    _E.FUNCTION_ABS: abs,
    _E.FUNCTION_SQUARE: lambda x: x * x,
    _E.FUNCTION_SQRT: _or_limit(math.sqrt),
    _E.FUNCTION_EXP: _or_limit(math.exp),
    _E.FUNCTION_EXPM1: _or_limit(math.expm1),
    _E.FUNCTION_LOG: _log,
    _E.FUNCTION_LOG1P: lambda x: -math.inf if x == -1 else _or_limit(math.log1p)(x),
    _E.FUNCTION_COS: _or_limit(math.cos),
    _E.FUNCTION_SIN: _or_limit(math.sin),
    _E.FUNCTION_TANH: math.tanh,
    _E.FUNCTION_RELU: lambda x: max(x, 0.0),
    _E.FUNCTION_CLIP: lambda x, a, b: min(max(x, a), b),
    _E.FUNCTION_YEO_JOHNSON: _yeo_johnson,
    _E.FUNCTION_BOX_COX: _box_cox,
    _E.FUNCTION_NORMAL_QUANTILE: lambda x, a, b: min(max(_quantile(x), a), b) if 0 <= x <= 1 else NAN,
    _E.FUNCTION_SUBLINEAR: lambda x: 1 + math.log(x) if x > 0 else x * 0.0,
    _E.FUNCTION_GREATER: lambda x, a: float(x > a),
}


def _elementwise(step: steps_pb2.Elementwise, inputs: Values) -> Values:
    function = _FUNCTIONS[step.function]
    parameters = [values for values in (step.first, step.second) if values]
    return [NAN if _is_missing(x) else function(x, *rest) for x, *rest in zip(inputs, *parameters, strict=True)]


# Trees


def _trees(step: steps_pb2.Trees, inputs: Values) -> Values:
    splits = {split.node: split for split in step.category_splits}
    if step.rounds_to_float32:
        inputs = [_float32(x) for x in inputs]
    found, start = list[float](), 0
    for count in step.node_counts:
        node = start
        while step.left[node]:
            goes_left = _goes_left(step, node, splits.get(node), inputs[step.features[node]])
            node = start + (step.left if goes_left else step.right)[node]
        found += [float(k == node) for k in range(start, start + count) if not step.left[k]]
        start += count
    return found


def _goes_left(step: steps_pb2.Trees, node: int, split: steps_pb2.CategorySplit | None, x: float) -> bool:
    if _is_missing(x):
        return step.misses_left[node]
    if split is not None:
        return x in split.left or (x not in split.right and step.misses_left[node])
    return x < step.thresholds[node] if step.strict else x <= step.thresholds[node]


def _float32(x: float) -> float:
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", x))
    except OverflowError:
        return math.copysign(math.inf, x)
    return float(rounded)


def _text(step: steps_pb2.Text, inputs: Values) -> Values:
    (text,) = inputs
    if text is None or len(text) > MOST_CHARACTERS:
        raise RefusedError
    return counts(step, text)


_KINDS: dict[str, Callable[[Any, Values], Values]] = {
    "impute": _impute,
    "missing": _missing,
    "affine": _affine,
    "one_hot": _one_hot,
    "lookup": _lookup,
    "bins": _bins,
    "table": _table,
    "piecewise": _piecewise,
    "monomials": _monomials,
    "elementwise": _elementwise,
    "normalize": _normalize,
    "matrix": _matrix,
    "trees": _trees,
    "text": _text,
}
