"""Sources of models: listed from a folder, and loaded, put on a grid and made ready to serve."""

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, PlanError
from sealserve.protocol.model import Limits
from sealserve.protocol.step_refusal import step_refusal
from sealserve.row_files.reader import RowsFile
from sealserve_service.catalog.registry import ServedModel, prepare_model
from sealserve_service.engines.ei.factory import EngineFactory
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.models.archives import open_archive
from sealserve_service.models.errors import (
    InputRangeError,
    ModelFileError,
    ModelTooLargeError,
    PublicationError,
    UnsupportedModelError,
)
from sealserve_service.models.files import read_file
from sealserve_service.models.fronts import check_consent
from sealserve_service.models.limits import MAX_CALIBRATION_BYTES
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import MODEL_SUFFIXES, is_model_file, load_model
from sealserve_service.planning.declared import declared_columns, known_ranges, read_declared_ranges, undeclared_columns
from sealserve_service.planning.grid import DEFAULT_MARGIN, input_ranges
from sealserve_service.planning.packed_judgements import recalling
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.verdict import Judge, judge
from sealserve_service.settings.model_source import ModelFolder, ModelSource


def folder_sources(folder: ModelFolder) -> tuple[ModelSource, ...]:
    """List the models that are in a folder now.

    Hidden files and folders are left out: they are copies in progress, or a volume's other names
    for the same files.

    Raises:
        InputError: there are none, two have the same name, or the folder cannot be read.
    """
    try:
        paths = sorted(_model_files(folder.path))
    except OSError as error:
        raise InputError(f"no model to serve: {error.filename}: {error.strerror}") from error
    if not paths:
        raise InputError(f"no model to serve: {folder.path} holds no {', '.join(MODEL_SUFFIXES)} file")
    by_name = dict[str, Path]()
    for path in paths:
        if (other := by_name.setdefault(path.stem, path)) != path:
            raise InputError(f"{other} and {path} have the same name: rename one")
    return tuple(map(folder.source, paths))


def _model_files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> NoReturn:
        raise error  # a folder that cannot be read must not look empty

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        yield from filter(is_model_file, paths)


def load_source(
    source: ModelSource,
    *,
    trust_pickle: bool,
    limits: Limits,
    ei_engine: EngineFactory | None = None,
    private: PrivateWeights | None = None,
    accept_disagreement: bool = False,
) -> ServedModel:
    """Load a model, choose its grid and make it ready: see prepare_model.

    Raises:
        ModelError: the file, the model or its range cannot be served.
        PlanError: no parameter set serves the model as asked.
    """
    model = load_model(source.path, trust_pickle=trust_pickle, sha256=source.sha256)
    try:
        basis = planning_basis(source, model)
        return prepare_model(
            source.name,
            basis.model,
            basis.ranges,
            limits,
            max_score_error=basis.max_score_error,
            calibration=basis.calibration,
            ei_engine=ei_engine,
            private=private,
            accept_disagreement=accept_disagreement,
            judged=basis.judged,
        )
    except (InputRangeError, UnsupportedModelError, PlanError, PublicationError) as error:
        raise type(error)(f"{source.path}: {error}") from error


class PlanningBasis(NamedTuple):
    """What a model is planned by.

    Attributes:
        model: whose columns have the ranges that are declared of them.
        ranges: of its features.
        calibration: typical rows, (rows, column_count); None if there are none.
        max_score_error: the largest acceptable error bound; None for the planner's default.
        judged: judges its plans.
    """

    model: LinearModel
    ranges: InputRanges
    calibration: NDArray[Any] | None
    max_score_error: float | None
    judged: Judge


def planning_basis(source: ModelSource, model: LinearModel) -> PlanningBasis:
    """Return what a model is planned by: what the operator says, and what a packed file holds.

    What is said of ranges or rows takes the place of all ranges and verdicts in the file.

    Raises:
        PublicationError: the operator has not agreed to what would be published.
        InputRangeError: nothing gives a range, or what is given does not fit.
    """
    packed, max_score_error = model.packed, source.max_score_error
    if packed is None:
        check_consent(model.publications, source.publish, accept_training_values=source.accept_training_values)
    else:
        max_score_error = packed.max_score_error if max_score_error is None else max_score_error
        if not source.says_of_inputs:
            ranges = InputRanges(**vars(packed.ranges))
            return PlanningBasis(model, ranges, None, max_score_error, recalling(packed.judgements))
        model = without_declared_columns(model)
    model = with_declared_columns(source, model)
    calibration = calibration_rows(source, model)
    return PlanningBasis(model, source_ranges(source, model, calibration), calibration, max_score_error, judge)


def source_ranges(source: ModelSource, model: LinearModel, calibration: NDArray[np.generic] | None) -> InputRanges:
    """Return the ranges of a model's features, from what the operator says and the rows.

    Raises:
        InputRangeError: nothing gives a range, or what is given does not fit.
    """
    declared, said = None, source
    if model.published is not None:  # of columns, and features follow from them: see `with_declared_columns`
        declared, said = known_ranges(model.published.ranges), replace(source, input_range=None, input_step=None)
        if calibration is not None:
            calibration = _features(model, calibration)
    elif source.input_ranges is not None:
        declared = read_declared_ranges(source.input_ranges, model.feature_count, model.feature_names)
    return input_ranges(
        model,
        input_range=said.input_range,
        input_step=said.input_step,
        input_margin=DEFAULT_MARGIN if source.input_margin is None else source.input_margin,
        declared=declared,
        calibration=calibration,
    )


def with_declared_columns(source: ModelSource, model: LinearModel) -> LinearModel:
    """Return a model whose columns have the ranges that the operator says, if it publishes steps.

    Raises:
        InputRangeError: what the operator says does not fit the columns.
    """
    front = model.published
    if front is None or (source.input_ranges, source.input_range, source.input_step) == (None, None, None):
        return model
    columns = declared_columns(
        front.columns, source.input_ranges, input_range=source.input_range, input_step=source.input_step
    )
    return replace(model, published=front.with_columns(columns))


def without_declared_columns(model: LinearModel) -> LinearModel:
    """Return a model of whose columns no more is known than its published steps tell."""
    if (front := model.published) is None:
        return model
    return replace(model, published=front.with_columns(undeclared_columns(front.columns)))


def _features(model: LinearModel, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return the features of calibration rows.

    Raises:
        InputRangeError: a column or a step refuses a row.
    """
    steps = None if model.published is None else model.published.program
    if (refusal := step_refusal(model.schema, steps, rows, clip=False)) is not None:
        raise InputRangeError(f"the calibration rows: {refusal}")
    return model.features(rows)


def calibration_rows(source: ModelSource, model: LinearModel) -> NDArray[Any] | None:
    """Read the calibration rows, (rows, column_count), or None if there are none.

    Integers and booleans stay what they are: they declare the grid of the features. All other
    numbers become float64. Where columns are of strings, all values are objects.

    Raises:
        InputRangeError: the file is missing, too large, another than it should be, or holds no rows
            of numbers for the model.
    """
    if (path := source.calibration) is None:
        return None
    try:
        content = read_file(path, source.calibration_sha256, MAX_CALIBRATION_BYTES)
        file = RowsFile(path, content=io.BytesIO(content), max_bytes=MAX_CALIBRATION_BYTES)
        if file.format_name == "npz":
            _check_archive(content, path)
        rows = file.read(model.schema)
    except ModelFileError as error:
        raise InputRangeError(f"the calibration rows cannot be read: {error}") from error
    except ModelTooLargeError as error:
        raise InputRangeError(
            f"{path} has {error.found:,} {error.limit} of calibration rows, and at most {error.maximum:,} are "
            "read: give fewer rows"
        ) from error
    except (UnicodeDecodeError, InputError) as error:
        raise InputRangeError(f"the calibration rows in {error}") from error
    # A copy, of these types too: the content is not kept.
    return np.array(rows) if rows.dtype.kind in "biuO" else np.array(rows, np.float64)


def _check_archive(content: bytes, path: Path) -> None:
    """Check the sizes that an archive's directory says, before one of its members is inflated."""
    try:
        open_archive(content, MAX_CALIBRATION_BYTES).close()
    except (BadZipFile, ValueError) as error:
        raise InputError(f"{path}: the file is not a .npz file, as numpy.savez writes it") from error
