"""What an offer publishes of a plan's errors.

With private weights each figure is a clue to the weights: a radius is a norm of a class's weights,
a part of the error bound depends on their roundings, and an observed error on both. So the offer
has one error bound, of two binary digits, one radius for all scores, the verdict's word, and of the
calibration rows their number and a bound on the labels that differ. The operator finds the figures
in `sealserve inspect`.
"""

import math
from typing import Any

from sealserve.he.layouts import Packing
from sealserve.protocol.model import ObservedError
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.score_error import ScoreErrors
from sealserve_service.planning.verdict import Judgement

_RULE_OF_THREE = 3.0
"""A share of which none is seen in n rows is below 3 / n, with 95 % confidence."""


def published_errors(plan: Plan[Packing], judgement: Judgement | None) -> dict[str, Any]:
    """Return the fields of an offer that tell of errors.

    Args:
        plan: the plan that is offered.
        judgement: of the plan; None if it was not judged.
    """
    verdict = judgement.verdict if judgement else None
    observed = judgement.observed if judgement else None
    if plan.noise_width is not None:
        return {
            "score_radii": (max(plan.score_radii),) * len(plan.score_radii),
            "score_error_bound": rounded_up(plan.total_error_bound),
            "input_rounding_error_bound": 0.0,
            "observed_error": None if observed is None else _little_of(observed),
            "verdict": verdict,
        }
    return {
        "score_radii": plan.score_radii,
        "score_error_bound": plan.total_error_bound,
        "weight_rounding_error_bound": plan.score_error_bound,
        "input_rounding_error_bound": plan.input_rounding_error_bound,
        "expected_score_error": judgement.expected_rms if judgement else 0.0,
        "observed_error": None if observed is None else _all_of(observed),
        "verdict": verdict,
    }


def rounded_up(value: float) -> float:
    """Round a number that is not negative up to two binary digits."""
    fraction, exponent = math.frexp(value)  # fraction is 0, or 1/2 to 1
    return math.ldexp(math.ceil(4 * fraction), exponent - 2)


def _all_of(observed: ScoreErrors) -> ObservedError:
    return ObservedError(
        row_count=observed.row_count,
        score_error=observed.maximum,
        rms_score_error=float(observed.rms.max()),
        label_disagreement=observed.other_labels / observed.row_count,
        expected_label_disagreement=observed.disagreement[0],
    )


def _little_of(observed: ScoreErrors) -> ObservedError:
    count = observed.row_count
    share = max(rounded_up(observed.other_labels / count), _RULE_OF_THREE / count)
    return ObservedError(row_count=count, label_disagreement=min(1.0, share) if observed.has_labels else 0.0)
