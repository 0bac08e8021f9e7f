"""encrypted-inference clients on MNIST: the SEAL engine and EIServer on the same bytes.

Prints a table, and writes ei.json and ei.png into build/bench. EIServer takes 15 seconds a row.
"""

import argparse
import base64
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from encrypted.inference.eiserver import EIServer
from tqdm import tqdm

from benchmarks.report import OUTPUT, described_run, render
from sealserve.ei import EIClient
from sealserve.he.layouts import LAYOUTS
from sealserve.he.quantization import InputGrid
from sealserve.protocol.item import ItemHeader, SealCiphertext
from sealserve_service.engines.ei.keys import load_galois_keys
from sealserve_service.engines.ei.slots import EiSlotsEngine
from sealserve_service.models.loading import load_model
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support import mnist
from tests.support.ei_user import EIUser
from tests.support.programs import serve

REPETITIONS = 40  # of the SEAL engine, for each of EIServer
CALLS = 20


def timed(action: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Run an action; returns seconds and what it returned."""
    start = clock()
    result = action()
    return clock() - start, result


def engines(path: Path, user: EIUser, row: Any, rounds: int) -> dict[str, Any]:
    """Time both engines on one ciphertext, by turns.

    Processor time is measured: a row of EIServer takes so long that other work on the machine would
    be part of its wall-clock time.
    """
    model = load_model(path, trust_pickle=True)
    grid = InputGrid.of(model.feature_count, 0.0, 1.0)
    ciphertexts = user.encrypt(row)
    loading, keys = timed(lambda: load_galois_keys(user.evaluation_keys))
    engine = EiSlotsEngine(model.weights, model.intercept, grid, lambda *_: keys)
    reference = EIServer(model.weights, model.intercept)
    header = ItemHeader(
        model="mnist",
        config_id="",
        layout=LAYOUTS["ei-slots"],
        parameter_set="ei-8192",
        row_count=1,
        ciphertext_count=1,
        key_id="",
    )

    def seal() -> list[SealCiphertext]:
        scoring = engine.begin(header, ANONYMOUS.name)
        scoring.add(ciphertexts)
        return list(scoring.finish())

    encoded = [base64.b64encode(data).decode() for data in ciphertexts]
    seal_seconds, reference_seconds = [], []
    first, _ = timed(seal)
    for _ in tqdm(range(rounds), desc="EIServer beside the SEAL engine", unit="round", leave=False):
        seconds, reply = timed(lambda: reference.predict(encoded, user.evaluation_keys), time.process_time)
        reference_seconds.append(seconds)
        for _ in range(REPETITIONS):
            seconds, own = timed(seal, time.process_time)
            seal_seconds.append(seconds)
    scores, reference_scores = user.decrypt(own), user.client.decrypt(reply)
    expected = model.decision(row[None])[0]
    return {
        "eiserver_ms": 1e3 * median(reference_seconds),
        "seal_ms": 1e3 * median(seal_seconds),
        "ratio": median(reference_seconds) / median(seal_seconds),
        "load_keys_ms": 1e3 * loading,
        "first_item_ms": 1e3 * first,
        "score_error": float(np.abs(scores - expected).max()),
        "eiserver_score_error": float(np.abs(reference_scores - expected).max()),
    }


def calls(path: Path, user: EIUser, row: Any) -> dict[str, Any]:
    """Time what a client sees of a served model."""
    options = [f"--model=mnist={path}", "--trust-pickle", "--input-range=0,1"]
    with (
        serve(*options) as program,
        EIClient(program.address, client=user.client, evaluation_keys=user.evaluation_keys) as client,
    ):
        register = [timed(client.register_keys)[0] for _ in range(5)]
        ciphertexts = user.client.encrypt(row)
        first, _ = timed(lambda: client.score(ciphertexts))
        seconds = [timed(lambda: client.score(ciphertexts))[0] for _ in tqdm(range(CALLS), unit="call", leave=False)]
        reply = client.score(ciphertexts)
        return {
            "register_ms": 1e3 * median(register),
            "first_call_ms": 1e3 * first,
            "call_ms": 1e3 * median(seconds),
            "encrypt_ms": 1e3 * median(timed(lambda: user.client.encrypt(row))[0] for _ in range(5)),
            "decrypt_ms": 1e3 * median(timed(lambda: user.client.decrypt(reply))[0] for _ in range(3)),
            "key_bytes": len(user.evaluation_keys),
            "request_bytes": sum(len(base64.b64decode(text)) for text in ciphertexts),
            "reply_bytes": sum(len(base64.b64decode(text)) for text in reply),
        }


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """How many times as long as the SEAL engine EIServer takes."""
    return {"EIServer over SEAL engine": result["ratio"]}


ROWS = (
    ("EIServer, a row, processor ms", "eiserver_ms", ",.0f"),
    ("SEAL engine, a row, keys cached, processor ms", "seal_ms", ".1f"),
    ("EIServer over SEAL engine", "ratio", ",.0f"),
    ("score error of EIServer", "eiserver_score_error", ".1e"),
    ("score error of the SEAL engine", "score_error", ".1e"),
    ("register keys over loopback, ms", "register_ms", ".0f"),
    ("first call with a key, ms", "first_call_ms", ".0f"),
    ("call: request, server, reply, ms", "call_ms", ".1f"),
    ("encrypt (encrypted-inference), ms", "encrypt_ms", ".0f"),
    ("decrypt (encrypted-inference), ms", "decrypt_ms", ".0f"),
    ("keys, bytes", "key_bytes", ","),
    ("request, bytes", "request_bytes", ","),
    ("reply, bytes", "reply_bytes", ","),
)


def table(result: dict[str, Any]) -> str:
    """Render the result."""
    cells = [(name, format(result[key], form)) for name, key, form in ROWS]
    return render([("encrypted-inference clients on MNIST", "median"), *cells])


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw both engines' time, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 2), layout="constrained")
    milliseconds = [result["eiserver_ms"], result["seal_ms"]]
    bars = axes.barh(["EIServer", "SEAL engine"], milliseconds, color=["#b8b8b8", "#3b6fb6"])
    axes.bar_label(bars, [f"{value:,.0f} ms" for value in milliseconds], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(1, 1e5)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds of a processor, median of one MNIST row, keys cached")
    axes.set_title("The same ciphertext and keys of an encrypted-inference client")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="rows for EIServer, 15 s each (%(default)s)")
    arguments = parser.parse_args()
    images, path = mnist.images(), mnist.find(mnist.MODEL)
    if images is None or path is None:
        sys.exit(f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})")
    user = EIUser()
    result = engines(path, user, images[0], arguments.rounds) | calls(path, user, images[0])
    report = described_run() | {"ei": result}
    (OUTPUT / "ei.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(result, OUTPUT / "ei.png")
    print(table(result))
    print(f"written: {OUTPUT / 'ei.json'}, {OUTPUT / 'ei.png'}")


if __name__ == "__main__":
    main()
