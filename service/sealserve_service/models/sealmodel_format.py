"""Sealmodel format: packed models, which need no pickle and no library of training to be served.

A file is an uncompressed zip archive. Equal models make equal files, byte for byte. The arrays are
in NumPy's format, float64 unless another type is named:

    version              "sealmodel 1" and a line feed: the first member
    description.json     `_Description`: columns, output, publications, judgements
    steps                a serialized sealserve.v1.InputSteps, if there are published steps
    weights.npy          (score_count, feature_count)
    intercept.npy        (score_count,)
    scaler_range.npy     (2, feature_count): LinearModel.input_range, if there is one
    minimum.npy, maximum.npy, own_step.npy, center.npy, is_declared.npy (booleans)
                         (feature_count,): `PackedRanges`
    group.npy            (feature_count,), int64: declared groups, if there are some

The weights are in it: whoever can read the file has the model.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from sealserve.he.quantization import InputGrid
from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol import wire
from sealserve.protocol.column import Column
from sealserve.protocol.output import Output
from sealserve.protocol.step_constraints import step_constraints
from sealserve.protocol.text import MAX_MESSAGE_CHARACTERS, printable
from sealserve.row_files.npy import read_array
from sealserve.steps.step import ValueKind
from sealserve_service.models.archives import open_archive, read_member
from sealserve_service.models.errors import ModelError, ModelFileError
from sealserve_service.models.fronts import Front, Publication
from sealserve_service.models.limits import MAX_DESCRIPTION_VALUES, MAX_SCHEMA_BYTES, check_limit, check_weights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.packed import Packed, PackedJudgement, PackedRanges, check_text

SUFFIX = ".sealmodel"
_VERSION, _DESCRIPTION, _STEPS = "version", "description.json", "steps"
_MAGIC = b"sealmodel "
_WRITTEN = _MAGIC + b"1\n"
_RANGES = ("minimum", "maximum", "own_step", "center", "is_declared")
_ARRAYS = ("weights", "intercept", *_RANGES)
_OPTIONAL_ARRAYS = ("scaler_range", "group")
_TYPES = {"is_declared": np.dtype(np.bool_), "group": np.dtype("<i8")}
_FLOATS = np.dtype("<f8")
_MAX_SCORE = 1e100
"""Planning computes squares of scores, and their inverses."""
_UNIX = 3  # the system that an archive says it was made on, whatever it was made on


class _Description(BaseModel):
    """What is neither an array nor the steps.

    Attributes:
        output: the meaning of the scores.
        column_names: as the estimator knows them; empty if it has none.
        columns: of a model with steps.
        publications: what publishing the steps tells. The operator has agreed to it.
        exactly_one: of each declared group.
        outside_share: see `PackedRanges`.
        max_score_error, judgements: see `Packed`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    output: Output
    column_names: tuple[str, ...]
    columns: tuple[Column, ...]
    publications: tuple[Publication, ...]
    exactly_one: tuple[bool, ...]
    outside_share: float
    max_score_error: float | None
    judgements: dict[str, PackedJudgement]


def to_bytes(model: LinearModel) -> bytes:
    """Return the content of a packed model's file.

    Args:
        model: with `packed`.

    Raises:
        ParameterError: the steps have too many bytes for clients, or a text that is no Unicode.
        ModelTooLargeError: the description passes a limit.
    """
    if (packed := model.packed) is None:
        raise ValueError("the model has not been planned")
    front, ranges = model.published, packed.ranges
    declared = ranges.constraints if front is None else RowConstraints()  # others follow from the steps
    description = _Description(
        output=model.output,
        column_names=model.feature_names,
        columns=front.columns if front else (),
        publications=tuple(map(_shown, front.publications)) if front else (),
        exactly_one=tuple(declared.exactly_one.tolist()),
        outside_share=ranges.outside_share,
        max_score_error=packed.max_score_error,
        judgements=dict(packed.judgements),
    )
    text = json.dumps(description.model_dump(mode="json"), allow_nan=False, sort_keys=True, ensure_ascii=False)
    members = {_VERSION: _WRITTEN, _DESCRIPTION: _checked_description(text.encode())}
    if front is not None:
        members[_STEPS] = wire.steps_to_bytes(front.program).data
    arrays = {"weights": model.weights, "intercept": model.intercept} | {n: getattr(ranges, n) for n in _RANGES}
    if model.input_range is not None:
        arrays["scaler_range"] = np.stack(model.input_range)
    if len(declared.group):
        arrays["group"] = declared.group
    return _archive(members | {f"{name}.npy": _array_bytes(name, values) for name, values in arrays.items()})


def read_model(content: bytes, path: Path) -> LinearModel:
    """Return the model in a file, the content of the file at the path.

    Raises:
        ModelFileError: the file is damaged, of another version, or its parts contradict each other.
        ModelTooLargeError: the file or the model passes a limit.
    """
    try:
        return _model_of(_read_parts(content, path))
    except ValidationError as error:
        fault: Any = error.errors(include_url=False, include_input=False)[0]
        text = printable(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}", MAX_MESSAGE_CHARACTERS)
        raise ModelFileError(f"{path}: its {_DESCRIPTION} makes no sense to this version: {text}") from error
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # zipfile, NumPy and the steps each have their own for a damaged file
        raise ModelFileError(f"{path} is not a readable {SUFFIX} file: {error}") from error


class _Parts(NamedTuple):
    description: _Description
    steps: bytes | None
    arrays: Mapping[str, NDArray[Any]]


def _read_parts(content: bytes, path: Path) -> _Parts:
    with open_archive(content) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != ZIP_STORED for entry in entries.values()):
            raise ValueError("a member is compressed")
        if _VERSION not in entries:
            raise ValueError("it does not say its version")
        if (version := read_member(archive, _VERSION)) != _WRITTEN:
            if not version.startswith(_MAGIC):
                raise ValueError("its version is none")
            raise ModelFileError(f"{path} is of another version of the format: update sealserve, or pack it again")
        required = {_VERSION, _DESCRIPTION, *(f"{name}.npy" for name in _ARRAYS)}
        possible = required | {_STEPS, *(f"{name}.npy" for name in _OPTIONAL_ARRAYS)}
        if not required <= entries.keys() <= possible:
            raise ValueError("a member is missing, or is none of those that it should have")
        check_limit(f"bytes of {_DESCRIPTION}", MAX_SCHEMA_BYTES, entries[_DESCRIPTION].file_size)
        description = _checked_description(read_member(archive, _DESCRIPTION))
        steps = read_member(archive, _STEPS) if _STEPS in entries else None
        names = [name for name in (*_ARRAYS, *_OPTIONAL_ARRAYS) if f"{name}.npy" in entries]
        arrays = {name: _read_array(name, read_member(archive, f"{name}.npy")) for name in names}
    return _Parts(_Description.model_validate_json(description), steps, arrays)


def _checked_description(text: bytes) -> bytes:
    """Return a description whose size has been checked before objects are made of it."""
    check_limit(f"bytes of {_DESCRIPTION}", MAX_SCHEMA_BYTES, len(text))
    values = sum(map(text.count, (b",", b"[", b"{")))
    check_limit(f"values in {_DESCRIPTION}", MAX_DESCRIPTION_VALUES, values)
    return text


def _model_of(parts: _Parts) -> LinearModel:
    description, arrays = parts.description, parts.arrays
    weights = arrays["weights"]
    if weights.ndim != 2:
        raise ValueError(f"the weights have shape {weights.shape}")
    check_weights(*weights.shape)
    front = _front_of(parts, weights.shape[1])
    scaler_range = arrays.get("scaler_range")
    if scaler_range is not None and scaler_range.shape != (2, weights.shape[1]):
        raise ValueError("the scaler's range is not one of the features")
    for judgement in description.judgements.values():
        errors = judgement.observed
        if not len(errors.rms) == len(errors.label_rms) == description.output.score_count:
            raise ValueError("a judgement is not one of the scores")
        if errors.other_labels > errors.row_count:
            raise ValueError("a judgement has more labels than rows")
    ranges = _ranges_of(parts, front, weights.shape[1])
    with np.errstate(all="ignore"):
        greatest = np.abs(weights) @ np.maximum(np.abs(ranges.minimum), np.abs(ranges.maximum)) + np.abs(weights).max()
    if not (greatest < _MAX_SCORE).all():
        raise ValueError("NaN or infinity in the weights, or its scores are too large")
    packed = Packed(
        ranges=ranges,
        max_score_error=description.max_score_error,
        judgements=description.judgements,
    )
    return LinearModel(
        weights,
        arrays["intercept"],
        description.output,
        feature_names=description.column_names,
        input_range=None if scaler_range is None else (scaler_range[0], scaler_range[1]),
        column_count=len(description.columns) if front else weights.shape[1],
        published=front,
        packed=packed,
    )


def _front_of(parts: _Parts, feature_count: int) -> Front | None:
    columns, publications = parts.description.columns, parts.description.publications
    if parts.steps is None:
        if columns or publications:
            raise ValueError("its steps are missing")
        return None
    for publication in publications:
        for text in (publication.name, publication.tells, publication.training_values):
            check_text(text)
    program = wire.steps_from_bytes(parts.steps)
    kinds = tuple(ValueKind.TEXT if column.kind.is_text else ValueKind.NUMBER for column in columns)
    is_told = bool(publications) or not program.steps  # to leave out columns takes no step
    if program.columns != kinds or program.feature_count != feature_count or not is_told:
        raise ValueError("its steps do not fit its columns, its weights or what it says of them")
    return Front.of(program, columns, publications)


def _ranges_of(parts: _Parts, front: Front | None, feature_count: int) -> PackedRanges:
    """Return the ranges, checked as those of a grid are."""
    arrays, description = {name: parts.arrays[name] for name in _RANGES}, parts.description
    if any(values.shape != (feature_count,) for values in arrays.values()):
        raise ValueError("its ranges are not those of the features")
    if front is None:
        group = parts.arrays.get("group", np.zeros(0, np.int64))
        constraints = RowConstraints.of(feature_count, group, description.exactly_one)
    elif "group" in parts.arrays or description.exactly_one:
        raise ValueError("it declares groups of what steps compute")
    else:
        constraints = step_constraints(front.ranges)
    low, high, own_step = arrays["minimum"], arrays["maximum"], arrays["own_step"]
    with np.errstate(all="ignore"):
        step = np.where(own_step > 0, own_step, np.where(high > low, high - low, 1.0))
    is_declared = arrays["is_declared"] & (high > low)
    InputGrid.of(feature_count, low, high, step, keeps=is_declared, constraints=constraints)
    if not ((own_step >= 0) & (low <= arrays["center"]) & (arrays["center"] <= high)).all():
        raise ValueError("a step is below 0, or a centre is outside its range")
    if not 0 <= description.outside_share <= 1:
        raise ValueError("a share is below 0 or above 1")
    return PackedRanges(**arrays, outside_share=description.outside_share, constraints=constraints)


def _shown(publication: Publication) -> Publication:
    """Return a publication whose texts, of the names of steps, can be shown."""
    return publication._replace(
        name=printable(publication.name, MAX_MESSAGE_CHARACTERS),
        tells=printable(publication.tells, MAX_MESSAGE_CHARACTERS),
        training_values=printable(publication.training_values, MAX_MESSAGE_CHARACTERS),
    )


def _array_bytes(name: str, values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    npy.write_array(file, np.ascontiguousarray(values, _TYPES.get(name, _FLOATS)), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _read_array(name: str, data: bytes) -> NDArray[Any]:
    array = read_array(data)
    if array.dtype != _TYPES.get(name, _FLOATS):
        raise ValueError(f"{name} holds {array.dtype} instead of {_TYPES.get(name, _FLOATS)}")
    return array


def _archive(members: Mapping[str, bytes]) -> bytes:
    """Return an archive of members that tells neither a time nor a machine."""
    file = io.BytesIO()
    with ZipFile(file, "w", ZIP_STORED) as archive:
        for name, data in members.items():
            entry = ZipInfo(name)  # of 1980
            entry.create_system = _UNIX
            archive.writestr(entry, data)
    return file.getvalue()
