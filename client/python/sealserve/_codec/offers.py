"""Offers: the choice of the fastest one for some rows, and the packing of its items."""

from sealserve._rpc.transfer_time import LOCAL_SECONDS_A_BYTE
from sealserve.errors import ParameterError, SecretKeyError
from sealserve.he.layouts import Layout, Packing
from sealserve.he.reply_bits import ROOM
from sealserve.protocol.item import ReplyForm
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.model import Model, Offer
from sealserve.secret_key import SecretKey

# The time that SEAL's encryption or decryption takes for a byte of ciphertexts.
_CRYPTO_SECONDS_A_BYTE = 7e-9

MAX_REPLY_BYTES = 2 << 30
"""The most bytes of replies that a client keeps at a time, in all of a call's open items."""


def choose(
    model: Model,
    row_count: int,
    layout: Layout | None = None,
    *,
    parameter_set: str | None = None,
    secret_key: SecretKey | None = None,
    seconds_a_byte: float = LOCAL_SECONDS_A_BYTE,
    seeded: bool | None = None,
) -> Offer:
    """Return the offer that takes so many rows in the least time, by the model's published costs.

    Args:
        model: the service's description of the model.
        row_count: at least 1.
        layout: the only layout to consider; by default all that `Client` encrypts for.
        parameter_set: the name of the only parameter set to consider; by default all.
        secret_key: the key that has to fit; by default any does.
        seconds_a_byte: how long a byte takes between client and service.
        seeded: whether uploads are seeded; None: where `is_seeded` says so.

    Raises:
        ParameterError: the model has no such offer that this client understands.
        SecretKeyError: the key does not fit the ring of any offer.
    """
    understood = [offer for offer in model.offers if layout in (None, offer.layout) and _is_understood(offer)]
    usable = [o for o in understood if parameter_set in (None, o.parameters.parameter_set.name)]
    if not usable:
        raise ParameterError(f"model {model.name!r} is not offered {_refusal(understood, layout, parameter_set)}")
    fitting = [o for o in usable if secret_key is None or secret_key.fits(o.parameters.parameter_set)]
    if not fitting:
        raise SecretKeyError(f"{secret_key!r} fits no ring that model {model.name!r} is offered in: {_names(usable)}")

    def seconds(offer: Offer) -> float:
        cost, items = offer.cost, -(-row_count // max(1, offer.rows_per_item))
        crypto = _CRYPTO_SECONDS_A_BYTE * (cost.request_bytes + cost.reply_bytes)
        sent_bytes, seeding = float(cost.request_bytes), 0.0
        if is_seeded(offer.layout, seconds_a_byte) if seeded is None else seeded:  # it saves half the bytes
            sent_bytes /= 2
            seeding = offer.layout.seeding_seconds_a_byte * sent_bytes
        return items * (cost.server_seconds + crypto + seeding + seconds_a_byte * (sent_bytes + cost.reply_bytes))

    # Of each layout the offer that the service prefers; of several layouts, the fastest.
    preferred = {offer.layout: offer for offer in reversed(fitting)}
    return min(preferred.values(), key=seconds)


def is_seeded(layout: Layout, seconds_a_byte: float) -> bool:
    """Tell whether seeded ciphertexts arrive sooner than full ones, if a byte takes so long."""
    return seconds_a_byte > layout.seeding_seconds_a_byte


def quickest_reply_form(offer: Offer, seconds_a_byte: float) -> ReplyForm:
    """Return the form in which replies arrive the soonest, if a byte takes so long."""
    is_worth_packing = seconds_a_byte > offer.layout.packing_seconds_a_byte
    return offer.reply_forms[0 if is_worth_packing else -1]


def _is_understood(offer: Offer) -> bool:
    """Tell whether `Client` encrypts for the layout, and the offer requires the key of its mode."""
    required = KeyKind.PUBLIC_ENCRYPTION_KEY if offer.private_weights else None
    return offer.layout.packing is not None and offer.required_key is required


def _refusal(understood: list[Offer], layout: Layout | None, parameter_set: str | None) -> str:
    """Return the end of an error text: what is not offered, and what is."""
    if understood:
        return f"with parameter set {parameter_set!r}: these are offered: {_names(understood)}"
    if layout is None:
        return "in a way that this version understands: update sealserve"
    return f"as {layout.name}"


def _names(offers: list[Offer]) -> str:
    return ", ".join(offer.parameters.parameter_set.name for offer in offers)


def packing_of(model: Model, offer: Offer) -> Packing:
    """Return the packing of an offer's items.

    Raises:
        ParameterError: this version does not encrypt for the layout, or what is published
            contradicts itself.
    """
    N = offer.parameters.parameter_set.poly_modulus_degree
    make = offer.layout.packing
    if make is None:
        raise ParameterError(f"model {model.name!r}: this version does not encrypt for layout {offer.layout.name}")
    try:
        packing = make(N, model.grid.feature_count, model.output.score_count, offer.classes_per_polynomial)
    except ValueError as error:
        raise ParameterError(f"model {model.name!r}: {error}") from error
    may_be_fewer = offer.private_weights and offer.layout.withstands_malicious_clients
    least_rows = 1 if may_be_fewer else packing.rows
    if not least_rows <= offer.rows_per_item <= packing.rows or packing.ciphertexts != offer.ciphertexts_per_item:
        raise ParameterError(f"model {model.name!r}: the published sizes of an item contradict its packing")
    if packing.polynomials * max(map(offer.max_piece_bytes, offer.reply_forms)) >= MAX_REPLY_BYTES:
        raise ParameterError(
            f"model {model.name!r}: a reply for {model.output.score_count} scores could have "
            f"{MAX_REPLY_BYTES:,} bytes or more, which this client does not take"
        )
    bits = offer.reply_bits
    if bits is not None and bits.cost(offer.parameters) >= ROOM:
        raise ParameterError(f"model {model.name!r}: replies of the published bits cannot be decrypted")
    if int(model.grid.levels.max()) >= offer.parameters.plain_modulus:
        raise ParameterError(f"model {model.name!r}: features on its grid do not fit the plaintext modulus")
    return packing
