"""Planner: model, range and wanted error -> parameter set, t, bits and packing, or why not.

The decrypted integer equals the plaintext integer arithmetic, for every row within the declared
range, when two bounds hold.

No wrap. Class k's integer score lies in low_k .. high_k, the extremes of W_int x_int + b_int over
0 <= x_int <= levels. A residue modulo t stands for the integer nearest the class's centre
(low_k + high_k) // 2, which is right when

    t >= max_k (high_k - low_k) + 2

No noise. A product with a plaintext polynomial w multiplies the noise of a fresh ciphertext (see
`noise`) by at most the sum of |w|. A' is that sum over all products that are summed into one result
(the blocks of a long row) and over all classes that share its polynomial. The intercept is added as
round(q b_int / t): 1/2 more. `noise.is_decrypted` then asks for

    q (1 - 2^-56) > t (43 A' + 1)

Mode private adds what hides the weights: an encryption of zero, and uniform noise of a width B that
follows from q and t. `hiding` derives B, the condition that takes the place of the one above, the
bits of hiding that B gives to a full reply (a reply of fewer rows has less to hide, and gets the
same B), and how many coefficients of c0 a pair of the reply may keep, which caps the rows of an
item.

Weights lifted modulo t are no larger in absolute value than W_int, and congruent to it: the bound
covers them.

The error of a score has two parts. On the grid, score - model's score is the sum of
(W_int / s - W step) x_int and of the intercept's rounding. Its extremes over the range are
computed, not estimated: `score_error_bound`. (The looser closed form is (features levels + 1) /
(2 s).) Rounding x onto the grid adds at most sum |W| step / 2: `input_rounding_error_bound`.

More bits in the weights mean less error, a larger t and a larger A'. For each parameter set and
each packing there is a plan of the most bits that fit, and where the layout's rules gain from fewer
bits (see `row` and `column`) there are plans of fewer. Of all plans the planner takes the cheapest
whose error bound is small enough.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import PlanError
from sealserve.he.layouts import Packing
from sealserve.he.parameters import MAX_PLAIN_MODULUS_BITS, EncryptionParameters, ParameterSet
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve_service.planning import hiding, noise
from sealserve_service.planning.plan import IntegerModel, PackingT, Plan, PlanningRules

# Of the widest range of a class's scores. Bits are dearer in mode private, where the next set costs
# twice as much.
DEFAULT_RELATIVE_ERROR = 2.0**-10
DEFAULT_PRIVATE_RELATIVE_ERROR = 2.0**-9


def candidate_plans(
    rules: PlanningRules[PackingT],
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    grid: InputGrid,
    *,
    hiding_bits: int | None = None,
    parameter_sets: Iterable[ParameterSet] | None = None,
) -> list[Plan[PackingT]]:
    """Return the plans that fit, cheapest first.

    Plans that cost more than another and are no better are left out.

    Args:
        rules: of the layout.
        weights: (score_count, feature_count).
        intercept: (score_count,).
        grid: the declared range.
        hiding_bits: lambda, at least, for mode private; None for mode open.
        parameter_sets: the sets to choose from; by default those of the layout and the mode.
    """
    if parameter_sets is None:
        layout = rules.layout
        parameter_sets = layout.open_parameter_sets if hiding_bits is None else layout.private_parameter_sets
    score_count, feature_count = weights.shape
    packings = [
        (parameter_set, packing)
        for parameter_set in parameter_sets
        for packing in rules.packings(parameter_set.poly_modulus_degree, feature_count, score_count)
    ]
    models = _integer_models(weights, intercept, grid, rules.max_weight_bits)
    plans: list[Plan[PackingT]] = []
    for plan in sorted(_fitting_plans(rules, packings, models, hiding_bits), key=rules.cost):
        if not plans or plan.score_error_bound < plans[-1].score_error_bound:
            plans.append(plan)
    return plans


def choose(
    plans: Sequence[Plan[PackingT]],
    weights: NDArray[np.float64],
    grid: InputGrid,
    *,
    max_score_error: float | None,
    hiding_bits: int | None,
) -> Plan[PackingT]:
    """Return the first of a model's plans, cheapest first, whose error bound is small enough.

    Args:
        plans: what `candidate_plans` has made.
        weights: (score_count, feature_count).
        grid: the declared range.
        max_score_error: the largest acceptable score_error_bound; by default 1/1024 of the widest
            range of a class's scores, in mode private 1/512.
        hiding_bits: the mode of the plans.

    Raises:
        PlanError: no plan is good enough; the text says how close the best one comes.
    """
    if max_score_error is None:
        relative = DEFAULT_RELATIVE_ERROR if hiding_bits is None else DEFAULT_PRIVATE_RELATIVE_ERROR
        max_score_error = relative * float((np.abs(weights * grid.step) @ grid.levels).max())
    for plan in plans:
        if plan.score_error_bound <= max_score_error or not weights.any():
            return plan
    if not plans:
        raise PlanError(
            "no parameter set holds this model even with 1-bit weights: its intercepts or its range of scores are too "
            "large for its weights; narrow --input-range or widen --input-step"
        )
    best = min(plans, key=lambda plan: plan.score_error_bound)
    raise PlanError(
        f"no parameter set keeps the score error within {max_score_error:.3g}: the best, "
        f"{best.parameters.parameter_set.name} with {best.weight_bits}-bit weights, is proven to "
        f"{best.score_error_bound:.3g}; allow that with --max-score-error, narrow --input-range or widen --input-step"
    )


def _integer_models(
    weights: NDArray[np.float64], intercept: NDArray[np.float64], grid: InputGrid, max_bits: int
) -> Iterator[tuple[int, IntegerModel]]:
    """Yield t and the model at every number of bits that fits SEAL's largest t, most bits first."""
    on_grid = weights * grid.step
    peak = float(np.abs(on_grid).max()) or 1.0
    widest = float((np.abs(on_grid) @ grid.levels).max())
    farthest = widest + float(np.abs(intercept + weights @ grid.minimum).max())
    # A range below half a step has one level, its minimum.
    farthest_off_grid = np.where(grid.levels > 0, grid.step / 2, grid.maximum - grid.minimum)
    rounding = float((np.abs(weights) @ farthest_off_grid).max())
    for bits in range(max_bits, 0, -1):
        scale = 2.0**bits / peak
        # t bounds the range of scores; int64 on the wire and in the arithmetic bounds the scores
        # themselves.
        if scale * widest >= 2.0**MAX_PLAIN_MODULUS_BITS or scale * farthest >= 2.0**62:
            continue
        model = QuantizedModel.of(weights, intercept, grid, scale)
        extremes = model.extremes(grid)
        least = max(2, int(grid.levels.max()) + 1, *(high - low + 2 for low, high in extremes))
        plain_modulus = 1 << (least - 1).bit_length()
        if plain_modulus.bit_length() > MAX_PLAIN_MODULUS_BITS:
            continue
        centers = tuple((low + high) // 2 for low, high in extremes)
        yield (
            plain_modulus,
            IntegerModel(
                model=model,
                weight_bits=bits,
                score_centers=centers,
                score_radii=tuple(high - center for (_, high), center in zip(extremes, centers, strict=True)),
                score_error_bound=_score_error_bound(weights, intercept, grid, model),
                input_rounding_error_bound=rounding,
            ),
        )


def _score_error_bound(
    weights: NDArray[np.float64], intercept: NDArray[np.float64], grid: InputGrid, model: QuantizedModel
) -> float:
    on_grid = weights * grid.step
    residual = model.weights / model.score_scale - on_grid
    shifted = intercept + weights @ grid.minimum
    base = np.array([b / model.score_scale for b in model.intercept]) - shifted
    high = base + np.maximum(residual, 0) @ grid.levels
    low = base + np.minimum(residual, 0) @ grid.levels
    # What float64 itself may lose here and in the model's own scores.
    magnitude = np.abs(on_grid) @ grid.levels + np.abs(weights) @ np.abs(grid.minimum) + np.abs(intercept)
    slack = np.finfo(np.float64).eps * (grid.feature_count + 4) * magnitude
    return float((np.maximum(high, -low) + slack).max())


def _fitting_plans(
    rules: PlanningRules[PackingT],
    packings: list[tuple[ParameterSet, PackingT]],
    models: Iterable[tuple[int, IntegerModel]],
    hiding_bits: int | None,
) -> Iterator[Plan[PackingT]]:
    """Yield the plans that keep both bounds, of each packing as long as fewer bits gain something.

    Integer models come one by one, and only those that are in a plan are kept: each is as large as
    the model.
    """
    for plain_modulus, integers in models:
        remaining = []
        for parameter_set, packing in packings:
            plan = _make_plan(rules, parameter_set, packing, plain_modulus, integers, hiding_bits)
            if plan is not None:
                yield plan
            if plan is None or rules.gains_from_fewer_bits(plan):
                remaining.append((parameter_set, packing))
        packings = remaining
        if not packings:
            return


def _make_plan(
    rules: PlanningRules[PackingT],
    parameter_set: ParameterSet,
    packing: PackingT,
    plain_modulus: int,
    integers: IntegerModel,
    hiding_bits: int | None,
) -> Plan[PackingT] | None:
    """Make a plan, if it keeps both bounds and, in mode private, hides the weights."""
    if plain_modulus >= parameter_set.modulus:
        return None
    parameters = EncryptionParameters(parameter_set, plain_modulus)
    absolute_sum = _absolute_sum(packing, integers.model)
    proven: dict[str, Any] = vars(integers)
    if hiding_bits is None:
        if not noise.is_decrypted(parameters, noise.FRESH_NOISE_TIMES_TWO * absolute_sum + 1):
            return None
        return Plan(**proven, parameters=parameters, packing=packing)
    width = hiding.noise_width(parameters)
    if width < 0 or not hiding.fits(parameters, absolute_sum, width):
        return None
    capped = rules.capped(packing, hiding.most_places(parameters, width))
    if capped is None:
        return None
    kept_count = capped.rows * capped.score_count
    if not hiding.hides(parameter_set, absolute_sum, kept_count, width, hiding_bits):
        return None
    return Plan(**proven, parameters=parameters, packing=capped, noise_width=width)


def _absolute_sum(packing: Packing, model: QuantizedModel) -> int:
    """Return A': the largest sum of the absolute weights of classes that share a polynomial."""
    starts = range(0, packing.score_count, packing.classes)
    return int(np.add.reduceat(model.l1_norms, starts).max())
