"""The choice between rows and columns, by the costs that a service publishes, whatever they are."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve._codec.offers import choose, is_seeded, quickest_reply_form
from sealserve._rpc.transfer_time import LOCAL_SECONDS_A_BYTE, REMOTE_SECONDS_A_BYTE
from sealserve.errors import ParameterError, SecretKeyError
from sealserve.he.layouts import LAYOUTS, Layout
from sealserve.protocol.item import ReplyForm
from sealserve.protocol.model import Cost, Model, Offer
from sealserve.secret_key import SecretKey
from tests.support.serving import linear, served

MODEL = served("model", linear(np.random.default_rng(0).normal(size=(3, 20)))).model
ROW, COLUMN = MODEL.offers
KEYS = {s.name: SecretKey.generate(s) for s in LAYOUTS["row"].open_parameter_sets}


def with_offers(*offers: Offer) -> Model:
    return dataclasses.replace(MODEL, offers=offers)


def costing(offer: Offer, server_seconds: float, rows_per_item: int, byte_count: int = 0) -> Offer:
    """The offer at another price an item."""
    cost = Cost(request_bytes=byte_count, reply_bytes=0, server_seconds=server_seconds, held_bytes=1)
    return dataclasses.replace(offer, cost=cost, rows_per_item=rows_per_item)


def layouts(model: Model, counts: range) -> list[Layout]:
    return [choose(model, count).layout for count in counts]


def test_the_fewest_rows_that_pay_as_a_batch() -> None:
    """A batch for the price of 10 single rows: from the 11th row on."""
    model = with_offers(costing(ROW, 1.0, 1), costing(COLUMN, 10.5, 100))
    assert layouts(model, range(1, 14)) == [LAYOUTS["row"]] * 10 + [LAYOUTS["column"]] * 3
    assert choose(model, 10**6).layout is LAYOUTS["column"]


def test_items_are_counted_whole() -> None:
    """Rows come four an item, batches hold 100.

    The 101st row costs a whole batch more, or a single item of rows.
    """
    model = with_offers(costing(ROW, 1.0, 4), costing(COLUMN, 18.5, 100))
    assert layouts(model, range(72, 74)) == [LAYOUTS["row"], LAYOUTS["column"]]
    assert layouts(model, range(100, 103)) == [LAYOUTS["column"], LAYOUTS["row"], LAYOUTS["row"]]


def test_the_time_of_a_byte_decides_between_rows_and_columns() -> None:
    """A batch takes the server as long as one row, and has as many bytes as 40."""
    model = with_offers(costing(ROW, 1.0, 1, 10**6), costing(COLUMN, 1.0, 1000, 40 * 10**6))
    assert choose(model, 30, seconds_a_byte=0.0).layout is LAYOUTS["column"]
    assert choose(model, 30, seconds_a_byte=1e-5).layout is LAYOUTS["row"]
    assert choose(model, 50, seconds_a_byte=1e-5).layout is LAYOUTS["column"]


@pytest.mark.parametrize("layout", ["row", "column"])
def test_seeding_pays_where_bytes_are_slow(layout: str) -> None:
    assert not is_seeded(LAYOUTS[layout], LOCAL_SECONDS_A_BYTE)
    assert is_seeded(LAYOUTS[layout], REMOTE_SECONDS_A_BYTE)


def test_a_layout_without_seeded_uploads_has_none() -> None:
    assert not is_seeded(LAYOUTS["ei-slots"], math.inf)


def test_rows_are_answered_in_residues_where_bytes_cost_next_to_nothing() -> None:
    assert ROW.reply_forms == (ReplyForm.PACKED, ReplyForm.RESIDUES)
    assert quickest_reply_form(ROW, LOCAL_SECONDS_A_BYTE) is ReplyForm.RESIDUES
    assert quickest_reply_form(ROW, REMOTE_SECONDS_A_BYTE) is ReplyForm.PACKED


@pytest.mark.parametrize("seconds_a_byte", [0.0, 1.0])
def test_an_offer_with_one_form_has_no_other(seconds_a_byte: float) -> None:
    private, unpacked = dataclasses.replace(ROW, private_weights=True), dataclasses.replace(ROW, reply_bits=None)
    assert quickest_reply_form(private, seconds_a_byte) is ReplyForm.PACKED
    assert quickest_reply_form(unpacked, seconds_a_byte) is ReplyForm.RESIDUES


def test_seeded_uploads_are_half_the_bytes_of_a_layout() -> None:
    """A layout with more bytes is the quicker one, if half of them need not go up."""
    up, down = costing(ROW, 0.0, 1, 10**6), costing(COLUMN, 0.0, 1, 0)
    down = dataclasses.replace(down, cost=dataclasses.replace(down.cost, reply_bytes=900_000))
    model = with_offers(up, down)
    assert choose(model, 1, seconds_a_byte=1e-6, seeded=False).layout is LAYOUTS["column"]
    assert choose(model, 1, seconds_a_byte=1e-6).layout is LAYOUTS["row"]


def test_bytes_cost_time_too() -> None:
    model = with_offers(costing(ROW, 1.0, 1, 0), costing(COLUMN, 1.5, 100, 10**9))
    assert layouts(model, range(12, 16)) == [LAYOUTS["row"], LAYOUTS["row"], LAYOUTS["column"], LAYOUTS["column"]]


def test_the_models_own_costs_prefer_rows_for_one_and_batches_for_thousands() -> None:
    wide = served("wide", linear(np.random.default_rng(0).normal(size=(3, 400)))).model
    assert choose(wide, 1).layout is LAYOUTS["row"]
    assert choose(wide, 2048).layout is LAYOUTS["column"]


@pytest.mark.parametrize("layout", [LAYOUTS["row"], LAYOUTS["column"]])
def test_a_layout_that_is_asked_for_is_taken_at_any_price(layout: Layout) -> None:
    for row, column in itertools.permutations([0.0, math.inf], 2):
        model = with_offers(costing(ROW, row, 1), costing(COLUMN, column, 1))
        for row_count in (1, 10**9):
            assert choose(model, row_count, layout).layout is layout


@pytest.mark.parametrize(("layout", "left"), [(LAYOUTS["row"], COLUMN), (LAYOUTS["column"], ROW)])
def test_a_layout_that_is_not_offered(layout: Layout, left: Offer) -> None:
    model = with_offers(left)
    with pytest.raises(ParameterError, match=f"^model 'model' is not offered as {layout.name}$"):
        choose(model, 1, layout)
    assert choose(model, 1) == choose(model, 10**9) == left


def test_of_one_layout_the_services_preference() -> None:
    dear, cheap = costing(ROW, 9.0, 1), costing(ROW, 1.0, 1)
    assert choose(with_offers(dear, cheap), 5) is dear
    assert choose(with_offers(dear, cheap, costing(COLUMN, 8.0, 10)), 1).layout is LAYOUTS["column"]


def test_private_weights_are_not_understood() -> None:
    private = dataclasses.replace(COLUMN, private_weights=True)
    assert choose(with_offers(ROW, private), 10**9) is ROW
    with pytest.raises(ParameterError, match="not offered as column"):
        choose(with_offers(ROW, private), 1, LAYOUTS["column"])


def test_a_key_is_of_a_ring_whatever_the_layout() -> None:
    other = dataclasses.replace(
        COLUMN,
        parameters=dataclasses.replace(COLUMN.parameters, parameter_set=LAYOUTS["column"].open_parameter_sets[2]),
    )
    model = with_offers(costing(ROW, 1.0, 1), costing(other, 2.0, 100))
    assert choose(model, 50).layout is LAYOUTS["column"]
    assert choose(model, 50, secret_key=KEYS["row-2048-44"]).layout is LAYOUTS["row"]
    assert choose(model, 1, secret_key=KEYS["row-4096-60"]).layout is LAYOUTS["column"]
    with pytest.raises(SecretKeyError, match=r"is offered in: row-2048-44, column-4096-60$"):
        choose(model, 1, secret_key=KEYS["row-4096-92"])
    with pytest.raises(SecretKeyError, match=r"is offered in: column-4096-60$"):
        choose(model, 1, LAYOUTS["column"], secret_key=KEYS["row-2048-44"])


seconds = st.sampled_from([0.0, -1.0, 1e308, math.inf, -math.inf, math.nan]) | st.floats()
hostile = st.fixed_dictionaries(
    {
        "server_seconds": seconds,
        "rows_per_item": st.sampled_from([0, 1, 2**32 - 1]),
        "byte_count": st.sampled_from([0, 2**64 - 1]),
    }
)


@settings(deadline=None)
@given(hostile, hostile, st.sampled_from([1, 2, 10**6, 2**63]))
def test_hostile_costs_choose_one_of_the_offers(row: dict[str, Any], column: dict[str, Any], row_count: int) -> None:
    offers = costing(ROW, **row), costing(COLUMN, **column)
    assert choose(with_offers(*offers), row_count) in offers
    for offer in offers:
        assert choose(with_offers(*offers), row_count, offer.layout) is offer
