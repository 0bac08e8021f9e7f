"""Conversions of steps, with the checks of a program that may be hostile.

Sizes are checked before lists are made. The constructors of `sealserve.steps` check the rest.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from sealserve.errors import ParameterError, RequirementError
from sealserve.steps.arithmetic import Affine, Matrix, Monomials, Norm, Normalize
from sealserve.steps.categories import Categories, Lookup, LookupColumn, OneHot, OneHotColumn
from sealserve.steps.elementwise import Elementwise, Function
from sealserve.steps.gaps import Impute, Missing
from sealserve.steps.intervals import Bins, BinsColumn, Piecewise, PiecewiseColumn, Table, TableColumn
from sealserve.steps.limits import MAX_INPUTS, MAX_MEMBERSHIPS, MAX_RULES, MAX_STEPS, MAX_STEPS_BYTES, MAX_VALUES
from sealserve.steps.program import Program
from sealserve.steps.step import Step, ValueKind
from sealserve.steps.text import StripAccents, Text, Tokens
from sealserve.steps.trees import CategorySplit, Trees
from sealserve.v1 import steps_pb2

E = TypeVar("E", bound=Enum)

_UPDATE = "the steps have a kind or a function that this version does not know: update sealserve"


class SerializedSteps(NamedTuple):
    """Steps as they travel.

    Attributes:
        data: a serialized InputSteps.
        steps_id: its SHA-256, as 64 lower-case hexadecimal digits.
    """

    data: bytes
    steps_id: str


def steps_to_bytes(program: Program) -> SerializedSteps:
    """Serialize steps.

    Raises:
        ParameterError: they have too many bytes for clients, or a text that is no Unicode.
    """
    try:
        message = steps_pb2.InputSteps(
            columns=[f"VALUE_KIND_{kind.name}" for kind in program.columns],
            steps=map(_step_to_proto, program.steps),
            outputs=_to_value_ranges(program.outputs),
        )
    except UnicodeEncodeError as error:
        raise ParameterError("a text of the steps has half a character, which UTF-8 cannot hold") from error
    data = message.SerializeToString(deterministic=True)
    if len(data) > MAX_STEPS_BYTES:
        raise ParameterError(f"the steps have {len(data)} bytes, and clients accept {MAX_STEPS_BYTES}")
    return SerializedSteps(data, steps_digest(data))


def steps_digest(data: bytes) -> str:
    """Return the steps_id of a serialized InputSteps."""
    return hashlib.sha256(data).hexdigest()


def steps_from_bytes(data: bytes) -> Program:
    """Check and convert a serialized InputSteps.

    Raises:
        ParameterError: it is malformed, contradicts itself or is beyond `sealserve.steps.limits`.
        RequirementError: it has something that this version does not know.
    """
    if len(data) > MAX_STEPS_BYTES:
        raise ParameterError(f"the steps have {len(data)} bytes, more than {MAX_STEPS_BYTES}")
    try:
        message = steps_pb2.InputSteps.FromString(data)
        _check_counts(message)
        return Program(
            [_enumerator(ValueKind, steps_pb2.ValueKind, kind) for kind in message.columns],
            list(_steps_from_proto(message.steps)),
            _values_of(_runs(message.outputs)),
        )
    except DecodeError as error:
        raise ParameterError("the steps are malformed") from error
    except ValueError as error:
        raise ParameterError(f"the steps make no sense: {error}") from error


def _check_counts(message: steps_pb2.InputSteps) -> None:
    """Check how many of everything there are, before anything is converted.

    Raises:
        ValueError: there are too many.
    """
    if len(message.steps) > MAX_STEPS or len(message.columns) > MAX_VALUES:
        raise ValueError("there are too many steps or columns")
    kinds = [_kind_of(step) for step in message.steps]
    rules = sum(len(getattr(kind, name, ())) for kind in kinds for name in ("columns", "category_splits"))
    if rules > MAX_RULES:
        raise ValueError(f"the steps have {rules} rules for columns and splits by category, more than {MAX_RULES}")


def _steps_from_proto(messages: Sequence[steps_pb2.Step]) -> Iterator[Step]:
    """Yield steps, and check what they take together.

    Raises:
        ValueError: it is too much.
    """
    inputs, memberships_left = [_runs(message.inputs) for message in messages], MAX_MEMBERSHIPS
    if sum(int(runs[:, 1].sum()) for runs in inputs) > MAX_INPUTS:
        raise ValueError(f"the steps have more than {MAX_INPUTS} inputs together")
    for message, runs in zip(messages, inputs, strict=True):
        step = _step_from_proto(message, _values_of(runs))
        memberships_left -= step.membership_count if isinstance(step, Trees) else 0
        if memberships_left < 0:
            raise ValueError(f"the trees have more than {MAX_MEMBERSHIPS} categories of nodes together")
        yield step


def _to_value_ranges(numbers: Sequence[int] | NDArray[np.intp]) -> list[steps_pb2.ValueRange]:
    values = np.asarray(numbers)
    starts = [0, *(np.flatnonzero(np.diff(values) != 1) + 1).tolist(), len(values)]
    return [steps_pb2.ValueRange(first=int(values[start]), count=stop - start) for start, stop in pairwise(starts)]


def _runs(ranges: Sequence[steps_pb2.ValueRange]) -> NDArray[np.intp]:
    """Return first values and counts, (ranges, 2)."""
    runs = np.array([(part.first, part.count) for part in ranges], np.intp).reshape(-1, 2)
    if (runs[:, 0] >= MAX_VALUES).any() or not runs[:, 1].all():
        raise ValueError(f"a range of values is empty, or begins beyond {MAX_VALUES}")
    if runs[:, 1].sum() > MAX_INPUTS:
        raise ValueError(f"a list of inputs or outputs is longer than {MAX_INPUTS}")
    return runs


def _values_of(runs: NDArray[np.intp]) -> NDArray[np.intp]:
    first, count = runs.T
    values: NDArray[np.intp] = np.repeat(first - (np.cumsum(count) - count), count)
    values += np.arange(len(values))
    return values


def _enumerator(kind: type[E], wrapper: Any, number: int) -> E:
    """Return the member of an enumeration that has the name of a protobuf enumerator."""
    prefix = wrapper.Name(0).removesuffix("UNSPECIFIED")
    try:
        return kind[wrapper.Name(number).removeprefix(prefix)]
    except (KeyError, ValueError):
        raise RequirementError(_UPDATE) from None


def _numbers(values: Iterable[float]) -> NDArray[np.float64]:
    return np.array(values, np.float64)


def _integers(values: Iterable[int]) -> NDArray[np.intp]:
    return np.array(values, np.intp)


def _given(values: Sequence[float]) -> NDArray[np.float64] | None:
    return _numbers(values) if len(values) else None


def _listed(values: NDArray[Any] | None) -> list[Any]:
    return [] if values is None else values.ravel().tolist()


def _impute_to_proto(step: Impute) -> steps_pb2.Impute:
    return steps_pb2.Impute(numbers=_listed(step.numbers), texts=step.texts or (), missing_number=step.missing_number)


def _impute_from_proto(message: steps_pb2.Impute, inputs: NDArray[np.intp]) -> Impute:
    return Impute(inputs, _given(message.numbers), tuple(message.texts) or None, _optional(message, "missing_number"))


def _missing_to_proto(step: Missing) -> steps_pb2.Missing:
    return steps_pb2.Missing(missing_number=step.missing_number)


def _missing_from_proto(message: steps_pb2.Missing, inputs: NDArray[np.intp]) -> Missing:
    return Missing(inputs, _optional(message, "missing_number"))


def _affine_to_proto(step: Affine) -> steps_pb2.Affine:
    return steps_pb2.Affine(
        subtract=_listed(step.subtract),
        divide=_listed(step.divide),
        multiply=_listed(step.multiply),
        add=_listed(step.add),
    )


def _affine_from_proto(message: steps_pb2.Affine, inputs: NDArray[np.intp]) -> Affine:
    return Affine(inputs, *map(_given, (message.subtract, message.divide, message.multiply, message.add)))


def _categories_to_proto(categories: Categories) -> steps_pb2.Categories:
    return steps_pb2.Categories(
        numbers=_listed(categories.numbers),
        texts=categories.texts or (),
        is_text=categories.kind is ValueKind.TEXT,
        refuses_missing=categories.refuses_missing,
        refuses_unknown=categories.refuses_unknown,
    )


def _categories_from_proto(message: steps_pb2.Categories) -> Categories:
    is_text = message.is_text or len(message.texts) > 0
    return Categories(
        None if is_text and not message.numbers else _numbers(message.numbers),
        tuple(message.texts) if is_text else None,
        message.refuses_missing,
        message.refuses_unknown,
    )


def _one_hot_to_proto(step: OneHot) -> steps_pb2.OneHot:
    return steps_pb2.OneHot(
        columns=[
            steps_pb2.OneHotColumn(
                categories=_categories_to_proto(column.categories), width=column.width, places=_listed(column.places)
            )
            for column in step.columns
        ]
    )


def _one_hot_from_proto(message: steps_pb2.OneHot, inputs: NDArray[np.intp]) -> OneHot:
    columns = [
        OneHotColumn(_categories_from_proto(column.categories), _integers(column.places), column.width)
        for column in message.columns
    ]
    return OneHot(inputs, columns)


def _lookup_to_proto(step: Lookup) -> steps_pb2.Lookup:
    return steps_pb2.Lookup(
        columns=[
            steps_pb2.LookupColumn(categories=_categories_to_proto(column.categories), values=_listed(column.values))
            for column in step.columns
        ]
    )


def _lookup_from_proto(message: steps_pb2.Lookup, inputs: NDArray[np.intp]) -> Lookup:
    columns = [
        LookupColumn(_categories_from_proto(column.categories), _numbers(column.values)) for column in message.columns
    ]
    return Lookup(inputs, columns)


def _bins_to_proto(step: Bins) -> steps_pb2.Bins:
    return steps_pb2.Bins(
        columns=[
            steps_pb2.BinsColumn(
                edges=_listed(column.edges), closed_right=column.closed_right, missing_bin=column.missing_bin
            )
            for column in step.columns
        ],
        one_hot=step.one_hot,
    )


def _bins_from_proto(message: steps_pb2.Bins, inputs: NDArray[np.intp]) -> Bins:
    columns = [
        BinsColumn(_numbers(column.edges), column.closed_right, _optional(column, "missing_bin"))
        for column in message.columns
    ]
    return Bins(inputs, columns, message.one_hot)


def _table_to_proto(step: Table) -> steps_pb2.Table:
    return steps_pb2.Table(
        columns=[
            steps_pb2.TableColumn(xs=_listed(column.xs), ys=_listed(column.ys), tolerance=column.tolerance)
            for column in step.columns
        ]
    )


def _table_from_proto(message: steps_pb2.Table, inputs: NDArray[np.intp]) -> Table:
    columns = [TableColumn(_numbers(column.xs), _numbers(column.ys), column.tolerance) for column in message.columns]
    return Table(inputs, columns)


def _interval_to_proto(interval: tuple[float, float] | None) -> steps_pb2.Interval | None:
    return None if interval is None else steps_pb2.Interval(low=interval[0], high=interval[1])


def _interval_from_proto(message: steps_pb2.PiecewiseColumn, name: str) -> tuple[float, float] | None:
    interval = _optional(message, name)
    return None if interval is None else (interval.low, interval.high)


def _piecewise_to_proto(step: Piecewise) -> steps_pb2.Piecewise:
    return steps_pb2.Piecewise(
        columns=[
            steps_pb2.PiecewiseColumn(
                edges=_listed(column.edges),
                origins=_listed(column.origins),
                coefficients=_listed(column.coefficients),
                degree=column.coefficients.shape[1] - 1,
                width=column.width,
                period=_interval_to_proto(column.period),
                domain=_interval_to_proto(column.domain),
            )
            for column in step.columns
        ]
    )


def _piecewise_from_proto(message: steps_pb2.Piecewise, inputs: NDArray[np.intp]) -> Piecewise:
    columns = [
        PiecewiseColumn(
            _numbers(column.edges),
            _numbers(column.origins),
            _shaped(column.coefficients, (len(column.edges) + 1, column.degree + 1, column.width)),
            _interval_from_proto(column, "period"),
            _interval_from_proto(column, "domain"),
        )
        for column in message.columns
    ]
    return Piecewise(inputs, columns)


def _monomials_to_proto(step: Monomials) -> steps_pb2.Monomials:
    return steps_pb2.Monomials(degrees=_listed(step.degrees), factors=_listed(step.factors))


def _monomials_from_proto(message: steps_pb2.Monomials, inputs: NDArray[np.intp]) -> Monomials:
    return Monomials(inputs, _integers(message.degrees), _integers(message.factors))


def _elementwise_to_proto(step: Elementwise) -> steps_pb2.Elementwise:
    return steps_pb2.Elementwise(
        function=f"FUNCTION_{step.function.name}", first=_listed(step.first), second=_listed(step.second)
    )


def _elementwise_from_proto(message: steps_pb2.Elementwise, inputs: NDArray[np.intp]) -> Elementwise:
    function = _enumerator(Function, steps_pb2.Elementwise.Function, message.function)
    return Elementwise(inputs, function, _given(message.first), _given(message.second))


def _normalize_to_proto(step: Normalize) -> steps_pb2.Normalize:
    return steps_pb2.Normalize(norm=f"NORM_{step.norm.name}")


def _normalize_from_proto(message: steps_pb2.Normalize, inputs: NDArray[np.intp]) -> Normalize:
    return Normalize(inputs, _enumerator(Norm, steps_pb2.Normalize.Norm, message.norm))


def _matrix_to_proto(step: Matrix) -> steps_pb2.Matrix:
    return steps_pb2.Matrix(weights=_listed(step.weights), intercepts=_listed(step.intercepts))


def _matrix_from_proto(message: steps_pb2.Matrix, inputs: NDArray[np.intp]) -> Matrix:
    return Matrix(
        inputs,
        _shaped(message.weights, (len(message.intercepts), len(inputs))),
        _numbers(message.intercepts),
    )


def _trees_to_proto(step: Trees) -> steps_pb2.Trees:
    return steps_pb2.Trees(
        node_counts=_listed(step.node_counts),
        left=_listed(step.left),
        right=_listed(step.right),
        features=_listed(step.features),
        thresholds=_listed(step.thresholds),
        misses_left=_listed(step.misses_left),
        strict=step.strict,
        rounds_to_float32=step.rounds_to_float32,
        category_splits=[
            steps_pb2.CategorySplit(node=split.node, left=_listed(split.left), right=_listed(split.right))
            for split in step.category_splits
        ],
    )


def _trees_from_proto(message: steps_pb2.Trees, inputs: NDArray[np.intp]) -> Trees:
    return Trees(
        inputs,
        node_counts=_integers(message.node_counts),
        left=_integers(message.left),
        right=_integers(message.right),
        features=_integers(message.features),
        thresholds=_numbers(message.thresholds),
        misses_left=np.array(message.misses_left, np.bool_),
        strict=message.strict,
        rounds_to_float32=message.rounds_to_float32,
        category_splits=[
            CategorySplit(split.node, _integers(split.left), _integers(split.right))
            for split in message.category_splits
        ],
    )


def _text_to_proto(step: Text) -> steps_pb2.Text:
    return steps_pb2.Text(
        tokens=f"TOKENS_{step.tokens.name}",
        lowercase=step.lowercase,
        strip_accents=f"STRIP_ACCENTS_{step.strip_accents.name}",
        min_word_length=step.min_word_length,
        stop_words=step.stop_words,
        ngram_min=step.ngram_min,
        ngram_max=step.ngram_max,
        vocabulary=step.vocabulary,
        hash_width=step.hash_width,
        alternates_sign=step.alternates_sign,
    )


def _text_from_proto(message: steps_pb2.Text, inputs: NDArray[np.intp]) -> Text:
    return Text(
        inputs,
        _enumerator(Tokens, steps_pb2.Text.Tokens, message.tokens),
        vocabulary=message.vocabulary,
        hash_width=message.hash_width,
        alternates_sign=message.alternates_sign,
        lowercase=message.lowercase,
        strip_accents=_enumerator(StripAccents, steps_pb2.Text.StripAccents, message.strip_accents),
        min_word_length=message.min_word_length,
        stop_words=message.stop_words,
        ngram_min=message.ngram_min,
        ngram_max=message.ngram_max,
    )


class _Conversion(NamedTuple):
    """How a kind of step is converted.

    Attributes:
        kind: the class of the step.
        to_proto: takes a step, and returns the message of its kind.
        from_proto: takes this message and the step's inputs, and returns the step.
    """

    kind: type[Step]
    to_proto: Callable[[Any], Any]
    from_proto: Callable[[Any, NDArray[np.intp]], Step]


_CONVERSIONS = {
    "impute": _Conversion(Impute, _impute_to_proto, _impute_from_proto),
    "missing": _Conversion(Missing, _missing_to_proto, _missing_from_proto),
    "affine": _Conversion(Affine, _affine_to_proto, _affine_from_proto),
    "one_hot": _Conversion(OneHot, _one_hot_to_proto, _one_hot_from_proto),
    "lookup": _Conversion(Lookup, _lookup_to_proto, _lookup_from_proto),
    "bins": _Conversion(Bins, _bins_to_proto, _bins_from_proto),
    "table": _Conversion(Table, _table_to_proto, _table_from_proto),
    "piecewise": _Conversion(Piecewise, _piecewise_to_proto, _piecewise_from_proto),
    "monomials": _Conversion(Monomials, _monomials_to_proto, _monomials_from_proto),
    "elementwise": _Conversion(Elementwise, _elementwise_to_proto, _elementwise_from_proto),
    "normalize": _Conversion(Normalize, _normalize_to_proto, _normalize_from_proto),
    "matrix": _Conversion(Matrix, _matrix_to_proto, _matrix_from_proto),
    "trees": _Conversion(Trees, _trees_to_proto, _trees_from_proto),
    "text": _Conversion(Text, _text_to_proto, _text_from_proto),
}
"""By the name of the kind's field in Step."""
_NAMES = {conversion.kind: name for name, conversion in _CONVERSIONS.items()}


def _step_to_proto(step: Step) -> steps_pb2.Step:
    name = _NAMES[type(step)]
    message = _CONVERSIONS[name].to_proto(step)
    return steps_pb2.Step(inputs=_to_value_ranges(step.inputs), **{name: message})


def _kind_of(message: steps_pb2.Step) -> Any:
    """Return the message of a step's kind.

    Raises:
        RequirementError: this version does not know the kind.
    """
    if (name := message.WhichOneof("kind")) not in _CONVERSIONS:
        raise RequirementError(_UPDATE)
    return getattr(message, name)


def _step_from_proto(message: steps_pb2.Step, inputs: NDArray[np.intp]) -> Step:
    return _CONVERSIONS[str(message.WhichOneof("kind"))].from_proto(_kind_of(message), inputs)


def _optional(message: Any, name: str) -> Any:
    """Return a field that may be unset: None if it is."""
    return getattr(message, name) if message.HasField(name) else None


def _shaped(values: Sequence[float], shape: tuple[int, ...]) -> NDArray[np.float64]:
    if len(values) != math.prod(shape):
        raise ValueError(f"{math.prod(shape)} numbers are needed for the shape {shape}, not {len(values)}")
    return _numbers(values).reshape(shape)
