"""Capacity: what `sealserve plan` predicts beside what is measured, and what Envoy costs.

The service is one process on a core of its own; what loads it, and Envoy, share another one, if
there are two. Its model is random, with so many classes that the load generator has little to do
beside it. A run with many callers tells the cost of an item. Then items come at random (Poisson) at
a few utilizations, and the p99 and the share of refused ones are compared with the prediction.
Envoy's part: its processor time a call and a byte, by items of rows and of columns, and what it
adds to the latency. Prints tables, and writes capacity.json into build/bench. With --page it only
prints the tables of docs/capacity.md, from docs/benchmarks.json.
"""

import argparse
import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.callers import benched, on_core
from benchmarks.report import OUTPUT, described_run, percent, render
from benchmarks.scaling import RandomModel
from sealserve.client import Client
from sealserve.loadtest.capacity import (
    Capacity,
    ItemCost,
    Load,
    ProxyCost,
    Sizing,
    measured_cost,
    offered_cost,
    plan_capacity,
)
from tests.support import envoy
from tests.support.programs import Program, cpu_seconds
from tests.support.serving import ROOT

UTILIZATIONS = 0.3, 0.6, 0.8
FEATURES, CLASSES = 784, 100
SATURATING = "--concurrency=8"
MILLION = 1e6
CLIENTS = 10_000
SPREAD = 4
"""Processes that the calls of one client reach, where they keep to a few."""
_RESULTS = ROOT / "docs/benchmarks.json"


@contextlib.contextmanager
def served(features: int = FEATURES, classes: int = CLASSES) -> Iterator[Program]:
    """Serve a random model from one process, on a core of its own; what follows has another one."""
    with contextlib.ExitStack() as closing:
        with on_core(0):
            model = RandomModel.of(features, classes)
            program = closing.enter_context(model.served("--processes=1"))
        closing.enter_context(on_core(1))
        yield program


def points(address: str, seconds: float, utilizations: Sequence[float] = UTILIZATIONS) -> dict[str, Any]:
    """Measure the cost of an item, then the p99 at utilizations, each beside what is predicted."""
    figures = benched(address, seconds, SATURATING)
    measured = measured_cost(figures, 1)
    with Client(address, layout="row") as client:
        cost = client.offer().cost
    offered = offered_cost(
        rows=measured.cost.rows,
        server_seconds=cost.server_seconds,
        request_bytes=cost.request_bytes,
        reply_bytes=cost.reply_bytes,
        held_bytes=cost.held_bytes,
        key_bytes=cost.key_bytes,
    )
    found = list[dict[str, float]]()
    for utilization in tqdm(utilizations, desc="utilizations", leave=False):
        rate = utilization / measured.cost.seconds
        run = benched(address, seconds, f"--rate={rate}", "--poisson", "--in-flight=64")
        load = Load(rows_per_second=rate * measured.cost.rows)
        predicted = plan_capacity(load, measured.cost, Sizing(utilization=utilization))
        found.append(
            {
                "utilization": utilization,
                "replicas": predicted.replicas,
                "items_per_second": rate,
                "answered_per_second": run["answered_per_second"],
                "sent_per_second": run["sent_per_second"],
                "p50_ms": run["latency_ms"]["p50"],
                "p99_ms": run["latency_ms"]["p99"],
                "predicted_p99_ms": 1e3 * predicted.p99_seconds,
                "refused_share": sum(run["refused"].values()) / run["sent"],
                "predicted_refused_share": predicted.refused_share,
                "failed": sum(run["failed"].values()),
            }
        )
    return {
        "is_saturated": measured.is_saturated,
        "item_ms": 1e3 * measured.cost.seconds,
        "offered_item_ms": 1e3 * offered.seconds,
        "points": found,
    }


def envoy_costs(seconds: float) -> dict[str, Any]:
    """Measure what Envoy takes of a core for items of rows and of columns, and adds to a row."""
    layouts = dict[str, dict[str, float]]()
    with served(classes=10) as program, tempfile.TemporaryDirectory() as folder:
        direct = benched(program.address, seconds, "--rate=20")
        with envoy.running_proxy(program.address, Path(folder)) as proxy:
            proxied = benched(proxy.address, seconds, "--rate=20")
            for layout in ("row", "column"):
                options = f"--layout={layout}", "--concurrency=2"
                before = cpu_seconds(proxy.process.pid)
                run = benched(proxy.address, seconds, *options)
                spent = cpu_seconds(proxy.process.pid) - before
                # The warm-up is proxied, too, but not counted: its share is taken off.
                items = run["answered"] * (1 + 0.5 / run["seconds"])
                rows = run["rows_an_item"]
                layouts[layout] = {
                    "item_seconds": spent / items,
                    "item_bytes": rows * (run["request_bytes_a_row"] + run["reply_bytes_a_row"]),
                    "rows": rows,
                    "items_per_second": run["answered_per_second"],
                    "failed": sum(run["failed"].values()),
                }
    row, column = layouts["row"], layouts["column"]
    byte = (column["item_seconds"] - row["item_seconds"]) / (column["item_bytes"] - row["item_bytes"])
    return {
        "layouts": layouts,
        "byte_seconds": byte,
        "call_seconds": max(0.0, row["item_seconds"] - byte * row["item_bytes"]),
        "direct_p50_ms": direct["latency_ms"]["p50"],
        "p50_ms": proxied["latency_ms"]["p50"],
    }


def table(found: dict[str, Any]) -> str:
    """Render what was measured."""
    heads = ("utilization", "items/s", "p50, ms", "p99, ms", "p99 predicted, ms", "refused", "refused, predicted")
    rows = [
        (
            percent(point["utilization"]),
            f"{point['answered_per_second']:.1f}",
            *(f"{point[name]:.1f}" for name in ("p50_ms", "p99_ms", "predicted_p99_ms")),
            *(f"{100 * point[name]:.2g} %" for name in ("refused_share", "predicted_refused_share")),
        )
        for point in found["points"]
    ]
    said = [
        f"An item takes {found['item_ms']:.2f} ms of a process with 8 callers; the service's own figure, with what "
        f"gRPC usually takes, is {found['offered_item_ms']:.2f} ms.",
        render([heads, *rows]),
    ]
    if envoy := found.get("envoy"):
        costs = [
            ("Envoy, gRPC without TLS", "an item of 1 row", "an item in columns"),
            *(
                (words, *(f"{scale * envoy['layouts'][layout][name]:{form}}" for layout in ("row", "column")))
                for words, name, scale, form in (
                    ("rows", "rows", 1, ",.0f"),
                    ("bytes, both ways", "item_bytes", 1, ",.0f"),
                    ("time of a core, ms", "item_seconds", 1e3, ".3f"),
                )
            ),
        ]
        said += [
            render(costs),
            f"That is {1e3 * envoy['call_seconds']:.3f} ms a call and {1e9 * envoy['byte_seconds']:.2f} ns a byte. "
            f"A row takes {envoy['p50_ms']:.2f} ms through Envoy at the median, {envoy['direct_p50_ms']:.2f} without.",
        ]
    return "\n\n".join(said)


def published_costs(parts: Mapping[str, Any]) -> dict[str, tuple[ItemCost, float]]:
    """Return the costs of items, and the bytes of a process, of the systems that are published."""
    found = dict[str, tuple[ItemCost, float]]()
    for system in parts.get("peers", {"systems": []})["systems"]:
        name, match = system["name"], re.search(r"(row|column)-(\d+)-\d+$", system["parameters"])
        if match is None:
            continue
        rows = int(match[2]) if match[1] == "column" else 1
        cost = ItemCost(
            rows=rows,
            seconds=1e-3 * rows * system["process_ms"]["median"],
            request_bytes=rows * system["request_bytes"],
            reply_bytes=rows * system["reply_bytes"],
            key_bytes=system["key_bytes"],
        )
        found[name] = cost, 1e6 * system["resident_mb"]
    return found


def page(results: Mapping[str, Any]) -> str:
    """Render the tables of docs/capacity.md, of the results in docs/benchmarks.json."""
    measured = results.get("apart", {}).get("capacity", {}).get("capacity")
    envoy = (measured or {}).get("envoy")
    proxy = ProxyCost(call_seconds=envoy["call_seconds"], byte_seconds=envoy["byte_seconds"]) if envoy else None
    everywhere, near = (Load(rows_per_second=MILLION, clients=CLIENTS, spread=spread) for spread in (None, SPREAD))
    plans = dict[str, tuple[ItemCost, Capacity, Capacity]]()
    for name, (cost, memory) in published_costs(results["parts"]).items():
        sizing = Sizing(process_bytes=memory, proxy=proxy)
        plans[name] = cost, plan_capacity(everywhere, cost, sizing), plan_capacity(near, cost, sizing)
    said = list[str]()
    if plans:
        said += [
            f"A million rows a second of {CLIENTS:,} clients, at a utilization of at most 60 %, on processes of one "
            "core:",
            _plans_table(plans),
        ]
    if measured:
        said += ["Predicted and measured, on one process:", table(measured)]
    return "\n\n".join(said)


def _plans_table(plans: Mapping[str, tuple[ItemCost, Capacity, Capacity]]) -> str:
    lines: list[tuple[str, Callable[[ItemCost, Capacity, Capacity], str]]] = [
        ("time of a process a row, ms", lambda cost, *_: f"{1e3 * cost.seconds / cost.rows:.3g}"),
        ("rows/s of a process that is always busy", lambda _, found, __: f"{found.process_rows_per_second:,.0f}"),
        ("processes, each with a core", lambda _, found, __: f"{found.cores:,}"),
        ("items a second", lambda _, found, __: f"{found.items_per_second:,.0f}"),
        ("Gbit/s up", lambda _, found, __: f"{found.received_gbits:,.1f}"),
        ("Gbit/s down", lambda _, found, __: f"{found.sent_gbits:,.1f}"),
        ("Gbit/s of a process, both", lambda _, found, __: f"{_gbits(found) / found.cores:.2f}"),
        ("memory, GB", lambda _, found, __: f"{1e-9 * found.memory_bytes:,.0f}"),
        ("p99 at the service, estimated, ms", lambda _, found, __: f"{1e3 * found.p99_seconds:,.1f}"),
        ("key store: put a second", lambda _, found, __: f"{found.key_writes_per_second:,.1f}"),
        ("key store: get and read a second", lambda _, found, __: f"{found.key_reads_per_second:,.0f}"),
        (f"  if a client keeps to {SPREAD} processes", lambda _, __, near: f"{near.key_reads_per_second:,.0f}"),
    ]
    if any(found.proxy_cores for _, found, _ in plans.values()):
        lines.append(("cores of Envoy", lambda _, found, __: f"{found.proxy_cores:,}"))
    rows = [(words, *(say(*plan) for plan in plans.values())) for words, say in lines]
    return render([("sealserve,", *(name for name in plans)), *rows])


def _gbits(found: Capacity) -> float:
    return found.received_gbits + found.sent_gbits


def main() -> None:
    """Run the benchmark, or print the page's tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each load lasts (%(default)g)")
    parser.add_argument("--page", action="store_true", help="print the tables of docs/capacity.md; measure nothing")
    arguments = parser.parse_args()
    if arguments.page:
        print(page(json.loads(_RESULTS.read_text())))
        return
    run = described_run()
    with served() as program:
        found = points(program.address, arguments.seconds)
    if envoy.EXECUTABLE.is_file():
        found["envoy"] = envoy_costs(arguments.seconds)
    else:
        print("Envoy is not installed, and not measured: `make envoy`")
    (OUTPUT / "capacity.json").write_text(json.dumps(run | {"capacity": found}, indent=2) + "\n")
    print(table(found))
    print(f"written: {OUTPUT / 'capacity.json'}")


if __name__ == "__main__":
    main()
