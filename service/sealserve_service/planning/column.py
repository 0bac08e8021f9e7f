"""The column layout's rules of planning: the fewest bytes of a row, in a request and its reply.

One class has a polynomial to itself, hence a smaller A' than in rows. Weights have at most 21 bits:
the engine adds products of weights and 32-bit limbs up in float64, which holds 2^21 (2^32 - 1) and
every integer below it exactly. Before a class's absolute weights sum to more, the engine folds its
sums, which takes as long as some 25 ciphertexts. Bits that make it fold often are spent on a wanted
error only. So there are several plans for a parameter set: one of the most bits with which sums are
seldom folded, and those of more bits, up to the most that fit.
"""

from collections.abc import Iterator

from sealserve.he.layouts.column import COLUMN, ColumnPacking
from sealserve_service.planning.plan import Plan, PlanningRules

ColumnPlan = Plan[ColumnPacking]

MAX_WEIGHT_BITS = 21
_CIPHERTEXTS_A_FOLD = 256
"""Sums are seldom folded when a fold comes after at least so many ciphertexts, on average."""


def _packings(poly_modulus_degree: int, feature_count: int, score_count: int) -> Iterator[ColumnPacking]:
    yield ColumnPacking(poly_modulus_degree, feature_count, score_count)


def _cost(plan: ColumnPlan) -> tuple[float, ...]:
    """Return bytes a row, then rows an item, then bits."""
    return (plan.request_bytes + plan.reply_bytes) / plan.packing.rows, plan.packing.rows, plan.weight_bits


def _folds_often(plan: ColumnPlan) -> bool:
    """Tell whether the engine folds sums so often that fewer bits would save time.

    A fold comes before the absolute weights of a class sum to more than 2^21.
    """
    mean_weight = (1 << MAX_WEIGHT_BITS) // _CIPHERTEXTS_A_FOLD  # with which a fold comes that seldom
    seldom = (1 << MAX_WEIGHT_BITS) + plan.packing.feature_count * mean_weight
    return bool(plan.model.l1_norms.max() > seldom)


COLUMN_RULES = PlanningRules(
    layout=COLUMN,
    max_weight_bits=MAX_WEIGHT_BITS,
    packings=_packings,
    cost=_cost,
    capped=lambda packing, places: packing,  # a batch has N places or is none: see `hiding`
    gains_from_fewer_bits=_folds_often,
)
