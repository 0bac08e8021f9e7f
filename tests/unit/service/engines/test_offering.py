"""Offering: the cheapest plan that is good enough, for each layout that can take the model."""

import logging
from functools import partial

import numpy as np
import pytest

from sealserve.errors import PlanError
from sealserve.protocol.model import Verdict
from sealserve_service.catalog.registry import prepare_model
from sealserve_service.engines import offering
from sealserve_service.engines.base import Engine
from sealserve_service.engines.linear.zero_encryptor import find_no_key
from sealserve_service.engines.offering import LINEAR_ENGINES, PrivateWeights
from sealserve_service.planning.grid import input_ranges
from sealserve_service.planning.planner import candidate_plans
from tests.support.affine_models import affine
from tests.support.plans import cheapest_plan
from tests.support.serving import LIMITS, linear

MODEL = affine("normal", (3, 20))
LINEAR = linear(MODEL.weights, MODEL.intercept)
MODES = (None, 40)
# The grid is coarse: whatever the verdict, it is served.
planned_layouts = partial(offering.plan_layouts, LINEAR, MODEL.grid, accept_disagreement=True)


def test_every_layout_is_planned_in_every_mode() -> None:
    layouts = list(planned_layouts(modes=MODES))
    assert [(planned.engine_type, planned.hiding_bits) for planned in layouts] == [
        (engine_type, bits) for engine_type in LINEAR_ENGINES for bits in MODES
    ]
    for planned in layouts:
        rules, bits = planned.engine_type.rules, planned.hiding_bits
        expected = candidate_plans(rules, *MODEL.planned, hiding_bits=bits)
        assert [plan.parameters for plan in planned.plans] == [plan.parameters for plan in expected]
        assert not isinstance(planned.chosen, PlanError)
        assert planned.chosen in planned.plans
        assert planned.chosen.parameters == cheapest_plan(rules, *MODEL.planned, hiding_bits=bits).parameters


@pytest.mark.parametrize("bits", MODES)
def test_what_is_served_is_what_was_chosen(bits: int | None) -> None:
    private = None if bits is None else PrivateWeights(bits, find_no_key)
    served = prepare_model("model", LINEAR, MODEL.grid, LIMITS, private=private, accept_disagreement=True)
    layouts = list(planned_layouts(modes=[bits]))
    for planned, offer in zip(layouts, served.model.offers, strict=True):
        assert not isinstance(planned.chosen, PlanError)
        assert offer.layout is planned.engine_type.rules.layout
        assert offer.parameters == planned.chosen.parameters
        assert offer.private_weights is (bits is not None)


def test_a_layout_that_cannot_take_the_model_says_why_and_the_first_one_has_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, *others = planned_layouts(modes=[None], max_score_error=0.0)
    assert first.plans
    assert isinstance(first.chosen, PlanError)
    with pytest.raises(PlanError, match="within 0"):
        list(offering.engines("model", LINEAR, MODEL.grid, [first, *others]))
    assert not caplog.messages
    (good, _) = planned_layouts(modes=[None])

    def no_engine(*_: object) -> Engine:
        raise PlanError("too many classes")

    with caplog.at_level(logging.WARNING):
        (engine,) = offering.engines("model", LINEAR, MODEL.grid, [good, *others], ei_engine=no_engine)
    assert engine.offer.layout is good.engine_type.rules.layout
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "model model is not served in layout column",
        "model model is not served in layout ei-slots",
    ]


def test_rows_out_of_range_count_in_every_layout() -> None:
    """The second layout is planned for the first one's grid, and the ranges are the same."""
    rows = np.random.default_rng(2).standard_t(1.2, (400, 20))
    end = float(np.abs(rows).max())
    for given, word in ((None, Verdict.WARN), ((-end, end), Verdict.OK)):
        ranges = input_ranges(LINEAR, calibration=rows, input_range=given)
        layouts = list(offering.plan_layouts(LINEAR, ranges, modes=MODES, calibration=rows))
        judgements = [planned.judgement for planned in layouts if planned.judgement is not None]
        assert [judgement.verdict for judgement in judgements] == [word] * len(layouts)
        assert all(("out of range" in judgement.reason) is (word is Verdict.WARN) for judgement in judgements)


def test_the_error_is_observed_on_the_operators_rows() -> None:
    (planned, *_) = planned_layouts(modes=[None])
    plan = planned.chosen
    assert not isinstance(plan, PlanError)
    rows = np.random.default_rng(1).uniform(MODEL.grid.minimum, MODEL.grid.maximum, (7, 20))
    seen = plan.model.scores(MODEL.grid.quantize(rows).integers) - LINEAR.decision(rows)
    (planned, *_) = planned_layouts(modes=[None], calibration=rows)
    (engine, *_) = offering.engines("model", LINEAR, MODEL.grid, [planned])
    observed = engine.offer.observed_error
    assert observed is not None
    assert observed.row_count == 7
    assert observed.score_error == pytest.approx(np.abs(seen).max())
    assert observed.rms_score_error == pytest.approx(np.sqrt((seen**2).mean(axis=0)).max())
    assert 0 < observed.score_error <= plan.score_error_bound + plan.input_rounding_error_bound
