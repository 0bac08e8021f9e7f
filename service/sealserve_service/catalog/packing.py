"""Packing: a model is planned in both modes, and written to a file that needs nothing else."""

import contextlib
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from sealserve.errors import PlanError
from sealserve.he.layouts import Layout
from sealserve_service.catalog.sources import planning_basis
from sealserve_service.engines import offering
from sealserve_service.models import sealmodel_format
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.loading import load_model
from sealserve_service.models.packed import Packed, PackedJudgement, PackedRanges
from sealserve_service.planning.extraction import scores_to_copy
from sealserve_service.planning.packed_judgements import recording
from sealserve_service.planning.verdict import Judgement
from sealserve_service.settings.model_source import ModelSource


class JudgedLayout(NamedTuple):
    """What a layout can do for a packed model in one mode.

    Attributes:
        layout: the layout.
        is_private: the mode.
        judgement: of what would be served; or why nothing can be.
    """

    layout: Layout
    is_private: bool
    judgement: Judgement | PlanError


class PackedFile(NamedTuple):
    """A packed model.

    Attributes:
        content: of its file.
        model: as it is read from there.
        layouts: what it can be served with.
        scores_to_copy: how many honest scores suffice to copy its head.
    """

    content: bytes
    model: LinearModel
    layouts: tuple[JudgedLayout, ...]
    scores_to_copy: int


def pack(source: ModelSource, *, trust_pickle: bool, hiding_bits: int) -> PackedFile:
    """Load, plan and pack a model.

    Args:
        source: the model's file, and what the operator says of the model.
        trust_pickle: whether to load files that run code of their author.
        hiding_bits: of mode private, in which plans are judged too.

    Raises:
        ModelError: the file, the model or its range cannot be served.
        PlanError: no parameter set serves the model as asked, in either mode.
    """
    model = load_model(source.path, trust_pickle=trust_pickle, sha256=source.sha256)
    basis, judgements, layouts = planning_basis(source, model), dict[str, PackedJudgement](), list[JudgedLayout]()
    features, scores = None if basis.calibration is None else basis.model.features(basis.calibration), 0
    for planned in offering.plan_layouts(
        basis.model,
        basis.ranges,
        modes=(None, hiding_bits),
        max_score_error=basis.max_score_error,
        calibration=basis.calibration,
        accept_disagreement=True,  # whoever serves it is asked
        judged=recording(basis.judged, judgements),
    ):
        if not (scores or isinstance(planned.chosen, PlanError)):
            scores = scores_to_copy(planned.chosen.grid, features)
        result = planned.chosen if isinstance(planned.chosen, PlanError) else planned.judgement
        if result is not None:
            layouts.append(JudgedLayout(planned.engine_type.rules.layout, planned.hiding_bits is not None, result))
        del planned  # as large as the model
    first = layouts[0].layout  # it has to take every model
    faults = [found.judgement for found in layouts if found.layout is first]
    if all(isinstance(fault, PlanError) for fault in faults):
        raise PlanError(str(faults[0]))
    packed = Packed(
        ranges=PackedRanges(
            **{field.name: getattr(basis.ranges, field.name) for field in dataclasses.fields(PackedRanges)}
        ),
        max_score_error=basis.max_score_error,
        judgements=judgements,
    )
    content = sealmodel_format.to_bytes(dataclasses.replace(basis.model, packed=packed))
    return PackedFile(content, sealmodel_format.read_model(content, source.path), tuple(layouts), scores)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read (mode 0600), in one step.

    A service that watches the file sees the old content or the new one.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(file.name).unlink()
            raise
