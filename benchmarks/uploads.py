"""Uploads: what full and seeded ciphertexts cost at either end, and on which links seeding pays.

A column's full ciphertexts are read where they were received. All others pass through SEAL, which
expands seeds. Prints a table, and writes uploads.json into build/bench.
"""

import argparse
import json
import time
from collections.abc import Callable
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
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN


def measure(parameter_set: ParameterSet, calls: int) -> dict[str, Any]:
    """Time what happens to a ciphertext, side by side: medians in microseconds."""
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    key = SecretKey.generate(parameter_set).export(TOKEN)
    full, seeded = Encryptor(parameters, key), SeededEncryptor(parameters, key)
    degree = parameter_set.poly_modulus_degree
    plaintext = np.random.default_rng(0).integers(parameters.plain_modulus, size=degree).astype(np.uint64)
    context = _seal.context(parameters)
    form = CiphertextFormat(parameter_set, _seal.fresh_parms_id(context))
    of_full, of_seeded = full.encrypt(plaintext), seeded.encrypt(plaintext)

    def loaded(data: bytes) -> _seal.Ciphertext:
        form.check(data)
        return _seal.load_ciphertext(context, data)

    def viewed(data: bytes) -> NDArray[np.uint64]:
        form.check(data)
        return form.residues(data)

    steps: dict[str, Callable[[], object]] = {
        "encrypt_full_us": lambda: full.encrypt(plaintext),
        "encrypt_seeded_us": lambda: seeded.encrypt(plaintext),
        "row_full_us": lambda: loaded(of_full),
        "row_seeded_us": lambda: loaded(of_seeded),
        "column_full_us": lambda: viewed(of_full),
        "column_seeded_us": lambda: form.residues(_seal.ciphertext_bytes(loaded(of_seeded))),
    }
    samples: dict[str, list[float]] = {name: [] for name in steps}
    for _ in tqdm(range(calls), desc=parameter_set.name, unit="call", leave=False):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            samples[name].append(time.perf_counter() - start)
    result: dict[str, Any] = {name: 1e6 * median(seconds) for name, seconds in samples.items()}
    return result | {
        "parameter_set": parameter_set.name,
        "full_bytes": form.full_bytes,
        "seeded_bytes": form.seeded_bytes,
        "row_link_mbit": even_link(result, "row", form),
        "column_link_mbit": 8 * form.full_bytes / result["encrypt_seeded_us"],
    }


def even_link(result: dict[str, Any], layout: str, form: CiphertextFormat) -> float:
    """The link, in Mbit/s, on which full and seeded arrive at once; below it, seeded is sooner."""
    cost = sum(result[f"{place}_seeded_us"] - result[f"{place}_full_us"] for place in ("encrypt", layout))
    return float(8 * (form.full_bytes - form.seeded_bytes) / cost)


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: one column a parameter set."""
    lines = [
        ("a ciphertext of parameter set", "parameter_set", "{}"),
        ("full, bytes", "full_bytes", "{}"),
        ("seeded, bytes", "seeded_bytes", "{}"),
        ("client encrypts full, us", "encrypt_full_us", "{:.0f}"),
        ("client encrypts seeded, us", "encrypt_seeded_us", "{:.0f}"),
        ("row: server checks and loads full, us", "row_full_us", "{:.0f}"),
        ("row: server checks and loads seeded, us", "row_seeded_us", "{:.0f}"),
        ("column: server checks and views full, us", "column_full_us", "{:.0f}"),
        ("column: server checks and expands seeded, us", "column_seeded_us", "{:.0f}"),
        ("row: seeded is sooner below, Mbit/s", "row_link_mbit", "{:.0f}"),
        ("column: one client core is faster seeded below, Mbit/s", "column_link_mbit", "{:.0f}"),
    ]
    return render([[title, *(pattern.format(result[key]) for result in results)] for title, key, pattern in lines])


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
