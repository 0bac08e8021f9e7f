"""Packed replies of both engines: a function of the reply modulo q, exact, of the told length."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he.layouts import LAYOUTS
from sealserve.protocol.item import PackedPair, ReplyForm
from sealserve_service.engines.linear.rerandomizer import Rerandomizer
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import affine, extreme_rows, integer_scores, random_rows
from tests.support.item_round_trip import RoundTrip
from tests.support.plans import column_plans, row_plans
from tests.support.reply_pairs import Pair, pair_of, unpacked

MODEL = affine("normal", (3, 20))
PLANS: dict[str, Callable[..., list[RowPlan] | list[ColumnPlan]]] = {"row": row_plans, "column": column_plans}
both = pytest.mark.parametrize("layout", PLANS)


def plan_of(layout: str, hiding_bits: int | None) -> RowPlan | ColumnPlan:
    plan = PLANS[layout](*MODEL.planned, hiding_bits=hiding_bits)[0]
    assert plan.reply_bits is not None
    return plan


@pytest.mark.parametrize("hiding_bits", [None, 40])
def test_replies_of_several_groups_of_polynomials_the_last_one_shorter(hiding_bits: int | None) -> None:
    """Those of a group are packed at once, and have equally many classes."""
    model = affine("normal", (57, 400))
    plan = row_plans(*model.planned, hiding_bits=hiding_bits)[0]
    round_trip, rows = RoundTrip(plan), random_rows(model.grid, plan.packing.rows)
    groups = round_trip.engine.polynomials
    assert len(groups) > 2
    assert [polynomial for group in groups for polynomial in group] == list(range(plan.packing.polynomials))
    assert len(plan.packing.classes_in(groups[-1][-1])) < plan.packing.classes
    for some in (rows[:1], rows):
        np.testing.assert_array_equal(round_trip.scores(some), integer_scores(plan.model, some))


@both
def test_an_open_reply_is_the_residues_rounded(layout: str) -> None:
    plan = plan_of(layout, None)
    packing, whole = RoundTrip(plan), RoundTrip(unpacked(plan))
    ciphertexts = packing.encrypted(random_rows(MODEL.grid, 2))
    parameter_set = plan.parameters.parameter_set
    shape = len(parameter_set.data_primes), -1
    rounded: list[Pair] = [
        pair_of(parameter_set, plan.reply_bits, *(np.frombuffer(part, np.uint64).reshape(shape) for part in pair))
        for pair in whole.reply(ciphertexts, 2)
    ]
    assert packing.reply(ciphertexts, 2) == rounded


@both
def test_a_private_reply_is_what_hides_the_weights_rounded(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is added after the noise and the encryption of zero, and nothing is left out."""
    plan = plan_of(layout, 40)
    hidden = list[tuple[NDArray[np.uint64], NDArray[np.uint64]]]()
    rerandomize = Rerandomizer.rerandomize

    def recorded(*arguments: object) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        hidden.append(rerandomize(*arguments))  # type: ignore[arg-type]
        return hidden[-1]

    monkeypatch.setattr(Rerandomizer, "rerandomize", recorded)
    round_trip = RoundTrip(plan)
    hidden.clear()  # of the engine's own measurement
    reply = round_trip.reply(round_trip.encrypted(random_rows(MODEL.grid, 2)), 2)
    pairs = [pair for group in hidden for pair in zip(*group, strict=True)]
    assert len(pairs) == len(reply) == plan.packing.polynomials
    parameter_set = plan.parameters.parameter_set
    assert reply == [pair_of(parameter_set, plan.reply_bits, kept, c1) for kept, c1 in pairs]


SETS = {
    (layout, mode, s.name): (layout, mode, s)
    for layout in PLANS
    for mode in (None, 40)
    for s in (LAYOUTS[layout].open_parameter_sets if mode is None else LAYOUTS[layout].private_parameter_sets)
}


@pytest.mark.parametrize("which", SETS, ids=str)
def test_replies_of_every_set_are_exact_and_as_long_as_told(which: tuple[str, int | None, str]) -> None:
    """From one digit and one prime to two digits and two of three primes."""
    layout, hiding_bits, parameter_set = SETS[which]
    for plan in PLANS[layout](*MODEL.planned, hiding_bits=hiding_bits, parameter_sets=[parameter_set]):
        assert plan.reply_bits is not None
        round_trip = RoundTrip(plan)
        rows = np.concatenate([extreme_rows(plan.model, MODEL.grid), random_rows(MODEL.grid, plan.packing.rows)])
        rows = rows[: plan.packing.rows]
        reply = round_trip.reply(round_trip.encrypted(rows), len(rows))
        assert all(isinstance(pair, PackedPair) for pair in reply)
        np.testing.assert_array_equal(round_trip.opened(reply, len(rows)), integer_scores(plan.model, rows))
        offer = round_trip.engine.offer
        if len(rows) == plan.packing.rows:
            assert sum(pair.byte_count for pair in reply) == offer.cost.reply_bytes == plan.reply_bytes
            assert max(pair.byte_count for pair in reply) == offer.max_piece_bytes(ReplyForm.PACKED)


def test_an_offer_without_room_for_packing_replies_with_residues() -> None:
    plan = unpacked(plan_of("row", None))
    offer = RoundTrip(plan).engine.offer
    assert offer.reply_bits is None
    assert offer.cost.reply_bytes == plan.reply_bytes > 1.2 * plan_of("row", None).reply_bytes
