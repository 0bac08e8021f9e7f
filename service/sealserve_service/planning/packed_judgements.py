"""Judgements of plans as they are packed, so that rows need not be kept for them.

A plan is named by what sets it apart from the other plans of its model, with six digits: machines
differ in the last digits of a product.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from sealserve.he.layouts import Packing
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.models.packed import PackedErrors, PackedJudgement
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.score_error import CalibrationScores, ScoreErrors
from sealserve_service.planning.verdict import Judge, Judgement, judge

_OTHER_PLAN = (
    "; the file has no verdict on this plan, as the options are others, or another version, than those it was packed "
    "with"
)


def plan_name(plan: Plan[Packing]) -> str:
    """Return what a plan is packed under."""
    mode = "open" if plan.noise_width is None else "private"
    figures = plan.model.score_scale, plan.total_error_bound, plan.input_rounding_error_bound
    parameters = plan.parameters
    return " ".join(
        (mode, parameters.parameter_set.name, str(parameters.plain_modulus), *(f"{figure:.6g}" for figure in figures))
    )


def recording(judged: Judge, judgements: dict[str, PackedJudgement]) -> Judge:
    """Return what judges as `judged` does, and enters what rows have shown into `judgements`."""

    def record(plan: Plan[Packing], model: LinearModel, rows: CalibrationScores | None = None) -> Judgement:
        judgement = judged(plan, model, rows)
        if judgement.observed is not None:
            judgements[plan_name(plan)] = _packed(judgement, judgement.observed)
        return judgement

    return record


def recalling(judgements: Mapping[str, PackedJudgement]) -> Judge:
    """Return what judges by packed judgements; other plans it judges without rows."""

    def recall(plan: Plan[Packing], model: LinearModel, rows: CalibrationScores | None = None) -> Judgement:
        packed = judgements.get(plan_name(plan))
        if packed is not None:
            return _unpacked(packed)
        judgement = judge(plan, model, rows)
        return replace(judgement, reason=judgement.reason + _OTHER_PLAN) if judgements else judgement

    return recall


def _packed(judgement: Judgement, observed: ScoreErrors) -> PackedJudgement:
    errors = vars(observed) | {"rms": tuple(observed.rms.tolist()), "label_rms": tuple(observed.label_rms.tolist())}
    return PackedJudgement(**(vars(judgement) | {"observed": PackedErrors(**errors)}))


def _unpacked(packed: PackedJudgement) -> Judgement:
    errors = vars(packed.observed)
    observed = ScoreErrors(**(errors | {name: np.array(errors[name], np.float64) for name in ("rms", "label_rms")}))
    return Judgement(**(vars(packed) | {"observed": observed}))
