"""Offers of the EI layout on the wire: a client gets what the server meant, or a ParameterError."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from sealserve.errors import ParameterError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETERS
from sealserve.he.quantization import InputGrid
from sealserve.protocol.model import Cost, Limits, Model, Offer
from sealserve.protocol.output import Link, Output, Task
from sealserve.protocol.schema import Schema
from sealserve.protocol.wire import model_from_proto, model_to_proto
from sealserve.v1 import model_pb2, parameters_pb2

OFFER = Offer(
    layout=LAYOUTS["ei-slots"],
    parameters=EI_PARAMETERS,
    parms_id=_seal.fresh_parms_id(_seal.context(EI_PARAMETERS)),
    private_weights=False,
    rows_per_item=1,
    classes_per_polynomial=1,
    ciphertexts_per_item=2,
    score_scale=1.0,
    score_centers=(),
    score_radii=(),
    score_error_bound=1e-5,
    input_rounding_error_bound=0.0,
    observed_error=None,
    cost=Cost(request_bytes=1, reply_bytes=2, server_seconds=3.0, held_bytes=4),
)
MODEL = Model(
    name="prices",
    version="1",
    config_id="c",
    schema=Schema(5000),
    grid=InputGrid.of(5000, 0, 1),
    output=Output(Task.REGRESSION, 3, (), Link.NONE),
    offers=(OFFER,),
    limits=Limits(max_message_bytes=1 << 20, max_open_items=8, item_timeout_seconds=10.0, window_bytes=1 << 24),
)


def test_an_offer_comes_back_as_it_went() -> None:
    assert model_from_proto(model_to_proto(MODEL)).offers == (OFFER,)


def test_a_scheme_that_this_version_does_not_know_is_left_out() -> None:
    message = model_to_proto(MODEL)
    message.offers.add().CopyFrom(message.offers[0])
    message.offers[0].parameters.scheme = 77  # type: ignore[assignment]  # protobuf enumerations are open
    assert model_from_proto(message).offers == (OFFER,)


def set_parameter(name: str, value: Any) -> Callable[[model_pb2.Offer], None]:
    return lambda offer: setattr(offer.parameters, name, value)


HOSTILE: dict[str, Callable[[model_pb2.Offer], Any]] = {
    "scale of 0": set_parameter("ciphertext_scale", 0.0),
    "negative scale": set_parameter("ciphertext_scale", -(2.0**40)),
    "endless scale": set_parameter("ciphertext_scale", math.inf),
    "no scale": set_parameter("ciphertext_scale", math.nan),
    "scale above the modulus": set_parameter("ciphertext_scale", 2.0**141),
    "plaintext modulus": set_parameter("plain_modulus", 65537),
    "BFV": set_parameter("scheme", parameters_pb2.SCHEME_BFV),
    "data primes": set_parameter("data_prime_count", 2),
    "less security": set_parameter("poly_modulus_degree", 4096),
    "row layout": lambda offer: setattr(offer, "layout", parameters_pb2.LAYOUT_ROW),
    "centers": lambda offer: offer.score_centers.extend([0, 0, 0]),
    "radii": lambda offer: offer.score_radii.extend([1, 1, 1]),
    "centers and radii": lambda offer: offer.MergeFrom(model_pb2.Offer(score_centers=[0] * 3, score_radii=[1] * 3)),
    "reply bits": lambda offer: offer.reply_bits.MergeFrom(model_pb2.ReplyBits(c0=30, c1=40, prime_count=1)),
    "score scale of 0": lambda offer: setattr(offer, "score_scale", 0.0),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_offer_that_contradicts_itself(change: Callable[[model_pb2.Offer], None]) -> None:
    message = model_to_proto(MODEL)
    change(message.offers[0])
    with pytest.raises(ParameterError):
        model_from_proto(message)
