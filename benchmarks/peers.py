"""Peers: every other system beside ours in one run, by turns, on the Azure ML guide's MNIST model.

Ours are served over gRPC on loopback. encrypted-inference, TenSEAL and Concrete ML run in a process
each, without a network. Prints ratios and a table, and writes peers.json and peers.png into
build/bench.
"""

import argparse
import json
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import systems
from benchmarks.report import OUTPUT, described_run, render, undisturbed
from benchmarks.systems import Sample, System, Workload
from sealserve_service.models.loading import load_model
from tests.support import mnist
from tests.support.serving import ROOT

CONCRETE_ML = "concrete-ml==1.9.0"
_ENVIRONMENT = ROOT / "build" / "peers" / "concrete-ml"
STEPS = ("encrypt", "server", "decrypt")
NAMES = {"total": "whole", "process": "server with gRPC"}
PRIVATE = "--weights=private"
OTHER_PEERS, BEST = ("TenSEAL, mm", "TenSEAL, dot by class", "Concrete ML"), "best other peer"
# What is compared: (step, numerator, denominator), at the server or in total. Each line for private
# weights is below its twin for open ones.
COMPARED = (
    ("server", "encrypted-inference", "row"),
    ("server", "encrypted-inference", "row, private weights"),
    ("server", BEST, "row"),
    ("server", BEST, "row, private weights"),
    ("server", BEST, "column"),
    ("server", BEST, "column, private weights"),
    ("server", "encrypted-inference", "EI slots"),
    ("server", "row", "plaintext, a row"),
    ("server", "row, private weights", "plaintext, a row"),
    ("server", "column", "plaintext, batches"),
    ("server", "column, private weights", "plaintext, batches"),
    ("process", "column", "plaintext, batches"),
    ("process", "column, private weights", "plaintext, batches"),
    ("total", "encrypted-inference", "row"),
    ("total", "encrypted-inference", "row, private weights"),
    ("total", "row", "plaintext, a row"),
    ("total", "row, private weights", "plaintext, a row"),
)
CONDITIONS = (
    "Times are medians of the repetitions. Server is what the arithmetic takes, from bytes to scores. Server with gRPC "
    "is all that the serving process computes for a row. Ours and plaintext are served over gRPC by one other process, "
    "whose memory is shown; a batch is encrypted on one core while it is scored on the other. The rest have client and "
    "server in one process, with one thread and no network; their memory and processor time are shown. EI slots are "
    "asked by encrypted-inference's own client, and with open weights only: a reply that this client can read cannot "
    "hide them. Labels are compared with the plaintext model's."
)
# Beside each its share of the turns: some take seconds a row.
Entry = tuple[AbstractContextManager[System], float]


def entries(workload: Workload, concrete_python: str | None) -> list[Entry]:
    """The systems, each with its share of the turns."""
    peer = partial(systems.peer, workload)
    found: list[Entry] = [
        (systems.row(workload, "row"), 1),
        (systems.row(workload, "row, private weights", PRIVATE), 1),
        (systems.column(workload, "column"), 1),
        (systems.column(workload, "column, private weights", PRIVATE), 0.3),
        (systems.ei_slots(workload, "EI slots"), 1),
        (peer("encrypted-inference", "encrypted-inference"), 0.15),
        (peer("TenSEAL, mm", "tenseal-mm"), 0.15),
        (peer("TenSEAL, dot by class", "tenseal-dot"), 1),
        # Of calls of 20 us, caches decide: the median of a few is that of their luck.
        (systems.plaintext(workload, "plaintext, a row", 1, calls=200), 1),
        (systems.plaintext(workload, "plaintext, batches", 4096, calls=20), 1),
        (peer("scikit-learn in process", "scikit-learn", count=20), 1),
    ]
    if concrete_python:
        found.insert(8, (peer("Concrete ML", "concrete-ml", concrete_python), 1))
    return found


def spread(values: list[float]) -> dict[str, float]:
    """The median, the least, the greatest, and the undisturbed value."""
    return {"median": median(values), "least": min(values), "most": max(values), "undisturbed": undisturbed(values)}


def summed_up(system: System, samples: list[tuple[int, Sample]], workload: Workload, labels: NDArray[Any]) -> Any:
    """Sum the repetitions of a system up; each is (first row, sample)."""
    rows = np.concatenate([np.arange(first, first + system.rows) % len(workload.rows) for first, _ in samples])
    expected = workload.model.decision(workload.rows[rows])
    scores = np.concatenate([sample.scores for _, sample in samples])
    predict = workload.model.output.predict
    steps = {
        f"{step}_ms": spread([1e3 * sample.steps[step] for _, sample in samples])
        for step in (*STEPS, "process")
        if step in samples[0][1].steps
    }
    total = [sample.total_seconds for _, sample in samples]
    return {
        "name": system.name,
        "network": system.where,
        "repetitions": len(samples),
        "rows_a_repetition": system.rows,
        **steps,
        "total_ms": spread([1e3 * seconds for seconds in total]),
        "rows_per_second": 1 / median(total),
        "request_bytes": median(sample.request_bytes for _, sample in samples),
        "reply_bytes": median(sample.reply_bytes for _, sample in samples),
        "resident_mb": system.resident_bytes() / 1e6,
        "key_bytes": system.key_bytes,
        "accuracy": float(np.mean(predict(scores) == labels[rows])),
        "agreement": float(np.mean(predict(scores) == predict(expected))),
        "rows_compared": len(np.unique(rows)),
        "score_error": float(np.abs(scores - expected).max()),
        **system.notes,
    }


def spread_over(turns: int, share: float) -> list[int]:
    """Choose a share of the turns, at least one, evenly: each is in the middle of its stretch."""
    count = max(1, round(share * turns))
    return [(2 * number + 1) * turns // (2 * count) for number in range(count)]


def measure(workload: Workload, labels: NDArray[Any], turns: int, concrete_python: str | None) -> list[dict[str, Any]]:
    """Start all systems and ask them by turns.

    A machine that others use too is faster at one time and slower at another.
    """
    with ExitStack() as stack:
        planned = [
            (stack.enter_context(entry), spread_over(turns, share))
            for entry, share in tqdm(entries(workload, concrete_python), desc="starting", leave=False)
        ]
        samples: dict[str, list[tuple[int, Sample]]] = {system.name: [] for system, _ in planned}
        for turn in tqdm(range(turns), desc="by turns", unit="turn", leave=False):
            for system, chosen in planned:
                if turn in chosen:
                    first = len(samples[system.name]) * system.rows
                    samples[system.name].append((first, system.measure(first)))
        return [summed_up(system, samples[system.name], workload, labels) for system, _ in planned]


def ratios(results: list[dict[str, Any]]) -> dict[str, float]:
    """Return the ratios of the undisturbed repetitions: they depend on the machine least.

    Ratios turn by turn are less steady: a disturbance seldom lasts from one system's sample to the
    other's.
    """
    by_name = {result["name"]: result for result in results}

    def milliseconds(name: str, what: str) -> float:
        names = [other for other in OTHER_PEERS if other in by_name] if name == BEST else [name]
        return min(float(by_name[name][f"{what}_ms"]["undisturbed"]) for name in names)

    return {
        f"{NAMES.get(what, what)}: {over} over {under}": milliseconds(over, what) / milliseconds(under, what)
        for what, over, under in COMPARED
    }


def three_digits(value: float) -> str:
    """Write a number with three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def concrete_ml_python() -> str | None:
    """Install Concrete ML into an environment of its own, because it pins old packages.

    What an earlier attempt, or another version, has left there is removed.

    Returns:
        The environment's Python; None, with the reason on stderr, if it cannot be installed.
    """
    python, installed = _ENVIRONMENT / "bin" / "python", _ENVIRONMENT / CONCRETE_ML
    steps: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", "--clear", _ENVIRONMENT],
        [python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", CONCRETE_ML],
        [python, "-c", "import concrete.ml.sklearn"],
    ]
    try:
        if not installed.exists():
            print(f"installing {CONCRETE_ML} into {_ENVIRONMENT}, 6 GB ...", file=sys.stderr)
            for step in steps:
                subprocess.run(step, check=True)
            installed.touch()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"without Concrete ML, which cannot be installed: {error}", file=sys.stderr)
        return None
    return str(python)


def shown(result: dict[str, Any]) -> str:
    """Name a system for readers who do not know which are ours."""
    return f"sealserve, {result['name']}" if _is_ours(result) else str(result["name"])


def _is_ours(result: dict[str, Any]) -> bool:
    return result["network"] == "gRPC" and not _is_plain(result)


def _is_plain(result: dict[str, Any]) -> bool:
    return str(result["name"]).startswith(("plaintext", "scikit-learn"))


def table(results: list[dict[str, Any]]) -> str:
    """Render the results: a line a system, milliseconds and bytes a row."""
    head = (
        "system,encrypt ms,server ms,server with gRPC ms,decrypt ms,whole ms,"
        "whole: least to most,rows/s,bytes up,bytes down,key bytes,"
        "resident MB,accuracy,labels equal,of rows"
    )
    lines = [head.split(",")]
    for result in results:
        whole = result["total_ms"]
        lines.append(
            [
                shown(result),
                *(
                    three_digits(result[f"{step}_ms"]["median"]) if f"{step}_ms" in result else ""
                    for step in ("encrypt", "server", "process", "decrypt")
                ),
                three_digits(whole["median"]),
                f"{three_digits(whole['least'])} to {three_digits(whole['most'])}",
                three_digits(result["rows_per_second"]),
                f"{result['request_bytes']:,.0f}",
                f"{result['reply_bytes']:,.0f}",
                f"{result['key_bytes']:,}",
                f"{result['resident_mb']:.0f}",
                f"{result['accuracy']:.2%}",
                f"{result['agreement']:.2%}",
                f"{result['rows_compared']:,}",
            ]
        )
    return f"{render(lines)}\n\n{CONDITIONS}"


def parameters(results: list[dict[str, Any]]) -> str:
    """Render the version and the parameters of each system."""
    lines = [("system", "version", "parameters")]
    lines += [(shown(result), result.get("version", ""), result["parameters"]) for result in results]
    return render(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """Draw each system's time for a row, split, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    height = 1.4 + 0.42 * len(results)
    figure, (whole, split) = plt.subplots(
        1, 2, figsize=(11, height), layout="constrained", sharey=True, width_ratios=[3, 2]
    )
    names = list(map(shown, results))
    totals = [result["total_ms"]["median"] for result in results]
    errors = [
        [total - result["total_ms"]["least"] for total, result in zip(totals, results, strict=True)],
        [result["total_ms"]["most"] - total for total, result in zip(totals, results, strict=True)],
    ]
    bars = whole.barh(names, totals, xerr=errors, color=list(map(_color, results)), error_kw={"linewidth": 1})
    whole.bar_label(bars, list(map(three_digits, totals)), padding=4)
    whole.set_xscale("log")
    whole.xaxis.set_major_formatter("{x:,g}")
    whole.grid(axis="x", color="#e4e4e4")
    whole.set_axisbelow(True)
    whole.set_xlim(min(totals) / 3, max(totals) * 8)
    whole.set_xlabel("milliseconds a row, features to scores (logarithmic)")
    left = np.zeros(len(results))
    # Shares are stacked on a scale of their own: lengths of a stack on a logarithmic scale mean
    # nothing.
    for step, color in zip((*STEPS, "gRPC and waiting"), ("#3b6fb6", "#d98c00", "#5aa469", "#d8d8d8"), strict=True):
        parts = np.array([_share(result, step) for result in results])
        split.barh(names, parts, left=left, color=color, label=step)
        left += parts
    split.set_xlim(0, 100)
    split.set_xlabel("% of that time")
    whole.invert_yaxis()
    figure.suptitle("One encrypted MNIST row: 784 features, 10 classes")
    figure.legend(ncols=4, loc="outside lower center", frameon=False)
    figure.savefig(path, dpi=120)


def _color(result: dict[str, Any]) -> str:
    """Ours are blue, with private weights paler; the others grey, plaintext paler."""
    if _is_ours(result):
        return "#9db8d9" if result["name"].endswith("private weights") else "#4a6fa5"
    return "#c9c9c9" if _is_plain(result) else "#8c8c8c"


def _share(result: dict[str, Any], step: str) -> float:
    """A step's share in per cent.

    The steps of a batch overlap, so that their sum may be more than the whole.
    """
    steps = {name: result.get(f"{name}_ms", {}).get("median", 0.0) for name in STEPS}
    whole = float(max(result["total_ms"]["median"], sum(steps.values())))
    return 100 * float(steps.get(step, whole - sum(steps.values()))) / whole


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20, help="turns; the slowest get a share (%(default)s)")
    parser.add_argument("--concrete-ml", action="store_true", help="Concrete ML too, in an environment of its own")
    parser.add_argument("--quick", action="store_true", help="one turn: to see that it works, not for figures")
    arguments = parser.parse_args()
    rows, labels, path = mnist.images(), mnist.labels(), mnist.find(mnist.MODEL)
    if rows is None or labels is None or path is None:
        sys.exit(f"MNIST or the guide's model is not here: run `make data`, or set SEALSERVE_DATA ({mnist.MODEL})")
    workload = Workload(path, load_model(path, trust_pickle=True), rows)
    python = concrete_ml_python() if arguments.concrete_ml else None
    results = measure(workload, labels, 1 if arguments.quick else arguments.repetitions, python)
    found = ratios(results)
    report = described_run() | {"peers": {"ratios": found, "systems": results}}
    (OUTPUT / "peers.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(results, OUTPUT / "peers.png")
    print(render([("how many times", "ratio"), *((name, three_digits(ratio)) for name, ratio in found.items())]))
    print()
    print(table(results))
    print(f"written: {OUTPUT / 'peers.json'}, {OUTPUT / 'peers.png'}")


if __name__ == "__main__":
    main()
