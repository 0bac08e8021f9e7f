"""Uploads: what full, seeded and packed ciphertexts cost at either end, and where they pay.

A column's full ciphertexts are read where they were received. All others pass through SEAL, which
expands seeds. Packed ones are measured where services take them. Prints a table, and writes
uploads.json into build/bench.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, render
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import PackedEncryptor, SeededEncryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN


def measure(parameter_set: ParameterSet, calls: int) -> dict[str, Any]:
    """Time what happens to a ciphertext, side by side: medians in microseconds."""
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    key = SecretKey.generate(parameter_set).export(TOKEN)
    degree = parameter_set.poly_modulus_degree
    plaintext = np.random.default_rng(0).integers(parameters.plain_modulus, size=degree).astype(np.uint64)
    context = _seal.context(parameters)
    form = CiphertextFormat(parameter_set, _seal.fresh_parms_id(context))
    encryptors: dict[str, Encryptor] = {
        "full": Encryptor(parameters, key),
        "seeded": SeededEncryptor(parameters, key),
    }
    if form.packs:
        encryptors["packed"] = PackedEncryptor(parameters, key)

    def loaded(data: bytes) -> _seal.Ciphertext:
        return _seal.load_ciphertext(context, form.checked(data))

    def expanded(data: bytes) -> NDArray[np.uint64]:
        return form.residues(_seal.ciphertext_bytes(loaded(data)))

    def viewed(data: bytes) -> NDArray[np.uint64]:
        return form.residues(form.checked(data))

    steps: dict[str, Callable[[], object]] = {}
    for name, encryptor in encryptors.items():
        data = encryptor.encrypt(plaintext)
        steps[f"encrypt_{name}_us"] = partial(encryptor.encrypt, plaintext)
        steps[f"row_{name}_us"] = partial(loaded, data)
        steps[f"column_{name}_us"] = partial(viewed if name == "full" else expanded, data)
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(calls), desc=parameter_set.name, unit="call", leave=False):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            samples[name].append(time.perf_counter() - start)
    result: dict[str, Any] = {name: 1e6 * median(seconds) for name, seconds in samples.items()}
    result |= {f"{name}_bytes": encryptor.ciphertext_bytes for name, encryptor in encryptors.items()}
    result |= {
        "parameter_set": parameter_set.name,
        "row_link_mbit": even_link(result, "row", "full", "seeded"),
        "column_link_mbit": 8 * form.full_bytes / result["encrypt_seeded_us"],
    }
    if form.packs:
        result["row_packed_link_mbit"] = even_link(result, "row", "seeded", "packed")
    return result


def even_link(result: dict[str, Any], layout: str, longer: str, shorter: str) -> float:
    """The link, in Mbit/s, on which two forms arrive at once; below it, the shorter is sooner."""
    cost = sum(result[f"{place}_{shorter}_us"] - result[f"{place}_{longer}_us"] for place in ("encrypt", layout))
    return float(8 * (result[f"{longer}_bytes"] - result[f"{shorter}_bytes"]) / cost)


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: one column a parameter set. A form that no set takes has no line."""
    lines = [
        ("a ciphertext of parameter set", "parameter_set", "{}"),
        ("full, bytes", "full_bytes", "{}"),
        ("seeded, bytes", "seeded_bytes", "{}"),
        ("packed, bytes", "packed_bytes", "{}"),
        ("client encrypts full, us", "encrypt_full_us", "{:.0f}"),
        ("client encrypts seeded, us", "encrypt_seeded_us", "{:.0f}"),
        ("client encrypts packed, us", "encrypt_packed_us", "{:.0f}"),
        ("row: server checks and loads full, us", "row_full_us", "{:.0f}"),
        ("row: server checks and loads seeded, us", "row_seeded_us", "{:.0f}"),
        ("row: server checks and loads packed, us", "row_packed_us", "{:.0f}"),
        ("column: server checks and views full, us", "column_full_us", "{:.0f}"),
        ("column: server checks and expands seeded, us", "column_seeded_us", "{:.0f}"),
        ("column: server checks and expands packed, us", "column_packed_us", "{:.0f}"),
        ("row: seeded is sooner below, Mbit/s", "row_link_mbit", "{:.0f}"),
        ("row: packed is sooner than seeded below, Mbit/s", "row_packed_link_mbit", "{:.0f}"),
        ("column: one client core is faster seeded below, Mbit/s", "column_link_mbit", "{:.0f}"),
    ]
    return render(
        [
            [title, *(pattern.format(result[key]) if key in result else "" for result in results)]
            for title, key, pattern in lines
            if any(key in result for result in results)
        ]
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1000, help="calls for each figure (%(default)s)")
    arguments = parser.parse_args()
    report = described_run() | {
        "uploads": [measure(parameter_set, arguments.calls) for parameter_set in LAYOUTS["row"].open_parameter_sets]
    }
    (OUTPUT / "uploads.json").write_text(json.dumps(report, indent=2) + "\n")
    print(table(report["uploads"]))
    print(f"written: {OUTPUT / 'uploads.json'}")


if __name__ == "__main__":
    main()
