"""Replies: what packed ones and residues cost at either end, and the links on which packing pays.

The model is MNIST's, with open weights: there clients may ask for either form. In each layout, full
items are scored by the service's engine and decrypted, in one process and without a network. What
the service does before the last ciphertext is there does not count. Caches are warm here. In
calls that come one by one packing takes longer, which `Layout.packing_seconds_a_byte` allows for.
Prints a table, and writes replies.json into build/bench.
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, render
from sealserve._codec.codec import RowCodec
from sealserve.protocol.item import ReplyForm
from sealserve.protocol.model import Model
from sealserve_service.engines.base import Engine
from sealserve_service.models.loading import load_model
from tests.support import mnist
from tests.support.serving import served


def measure(model: Model, engine: Engine, images: NDArray[np.float64], seconds: float) -> dict[str, Any]:
    """Time both ends of a full item, by turns in each form of its reply; in milliseconds."""
    offer = engine.offer
    codecs = {form: RowCodec(model, offer=offer, reply_form=form) for form in offer.reply_forms}
    codec = codecs[ReplyForm.PACKED]
    item = codec.encrypt(codec.quantize(np.resize(images, (offer.rows_per_item, images.shape[1]))).integers)
    ciphertexts, row_count = list(item.ciphertexts), item.header.row_count
    samples = defaultdict[str, list[float]](list)
    end = time.perf_counter() + seconds
    with tqdm(desc=offer.layout.name, unit="item", leave=False) as bar:
        while time.perf_counter() < end:
            for form, codec in codecs.items():
                scoring = engine.begin(replace(item.header, reply_forms=frozenset({form})), "")
                scoring.add(ciphertexts)
                began = time.perf_counter()
                reply = list(scoring.finish())
                scored = time.perf_counter()
                codec.read(row_count, reply)
                samples[f"write_{form.value}_ms"].append(scored - began)
                samples[f"read_{form.value}_ms"].append(time.perf_counter() - scored)
            bar.update()
    result: dict[str, Any] = {"offer": f"{offer.layout.name}, {row_count:,} rows"}
    result |= {name: 1e3 * median(times) for name, times in samples.items()}
    return with_links(result | {f"{form.value}_bytes": count for form, count in offer.reply_bytes.items()})


def with_links(result: dict[str, Any]) -> dict[str, Any]:
    """Add what packing takes, and the link on which both forms arrive at once."""
    packing_ms = sum(result[f"{end}_packed_ms"] - result[f"{end}_residues_ms"] for end in ("write", "read"))
    nanoseconds = 1e6 * packing_ms / (result["residues_bytes"] - result["packed_bytes"])
    return result | {"packing_ns_a_byte": nanoseconds, "link_mbit": 8e3 / nanoseconds}


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: one column a layout."""
    lines = [
        ("a full item in layout", "offer", "{}"),
        ("residues, bytes", "residues_bytes", "{}"),
        ("packed, bytes", "packed_bytes", "{}"),
        ("service finishes in residues, ms", "write_residues_ms", "{:.2f}"),
        ("service finishes packed, ms", "write_packed_ms", "{:.2f}"),
        ("client reads residues, ms", "read_residues_ms", "{:.2f}"),
        ("client reads packed, ms", "read_packed_ms", "{:.2f}"),
        ("packing takes, ns for each byte that it saves", "packing_ns_a_byte", "{:.1f}"),
        ("packed is sooner below, Mbit/s", "link_mbit", "{:.0f}"),
    ]
    return render([[title, *(pattern.format(result[key]) for result in results)] for title, key, pattern in lines])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each layout (%(default)g)")
    arguments = parser.parse_args()
    images, path = mnist.images(), mnist.find(mnist.MODEL)
    if images is None or path is None:
        sys.exit(f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})")
    model = served("mnist", load_model(path, trust_pickle=True))
    found = [measure(model.model, engine, images, arguments.seconds) for engine in model.engines]
    (OUTPUT / "replies.json").write_text(json.dumps(described_run() | {"replies": found}, indent=2) + "\n")
    print(table(found))
    print(f"written: {OUTPUT / 'replies.json'}")


if __name__ == "__main__":
    main()
