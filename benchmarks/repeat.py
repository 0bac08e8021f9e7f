"""Repetition: how far apart the ratios of two runs are, `make bench-twice`.

The results of the first run are in build/bench/first, those of the second in build/bench.
Milliseconds depend on the machine and the hour; ratios should be the same whoever repeats a run.
Prints a table, and writes repeat.json into build/bench.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks import column, ei, overload, peers, private
from benchmarks.report import FIRST, OUTPUT, described_run, percent, render

RATIOS: dict[str, Callable[[Any], Mapping[str, float]]] = {
    "peers": lambda found: peers.ratios(found["systems"]),
    "column": column.ratios,
    "private": private.ratios,
    "ei": ei.ratios,
    "overload": overload.ratios,
}
AGREEING = 0.15


def apart(first: float, second: float) -> float:
    """How far apart two positive figures are, as a share of the smaller."""
    return max(first, second) / min(first, second) - 1


def compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Compare the ratios that both runs have, given their results: {name of the part: results}."""
    found = []
    for part, ratios in RATIOS.items():
        if part in first and part in second:
            after = ratios(second[part])
            found += [
                {"part": part, "name": name, "first": ratio, "second": after[name], "apart": apart(ratio, after[name])}
                for name, ratio in ratios(first[part]).items()
                if name in after
            ]
    return found


def measured(directory: Path) -> dict[str, Any]:
    """Read the results in a directory, of the parts that have ratios: {name of part: results}."""
    paths = {name: directory / f"{name}.json" for name in RATIOS}
    return {name: json.loads(path.read_text())[name] for name, path in paths.items() if path.exists()}


def agreement(found: list[dict[str, Any]]) -> str:
    """Say how many ratios agree."""
    agreeing = sum(ratio["apart"] <= AGREEING for ratio in found)
    return f"{agreeing} of {len(found)} ratios agree within {percent(AGREEING)}"


def table(found: list[dict[str, Any]]) -> str:
    """Render the ratios, how many agree, which do not, and which two are the farthest apart."""
    lines = [("ratio", "first", "second", "apart")]
    for ratio in found:
        values = peers.three_digits(ratio["first"]), peers.three_digits(ratio["second"])
        lines.append((f"{ratio['part']}: {ratio['name']}", *values, percent(ratio["apart"])))
    parting = ", ".join(_quoted(ratio) for ratio in found if ratio["apart"] > AGREEING)
    worst = max(found, key=itemgetter("apart"))
    return (
        f"{render(lines)}\n\n{agreement(found)}{f', all but {parting}' if parting else ''}. "
        f"The farthest apart, by {percent(worst['apart'])}, is {_quoted(worst)}."
    )


def _quoted(ratio: dict[str, Any]) -> str:
    return f'"{ratio["part"]}: {ratio["name"]}"'


def main() -> None:
    """Compare what was measured last with what was measured first."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    found = compared(measured(FIRST), measured(OUTPUT))
    if not found:
        sys.exit(f"{FIRST} and {OUTPUT} have no ratio in common: those with ratios are {', '.join(RATIOS)}")
    (OUTPUT / "repeat.json").write_text(json.dumps(described_run() | {"repeat": found}, indent=2) + "\n")
    print(table(found))
    print(f"\nwritten: {OUTPUT / 'repeat.json'}")


if __name__ == "__main__":
    main()
