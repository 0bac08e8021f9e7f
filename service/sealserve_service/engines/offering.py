"""The offering of a model: the layouts and modes in which it can be scored, and its engines.

To add a layout, write its packing (`sealserve.he.layouts`), its rules (`planning`) and its engine,
a `LinearEngine`; then enter the layout in `LAYOUTS` and the engine in `LINEAR_ENGINES`.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import PlanError
from sealserve.he.layouts import Layout, Packing
from sealserve.he.layouts.ei_slots import EI_SLOTS
from sealserve.he.quantization import InputGrid
from sealserve.protocol.model import Verdict
from sealserve_service.engines.base import Engine
from sealserve_service.engines.ei.factory import EngineFactory
from sealserve_service.engines.linear.base import LinearEngine
from sealserve_service.engines.linear.column import ColumnEngine
from sealserve_service.engines.linear.row import RowEngine
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptorOf, find_no_key
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.planner import candidate_plans, choose
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.score_error import CalibrationScores
from sealserve_service.planning.verdict import Judge, Judgement, first_good_plan, judge

_logger = logging.getLogger(__name__)

LINEAR_ENGINES: tuple[type[LinearEngine[Any]], ...] = (RowEngine, ColumnEngine)
"""The engines of planned layouts, in the order of the offers. The first has to take every model."""


class PrivateWeights(NamedTuple):
    """What mode private takes: lambda of `planning.hiding`, and clients' public encryption keys."""

    hiding_bits: int
    keys: ZeroEncryptorOf


@dataclass(frozen=True, eq=False, kw_only=True)
class PlannedLayout:
    """What a planned layout can do for a model in one mode.

    Attributes:
        engine_type: the layout's engine.
        hiding_bits: of mode private; None for mode open.
        plans: that fit, cheapest first.
        chosen: the one of the plans to serve, or the reason why none is good enough.
        judgement: of the chosen plan, or of the best one if its predictions were refused; None if
            no plan fits.
    """

    engine_type: type[LinearEngine[Any]]
    hiding_bits: int | None
    plans: list[Plan[Packing]]
    chosen: Plan[Packing] | PlanError
    judgement: Judgement | None


def plan_layouts(
    model: LinearModel,
    inputs: InputRanges | InputGrid,
    *,
    modes: Iterable[int | None],
    max_score_error: float | None = None,
    calibration: NDArray[np.generic] | None = None,
    accept_disagreement: bool = False,
    judged: Judge = judge,
) -> Iterator[PlannedLayout]:
    """Plan a model for every planned layout, and for each of them in every mode.

    A model has one grid in each mode. The first layout chooses it, and the others are planned for
    it. Over 29 measured models, columns with a grid of their own had errors 1.2 times smaller in
    mode open, and 1.1 times larger in mode private: not worth a grid an offer.

    Args:
        model: the model.
        inputs: the ranges of its features; or a grid, where the steps are given.
        modes: bits of hiding of mode private, None for mode open.
        max_score_error: the largest acceptable total error bound; by default what `planner.choose`
            takes.
        calibration: typical rows, (rows, feature_count), by which plans are judged; None if there
            are none.
        accept_disagreement: choose a plan even if the verdict on its predictions is REFUSE.
        judged: judges plans.

    Raises:
        InputRangeError: a calibration row is refused by the grid.
        UnsupportedModelError: the model is not what the estimator computes.
    """
    center, outside_share = (inputs.center, inputs.outside_share) if isinstance(inputs, InputRanges) else (None, 0.0)
    scores = None
    if calibration is not None:
        scores = CalibrationScores.of(model, calibration, outside_share=outside_share)
    grids: dict[int | None, InputRanges | InputGrid] = dict.fromkeys(modes, inputs)
    for engine_type in LINEAR_ENGINES:
        for hiding_bits in grids:
            planned = _plan_layout(
                engine_type,
                model,
                grids[hiding_bits],
                center,
                hiding_bits,
                max_score_error,
                lambda plan: judged(plan, model, scores),
                accept_disagreement,
            )
            if isinstance(planned.chosen, Plan):
                grids[hiding_bits] = planned.chosen.grid
            yield planned
            del planned  # as large as the model: it goes before the next layout is planned


def _plan_layout(
    engine_type: type[LinearEngine[Any]],
    model: LinearModel,
    inputs: InputRanges | InputGrid,
    center: NDArray[np.float64] | None,
    hiding_bits: int | None,
    max_score_error: float | None,
    judged: Callable[[Plan[Packing]], Judgement],
    accept_disagreement: bool,
) -> PlannedLayout:
    plans = candidate_plans(
        engine_type.rules,
        model.weights,
        model.intercept,
        inputs,
        hiding_bits=hiding_bits,
        center=center,
        max_score_error=max_score_error,
    )
    judgement: Judgement | None = None
    chosen: Plan[Packing] | PlanError
    try:
        first = choose(plans, model.weights, max_score_error=max_score_error, hiding_bits=hiding_bits)
        acceptable = plans[plans.index(first) :]  # the dearer ones have smaller errors
        chosen, judgement = first_good_plan(acceptable, judged)
        if judgement.verdict is Verdict.REFUSE and not accept_disagreement:
            chosen = PlanError(f"the verdict is {judgement}")
    except PlanError as error:
        chosen = error
    return PlannedLayout(
        engine_type=engine_type, hiding_bits=hiding_bits, plans=plans, chosen=chosen, judgement=judgement
    )


def engines(
    name: str,
    model: LinearModel,
    grid: InputGrid,
    offered: Iterable[PlannedLayout],
    *,
    keys: ZeroEncryptorOf = find_no_key,
    ei_engine: EngineFactory | None = None,
) -> Iterator[Engine]:
    """Make the engines that serve a model, in the order of its offers.

    A layout that cannot take the model is left out, and the log says why.

    Args:
        name: of the model, for the log.
        model: the model.
        grid: its input grid.
        offered: of each planned layout the mode that is served.
        keys: finds the clients' public encryption keys, for mode private.
        ei_engine: makes the engine for encrypted-inference clients; without it they are not served.

    Raises:
        PlanError: the first layout cannot take the model.
    """
    is_first = True
    for planned in offered:
        plan = planned.chosen
        try:
            if isinstance(plan, PlanError):
                raise plan
            engine = planned.engine_type(plan, planned.judgement, keys)
        except PlanError as error:
            if is_first:
                raise
            _warn_of(name, planned.engine_type.rules.layout, error)
        else:
            yield engine
        is_first = False
        del planned, plan  # each plan is as large as the model: they go before the next layout is planned
    if ei_engine is not None:
        try:
            engine_for_ei = ei_engine(model, grid)
        except PlanError as error:
            _warn_of(name, EI_SLOTS, error)
        else:
            yield engine_for_ei


def _warn_of(name: str, layout: Layout, error: PlanError) -> None:
    _logger.warning("model %s is not served in layout %s: %s", name, layout.name, error)
