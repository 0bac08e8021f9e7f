"""Planner: model, range and wanted error -> parameter set, t, bits and packing, or why not.

The decrypted integer equals the plaintext integer arithmetic, for every row within the declared
range, when two bounds hold.

No wrap. Class k's integer score lies in low_k .. high_k, the extremes of W_int x_int + b_int over 0
<= x_int <= levels and over rows that keep to their groups and norms
(`sealserve.he.row_constraints`). A residue modulo t stands for the integer nearest the class's
centre (low_k + high_k) // 2, which is right when

    t >= max_k (high_k - low_k) + 2

No noise. A product with a plaintext polynomial w multiplies the noise of a fresh ciphertext (see
`noise`) by at most the sum of |w|. A' is that sum over all products that are summed into one result
(the blocks of a long row) and over all classes that share its polynomial. Noise knows no groups:
encryptions of 0 have as much of it as those of 1, so that A' is the sum of all |w|. What the
features of an exactly-one group have in common is moved to the intercept before. The intercept is
added as round(q b_int / t): 1/2 more. The reply modulo q, which has this noise, is rounded to fewer
bits: c0 to k0, c1 to k. Its reader lifts it to a modulus q' of SEAL's and decrypts. Scores are
exact if noise, roundings and SEAL's own loss stay below half the distance of two scores, in units
of which they are

    t (21.5 A' + 1/2) / q + t N / 2^(k + 1) + t / 2^(k0 + 1) + t (N + 1) / (2 q') < 1/2 - 2^-57

`sealserve.he.reply_bits` proves it, with the roundings of its arithmetic: the second and third term
are 2^-7 of themselves more. `rounding` chooses k0, k and q', and reserves the room for them.

Mode private adds what hides the weights: an encryption of zero, and uniform noise of a width B that
follows from q and t. `hiding` derives B, the first term of the condition above, t (B + F) / q, the
bits of hiding that B gives to a full reply (a reply of fewer rows has less to hide, and gets the
same B), and how many coefficients of c0 a pair of the reply may keep, which caps the rows of an
item.

Weights lifted modulo t are no larger in absolute value than W_int, and congruent to it: the bound
covers them.

The error of a score has two parts. On the grid, score - model's score is the sum of
(W_int / s - W step) x_int and of the intercept's rounding. Its extremes over the range are
computed, not estimated: `score_error_bound`. The intercept takes up the rounding of the weights at
the centre of the features (`QuantizedModel.of`), so that about half of it is left. Rounding x onto
the grid adds at most sum |W| step / 2: `input_rounding_error_bound`. Features that keep a grid of
their own add nothing. `total_error_bound` is the greatest sum of both parts that a score has.

Steps, t and s are chosen together: `steps` says how. For each parameter set and each packing there
is a plan of the least expected error, and where the layout's rules gain from fewer bits (see `row`
and `column`) there are plans of fewer. In mode private a larger t may leave an item fewer rows:
there is one plan that costs no row, and one that may cost a quarter of them. Of all plans the
planner takes the cheapest whose error bound is small enough.

A model is published with one grid. The layout that is planned first chooses it, and the others are
planned for that grid: for every number of bits of the weights, s and t follow, most bits first.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import PlanError
from sealserve.he.layouts import Packing
from sealserve.he.parameters import MAX_PLAIN_MODULUS_BITS, EncryptionParameters, ParameterSet
from sealserve.he.quantization import DEFAULT_LEVELS, InputGrid, QuantizedModel
from sealserve_service.planning import hiding, rounding
from sealserve_service.planning.noise import FRESH_NOISE_TIMES_TWO
from sealserve_service.planning.plan import IntegerModel, PackingT, Plan, PlanningRules
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.steps import Steps, open_steps, private_steps

# Of the widest range of a class's scores. Bits are dearer in mode private, where the next set costs
# twice as much.
DEFAULT_RELATIVE_ERROR = 2.0**-10
DEFAULT_PRIVATE_RELATIVE_ERROR = 2.0**-9


def candidate_plans(
    rules: PlanningRules[PackingT],
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    inputs: InputRanges | InputGrid,
    *,
    hiding_bits: int | None = None,
    center: NDArray[np.float64] | None = None,
    max_score_error: float | None = None,
    parameter_sets: Iterable[ParameterSet] | None = None,
) -> list[Plan[PackingT]]:
    """Return the plans that fit, cheapest first.

    Plans that cost more than another and are no better are left out.

    Args:
        rules: of the layout.
        weights: (score_count, feature_count).
        intercept: (score_count,).
        inputs: the ranges of the features, whose steps are to be chosen; or a grid that is given.
        hiding_bits: lambda, at least, for mode private; None for mode open.
        center: of a given grid, see `QuantizedModel.of`.
        max_score_error: see `choose`. It is to be proven, so that grids that are not declared, but
            were seen, count for nothing.
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
    if isinstance(inputs, InputGrid):
        models = _integer_models(weights, intercept, inputs, center, rules.max_weight_bits)
        found = _fitting_plans(rules, packings, models, hiding_bits)
    else:
        ranges = inputs if max_score_error is None else inputs.without_seen_grids
        found = _plans_with_steps(rules, packings, weights, intercept, ranges, hiding_bits)
    plans: list[Plan[PackingT]] = []
    least = math.inf
    for plan in sorted(found, key=rules.cost):
        bounds = plan.score_error_bound + plan.input_rounding_error_bound
        if bounds < least:
            plans.append(plan)
            least = bounds
    return plans


def choose(
    plans: Sequence[Plan[PackingT]],
    weights: NDArray[np.float64],
    *,
    max_score_error: float | None,
    hiding_bits: int | None,
) -> Plan[PackingT]:
    """Return the first of a model's plans, cheapest first, whose error bound is small enough.

    Args:
        plans: what `candidate_plans` has made.
        weights: (score_count, feature_count).
        max_score_error: the largest acceptable total_error_bound. By default the score_error_bound
            is at most 1/1024 of the widest range of a class's scores, in mode private 1/512.
        hiding_bits: the mode of the plans.

    Raises:
        PlanError: no plan is good enough; the text says how close the best one comes.
    """
    if not plans:
        raise PlanError(
            "no parameter set holds this model even with 1-bit weights: its intercepts or its range of scores are too "
            "large for its weights; narrow --input-range or widen --input-step"
        )
    if max_score_error is None:
        grid = plans[0].grid
        relative = DEFAULT_RELATIVE_ERROR if hiding_bits is None else DEFAULT_PRIVATE_RELATIVE_ERROR
        max_error = relative * _widest(grid, weights * grid.step)
        errors = [plan.score_error_bound for plan in plans]
    else:
        max_error = max_score_error
        errors = [plan.total_error_bound for plan in plans]
    for plan, error in zip(plans, errors, strict=True):
        if error <= max_error or not weights.any():
            return plan
    error, best = min(zip(errors, plans, strict=True), key=lambda pair: pair[0])
    rounding = f", of which {best.input_rounding_error_bound:.3g} comes from rounding features"
    raise PlanError(
        f"no parameter set keeps the score error within {max_error:.3g}: the best, "
        f"{best.parameters.parameter_set.name} with {best.weight_bits}-bit weights, is proven to "
        f"{error:.3g}{'' if max_score_error is None else rounding}; allow that with --max-score-error, narrow "
        "--input-range or widen --input-step"
    )


def _plans_with_steps(
    rules: PlanningRules[PackingT],
    packings: list[tuple[ParameterSet, PackingT]],
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    ranges: InputRanges,
    hiding_bits: int | None,
) -> Iterator[Plan[PackingT]]:
    """Yield the plans of each packing with the steps of the least expected error that fit."""
    max_weight = 1 << rules.max_weight_bits
    for parameter_set, packing in packings:
        largest_sum = partial(_largest_sum, rules, parameter_set, packing, hiding_bits)
        if hiding_bits is None:
            searched = [open_steps(weights, ranges, packing, largest_sum, max_weight)]
        else:
            rows = _usual_rows(rules, parameter_set, packing, largest_sum)
            searched = [
                private_steps(ranges, packing, partial(largest_sum, least_rows=share * rows), max_weight)
                for share in _SHARES_OF_ROWS
            ]
        for choices in searched:
            for steps in choices:
                models = _models_with_steps(weights, intercept, ranges.center, steps, max_weight)
                plans = list(_fitting_plans(rules, [(parameter_set, packing)], models, hiding_bits))
                if plans:
                    yield from plans
                    break


_SHARES_OF_ROWS = (1.0, 0.75)
"""Of the usual rows of an item, so many have to be left by a finer grid: one plan for each."""


def _usual_rows(
    rules: PlanningRules[PackingT],
    parameter_set: ParameterSet,
    packing: PackingT,
    largest_sum: Callable[[int], int],
) -> int:
    """Return the rows that an item of private weights holds with 255 levels.

    A larger t tells more of a place, so that a reply may have fewer places, and an item fewer rows.
    """
    fitting = (
        1 << bits
        for bits in range(MAX_PLAIN_MODULUS_BITS - 1, 0, -1)
        if packing.classes << bits <= DEFAULT_LEVELS * largest_sum(1 << bits)
    )
    if (plain_modulus := next(fitting, None)) is None:
        return 1
    parameters = EncryptionParameters(parameter_set, plain_modulus)
    capped = rules.capped(packing, hiding.most_places(parameters, hiding.noise_width(parameters)))
    return capped.rows if capped else 1


def _largest_sum(
    rules: PlanningRules[PackingT],
    parameter_set: ParameterSet,
    packing: PackingT,
    hiding_bits: int | None,
    plain_modulus: int,
    least_rows: float = 1,
) -> int:
    """Return the largest A' that a packing has room for at this t; below 1 if there is none.

    A t with which fewer rows would fit an item than asked for has no room either.
    """
    if plain_modulus >= parameter_set.modulus:
        return 0
    parameters = EncryptionParameters(parameter_set, plain_modulus)
    if hiding_bits is None:
        return rounding.largest_absolute_sum(parameters, packing.rows * packing.classes)
    width = hiding.noise_width(parameters)
    capped = None if width < 0 else rules.capped(packing, hiding.most_places(parameters, width))
    if capped is None or capped.rows < least_rows:
        return 0
    if hiding.private_reply_bits(parameters, capped.rows * capped.classes) is None:
        return 0
    return hiding.largest_absolute_sum(parameters, capped.rows * capped.score_count, hiding_bits)


# Of the scale that fills t. The rounding of weights may widen the scores, or A', past what fits.
_SHRINKAGES = (1.0, 0.99, 0.97, 0.9, 0.8, *(2.0**-bits for bits in range(1, 40)))


def _models_with_steps(
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    center: NDArray[np.float64],
    steps: Steps,
    max_weight: int,
) -> Iterator[tuple[int, IntegerModel]]:
    """Yield t and the model at the largest scale that fits t, and at smaller ones, largest first.

    Neither t nor the steps depend on the scale: in mode private nothing that is published of the
    grid may tell which scales fit.
    """
    grid, t = steps.grid, steps.plain_modulus
    peak, widest, farthest = _sizes(weights, intercept, grid)
    scale = min(
        steps.share * (t - 2) / widest if widest else 1.0,
        max_weight / peak if peak else 1.0,
        2.0**61 / farthest if farthest else 1.0,
    )
    for shrinkage in _SHRINKAGES:
        least, integers = _integer_model(weights, intercept, grid, center, scale * shrinkage)
        if least <= t:
            yield t, integers


def _sizes(weights: NDArray[np.float64], intercept: NDArray[np.float64], grid: InputGrid) -> tuple[float, float, float]:
    """Return the largest weight of a step, the widest range of scores, and how far they reach."""
    on_grid, common = grid.centered(grid.on_grid(weights))
    widest = _widest(grid, on_grid)
    farthest = widest + float(np.abs(intercept + weights @ grid.minimum + common).max())
    return float(np.abs(on_grid).max()), widest, farthest


def _integer_models(
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    grid: InputGrid,
    center: NDArray[np.float64] | None,
    max_bits: int,
) -> Iterator[tuple[int, IntegerModel]]:
    """Yield t and the model at every number of bits that fits SEAL's largest t, most bits first."""
    peak, widest, farthest = _sizes(weights, intercept, grid)
    for bits in range(max_bits, 0, -1):
        scale = 2.0**bits / (peak or 1.0)
        # t bounds the range of scores; int64 on the wire and in the arithmetic bounds the scores
        # themselves.
        if scale * widest >= 2.0**MAX_PLAIN_MODULUS_BITS or scale * farthest >= 2.0**62:
            continue
        least, integers = _integer_model(weights, intercept, grid, center, scale)
        plain_modulus = 1 << (least - 1).bit_length()
        if plain_modulus.bit_length() <= MAX_PLAIN_MODULUS_BITS:
            yield plain_modulus, dataclasses.replace(integers, weight_bits=bits)


def _widest(grid: InputGrid, on_grid: NDArray[np.float64]) -> float:
    """Return the widest range of a score, of weights in units of the grid."""
    low, high = grid.extremes(on_grid)
    return float((high - low).max())


def _integer_model(
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    grid: InputGrid,
    center: NDArray[np.float64] | None,
    scale: float,
) -> tuple[int, IntegerModel]:
    """Return the model at a scale, and the least t that wraps no score and holds every feature."""
    model = QuantizedModel.of(weights, intercept, grid, scale, center)
    extremes = model.extremes(grid)
    centers = tuple((low + high) // 2 for low, high in extremes)
    of_weights, of_inputs = _score_errors(weights, intercept, grid, model), _input_rounding_errors(weights, grid)
    return max(2, int(grid.levels.max()) + 1, *(high - low + 2 for low, high in extremes)), IntegerModel(
        grid=grid,
        model=model,
        weight_bits=int(np.abs(model.weights).max()).bit_length(),
        score_centers=centers,
        score_radii=tuple(high - center for (_, high), center in zip(extremes, centers, strict=True)),
        score_error_bound=float(of_weights.max()),
        input_rounding_error_bound=float(of_inputs.max()),
        total_error_bound=float((of_weights + of_inputs).max()),
    )


def _input_rounding_errors(weights: NDArray[np.float64], grid: InputGrid) -> NDArray[np.float64]:
    """Return what rounding onto the grid adds to each score at most, (score_count,)."""
    # Every value that rounds to a level is accepted, also half a step outside the range. A feature
    # of one level is anywhere in its range, which is less than half a step.
    farthest = np.where(grid.levels > 0, np.where(grid.keeps, 0.0, grid.step / 2), grid.maximum - grid.minimum)
    added: NDArray[np.float64] = np.abs(weights) @ farthest
    return added


def _score_errors(
    weights: NDArray[np.float64], intercept: NDArray[np.float64], grid: InputGrid, model: QuantizedModel
) -> NDArray[np.float64]:
    """Return a bound on the error of each score of rows on the grid, (score_count,)."""
    on_grid = grid.on_grid(weights)
    # Of an exactly-one group it has what was moved to the intercept, in all features alike.
    low, high = grid.extremes(model.weights / model.score_scale - on_grid)
    shifted = intercept + weights @ grid.minimum
    base = np.array([b / model.score_scale for b in model.intercept]) - shifted
    # What float64 itself may lose here and in the model's own scores.
    magnitude = np.abs(on_grid) @ grid.levels + np.abs(weights) @ np.abs(grid.minimum) + np.abs(intercept)
    slack = np.finfo(np.float64).eps * (grid.feature_count + 4) * magnitude
    errors: NDArray[np.float64] = np.maximum(base + high, -base - low) + slack
    return errors


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
    absolute_sum, places = _absolute_sum(packing, integers.model), packing.rows * packing.classes
    proven: dict[str, Any] = vars(integers)
    if hiding_bits is None:
        noise_times_two = FRESH_NOISE_TIMES_TWO * absolute_sum + 1
        if noise_times_two > rounding.open_noise(parameters, places):
            return None
        bits = rounding.open_reply_bits(parameters, places, noise_times_two)
        return Plan(**proven, parameters=parameters, packing=packing, reply_bits=bits)
    width = hiding.noise_width(parameters)
    if width < 0 or not hiding.fits(parameters, absolute_sum, width):
        return None
    capped = rules.capped(packing, hiding.most_places(parameters, width))
    if capped is None:
        return None
    kept_count = capped.rows * capped.score_count
    if not hiding.hides(parameter_set, absolute_sum, kept_count, width, hiding_bits):
        return None
    bits = hiding.private_reply_bits(parameters, capped.rows * capped.classes)
    if bits is None:
        return None
    return Plan(**proven, parameters=parameters, packing=capped, noise_width=width, reply_bits=bits)


def _absolute_sum(packing: Packing, model: QuantizedModel) -> int:
    """Return A': the largest sum of the absolute weights of classes that share a polynomial."""
    starts = range(0, packing.score_count, packing.classes)
    return int(np.add.reduceat(model.l1_norms, starts).max())
