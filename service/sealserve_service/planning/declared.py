"""Declared ranges: what the operator's file says of single features.

The file is CSV in UTF-8, with a heading: name, min, max and step, in any order; step may be left
out. Each line is of one feature. A field that is empty says nothing: give both ends or none.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sealserve.steps.ranges import Ranges
from sealserve_service.models.errors import InputRangeError, ModelFileError, ModelTooLargeError
from sealserve_service.models.files import read_file
from sealserve_service.models.limits import MAX_CALIBRATION_BYTES

_HEADINGS = ("name", "min", "max", "step")


@dataclass(frozen=True, eq=False, kw_only=True)
class DeclaredRanges:
    """Ranges and steps of features, float64 (feature_count,); NaN where nothing is declared."""

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    step: NDArray[np.float64]

    @classmethod
    def none(cls, feature_count: int) -> "DeclaredRanges":
        """Declare nothing."""
        unknown = np.full(feature_count, np.nan)
        return cls(minimum=unknown, maximum=unknown, step=unknown)

    @property
    def has_range(self) -> NDArray[np.bool_]:
        """Whether a feature's range is declared."""
        return ~np.isnan(self.minimum)

    @property
    def has_step(self) -> NDArray[np.bool_]:
        """Whether a feature's step is declared."""
        return ~np.isnan(self.step)


def known_ranges(ranges: Ranges) -> DeclaredRanges:
    """Declare what published steps tell of features: finite ranges, and integers."""
    is_known = np.isfinite(ranges.low) & np.isfinite(ranges.high)
    is_integral = ranges.is_integral & (~is_known | (ranges.high > ranges.low))
    return DeclaredRanges(
        minimum=np.where(is_known, ranges.low, np.nan),
        maximum=np.where(is_known, ranges.high, np.nan),
        step=np.where(is_integral, 1.0, np.nan),
    )


def read_declared_ranges(path: Path, feature_count: int, feature_names: tuple[str, ...]) -> DeclaredRanges:
    """Read the file of --input-ranges.

    Args:
        path: of the file.
        feature_count: of the model.
        feature_names: of the model. A model without names has features 0, 1 and so on.

    Raises:
        InputRangeError: the file cannot be read, names a feature twice or one that there is not, or
            a field is not what it should be.
    """
    try:
        text = read_file(path, "", MAX_CALIBRATION_BYTES).decode("utf-8-sig")
        found = np.full((3, feature_count), np.nan)
        places = {name: place for place, name in enumerate(feature_names or map(str, range(feature_count)))}
        for number, fields in _lines(text):
            place = places.pop(fields["name"], None)
            if place is None:
                raise ValueError(f"line {number} names a feature that the model does not have, or one named before")
            found[:, place] = _numbers(number, fields)
    except (ModelFileError, ModelTooLargeError) as error:
        raise InputRangeError(f"the ranges cannot be read: {error}") from error
    except (ValueError, csv.Error) as error:
        raise InputRangeError(f"{path}: {error}") from error
    return DeclaredRanges(minimum=found[0], maximum=found[1], step=found[2])


def _lines(text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the fields of each line that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""))
    headings = [field.strip().lower() for field in next(reader, [])]
    if not {"name", "min", "max"} <= set(headings) <= set(_HEADINGS) or len(set(headings)) < len(headings):
        raise ValueError("its first line is not the heading name,min,max,step")
    for fields in reader:
        if not fields:
            continue
        if len(fields) != len(headings):
            raise ValueError(f"line {reader.line_num} has {len(fields)} fields, and the heading has {len(headings)}")
        yield reader.line_num, dict(zip(headings, fields, strict=True))


def _numbers(number: int, fields: dict[str, str]) -> tuple[float, float, float]:
    """Return minimum, maximum and step; NaN for what is not given."""
    try:
        low, high, step = (float(text) if (text := fields.get(key, "").strip()) else None for key in _HEADINGS[1:])
    except ValueError:
        raise ValueError(f"line {number} has a field that is no number") from None
    if not all(value is None or np.isfinite(value) for value in (low, high, step)):
        raise ValueError(f"line {number} has a number that is not finite")
    if (low is None) != (high is None):
        raise ValueError(f"line {number} has one end of a range: give both, or none")
    return tuple(np.nan if value is None else value for value in (low, high, step))  # type: ignore[return-value]
