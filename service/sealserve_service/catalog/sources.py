"""Sources of models: listed from a folder, and loaded, put on a grid and made ready to serve."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, PlanError
from sealserve.protocol.model import Limits
from sealserve.protocol.schema import Schema
from sealserve.row_files.reader import RowsFile
from sealserve_service.catalog.calibration_tables import SUFFIXES, read_table
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
from sealserve_service.models.loading import MODEL_SUFFIXES, load_model
from sealserve_service.planning.declared import known_ranges, read_declared_ranges
from sealserve_service.planning.grid import DEFAULT_MARGIN, input_ranges
from sealserve_service.planning.ranges import InputRanges
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
        yield from (path for path in paths if path.suffix.lower() in MODEL_SUFFIXES)


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
        if model.published is not None:
            check_consent(model.published, source.publish, accept_training_values=source.accept_training_values)
        calibration = calibration_rows(source, model)
        ranges = source_ranges(source, model, calibration)
        return prepare_model(
            source.name,
            model,
            ranges,
            limits,
            max_score_error=source.max_score_error,
            calibration=calibration,
            ei_engine=ei_engine,
            private=private,
            accept_disagreement=accept_disagreement,
        )
    except (InputRangeError, UnsupportedModelError, PlanError, PublicationError) as error:
        raise type(error)(f"{source.path}: {error}") from error


def source_ranges(source: ModelSource, model: LinearModel, calibration: NDArray[np.generic] | None) -> InputRanges:
    """Return the ranges of a model's features, from what the operator says and the rows.

    Raises:
        InputRangeError: nothing gives a range, or what is given does not fit.
    """
    declared = None
    if model.published is not None:
        declared = known_ranges(model.published.ranges)
        if source.input_ranges is not None:
            raise InputRangeError(
                "its features are not its columns, which the file of --input-ranges names: give --calibration instead"
            )
        if calibration is not None:
            calibration = _features(model, calibration)
    elif source.input_ranges is not None:
        declared = read_declared_ranges(source.input_ranges, model.feature_count, model.feature_names)
    return input_ranges(
        model,
        input_range=source.input_range,
        input_step=source.input_step,
        input_margin=DEFAULT_MARGIN if source.input_margin is None else source.input_margin,
        declared=declared,
        calibration=calibration,
    )


def _features(model: LinearModel, rows: NDArray[Any]) -> NDArray[np.float64]:
    try:
        return model.features(rows)
    except ValueError as error:
        raise InputRangeError(f"the calibration rows: {error}") from error


def calibration_rows(source: ModelSource, model: LinearModel) -> NDArray[Any] | None:
    """Read the calibration rows, (rows, column_count), or None if there are none.

    Integers and booleans stay what they are: they declare the grid of the features. All other
    numbers become float64.

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
        if model.published is not None:
            schema = Schema.of(model.published.columns)
            # Other readers take numbers only, and no gaps.
            has_gaps = path.suffix.lower() in SUFFIXES and any(column.allows_missing for column in schema.columns)
            if schema.has_texts or (has_gaps and model.feature_names):
                return read_table(content.decode("utf-8-sig"), path, schema)
        rows = file.read(Schema(model.column_count, model.feature_names))
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
    return np.array(rows) if rows.dtype.kind in "biu" else np.array(rows, np.float64)


def _check_archive(content: bytes, path: Path) -> None:
    """Check the sizes that an archive's directory says, before one of its members is inflated."""
    try:
        open_archive(content, MAX_CALIBRATION_BYTES).close()
    except (BadZipFile, ValueError) as error:
        raise InputError(f"{path}: the file is not a .npz file, as numpy.savez writes it") from error
