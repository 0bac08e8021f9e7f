"""Fronts: the steps of a model that clients compute, compiled to a published program."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.output import Curve, Link, Output
from sealserve.steps.arithmetic import Affine, Matrix
from sealserve.steps.categories import Lookup, OneHot
from sealserve.steps.gaps import Impute
from sealserve.steps.program import Program
from sealserve.steps.ranges import Ranges
from sealserve.steps.step import Step as PublishedStep
from sealserve.steps.step import ValueKind
from sealserve.steps.text import Text
from sealserve_service.models.errors import PublicationError
from sealserve_service.models.limits import MAX_FEATURES, check_limit
from sealserve_service.models.pipeline_steps import Branches, Consent, Node, OpenStep, Step

IDENTITY = Curve((0.0, 1.0), (0.0, 1.0))
"""The curve of scores that are probabilities."""
_MOST_PROBED = 1 << 10  # columns whose gaps are followed one by one


class Publication(NamedTuple):
    """Something that serving a model publishes.

    Attributes:
        name: of the step.
        tells: what that tells.
        consent: what the operator has to agree to.
        training_values: why it publishes training rows; "" if it does not.
    """

    name: str
    tells: str
    consent: Consent
    training_values: str = ""


@dataclass(frozen=True, eq=False)
class Front:
    """The published part of a model.

    Attributes:
        program: computes the features from the columns.
        columns: what users hand in.
        ranges: what the features can be, as far as the steps themselves tell.
        publications: what publishing it tells, step by step.
    """

    program: Program
    columns: tuple[Column, ...]
    ranges: Ranges
    publications: tuple[Publication, ...]

    @classmethod
    def of(cls, program: Program, columns: tuple[Column, ...], publications: tuple[Publication, ...]) -> "Front":
        """Derive what the features can be, of rows whose values the columns take."""
        low, high = np.array([column.range for column in columns]).T
        is_integral = [column.kind in (ColumnKind.INTEGER, ColumnKind.BOOLEAN) for column in columns]
        may_be_missing = [column.allows_missing for column in columns]
        of_columns = Ranges.of(low, high, is_integral=np.array(is_integral), may_be_missing=np.array(may_be_missing))
        return cls(program, columns, program.ranges(of_columns), publications)

    def with_columns(self, columns: Sequence[Column]) -> "Front":
        """Return the front of the same columns, of which more or less is known."""
        return Front.of(self.program, tuple(columns), self.publications)


def scores_are_probabilities(output: Output) -> bool:
    """Tell whether the scores of a classification are probabilities, as those of a forest are."""
    return output.link is Link.CURVES and output.member_count == 1 and set(output.curves) == {IDENTITY}


def told_by_curves(curves: Sequence[Curve]) -> tuple[Publication, ...]:
    """Return what the curves of an output publish: clients apply them to the scores."""
    count = sum(len(curve.scores) for curve in curves if curve != IDENTITY)
    if not count:
        return ()
    tells = (
        f"{count} points of isotonic curves, which clients apply to the scores: scores of training rows, and the "
        "shares of a class among rows of about the same score"
    )
    rows = "each point is the score of a training row, and shares may be of few rows: calibrate with method='sigmoid'"
    return (Publication("output", tells, Consent.STEPS, rows),)


def check_consent(
    publications: Sequence[Publication], publish: Collection[str], *, accept_training_values: bool
) -> None:
    """Check that the operator has agreed to all that serving a model publishes.

    Args:
        publications: what it publishes.
        publish: the values of `Consent` that were given.
        accept_training_values: whether training values may be published.

    Raises:
        PublicationError: the operator has not; the text lists all that is published.
    """
    lacking = sorted({p.consent.value for p in publications} - set(publish))
    exposing = [] if accept_training_values else [p for p in publications if p.training_values]
    if not lacking and not exposing:
        return
    lines = [f"  {p.name}: {p.tells} ({p.consent.value})" for p in publications]
    text = "\n".join(["clients compute a part of the model, and serving it would publish:", *lines])
    if lacking:
        text += f"\nIf that may be public, agree by --publish {' --publish '.join(lacking)}."
    for publication in exposing:
        text += f"\n{publication.name}: {publication.training_values}; or agree by --accept-training-values."
    raise PublicationError(text)


@dataclass(eq=False)
class _Builder:
    column_count: int
    steps: list[PublishedStep] = field(default_factory=list)
    publications: list[Publication] = field(default_factory=list)
    value_count: int = 0
    never_missing: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.value_count = self.column_count

    def add(self, step: PublishedStep) -> NDArray[np.intp]:
        """Add a step and return the numbers of its outputs."""
        self.steps.append(step)
        outputs = np.arange(self.value_count, self.value_count + step.width)
        self.value_count += step.width
        check_limit("published values", MAX_FEATURES, self.value_count)
        return outputs

    def emit(self, nodes: Sequence[Node], inputs: NDArray[np.intp]) -> NDArray[np.intp]:
        """Add the steps of nodes and return the numbers of what comes out of the last."""
        for node in nodes:
            if isinstance(node, Branches):
                parts = [self.emit(branch.steps, inputs[branch.columns]) for branch in node.branches]
                inputs = np.concatenate(parts)
                continue
            if isinstance(node, OpenStep):
                publication = Publication(node.name, node.tells, node.consent, node.training_values)
                self.never_missing |= set() if node.takes_missing else set(inputs.tolist())
                inputs = node.emit(self.add, inputs)
            else:
                tells = "its means, scales or components, which a step after it needs"
                publication = Publication(node.name, tells, Consent.STEPS)
                inputs = self.add(_published(node, inputs))
            self.publications.append(publication)
        return inputs


def front_of(nodes: Sequence[Node], column_count: int, names: tuple[str, ...]) -> Front:
    """Compile steps to a program.

    Raises:
        ModelTooLargeError: it has too many values.
        ValueError: the steps do not fit together, or are beyond the limits of published steps.
    """
    check_limit("features", MAX_FEATURES, column_count)
    builder = _Builder(column_count)
    outputs = builder.emit(nodes, np.arange(column_count))
    kinds = _kinds(builder.steps, outputs, column_count)
    values = [ValueKind.TEXT if kind.is_text else ValueKind.NUMBER for kind in kinds]
    program = Program(values, builder.steps, outputs)
    may_be_missing = _may_be_missing(program, kinds)
    may_be_missing[[number for number in builder.never_missing if number < column_count]] = False
    columns = tuple(
        Column(names[k] if names else "", kind, allows_missing=bool(may_be_missing[k])) for k, kind in enumerate(kinds)
    )
    return Front.of(program, columns, tuple(builder.publications))


def _published(step: Step, inputs: NDArray[np.intp]) -> PublishedStep:
    """Return an affine step that is published, in the order of scikit-learn's own operations."""
    # Other models are served without scikit-learn.
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    scaler, affine = step.transformer, step.map
    if type(scaler) is StandardScaler:
        means = scaler.mean_ if scaler.with_mean else None
        return Affine(inputs, subtract=means, divide=scaler.scale_ if scaler.with_std else None)
    if type(scaler) is RobustScaler:
        centers = scaler.center_ if scaler.with_centering else None
        return Affine(inputs, subtract=centers, divide=scaler.scale_ if scaler.with_scaling else None)
    if type(scaler) is MinMaxScaler:
        return Affine(inputs, multiply=scaler.scale_, add=scaler.min_)
    if type(scaler) is MaxAbsScaler:
        return Affine(inputs, divide=scaler.scale_)
    if affine.factor.ndim == 1:
        return Affine(inputs, multiply=affine.factor, add=affine.offset)
    return Matrix(inputs, affine.factor, affine.offset)


def _kinds(steps: Sequence[PublishedStep], outputs: NDArray[np.intp], column_count: int) -> list[ColumnKind]:
    """Return what each column is: a string if a step reads it so, unused if nothing reads it."""
    kinds = [ColumnKind.UNUSED] * column_count
    for number in outputs.tolist():
        if number < column_count:
            kinds[number] = ColumnKind.NUMBER
    for step in steps:
        for position, number in enumerate(np.asarray(step.inputs).tolist()):
            if number >= column_count:
                continue
            if step.kind_of_input(position) is ValueKind.TEXT:
                kinds[number] = ColumnKind.TEXT if isinstance(step, Text) else ColumnKind.STRING
            elif kinds[number] is ColumnKind.UNUSED:
                kinds[number] = ColumnKind.NUMBER
    return kinds


def _may_be_missing(program: Program, kinds: Sequence[ColumnKind]) -> NDArray[np.bool_]:
    """Tell of which columns values may be missing: no feature is then, and no step refuses the row.

    A row of known values is compared with rows in which one of them is missing.
    """
    count = program.column_count
    row = np.array(["" if kind.is_text else 0.5 for kind in kinds], object)
    for step in program.steps:
        if isinstance(step, OneHot | Lookup):
            known = [column.categories.texts or column.categories.numbers for column in step.columns]
            for number, values in zip(np.asarray(step.inputs).tolist(), known, strict=True):
                if number < count and values is not None and len(values):
                    row[number] = values[0]
        elif isinstance(step, Impute) and step.texts:
            for number, text in zip(np.asarray(step.inputs).tolist(), step.texts, strict=True):
                if number < count:
                    row[number] = text
    found = np.zeros(count, np.bool_)
    if count > _MOST_PROBED:
        return found
    rows = np.tile(row, (count + 1, 1))
    rows[np.arange(count), np.arange(count)] = [None if kind.is_text else np.nan for kind in kinds]
    features = program.features(rows)
    is_new = np.isnan(features.values[:-1]) & ~np.isnan(features.values[-1])
    found[:] = ~is_new.any(axis=1) & ~features.is_refused[:-1] & ~features.is_refused[-1]
    return found
