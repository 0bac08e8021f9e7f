"""The row layout's rules of planning: the fewest bytes of a request and its reply.

For each parameter set and each number of polynomials of the reply there is one plan, that of the
most bits: a bit less saves a reply a bit a coefficient, and doubles the error. In mode private
fewer bits may leave room for more rows, so that there are up to two.

In mode private a polynomial pair of the reply may keep so many places only (see `hiding`). Of a
packing with more, rows are left out; if one row has more, the packing has no plan, and packings of
fewer classes a polynomial have.
"""

import dataclasses
from collections.abc import Iterator

from sealserve.he.layouts.row import ROW, RowPacking
from sealserve_service.planning.plan import Plan, PlanningRules

RowPlan = Plan[RowPacking]


def _packings(poly_modulus_degree: int, feature_count: int, score_count: int) -> Iterator[RowPacking]:
    """Yield the packings worth trying: the fewest classes that give each number of polynomials."""
    windows = poly_modulus_degree // min(feature_count, poly_modulus_degree)
    polynomials = 0
    for classes in range(min(windows, score_count), 0, -1):
        if -(-score_count // classes) != polynomials:
            polynomials = -(-score_count // classes)
            fewest = -(-score_count // polynomials)
            yield RowPacking(poly_modulus_degree, feature_count, score_count, fewest)


def _capped(packing: RowPacking, places: int) -> RowPacking | None:
    """Leave rows out, unless items of at most so many places reach `features` rows.

    An item of more rows than features determines the weights honestly.
    """
    rows = places // packing.classes
    if rows >= min(packing.rows, packing.feature_count):
        return packing
    return dataclasses.replace(packing, max_rows=rows) if rows else None


def _cost(plan: RowPlan) -> tuple[float, ...]:
    """Return bytes of an item, as if it held all rows that fit; then rows, then the error.

    Of plans that differ in nothing but the rows that they leave out, more rows are cheaper.
    """
    full = dataclasses.replace(plan, packing=dataclasses.replace(plan.packing, max_rows=None))
    return full.request_bytes + full.reply_bytes, -plan.packing.rows, plan.score_error_bound


ROW_RULES = PlanningRules(
    layout=ROW,
    max_weight_bits=40,  # float64 weights have no more to give
    packings=_packings,
    cost=_cost,
    capped=_capped,
    gains_from_fewer_bits=lambda plan: False,
)
