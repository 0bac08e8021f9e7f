"""The planner: model + range + wanted error -> parameter set, t, bits and packing, or the reason why not.

The decrypted integer equals the plaintext integer arithmetic, for every row within the declared range, when two
bounds hold.

No wrap. Class k's integer score lies in low_k .. high_k, the extremes of W_int x_int + b_int over 0 <= x_int <=
levels. A residue modulo t stands for the integer nearest the class's centre (low_k + high_k) // 2, which is right
when

    t >= max_k (high_k - low_k) + 2

No noise. A product with a plaintext polynomial w multiplies the noise of a fresh ciphertext (`noise`) by at most the
sum of |w|; over all products that are summed into one result (the blocks of a long row), and all classes that share its
polynomial, that sum is A'. The intercept is added as round(q b_int / t): 1/2 more. `noise.is_decrypted` then asks for

    q (1 - 2^-56) > t (43 A' + 1)

Mode private adds what hides the weights to that: an encryption of zero and uniform noise of a width B, which grows with
A', with the scores of a full reply and with the bits of hiding. `hiding` derives B and the condition that takes the
place of the one above; a reply of fewer rows has less to hide, and the same B.

Weights lifted modulo t are no larger in absolute value than W_int, and congruent to it: the bound covers them.

The error of a score has two parts. On the grid, score - model's score is the sum of (W_int / s - W step) x_int and of
the intercept's rounding; its extremes over the range are computed, not estimated (`score_error_bound`: the looser
closed form is (features levels + 1) / (2 s)). Rounding x onto the grid adds at most sum |W| step / 2
(`input_rounding_error_bound`).

More bits in the weights mean less error, a larger t and a larger A'. For each parameter set and each packing there is
a plan of the most bits that fit; of all plans the planner takes the cheapest whose error bound is small enough. The
column layout has one class a polynomial, hence a smaller A', and weights of at most 21 bits: its engine adds products
of weights and 32-bit limbs up in float64, which holds 2^21 (2^32 - 1) and every integer below it exactly. Before a
class's absolute weights sum to more it folds its sums, which takes as long as some 25 ciphertexts: bits that make it
fold often are spent on a wanted error only, so that of a set there are plans of fewer bits, too.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import PlanError
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.column import ColumnPacking
from sealserve.he.layouts.row import RowPacking
from sealserve.he.parameters import MAX_PLAIN_MODULUS_BITS, EncryptionParameters, ParameterSet
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve_service.planning import hiding, noise

MAX_WEIGHT_BITS = 40  # beyond it float64 weights have no more to give
MAX_COLUMN_WEIGHT_BITS = 21
_SELDOM_FOLDED = 1 << (MAX_COLUMN_WEIGHT_BITS - 8)  # a weight's mean absolute value with a fold every 256 ciphertexts
# Of the widest range of a class's scores. Bits are dearer in mode private, where the next set costs twice as much.
DEFAULT_RELATIVE_ERROR = 2.0**-10
DEFAULT_PRIVATE_RELATIVE_ERROR = 2.0**-9

PackingT = TypeVar("PackingT", RowPacking, ColumnPacking)


@dataclass(frozen=True)
class Plan(Generic[PackingT]):
    """A model made ready for a layout.

    Attributes:
        parameters: parameter set and t, a power of two.
        packing: the places of features, weights and scores.
        model: the integer model.
        weight_bits: bits of the largest |W_int|.
        score_centers: one a score; the integer nearest to it is what a residue modulo t stands for.
        score_radii: one a score; no integer score of a row within the range is further from its centre.
        score_error_bound: proven, for every row on the grid within the range, in units of the score.
        input_rounding_error_bound: what rounding onto the grid adds at most.
        noise_width: B, of the uniform noise that hides the weights; None in mode open.
    """

    parameters: EncryptionParameters
    packing: PackingT
    model: QuantizedModel
    weight_bits: int
    score_centers: tuple[int, ...]
    score_radii: tuple[int, ...]
    score_error_bound: float
    input_rounding_error_bound: float
    noise_width: int | None = None

    @property
    def request_bytes(self) -> int:
        """Residues of one item's ciphertexts, full size."""
        return 2 * self.packing.ciphertexts * self.parameters.parameter_set.polynomial_bytes

    @cached_property
    def reply_bytes(self) -> int:
        """Residues of a full item's reply."""
        kept = self.packing.rows * self.packing.score_count * 8 * len(self.parameters.parameter_set.data_primes)
        return self.packing.polynomials * self.parameters.parameter_set.polynomial_bytes + kept


RowPlan = Plan[RowPacking]
ColumnPlan = Plan[ColumnPacking]


def plan_row(
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    grid: InputGrid,
    *,
    max_score_error: float | None = None,
    hiding_bits: int | None = None,
    parameter_sets: Iterable[ParameterSet] | None = None,
) -> RowPlan:
    """Return the cheapest plan, in bytes a request and its reply, whose error bound is small enough.

    Args:
        weights: (score_count, feature_count).
        intercept: (score_count,).
        grid: the declared range.
        max_score_error: the largest score_error_bound that will do; by default 1/1024 of the widest range of a
            class's scores, in mode private 1/512.
        hiding_bits: lambda, for mode private; None for mode open.
        parameter_sets: the sets to choose from; by default those of the layout and the mode.

    Raises:
        PlanError: none will do; says how close the best comes.
    """
    plans = row_plans(weights, intercept, grid, hiding_bits=hiding_bits, parameter_sets=parameter_sets)
    wanted = _default_error(weights, grid, hiding_bits) if max_score_error is None else max_score_error
    return _chosen(plans, weights, wanted)


def plan_column(
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    grid: InputGrid,
    *,
    max_score_error: float | None = None,
    hiding_bits: int | None = None,
    parameter_sets: Iterable[ParameterSet] | None = None,
) -> ColumnPlan:
    """Return the cheapest plan, in bytes a row, whose error bound is small enough; arguments and errors of plan_row."""
    plans = column_plans(weights, intercept, grid, hiding_bits=hiding_bits, parameter_sets=parameter_sets)
    wanted = _default_error(weights, grid, hiding_bits) if max_score_error is None else max_score_error
    return _chosen(plans, weights, wanted)


def row_plans(
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    grid: InputGrid,
    *,
    hiding_bits: int | None = None,
    parameter_sets: Iterable[ParameterSet] | None = None,
) -> list[RowPlan]:
    """Return the plan of the most bits for each parameter set and number of polynomials, cheapest first.

    Plans that cost more than another and are no better are left out. Arguments of plan_row.
    """
    if parameter_sets is None:
        parameter_sets = (
            LAYOUTS["row"].open_parameter_sets if hiding_bits is None else LAYOUTS["row"].private_parameter_sets
        )
    packings = [
        (parameter_set, packing)
        for parameter_set in parameter_sets
        for packing in _packings(parameter_set.poly_modulus_degree, *reversed(weights.shape))
    ]
    quantized = _quantizations(weights, intercept, grid, MAX_WEIGHT_BITS)
    found = _fitting(packings, quantized, hiding_bits, lambda _: True)
    return _worth_their_cost(
        sorted(found, key=lambda plan: (plan.request_bytes + plan.reply_bytes, plan.score_error_bound))
    )


def column_plans(
    weights: NDArray[np.float64],
    intercept: NDArray[np.float64],
    grid: InputGrid,
    *,
    hiding_bits: int | None = None,
    parameter_sets: Iterable[ParameterSet] | None = None,
) -> list[ColumnPlan]:
    """Return the plans for each parameter set, cheapest first: by bytes a row, then by rows an item, then by bits.

    Of a set these are the plan of the most bits with which sums are seldom folded, and those of more bits, up to the
    most that fit. Plans that cost more than another and are no better are left out. Arguments of plan_row.
    """
    if parameter_sets is None:
        parameter_sets = (
            LAYOUTS["column"].open_parameter_sets if hiding_bits is None else LAYOUTS["column"].private_parameter_sets
        )
    packings = [
        (parameter_set, ColumnPacking(parameter_set.poly_modulus_degree, *reversed(weights.shape)))
        for parameter_set in parameter_sets
    ]
    quantized = _quantizations(weights, intercept, grid, MAX_COLUMN_WEIGHT_BITS)
    found = _fitting(packings, quantized, hiding_bits, _is_seldom_folded)

    def cost(plan: ColumnPlan) -> tuple[float, int, int]:
        return (plan.request_bytes + plan.reply_bytes) / plan.packing.rows, plan.packing.rows, plan.weight_bits

    return _worth_their_cost(sorted(found, key=cost))


def _worth_their_cost(plans: Iterable[Plan[PackingT]]) -> list[Plan[PackingT]]:
    """Of plans in ascending order of cost, leave out those that are no better than a cheaper one."""
    kept: list[Plan[PackingT]] = []
    for plan in plans:
        if not kept or plan.score_error_bound < kept[-1].score_error_bound:
            kept.append(plan)
    return kept


def _default_error(weights: NDArray[np.float64], grid: InputGrid, hiding_bits: int | None) -> float:
    relative = DEFAULT_RELATIVE_ERROR if hiding_bits is None else DEFAULT_PRIVATE_RELATIVE_ERROR
    return relative * float((np.abs(weights * grid.step) @ grid.levels).max())


def _chosen(plans: list[Plan[PackingT]], weights: NDArray[np.float64], wanted: float) -> Plan[PackingT]:
    """Return the first plan that is good enough."""
    for plan in plans:
        if plan.score_error_bound <= wanted or not weights.any():
            return plan
    if not plans:
        raise PlanError(
            "no parameter set holds this model even with 1-bit weights: its intercepts or its range of scores are too "
            "large for its weights; narrow --input-range or widen --input-step"
        )
    best = min(plans, key=lambda plan: plan.score_error_bound)
    raise PlanError(
        f"no parameter set keeps the score error within {wanted:.3g}: the best, "
        f"{best.parameters.parameter_set.name} with {best.weight_bits}-bit weights, is proven to "
        f"{best.score_error_bound:.3g}; allow that with --max-score-error, narrow --input-range or widen --input-step"
    )


@dataclass(frozen=True)
class _Quantization:
    """A model at some number of bits, with what the bounds need of it."""

    bits: int
    model: QuantizedModel
    plain_modulus: int
    score_centers: tuple[int, ...]
    score_radii: tuple[int, ...]
    score_error_bound: float
    input_rounding_error_bound: float


def _quantizations(
    weights: NDArray[np.float64], intercept: NDArray[np.float64], grid: InputGrid, max_bits: int
) -> Iterator[_Quantization]:
    """Yield the model at every number of bits up to max_bits whose scores fit SEAL's largest t, most bits first."""
    on_grid = weights * grid.step
    peak = float(np.abs(on_grid).max()) or 1.0
    widest = float((np.abs(on_grid) @ grid.levels).max())
    farthest = widest + float(np.abs(intercept + weights @ grid.minimum).max())
    # A range below half a step has one level, its minimum.
    farthest_off_grid = np.where(grid.levels > 0, grid.step / 2, grid.maximum - grid.minimum)
    rounding = float((np.abs(weights) @ farthest_off_grid).max())
    for bits in range(max_bits, 0, -1):
        scale = 2.0**bits / peak
        # t bounds the range of scores; int64 on the wire and in the arithmetic bounds the scores themselves.
        if scale * widest >= 2.0**MAX_PLAIN_MODULUS_BITS or scale * farthest >= 2.0**62:
            continue
        model = QuantizedModel.of(weights, intercept, grid, scale)
        extremes = model.extremes(grid)
        least = max(2, int(grid.levels.max()) + 1, *(high - low + 2 for low, high in extremes))
        plain_modulus = 1 << (least - 1).bit_length()
        if plain_modulus.bit_length() > MAX_PLAIN_MODULUS_BITS:
            continue
        centers = tuple((low + high) // 2 for low, high in extremes)
        radii = tuple(high - center for (_, high), center in zip(extremes, centers, strict=True))
        bound = _score_error_bound(weights, intercept, grid, model)
        yield _Quantization(bits, model, plain_modulus, centers, radii, bound, rounding)


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


def _packings(poly_modulus_degree: int, feature_count: int, score_count: int) -> Iterator[RowPacking]:
    """Yield the packings worth trying: the fewest classes that give each number of polynomials."""
    windows = poly_modulus_degree // min(feature_count, poly_modulus_degree)
    polynomials = 0
    for classes in range(min(windows, score_count), 0, -1):
        if -(-score_count // classes) != polynomials:
            polynomials = -(-score_count // classes)
            fewest = -(-score_count // polynomials)
            yield RowPacking(poly_modulus_degree, feature_count, score_count, fewest)


def _is_seldom_folded(plan: ColumnPlan) -> bool:
    seldom = (1 << MAX_COLUMN_WEIGHT_BITS) + plan.packing.feature_count * _SELDOM_FOLDED
    return bool(plan.model.l1_norms.max() <= seldom)


def _fitting(
    packings: list[tuple[ParameterSet, PackingT]],
    quantized: Iterable[_Quantization],
    hiding_bits: int | None,
    is_last: Callable[[Plan[PackingT]], bool],
) -> Iterator[Plan[PackingT]]:
    """Yield the plans that keep both bounds, of each packing up to the first that is_last.

    Quantizations come one by one, and none is kept that is in no plan: each is as large as the model.
    """
    for candidate in quantized:
        left = []
        for parameter_set, packing in packings:
            plan = _plan(parameter_set, packing, candidate, hiding_bits)
            if plan is not None:
                yield plan
            if plan is None or not is_last(plan):
                left.append((parameter_set, packing))
        packings = left
        if not packings:
            return


def _plan(
    parameter_set: ParameterSet, packing: PackingT, candidate: _Quantization, hiding_bits: int | None
) -> Plan[PackingT] | None:
    """Make the plan, if it keeps both bounds."""
    if candidate.plain_modulus >= parameter_set.modulus:
        return None
    starts, kept_count = range(0, packing.score_count, packing.classes), packing.rows * packing.score_count
    absolute_sum = int(np.add.reduceat(candidate.model.l1_norms, starts).max())
    parameters = EncryptionParameters(parameter_set, candidate.plain_modulus)
    width = None
    if hiding_bits is None:
        fits = noise.is_decrypted(parameters, noise.FRESH_NOISE_TIMES_TWO * absolute_sum + 1)
    else:
        width = hiding.noise_width(parameter_set, absolute_sum, kept_count, hiding_bits)
        fits = hiding.fits(parameters, absolute_sum, width)
    if not fits:
        return None
    return Plan(
        parameters,
        packing,
        candidate.model,
        candidate.bits,
        candidate.score_centers,
        candidate.score_radii,
        candidate.score_error_bound,
        candidate.input_rounding_error_bound,
        width,
    )
