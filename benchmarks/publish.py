"""`make bench-publish`: a run of `make bench` -> docs/benchmarks.json -> README, docs/benchmarks.md, plots.

With --render, only the latter, from the docs/benchmarks.json that is there; a test does that and compares.

docs/benchmarks.json: {"commit", "machine", "versions", "parts": {name of the benchmark: its results}}.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import (
    client_memory,
    column,
    curves,
    ei,
    hostile,
    overload,
    peers,
    private,
    repeat,
    row,
    uploads,
)
from benchmarks.report import OUTPUT, render
from tests.support.serving import ROOT

DOCS, README = ROOT / "docs", ROOT / "README.md"
RESULTS, DOCUMENT = DOCS / "benchmarks.json", DOCS / "benchmarks.md"
BEGIN, END = "<!-- rendered by `make bench-publish`: begin -->", "<!-- rendered by `make bench-publish`: end -->"
DESCRIPTION = ("commit", "machine", "versions")

# The parts in the order of the document, each with its title and what renders it.
SECTIONS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "peers": (
        "Every peer beside us",
        lambda found: "\n\n".join((ratios(found), peers.table(found["systems"]), peers.parameters(found["systems"]))),
    ),
    "row": ("The row layout", row.table),
    "column": ("The column layout", column.table),
    "private": ("Private weights beside open ones", private.table),
    "ei": ("encrypted-inference clients", ei.table),
    "scaling": ("How it scales", curves.table),
    "uploads": ("Full and seeded uploads", uploads.table),
    "overload": ("Overload", overload.table),
    "hostile": ("Hostile peers", hostile.table),
    "client_memory": ("A client's memory", client_memory.table),
    "repeat": ("Measured twice", repeat.table),
}
PLOTS: dict[str, Callable[[Any, Path], None]] = {
    "peers": lambda found, path: peers.plot(found["systems"], path),
    "scaling": curves.plot,
}


class PublishError(Exception):
    """Results that make no whole, or a file without the place for them."""


def merged(files: Iterable[Path]) -> dict[str, Any]:
    """Merge the results of one run, a file a benchmark.

    Raises:
        PublishError: there are none, or they are of several versions or machines, or of what is in no commit.
    """
    whole: dict[str, Any] = {}
    for path in sorted(files):
        report = json.loads(path.read_text())
        description = {name: report.pop(name) for name in DESCRIPTION}
        if whole and description != {name: whole[name] for name in DESCRIPTION}:
            raise PublishError(f"{path} was measured on another machine or version than the rest: `make bench` anew")
        if not description["commit"] or description["commit"].endswith("-dirty"):
            raise PublishError(f"{path} was measured at no commit: commit, and `make bench` anew")
        whole |= description
        whole.setdefault("parts", {})[path.stem] = report[path.stem]
    if not whole:
        raise PublishError("nothing was measured: `make bench` first")
    return whole


def machine(results: dict[str, Any]) -> str:
    """Say in a sentence what was measured where."""
    found, versions = (
        results["machine"],
        ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    )
    return (
        f"Measured at commit {results['commit'] or 'unknown'} on {found['cores']} shared cores ({found['processor']}), "
        f"{found['memory_gb']} GB, loopback, one client: medians of one run. {versions}."
    )


def ratios(found: dict[str, Any]) -> str:
    """Render what matters whatever the machine."""
    lines = [(name, peers.three_digits(ratio)) for name, ratio in found["ratios"].items()]
    return render([("how many times", "ratio"), *lines])


def readme_section(results: dict[str, Any]) -> str:
    """Render what the README says, of the parts that there are."""
    parts, said = results["parts"], [machine(results)]
    if "peers" in parts:
        said += [ratios(parts["peers"]), peers.table(parts["peers"]["systems"])]
        said.append("![A row's time at every system, logarithmic, and its parts](docs/benchmarks_peers.png)")
    if "row" in parts:
        plans = parts["row"]
        said.append(
            f"The row layout on MNIST's test images, by the wanted score error:\n\n{_plans(plans)}\n\n"
            f"Labels equal to the plaintext model's: {plans[0]['labels_equal']:,} of {plans[0]['rows']:,}."
        )
    if "column" in parts:
        batch = parts["column"][0]
        over_plain = column.over_service(batch, "plain")
        said.append(
            f"Batches ({batch['parameter_set']}): the service scores {batch['server_rows_per_second']:,.0f} rows/s "
            f"over gRPC, {over_plain:.1f} times fewer than a server of plaintext rows; with fresh encryption, one "
            f"client gets {batch['end_to_end']['rows_per_second']:,.0f}."
        )
    if "ei" in parts:
        found = parts["ei"]
        said.append(
            f"The same ciphertext and keys of an `encrypted-inference` client: `EIServer` "
            f"{found['eiserver_ms'] / 1e3:.1f} s, here {found['seal_ms']:.0f} ms, {found['ratio']:,.0f} times less."
        )
    if "overload" in parts:
        found = parts["overload"]
        said.append(
            f"At {found['offered_per_second'] / found['capacity_per_second']:.1f} times its capacity, what the service "
            f"accepts has a p99 of {found['ratio']:.1f} times that of an idle one, and the rest is refused within "
            f"{found['refused_p95_ms']:.0f} ms (p95)."
        )
    if "repeat" in parts:
        said.append(repeat.sentence(parts["repeat"]))
    return "\n\n".join([*said, "All of it: [docs/benchmarks.md](docs/benchmarks.md)."])


def _plans(plans: list[dict[str, Any]]) -> str:
    lines: list[list[str]] = [
        ["", *(f"`{plan['max_score_error']:g}`" if plan["max_score_error"] else "default" for plan in plans)],
        ["parameter set", *(plan["parameter_set"] for plan in plans)],
        [
            "score error, proven / observed",
            *(f"{plan['score_error_bound']:.2g} / {plan['observed_score_error']:.2g}" for plan in plans),
        ],
        [
            "encrypt, server, decrypt, ms",
            *(", ".join(f"{plan[f'{step}_ms']:.2f}" for step in ("encrypt", "server", "decrypt")) for plan in plans),
        ],
        ["whole `predict` of one row, ms", *(f"{plan['predict_ms']:.1f}" for plan in plans)],
        [
            "bytes up / down a row",
            *(f"{plan['request_bytes'] / 1e3:.0f} KB / {plan['reply_bytes'] / 1e3:.0f} KB" for plan in plans),
        ],
    ]
    return render(lines)


METHOD = """
Rendered from [benchmarks.json](benchmarks.json) by `make bench-publish`. Repeat it with `make bench`, in ten minutes
on two cores, with `make bench-twice`, which says how far two runs are apart, or with `make bench-full`, which has
Concrete ML and every curve; `make bench-profile` shows where a request's time goes. To load a service of your own:
`sealserve bench`.

What is compared is one model, the Azure ML guide's own for MNIST (784 features, 10 classes), on MNIST's test images.
Systems are asked by turns, since a machine that others use too is now faster, now slower; figures are medians, ratios
those of lower deciles, as whatever disturbs adds time. Services are processes of their own that are asked over gRPC on
loopback; no system has more than one thread for a product. Every parameter set has 128 bits of security by the table of
homomorphicencryption.org. What to quote are the ratios.
""".strip()


def document(results: dict[str, Any]) -> str:
    """Render docs/benchmarks.md, of the parts that there are."""
    said = [
        "# Benchmarks",
        METHOD,
        machine(results),
    ]
    for name, (title, table) in SECTIONS.items():
        if name in results["parts"]:
            said += [f"## {title}", table(results["parts"][name])]
            if name in PLOTS:
                said.append(f"![{title}](benchmarks_{name}.png)")
    return "\n\n".join(said) + "\n"


def with_section(text: str, section: str) -> str:
    """Put a section between the markers of a text.

    Raises:
        PublishError: it has none.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PublishError(f"no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


def main() -> None:
    """Merge and render."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--render", action="store_true", help="from the docs/benchmarks.json that is there")
    arguments = parser.parse_args()
    try:
        if not arguments.render:
            parts = (OUTPUT / f"{name}.json" for name in SECTIONS)
            results = merged(path for path in parts if path.exists())
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        results = json.loads(RESULTS.read_text())
        README.write_text(with_section(README.read_text(), readme_section(results)))
        DOCUMENT.write_text(document(results))
        for name in PLOTS.keys() & results["parts"].keys():
            PLOTS[name](results["parts"][name], DOCS / f"benchmarks_{name}.png")
    except (OSError, PublishError) as error:
        sys.exit(str(error))
    missing = ", ".join(sorted(SECTIONS.keys() - results["parts"].keys()))
    print(f"written: {RESULTS}, {DOCUMENT}, {README}" + (f"; without {missing}" if missing else ""))


if __name__ == "__main__":
    main()
