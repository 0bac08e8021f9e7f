"""The publisher of results: a run of `make bench` -> docs/benchmarks.json -> README, docs, plots.

With --render only the latter step, from the docs/benchmarks.json that is there. A test does the
same and compares. With names of longer programs, which `make bench` does not run, the results of
those and of nothing else.

docs/benchmarks.json: {"commit", "machine", "versions", "parts": {name of the part: its results},
"apart": {name of the program: its report, with a commit, a machine and versions of its own}}.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import (
    callers,
    capacity,
    client_memory,
    column,
    curves,
    ei,
    extraction,
    he_org,
    hostile,
    hostile_messages,
    links,
    overload,
    peers,
    private,
    repeat,
    replies,
    row,
    soak,
    steps,
    uploads,
)
from benchmarks.report import OUTPUT, render
from tests.support.serving import ROOT

DOCS, README = ROOT / "docs", ROOT / "README.md"
RESULTS, DOCUMENT, CAPACITY = DOCS / "benchmarks.json", DOCS / "benchmarks.md", DOCS / "capacity.md"
BEGIN, END = "<!-- rendered by `make bench-publish`: begin -->", "<!-- rendered by `make bench-publish`: end -->"
DESCRIPTION = ("commit", "machine", "versions")
COLUMNS = 100

README_INTRODUCTION = """
One model: the Azure ML guide's classifier of MNIST, 784 features and 10 classes. Scoring is what a server computes for
a row. A whole call is also encryption, gRPC and decryption. The other peers are TenSEAL and Concrete ML.
""".strip()
# The ratios to remember, by their names in `peers`, each with what the README calls it.
HEADLINES = {
    "server: encrypted-inference over row": "faster than `EIServer` of `encrypted-inference` at scoring, open weights",
    "server: encrypted-inference over row, private weights": "faster than `EIServer` at scoring",
    "whole: encrypted-inference over row, private weights": "faster than `encrypted-inference` at a whole call",
    "server: best other peer over row, private weights": "faster than the best other peer at scoring",
    "server: best other peer over column, private weights": "faster than the best other peer at scoring in batches",
    "whole: row, private weights over plaintext, a row": "slower than plaintext over gRPC at a whole call",
    "server with gRPC: column, private weights over plaintext, batches": (
        "slower than plaintext over gRPC at serving batches"
    ),
}
# The parts in the order of the document, each with its title and what renders it.
SECTIONS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "peers": (
        "Every peer beside sealserve",
        lambda found: "\n\n".join((ratios(found), peers.table(found["systems"]), peers.parameters(found["systems"]))),
    ),
    "row": ("The row layout", row.table),
    "column": ("The column layout", column.table),
    "private": ("Private weights beside open ones", private.table),
    "steps": ("Models with published steps", steps.table),
    "ei": ("encrypted-inference clients", ei.table),
    "scaling": ("How it scales", curves.table),
    "uploads": ("Full and seeded uploads", uploads.table),
    "overload": ("Overload", overload.table),
    "hostile": ("Hostile peers", hostile.table),
    "client_memory": ("A client's memory", client_memory.table),
    "repeat": ("Measured twice", repeat.table),
}
# Longer programs, which are run apart: the title, the command, and what renders the result.
APART: dict[str, tuple[str, str, Callable[[Any], str]]] = {
    "callers": ("Many callers", "callers", callers.table),
    "capacity": ("Predicted capacity", "capacity", capacity.table),
    "links": ("Real links", "links", links.table),
    "steps": ("Published steps beside Concrete ML", "steps --concrete-ml", steps.table),
    "he_org": ('The workload "ML inference" of HomomorphicEncryption.org', "he_org", he_org.table),
    "extraction": ("Copies of a private head", "extraction", extraction.table),
    "replies": ("Packed replies", "replies", replies.table),
    "soak": ("Mixed load for long", "soak", soak.table),
    "hostile_messages": ("Many hostile messages", "hostile --messages N", hostile_messages.table),
}
PLOTS: dict[str, Callable[[Any, Path], None]] = {
    "peers": lambda found, path: peers.plot(found["systems"], path),
    "scaling": curves.plot,
}


class PublishError(Exception):
    """The results make no whole, or a file has no place for them."""


def measured(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises:
        PublishError: it was measured at no commit.
    """
    report: dict[str, Any] = json.loads(path.read_text())
    if not report["commit"] or report["commit"].endswith("-dirty"):
        raise PublishError(f"{path} was measured at no commit: commit, and measure anew")
    return report


def merged(files: Iterable[Path]) -> dict[str, Any]:
    """Merge the results of one run, a file a benchmark.

    Raises:
        PublishError: there are no results, or they are of several versions or machines, or were
            measured at no commit.
    """
    whole: dict[str, Any] = {}
    for path in sorted(files):
        report = measured(path)
        description = {name: report.pop(name) for name in DESCRIPTION}
        if whole and description != {name: whole[name] for name in DESCRIPTION}:
            raise PublishError(f"{path} was measured on another machine or version than the rest: `make bench` anew")
        whole |= description
        whole.setdefault("parts", {})[path.stem] = report[path.stem]
    if not whole:
        raise PublishError("nothing was measured: `make bench` first")
    return whole


def machine(results: dict[str, Any]) -> str:
    """Say where results were measured, and with which versions."""
    found, versions = (
        results["machine"],
        ", ".join(f"{name} {version}" for name, version in results["versions"].items()),
    )
    return (
        f"Measured at commit {results['commit'] or 'unknown'} on {found['cores']} shared cores ({found['processor']}), "
        f"{found['memory_gb']} GB, loopback. {versions}."
    )


def ratios(found: dict[str, Any]) -> str:
    """Render the ratios, which depend on the machine least."""
    lines = [(name, peers.three_digits(ratio)) for name, ratio in found["ratios"].items()]
    return render([("how many times", "ratio"), *lines])


def readme_section(results: dict[str, Any]) -> str:
    """Render the README's section: the ratios to remember, of the parts measured, and a picture."""
    parts, rows = results["parts"], [("sealserve, with private weights unless it says open, is", "times")]
    if "peers" in parts:
        found = parts["peers"]["ratios"]
        rows += [(words, peers.three_digits(found[name])) for name, words in HEADLINES.items() if name in found]
    if "overload" in parts:
        found = parts["overload"]
        load = found["offered_per_second"] / found["capacity_per_second"]
        words = f"slower (p99 of accepted calls) at {load:.0f} times its capacity than when idle, open weights"
        rows.append((words, peers.three_digits(found["ratio"])))
    said = [README_INTRODUCTION, render(rows)]
    if "peers" in parts:
        said.append("![The time of a row at every system, logarithmic, and its parts](docs/benchmarks_peers.png)")
    said.append(
        f"Measured at commit {results['commit']} on {results['machine']['cores']} cores "
        f"({results['machine']['processor']}) by `make bench`. The method, all figures and how each one scales: "
        "[docs/benchmarks.md](docs/benchmarks.md)."
    )
    return "\n\n".join(map(wrapped, said))


def wrapped(text: str) -> str:
    """Break the lines of Markdown's paragraphs; leave tables, headings, pictures and lists."""
    paragraphs = text.split("\n\n")
    is_prose = [not paragraph.startswith(("|", "#", "!", "- ")) for paragraph in paragraphs]
    return "\n\n".join(
        textwrap.fill(paragraph, COLUMNS, break_long_words=False, break_on_hyphens=False) if prose else paragraph
        for paragraph, prose in zip(paragraphs, is_prose, strict=True)
    )


def capacity_section(results: dict[str, Any]) -> str:
    """Render the tables of docs/capacity.md."""
    return wrapped(capacity.page(results))


METHOD = """
Rendered from [benchmarks.json](benchmarks.json) by `make bench-publish`. To repeat it:

- `make bench` takes ten minutes on two cores.
- `make bench-twice` also says how far apart two runs are.
- `make bench-full` has Concrete ML and every curve.
- `make bench-profile` shows where the time of a request goes.
- `sealserve bench` loads a service of your own.

All systems score the same model on MNIST's test images: the Azure ML guide's own, with 784 features and 10 classes.
They are asked by turns, because a machine that others use too is faster at one time and slower at another. Figures are
medians. Ratios are those of lower deciles, because a disturbance only ever adds time. Services are processes of their
own, which are asked over gRPC on loopback. No system has more than one thread for a product. Every parameter set has
128 bits of security by the table of homomorphicencryption.org. Where nothing else is said, one client asks, and figures
are medians of one run. Quote the ratios, which depend on the machine least.
""".strip()


def document(results: dict[str, Any]) -> str:
    """Render docs/benchmarks.md, of the parts that there are."""
    said = ["# Benchmarks", METHOD, machine(results)]
    for name, (title, table) in SECTIONS.items():
        if name in results["parts"]:
            said += [f"## {title}", table(results["parts"][name])]
            if name in PLOTS:
                said.append(f"![{title}](benchmarks_{name}.png)")
    for name, (title, command, table) in APART.items():
        if report := results.get("apart", {}).get(name):
            said += [f"## {title}", f"`python -m benchmarks.{command}`. {machine(report)}", table(report[name])]
    return "\n\n".join(map(wrapped, said)) + "\n"


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
    parser.add_argument("apart", nargs="*", metavar="PROGRAM", help=f"only results of {' or '.join(APART)}")
    arguments = parser.parse_args()
    try:
        if unknown := set(arguments.apart) - APART.keys():
            raise PublishError(f"no such programs: {', '.join(sorted(unknown))}")
        if not arguments.render:
            before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            apart = before.get("apart", {})
            for name in arguments.apart:
                report = measured(OUTPUT / f"{name}.json")
                apart[name] = {key: report[key] for key in (*DESCRIPTION, name)}
            if arguments.apart:
                results = before
            else:
                results = merged(path for name in SECTIONS if (path := OUTPUT / f"{name}.json").exists())
            RESULTS.write_text(json.dumps(results | {"apart": apart}, indent=2) + "\n")
        results = json.loads(RESULTS.read_text())
        README.write_text(with_section(README.read_text(), readme_section(results)))
        DOCUMENT.write_text(document(results))
        CAPACITY.write_text(with_section(CAPACITY.read_text(), capacity_section(results)))
        for name in PLOTS.keys() & results["parts"].keys():
            PLOTS[name](results["parts"][name], DOCS / f"benchmarks_{name}.png")
    except (OSError, PublishError) as error:
        sys.exit(str(error))
    missing = ", ".join(sorted(SECTIONS.keys() - results["parts"].keys()))
    print(f"written: {RESULTS}, {DOCUMENT}, {CAPACITY}, {README}" + (f"; without {missing}" if missing else ""))


if __name__ == "__main__":
    main()
