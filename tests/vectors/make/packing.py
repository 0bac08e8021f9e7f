"""Packing: places of features and scores, packed bits, and coefficients as the SDK lifts them."""

from typing import Any

import numpy as np

from sealserve.he.layouts import LAYOUTS
from sealserve.he.packed_polynomial import PolynomialUnpacker
from sealserve.he.parameters import RINGS
from tests.vectors.make.fixed_randomness import octets

LAYOUT_CASES = [  # layout, N, features, scores, classes a polynomial, rows
    ("row", 1024, 3, 5, 2, 4),
    ("row", 1024, 341, 3, 3, 1),
    ("row", 1024, 5, 1, 1, 204),
    ("row", 1024, 1024, 2, 1, 1),
    ("row", 1024, 2050, 1, 1, 1),
    ("column", 1024, 3, 2, 1, 4),
    ("column", 1024, 1, 1, 1, 1),
]
BITS = 8, 13, 27, 37, 38, 51, 54, 56, 64, 80
LIFTS = ("2048-44", 1, 32), ("2048-54", 1, 37), ("4096-92", 1, 37), ("4096-92", 2, 40), ("8192-180", 3, 80)
COUNT = 5
"""Values that are packed or lifted: those that take no whole bytes, mostly."""


def content() -> dict[str, Any]:
    """What the file has."""
    return {
        "layouts": [_layout(*case) for case in LAYOUT_CASES],
        "bits": [_bits(bits) for bits in BITS],
        "lifts": [_lift(*case) for case in LIFTS],
    }


def _layout(layout: str, N: int, features: int, scores: int, classes: int, row_count: int) -> dict[str, Any]:
    make = LAYOUTS[layout].packing
    assert make is not None
    packing = make(N, features, scores, classes)
    cells = np.arange(1, 1 + row_count * features).reshape(row_count, features)
    plaintexts = [np.array(plaintext) for plaintext in packing.pack_rows(cells)]
    return {
        "layout": f"LAYOUT_{layout.upper()}",
        "poly_modulus_degree": N,
        "feature_count": features,
        "score_count": scores,
        "classes_per_polynomial": classes,
        "row_count": row_count,
        "rows_per_item": packing.rows,
        "plaintexts": [_runs(plaintext) for plaintext in plaintexts],
        "score_places": [
            packing.places(row_count, len(packing.classes_in(pair))).ravel().tolist()
            for pair in range(packing.polynomials)
        ],
    }


def _runs(plaintext: Any) -> list[list[int]]:
    """The coefficients that are not 0, as runs: the first place, the first value, the length."""
    runs = list[list[int]]()
    for place in np.flatnonzero(plaintext).tolist():
        value = int(plaintext[place])
        if runs and (place, value) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1][2] += 1
        else:
            runs.append([place, value, 1])
    return runs


def _values(bits: int) -> list[int]:
    """Integers of so many bits, the extremes among them."""
    most = (1 << bits) - 1
    drawn = int.from_bytes(octets(f"values of {bits} bits", 32), "little")
    return [0, most, drawn & most, 1 << bits - 1, drawn >> bits & most][:COUNT]


def _packed(values: list[int], bits: int) -> bytes:
    whole = sum(value << index * bits for index, value in enumerate(values))
    return whole.to_bytes(-(-len(values) * bits // 8), "little")


def _bits(bits: int) -> dict[str, Any]:
    values = _values(bits)
    return {"bits": bits, "values": list(map(str, values)), "packed": _packed(values, bits).hex()}


def _lift(ring: str, prime_count: int, bits: int) -> dict[str, Any]:
    primes, values = RINGS[ring][1][:prime_count], _values(bits)
    residues = PolynomialUnpacker(primes, bits, COUNT).unpack(_packed(values, bits), COUNT)
    return {
        "bits": bits,
        "primes": list(map(str, primes)),
        "values": list(map(str, values)),
        "residues": [list(map(str, row)) for row in residues.tolist()],
    }
