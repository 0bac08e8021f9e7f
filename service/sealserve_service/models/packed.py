"""Packed: how a model was planned before it was packed, so that serving it takes no options."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from sealserve.he.row_constraints import RowConstraints
from sealserve.protocol.model import Verdict
from sealserve.protocol.text import MAX_MESSAGE_CHARACTERS, printable


def check_text(text: str) -> str:
    """Check that a text of a file can be shown on a terminal, and return it.

    Raises:
        ValueError: it has characters that cannot be printed, or is too long.
    """
    if printable(text, MAX_MESSAGE_CHARACTERS) != text:
        raise ValueError("a text is too long, or has characters that cannot be shown")
    return text


_Amount = Annotated[float, Field(ge=0)]
_Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedRanges:
    """The ranges and grids of the features: see `planning.ranges.InputRanges`."""

    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    own_step: NDArray[np.float64]
    is_declared: NDArray[np.bool_]
    center: NDArray[np.float64]
    outside_share: float
    constraints: RowConstraints


@dataclass(frozen=True, kw_only=True)
class PackedErrors:
    """What calibration rows have shown: see `planning.score_error.ScoreErrors`."""

    maximum: _Amount
    rms: tuple[_Amount, ...]
    label_rms: tuple[_Amount, ...]
    row_count: Annotated[int, Field(ge=1)]
    has_labels: bool
    other_labels: Annotated[int, Field(ge=0)]
    disagreement: tuple[_Share, _Amount]


@dataclass(frozen=True, kw_only=True)
class PackedJudgement:
    """The judgement of a plan on calibration rows: see `planning.verdict.Judgement`."""

    verdict: Verdict
    grade: Verdict
    reason: Annotated[str, AfterValidator(check_text)]
    remedy: Annotated[str, AfterValidator(check_text)]
    expected_rms: _Amount
    observed: PackedErrors


@dataclass(frozen=True, eq=False, kw_only=True)
class Packed:
    """How a model was planned.

    Attributes:
        ranges: of the features.
        max_score_error: the largest acceptable error bound; None for the planner's default.
        judgements: of the plans that were judged on calibration rows, by what names a plan: see
            `planning.packed_judgements`. Empty if there were no rows.
    """

    ranges: PackedRanges
    max_score_error: float | None = None
    judgements: Mapping[str, PackedJudgement] = field(default_factory=dict)
