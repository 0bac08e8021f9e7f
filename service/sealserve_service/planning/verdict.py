"""Verdict: whether an encrypted model's predictions are those of the plaintext model, in a word.

With calibration rows, a classifier is judged by its labels. Of each row, the margin of its label is
compared with the root mean square of the margin's error: Phi(-margin / error) is the probability of
another label, for an error that is normal. The verdict is decided by the mean over the rows, plus
1.645 of its standard errors, which is above the true share with 95 % confidence:

    OK      up to 0.05 %, on 200 rows or more
    WARN    up to 1 %
    REFUSE  beyond

The rows' own labels have a say too: a word that they contradict, at 5 % significance, is not given.
So has the spread of the scores, because rows that a model was trained with have wider margins than
others. Of scores that are normal about their threshold, with the spread that independent features
would give them, an error of the share e of the spread changes arctan(e) / pi of the labels. A word
needs that share to be within ten times its limit. Where rows are fewer than twice the features,
which lets a linear model tell almost any of them apart (Cover 1965), the limit itself applies.

A regression has no labels. Its verdict compares, for each score, the root mean square of the error
with the spread (standard deviation) of the score. So do verdicts without rows, which take features
as uniform over the declared range, and which are UNCHECKED instead of OK:

    OK, UNCHECKED  up to 1 % of the spread (0.3 % of the labels of normal scores)
    WARN           up to 30 % (9 %)
    REFUSE         beyond

The limits are wide because the spread over the declared range is the upper end of what rows have.

Clients' rows that are out of range are refused. The rows that gave the ranges tell how many that
will be (`InputRanges.outside_share`). If it is more than 0.1 % of them, the verdict is WARN at
best: such rows get no wrong label, but none. In 29 measured models no more than 0.2 % of held-out
rows were out of range where the verdict was OK.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts import Packing
from sealserve.he.quantization import InputGrid
from sealserve.protocol.model import Verdict
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.plan import Plan
from sealserve_service.planning.score_error import CalibrationScores, Moments, ScoreErrors, expected_rms, observe

MAX_OK_DISAGREEMENT = 5e-4
MAX_WARN_DISAGREEMENT = 1e-2
MIN_OK_ROWS = 200
MAX_OK_SPREAD_SHARE = 1e-2
MAX_WARN_SPREAD_SHARE = 0.3
MAX_OK_OUTSIDE = 1e-3
_CONFIDENCE = 1.645  # standard errors: one-sided, 95 %
_MARGINS_OF_TRAINING = 10
_NO_SPREAD = 1e-9  # of what the range has: one row, or equal rows


@dataclass(frozen=True, eq=False, kw_only=True)
class Judgement:
    """A verdict on a plan, and what it rests on.

    Attributes:
        verdict: the word.
        grade: the word that as many rows as are needed would have got; what plans are chosen by.
        reason: why, in a sentence.
        remedy: what would make it better, in a sentence; "" for OK.
        expected_rms: the expected root mean square of the error, the greatest of all scores.
        observed: the errors on the calibration rows; None if there are none.
    """

    verdict: Verdict
    grade: Verdict
    reason: str
    remedy: str
    expected_rms: float
    observed: ScoreErrors | None

    def __str__(self) -> str:
        return f"{self.verdict.value}: {self.reason}" + (f"; {self.remedy}" if self.remedy else "")


Judge = Callable[[Plan[Packing], LinearModel, CalibrationScores | None], Judgement]
"""Judges a plan of a model, on calibration rows if there are some: `judge`, or what was packed."""


def judge(plan: Plan[Packing], model: LinearModel, rows: CalibrationScores | None = None) -> Judgement:
    """Judge a plan of a model.

    Args:
        plan: the plan.
        model: the plaintext model.
        rows: calibration rows; None if there are none.

    Raises:
        InputRangeError: the plan's grid refuses a row.
    """
    grid = plan.grid
    moments = Moments.uniform(grid) if rows is None else rows.on(grid).moments
    arguments = model.weights, model.intercept, grid, plan.model, moments
    expected = float(expected_rms(*arguments).max())
    if rows is None:
        is_classifier = model.output.compares_scores
        errors = expected_rms(*arguments, is_centred=is_classifier)
        share = _largest_share(errors, _uniform_spread(model.weights, grid, is_centred=is_classifier))
        of_share = _of_share(share, MAX_OK_SPREAD_SHARE, MAX_WARN_SPREAD_SHARE)
        verdict = grade = _worse(Verdict.UNCHECKED, of_share)
        reason = f"without calibration rows, errors are expected to be {_percent(share)} of the spread of the scores"
        observed = None
    else:
        observed = observe(model.output, grid, plan.model, rows)
        if rows.margins is None:
            grade, reason = _by_spread(observed, rows.scores, _uniform_spread(model.weights, grid))
        else:
            grade, reason = _by_labels(observed)
            on_grid = model.weights * grid.step
            differ = _of_normal_scores(observed, on_grid, moments, is_centred=model.output.compares_scores)
            slack = 1 if observed.row_count < 2 * np.count_nonzero(moments.variance) else _MARGINS_OF_TRAINING
            of_spread = _of_share(differ / slack, MAX_OK_DISAGREEMENT, MAX_WARN_DISAGREEMENT)
            if of_spread.rank > grade.rank:
                grade = of_spread
                reason = (
                    f"{_percent(differ)} of labels would differ if scores were normal: the margins of these rows are "
                    "wider, as those of rows are that a model was trained with"
                )
        reason += f", on {observed.row_count:,} calibration rows"
        verdict = grade
        if grade is Verdict.OK and observed.row_count < MIN_OK_ROWS:
            verdict, reason = Verdict.WARN, f"{reason}, too few for OK"
        if rows.outside_share > MAX_OK_OUTSIDE:
            verdict = _worse(grade, Verdict.WARN)
            reason += f"; {_percent(rows.outside_share)} of rows like these are expected to be refused as out of range"
    return Judgement(
        verdict=verdict,
        grade=grade,
        reason=reason,
        remedy=_remedy(plan, verdict, grade, rows, observed, has_steps=model.published is not None),
        expected_rms=expected,
        observed=observed,
    )


def first_good_plan(
    plans: Sequence[Plan[Packing]], judged: Callable[[Plan[Packing]], Judgement]
) -> tuple[Plan[Packing], Judgement]:
    """Return the cheapest plan with the best verdict that is to be had.

    Args:
        plans: the acceptable ones, cheapest first; at least one.
        judged: judges a plan.
    """
    best: tuple[Plan[Packing], Judgement] | None = None
    for plan in plans:
        judgement = judged(plan)
        if best is None or judgement.grade.rank < best[1].grade.rank:
            best = plan, judgement
        if judgement.grade in (Verdict.OK, Verdict.UNCHECKED):
            break
    if best is None:
        raise ValueError("there is no plan to choose from")
    return best


def _by_spread(
    observed: ScoreErrors, scores: NDArray[np.float64], of_range: NDArray[np.float64]
) -> tuple[Verdict, str]:
    """Return the verdict on a regression's scores (rows, score_count), and its reason."""
    spread = scores.std(axis=0)
    spread = np.where(spread > _NO_SPREAD * of_range, spread, of_range) * (of_range > 0)
    share = _largest_share(observed.rms, spread)
    reason = f"errors are {_percent(share)} of the spread of the scores"
    return _of_share(share, MAX_OK_SPREAD_SHARE, MAX_WARN_SPREAD_SHARE), reason


def _by_labels(observed: ScoreErrors) -> tuple[Verdict, str]:
    """Return the verdict on labels, and its reason."""
    mean, error = observed.disagreement
    share = mean + _CONFIDENCE * error
    grade = _of_share(share, MAX_OK_DISAGREEMENT, MAX_WARN_DISAGREEMENT)
    reason = f"at most {_percent(share)} of labels are expected to differ from the plaintext model's"
    shown = next(word for word, limit in _LIMITS if not _is_more_often(observed, limit))
    if observed.other_labels:
        reason += f" and {observed.other_labels:,} did"
    return _worse(grade, shown), reason


_LIMITS = ((Verdict.OK, MAX_OK_DISAGREEMENT), (Verdict.WARN, MAX_WARN_DISAGREEMENT), (Verdict.REFUSE, 1.0))


def _is_more_often(observed: ScoreErrors, share: float) -> bool:
    """Whether labels differ more often than by a share of the rows, at 5 % significance.

    The square root of a Poisson count has a standard deviation of 1/2.
    """
    return observed.other_labels > (math.sqrt(share * observed.row_count) + _CONFIDENCE / 2) ** 2


def _worse(one: Verdict, other: Verdict) -> Verdict:
    return one if one.rank > other.rank else other


def _of_normal_scores(
    observed: ScoreErrors, on_grid: NDArray[np.float64], moments: Moments, *, is_centred: bool
) -> float:
    """Return the share of labels that would differ of normal scores about their threshold.

    Args:
        observed: the errors.
        on_grid: weights in units of the grid, (score_count, feature_count).
        moments: of the features, which are taken as independent but in groups.
        is_centred: whether scores are compared with each other, not with zero.
    """
    centred = on_grid - on_grid.mean(axis=0) if is_centred else on_grid
    return math.atan(_largest_share(observed.label_rms, np.sqrt(moments.variances(centred)))) / math.pi


def _of_share(share: float, max_ok: float, max_warn: float) -> Verdict:
    if share <= max_ok:
        return Verdict.OK
    return Verdict.WARN if share <= max_warn else Verdict.REFUSE


def _uniform_spread(weights: NDArray[np.float64], grid: InputGrid, *, is_centred: bool = False) -> NDArray[np.float64]:
    """Return the standard deviation of each score of uniform features, (score_count,)."""
    if is_centred:
        weights = weights - weights.mean(axis=0)
    if not grid.constraints.is_none:
        return np.sqrt(Moments.uniform(grid).variances(weights * grid.step))
    spread: NDArray[np.float64] = np.sqrt(weights**2 @ ((grid.maximum - grid.minimum) ** 2 / 12))
    return spread


def _largest_share(errors: NDArray[np.float64], spread: NDArray[np.float64]) -> float:
    """Return the largest error in units of its score's spread, of the scores that vary."""
    varies = spread > 0
    return float((errors[varies] / spread[varies]).max(initial=0.0))


def _remedy(
    plan: Plan[Packing],
    verdict: Verdict,
    grade: Verdict,
    rows: CalibrationScores | None,
    observed: ScoreErrors | None,
    *,
    has_steps: bool,
) -> str:
    """Say what would make a verdict better. With steps, ranges are those of columns."""
    if verdict is Verdict.OK:
        return ""
    if grade is Verdict.UNCHECKED:
        return f"give {MIN_OK_ROWS} typical rows or more with --calibration to have labels checked"
    more = f"give {MIN_OK_ROWS} calibration rows or more"
    ways = [] if observed is None or observed.row_count >= MIN_OK_ROWS else [more]
    if grade is Verdict.OK:
        if rows is not None and rows.outside_share > MAX_OK_OUTSIDE:
            ways.append("widen the ranges with --input-margin or --input-ranges")
        return ", and ".join(ways)
    narrower = "narrow the ranges of columns with --input-ranges" if has_steps else "narrow --input-range"
    ways += ["give each feature a range of its own with --calibration" if observed is None else narrower]
    if plan.input_rounding_error_bound > plan.score_error_bound:
        ways.append(
            "declare columns of integers, by a step of 1 in --input-ranges"
            if has_steps
            else "declare the grids of features that are on one, with --input-step or --input-ranges"
        )
    if plan.noise_width is not None:
        ways.append("serve the model with --weights open")
    if verdict is Verdict.REFUSE:
        ways.append("serve it as it is with --accept-disagreement")
    return ", or ".join(ways)


def _percent(share: float) -> str:
    """Return a share in words; below 0.0001 % it is that, rounded up."""
    return f"{max(100 * share, 1e-4):.2g} %"
