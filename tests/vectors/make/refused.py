"""What a client refuses: parameters, descriptions, replies and steps, as the SDK does."""

import base64
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from google.protobuf import json_format

from sealserve._codec.codec import RowCodec
from sealserve.errors import ParameterError, ReplyError, RequirementError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETERS
from sealserve.he.parameters import RINGS, EncryptionParameters, ParameterSet, key_parameters
from sealserve.protocol.wire import model_from_proto, scores_from_proto
from sealserve.v1 import model_pb2, parameters_pb2, prediction_pb2
from tests.vectors.check.files import changed
from tests.vectors.check.offers import is_prime
from tests.vectors.check.seal_objects import parms_id
from tests.vectors.make.items import MadeItem, messages_of_reply

Case = dict[str, Any]
ModelChange = Callable[[model_pb2.Model], None]


# Parameters


def parameters(model: model_pb2.Model) -> Case:
    """What the file of parameters has. The model is one whose first offer is of open rows."""
    return {
        "accepted": list(map(_accepted, _all_parameters())),
        "refused": [_refused(model, *case) for case in _bad_parameters()],
    }


def _all_parameters() -> list[EncryptionParameters]:
    sets = {s for layout in LAYOUTS.values() for s in layout.open_parameter_sets + layout.private_parameter_sets}
    planned = sorted((s for s in sets if s.name in map("row-{}".format, RINGS)), key=lambda s: (s.modulus, s.name))
    moduli = 2, 1_000_003, 1 << 30
    return [EncryptionParameters(s, t) for s in planned for t in moduli] + [EI_PARAMETERS]


def _message(ours: EncryptionParameters) -> parameters_pb2.EncryptionParameters:
    ring = ours.parameter_set
    return parameters_pb2.EncryptionParameters(
        parameter_set=ring.name,
        scheme=f"SCHEME_{ours.scheme.name}",
        poly_modulus_degree=ring.poly_modulus_degree,
        coeff_modulus=ring.primes,
        data_prime_count=len(ring.data_primes),
        plain_modulus=ours.plain_modulus,
        ciphertext_scale=ours.scale,
        parms_id=_seal.fresh_parms_id(_seal.context(ours)),
    )


def _accepted(ours: EncryptionParameters) -> Case:
    levels = _seal.data_parms_ids(_seal.context(ours))
    message, ring = _message(ours), ours.parameter_set
    # Where t is large, SEAL has no levels of few primes. Their digests follow the same rule.
    by_count = {len(ring.data_primes) - below: level for below, level in enumerate(levels)}
    described = [
        parms_id(message.scheme, ring.poly_modulus_degree, ring.primes[:count], ours.plain_modulus)
        for count in range(1, len(ring.data_primes) + 1)
    ]
    assert all(described[count - 1] == level for count, level in by_count.items())
    return {
        "parameters": json_format.MessageToDict(message),
        "level_parms_ids": [level.hex() for level in described],
        "key_parms_id": _seal.key_parms_id(_seal.context(key_parameters(ring))).hex(),
    }


def _bad_parameters() -> list[tuple[str, str, Case]]:
    """Names, what is at fault, and what is changed of the parameters of row-4096-60, t = 2^20."""
    p60, q60 = 0xFFFFFFFFFFFC001, 0xFFFFFFFFFFE8001
    p61 = next(number for number in count((1 << 60) + 1, 8192) if is_prime(number))
    return [
        ("a degree that is no power of two", "degree", {"poly_modulus_degree": 3000}),
        ("a degree without a bound", "degree", {"poly_modulus_degree": 65536}),
        ("no primes", "primes", {"coeff_modulus": [], "data_prime_count": 0}),
        ("a prime twice", "primes", {"coeff_modulus": [0x1C001, 0x1C001]}),
        ("a number that is not 1 modulo 2 N", "primes", {"coeff_modulus": [p60 + 2 * 4096 + 2]}),
        ("a number that is no prime", "primes", {"coeff_modulus": [40961 * 114689]}),
        ("a prime of 61 bits", "primes", {"coeff_modulus": [p61]}),
        ("the modulus 1", "primes", {"coeff_modulus": [1]}),
        ("more bits than 128 bits of security allow", "security", {"coeff_modulus": [p60, q60]}),
        ("another number of data primes", "data_prime_count", {"data_prime_count": 2}),
        ("t = 0", "plain_modulus", {"plain_modulus": 0}),
        ("t = 1", "plain_modulus", {"plain_modulus": 1}),
        ("t = q", "plain_modulus", {"plain_modulus": p60}),
        ("t of 61 bits", "plain_modulus", {"plain_modulus": 1 << 60}),
        ("a scale", "plain_modulus", {"ciphertext_scale": 2.0}),
        ("CKKS with a plaintext modulus", "scale", {"scheme": 2}),
        ("another parms_id", "parms_id", {"parms_id": bytes(32)}),
        ("the parms_id of another t", "parms_id", {"plain_modulus": 1 << 19, "parms_id": None}),
    ]


def _refused(model: model_pb2.Model, name: str, fault: str, changes: Case) -> Case:
    good = _message(EncryptionParameters(ParameterSet("row-4096-60", *RINGS["4096-60"]), 1 << 20))
    message = parameters_pb2.EncryptionParameters()
    message.CopyFrom(good)
    for field, value in changes.items():
        if field == "coeff_modulus":
            message.coeff_modulus[:] = value
            message.data_prime_count = max(1, len(value) - 1)
        elif value is not None:
            setattr(message, field, value)
    if "parms_id" not in changes:
        primes = message.coeff_modulus[: message.data_prime_count]
        message.parms_id = parms_id(message.scheme, message.poly_modulus_degree, primes, message.plain_modulus)
    described = model_pb2.Model()
    described.CopyFrom(model)
    del described.offers[1:]
    offer = described.offers[0]
    offer.ClearField("reply_bits")
    offer.score_radii[:] = [1] * len(offer.score_radii)
    used = offer.classes_per_polynomial * model.input.feature_count
    offer.rows_per_item = good.poly_modulus_degree // used
    offer.parameters.CopyFrom(good)
    assert not is_refused(described), name
    offer.parameters.CopyFrom(message)
    assert is_refused(described), name
    return {"name": name, "parameters": json_format.MessageToDict(message), "fault": fault}


def is_refused(message: model_pb2.Model) -> bool:
    """Whether the SDK refuses a model, or one of its offers of rows and columns."""
    try:
        model = model_from_proto(message)
        model.check_requirements()
        for offer in model.offers:
            RowCodec(model, offer=offer)
    except (ParameterError, RequirementError):
        return True
    return False


# Descriptions


def descriptions(model: model_pb2.Model) -> Case:
    """What the file of descriptions has. The model is one of packed rows and columns."""
    cases = [_description(model, name, fault, change) for name, (fault, change) in _descriptions().items()]
    return {"cases": cases}


def _set(path: str, value: Any) -> ModelChange:
    """A change of a field of the first offer, such as "parameters.plain_modulus", or "requires"."""

    def change(model: model_pb2.Model) -> None:
        message: Any = model.offers[0]
        *parents, name = path.split(".")
        for parent in parents:
            message = getattr(message, parent)
        if isinstance(value, list):
            getattr(message, name)[:] = value
        else:
            setattr(message, name, value)

    return change


def _descriptions() -> dict[str, tuple[str, ModelChange]]:
    def doubled(model: model_pb2.Model) -> None:
        model.offers[0].reply_bits.prime_count = model.offers[0].parameters.data_prime_count + 1

    def too_few_bits(model: model_pb2.Model) -> None:
        model.offers[0].reply_bits.c1 -= 8
        model.offers[0].reply_bits.c0 -= 8

    def wide(model: model_pb2.Model) -> None:
        model.offers[0].score_radii[0] = model.offers[0].parameters.plain_modulus // 2

    return {
        "as it is": ("", lambda model: None),
        "without packed replies": ("", lambda model: model.offers[0].ClearField("reply_bits")),
        "an unknown layout": ("", _set("layout", 9)),
        "an unknown scheme": ("", _set("parameters.scheme", 9)),
        "an unknown mode": ("", _set("weights", 9)),
        "an unknown form of ciphertexts": ("", _set("ciphertext_forms", [9])),
        "an unknown field": ("", lambda model: model.MergeFromString(b"\xc2\x3e\x03new")),
        "an unknown capability": ("requires", lambda model: model.requires.append("telepathy")),
        "an unknown task": ("output", lambda model: setattr(model.output, "task", 9)),
        "an unknown link": ("output", lambda model: setattr(model.output, "link", 99)),
        "too few bits of replies": ("reply_bits", too_few_bits),
        "more bits of c0 than of c1": ("reply_bits", _set("reply_bits.c0", 83)),
        "too many bits of replies": ("reply_bits", _set("reply_bits.c1", 84)),
        "replies of no primes": ("reply_bits", _set("reply_bits.prime_count", 0)),
        "replies of more primes than there are": ("reply_bits", doubled),
        "a radius that wraps around": ("score_radii", wide),
        "a negative radius": ("score_radii", _set("score_radii", [-1, 1, 1])),
        "a radius too few": ("score_centers", _set("score_radii", [1, 1])),
        "a scale of 0": ("score_scale", _set("score_scale", 0.0)),
        "a scale that is no number": ("score_scale", _set("score_scale", float("nan"))),
        "more rows than fit": ("packing", _set("rows_per_item", 4096)),
        "fewer rows than fit": ("packing", _set("rows_per_item", 1)),
        "more classes than there are": ("packing", _set("classes_per_polynomial", 4)),
        "another number of ciphertexts": ("packing", _set("ciphertexts_per_item", 2)),
    }


def _description(model: model_pb2.Model, name: str, fault: str, change: ModelChange) -> Case:
    message = model_pb2.Model()
    message.CopyFrom(model)
    change(message)
    assert is_refused(message) == bool(fault), name
    found: Case = {"name": name, "fault": fault}
    if not fault:
        found["offers"] = [offer.parameters.parameter_set.name for offer in model_from_proto(message).offers]
    return found | {"model": base64.b64encode(message.SerializeToString(deterministic=True)).decode()}


# Replies


def replies(items: dict[str, MadeItem], files: dict[str, dict[str, bytes]]) -> Case:
    """What the file of refused replies has, of items with their files."""
    return {"refused": [_reply(items, files, *case) for case in _replies(items)]}


def _replies(items: dict[str, MadeItem]) -> list[tuple[str, str, str, list[int], list[Case]]]:
    """Names, items, what is at fault, which pairs in which order, and what is changed of them."""
    residues, packed, wide = "row_open_residues", "row_open", "row_open_wide"
    offer = items[residues].offer
    prime = offer.parameters.parameter_set.data_primes[0].to_bytes(8, "little").hex()
    whole = 8 * offer.parameters.parameter_set.poly_modulus_degree
    bits = items[packed].offer.reply_bits
    assert bits is not None
    rows, scores = len(items[packed].cells), len(items[packed].integers.weights)
    kept, used = 8 * rows * scores, rows * scores * bits.c0
    of_c0, of_c1 = -(-used // 8), bits.c1 * whole // 64
    assert used % 8, "a rest"
    # The score that is nearest to its centre, half of t away.
    off = abs(items[packed].scores - np.array(offer.score_centers, object)).ravel().tolist()
    top = off.index(min(off)) * bits.c0 + bits.c0 - 1
    half = [{"at": top // 8, "flip": f"{1 << top % 8:02x}"}]

    def one(field: str, **change: Any) -> list[Case]:
        return [{"pair": 0, "field": field, **change}]

    return [
        ("no pair", packed, "count", [], []),
        ("a pair too many", packed, "count", [0, 0], []),
        ("a pair too few", wide, "count", [0], []),
        ("a residue of c0 that is its prime", residues, "residue", [0], one("c0", changes=[{"at": 0, "bytes": prime}])),
        (
            "a residue of c1 that is 2^64 - 1",
            residues,
            "residue",
            [0],
            one("c1", changes=[{"at": whole - 8, "bytes": "ff" * 8}]),
        ),
        ("no c0", residues, "length", [0], one("c0", length=0)),
        ("a coefficient of c0 too few", residues, "length", [0], one("c0", length=kept - 8)),
        ("a coefficient of c1 too many", residues, "length", [0], one("c1", length=whole + 8)),
        ("a byte of c1 too few", residues, "length", [0], one("c1", length=whole - 1)),
        ("a packed byte of c0 too few", packed, "length", [0], one("c0", length=of_c0 - 1)),
        ("a packed byte of c0 too many", packed, "length", [0], one("c0", length=of_c0 + 1)),
        ("a packed byte of c1 too few", packed, "length", [0], one("c1", length=of_c1 - 1)),
        ("c0 of all rows that fit", packed, "length", [0], one("c0", length=of_c0 * 50)),
        ("a bit behind c0", packed, "rest", [0], one("c0", changes=[{"at": of_c0 - 1, "flip": "80"}])),
        ("residues where packed pairs are offered", packed, "form", [0], one("c0", form="residues")),
        ("packed pairs where residues are offered", residues, "form", [0], one("c0", form="packed")),
        ("a score half of t away", packed, "range", [0], one("c0", changes=half)),
    ]


def _reply(
    items: dict[str, MadeItem],
    files: dict[str, dict[str, bytes]],
    name: str,
    item: str,
    fault: str,
    pairs: list[int],
    changes: list[Case],
) -> Case:
    reply = messages_of_reply(files[item])
    kept = [reply[pair] for pair in pairs]
    for change in changes:
        kept[change["pair"]] = changed_pair(kept[change["pair"]], change)
    group = prediction_pb2.ScoreGroup(scores=kept)
    try:
        items[item].codec.decrypt(len(items[item].cells), scores_from_proto(group))
    except ReplyError:
        return {"name": name, "item": item, "fault": fault, "pairs": pairs, "changes": changes}
    raise AssertionError(f"{name} is not refused")


def changed_pair(pair: prediction_pb2.EncryptedScores, change: Case) -> prediction_pb2.EncryptedScores:
    """A pair with a change."""
    found = prediction_pb2.EncryptedScores()
    form = pair.WhichOneof("form")
    polynomials = getattr(found, change.get("form", form))
    polynomials.MergeFromString(getattr(pair, str(form)).SerializeToString())
    setattr(polynomials, change["field"], changed(getattr(polynomials, change["field"]), change))
    return found
