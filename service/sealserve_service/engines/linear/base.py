"""What the engines of planned models have in common: what they offer, the intercept, noise to time themselves with."""

import os
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.layouts import Layout
from sealserve.he.layouts.column import ColumnPacking
from sealserve.he.layouts.row import RowPacking
from sealserve.he.public_key_format import public_key_bytes
from sealserve.he.seal_format import CiphertextFormat
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.model import Cost, ObservedError, Offer
from sealserve_service.planning.planner import Plan

PackingT = TypeVar("PackingT", RowPacking, ColumnPacking)


def ciphertext_format(plan: Plan[PackingT]) -> CiphertextFormat:
    """Return the format of a plan's fresh ciphertexts."""
    return CiphertextFormat(plan.parameters.parameter_set, _seal.fresh_parms_id(_seal.context(plan.parameters)))


def offered(
    plan: Plan[PackingT],
    layout: Layout,
    *,
    server_seconds: float,
    held_bytes: int | None = None,
    observed_error: ObservedError | None = None,
) -> Offer:
    """Describe a plan to clients.

    Args:
        plan: what is scored.
        layout: how.
        server_seconds: that a full item takes.
        held_bytes: what the service holds of an item; by default its ciphertexts.
        observed_error: on the operator's rows, where there are any.
    """
    packing, parameter_set = plan.packing, plan.parameters.parameter_set
    is_private = plan.noise_width is not None
    request_bytes = packing.ciphertexts * ciphertext_format(plan).full_bytes
    return Offer(
        layout=layout,
        parameters=plan.parameters,
        parms_id=_seal.fresh_parms_id(_seal.context(plan.parameters)),
        private_weights=is_private,
        rows_per_item=packing.rows,
        classes_per_polynomial=packing.classes,
        ciphertexts_per_item=packing.ciphertexts,
        score_scale=plan.model.score_scale,
        score_centers=plan.score_centers,
        score_radii=plan.score_radii,
        score_error_bound=plan.score_error_bound,
        input_rounding_error_bound=plan.input_rounding_error_bound,
        observed_error=observed_error,
        cost=Cost(
            request_bytes=request_bytes,
            reply_bytes=plan.reply_bytes,
            server_seconds=server_seconds,
            held_bytes=request_bytes if held_bytes is None else held_bytes,
            key_bytes=public_key_bytes(parameter_set) if is_private else 0,
        ),
        required_key=KeyKind.PUBLIC_ENCRYPTION_KEY if is_private else None,
    )


def lifted_intercept(plan: Plan[PackingT]) -> NDArray[np.uint64]:
    """Scale intercepts to ciphertexts: round(q b_int / t) modulo each data prime, (data primes, score_count)."""
    parameter_set, t = plan.parameters.parameter_set, plan.parameters.plain_modulus
    lifted = [(parameter_set.modulus * (b % t) + t // 2) // t for b in plan.model.intercept]
    return np.array([[value % prime for value in lifted] for prime in parameter_set.data_primes], np.uint64)


def noise(plan: Plan[PackingT]) -> bytes:
    """Make a ciphertext of nothing, which costs what others cost."""
    parameter_set = plan.parameters.parameter_set
    primes = np.array(parameter_set.data_primes, np.uint64)[:, None]
    words = np.frombuffer(os.urandom(2 * parameter_set.polynomial_bytes), np.uint64)
    c0, c1 = words.reshape(2, len(primes), -1) % primes
    return ciphertext_format(plan).pack(c0, c1.tobytes())
