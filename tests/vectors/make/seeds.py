"""Seeds, and what SEAL expands them into."""

import hashlib
from typing import Any

import numpy as np

from sealserve.he import _seal
from sealserve.he.parameters import RINGS, EncryptionParameters, ParameterSet
from sealserve.he.seal_format import SEED_BYTES, CiphertextFormat
from tests.vectors.make.fixed_randomness import octets

SHOWN = 8
RINGS_OF_SEEDS = "2048-44", "2048-54", "4096-60", "4096-92"
SEEDS = {"zeros": bytes(SEED_BYTES), "ones": b"\xff" * SEED_BYTES, "any": octets("a seed", SEED_BYTES)}


def content() -> dict[str, Any]:
    """What the file has."""
    return {"cases": [_case(ring, seed) for ring in RINGS_OF_SEEDS for seed in SEEDS.values()]}


def _case(ring: str, seed: bytes) -> dict[str, Any]:
    """Expand a seed as that of a ciphertext."""
    parameters = EncryptionParameters(ParameterSet(ring, *RINGS[ring]), 1 << 20)
    context = _seal.context(parameters)
    form = CiphertextFormat(parameters.parameter_set, _seal.fresh_parms_id(context))
    loaded = _seal.load_ciphertext(context, form.pack_seeded(np.zeros(form.shape[1:], np.uint64), seed))
    _, values = _seal.ciphertext_residues(loaded, form.shape)
    return {
        "poly_modulus_degree": form.shape[2],
        "primes": list(map(str, parameters.parameter_set.data_primes)),
        "seed": seed.hex(),
        "first_values": [list(map(str, row[:SHOWN].tolist())) for row in values],
        "values_sha256": hashlib.sha256(values.tobytes()).hexdigest(),
    }
