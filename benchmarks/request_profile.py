"""The profile of one request, `make bench-profile`: where its time goes, at client and server.

Both run in this process, which asks for one row, or one full batch, after the other. Each call of a
function, SEAL's and NumPy's included, is timed where it happens. A sampling profiler would not do,
because it cannot look while SEAL's functions run. Prints a table, and writes three files into
build/bench, with the weights and the layout in their names: JSON, a PNG (a flame graph), and a
.folded for speedscope.app.
"""

import argparse
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import nlargest
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.report import OUTPUT, described_run, render
from sealserve.client import Client
from sealserve.loadtest.items import random_rows
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.planning.hiding import DEFAULT_HIDING_BITS
from tests.support.affine_models import features_of
from tests.support.serving import linear, registered_keys, running_server, served

Stack = tuple[str, ...]
SIDES = {"sealserve": "client", "sealserve_service": "server"}  # by package, of the outermost function
WAITING = ("_thread.lock.acquire", "_thread.RLock._acquire_restore")
_ITEMS = {"row": 64, "column": 2}  # sent in turn
_REQUESTS = {"row": 1000, "column": 20}
_SHOWN_FUNCTIONS = 25
_MIN_SHARE = 0.004  # of the whole: what is narrower is not drawn


@dataclass
class Node:
    """A function at its place in the tree of calls.

    Its seconds are its own, without those of the functions that it called.
    """

    seconds: float = 0.0
    called: dict[str, "Node"] = field(default_factory=dict)

    def stacks(self, above: Stack = ()) -> Iterator[tuple[Stack, float]]:
        """Yield every stack from here on with its own seconds."""
        yield above, self.seconds
        for name, node in list(self.called.items()):  # threads of the server still write
            yield from node.stacks((*above, name))


class CallClock:
    """Times every call in every thread that begins while it runs, and in this one."""

    def __init__(self) -> None:
        self._roots: list[Node] = []
        self._local = threading.local()
        self._is_counting = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """See the threads that begin from now on; `counting` says when they count."""
        threading.setprofile(self._event)
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count as long as this lasts."""
        self._is_counting = True
        try:
            yield
        finally:
            self._is_counting = False

    def stacks(self) -> dict[Stack, float]:
        """The seconds of each stack of a client or a server, unless it waits for another thread."""
        found: defaultdict[Stack, float] = defaultdict(float)
        for root in self._roots:
            for stack, seconds in root.stacks():
                if seconds and (ours := stack_of(stack)) and ours[-1] not in WAITING:
                    found[ours] += seconds
        return found

    def _event(self, frame: FrameType, event: str, argument: Any) -> None:
        now, local = time.perf_counter(), self._local
        try:
            open_nodes = local.open_nodes
        except AttributeError:
            open_nodes = local.open_nodes = [Node()]
            local.last = now
            self._roots.append(open_nodes[0])
        if self._is_counting:
            open_nodes[-1].seconds += now - local.last
        if event in ("call", "c_call"):
            called = open_nodes[-1].called
            name = _name(frame) if event == "call" else _c_name(argument)
            node = called.get(name)
            if node is None:
                node = called[name] = Node()
            open_nodes.append(node)
        elif len(open_nodes) > 1:  # else it was called before the clock ran
            open_nodes.pop()
        local.last = time.perf_counter()  # without what this took


def _name(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"


def _c_name(function: Any) -> str:
    module = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
    name = getattr(function, "__qualname__", "?")
    return f"{module}.{name.rpartition('.')[2] if name.startswith('pybind11') else name}"


def stack_of(names: Stack) -> Stack:
    """Return a stack's side and its functions from the outermost of ours on; () if none is ours."""
    for first, name in enumerate(names):
        if side := SIDES.get(name.partition(".")[0]):
            return (side, *names[first:])
    return ()


def own_seconds(stacks: dict[Stack, float]) -> dict[tuple[str, str], float]:
    """Sum each stack up for its innermost function: (side, function) -> seconds."""
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for stack, seconds in stacks.items():
        found[stack[0], stack[-1]] += seconds
    return found


def title(result: dict[str, Any]) -> str:
    """Say what was asked for."""
    rows = "one row" if result["rows"] == 1 else f"a batch of {result['rows']:,} rows"
    return f"a request of {rows}, {result['weights']} weights"


def table(result: dict[str, Any]) -> str:
    """Render where the time went: the functions that took most."""
    lines = [["at the", "function, without what it calls", "ms a request", "of a request"]]
    for entry in result["functions"]:
        share = entry["ms"] / result["request_ms"]
        lines.append([entry["side"], entry["function"], f"{entry['ms']:.3f}", f"{share:.1%}"])
    return render(lines)


def plot(stacks: dict[Stack, float], result: dict[str, Any], path: Path) -> None:
    """Draw a flame graph: width is time, a function above who called it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(14, 8), layout="constrained")
    left, seconds = 0.0, result["requests"] * result["request_ms"] / 1e3
    for side, color in (("client", "#8fa8c8"), ("server", "#e2b063")):
        some = {stack: own / seconds for stack, own in stacks.items() if stack[0] == side}
        left = _draw(axes, some, 0, left, color)
    axes.set_xlim(0, max(left, 0.01))
    axes.set_yticks([])
    axes.set_xlabel("share of a request's time; gRPC's calls include waiting, and threads work at the same time")
    axes.set_title(f"Where the time goes of {title(result)}: the width is time, a function stands on who called it")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw(axes: Any, stacks: dict[Stack, float], depth: int, left: float, color: str) -> float:
    """Draw the functions at a depth of stacks that agree up to there; returns where they end."""
    for name in sorted({stack[depth] for stack in stacks if len(stack) > depth}):
        some = {stack: share for stack, share in stacks.items() if len(stack) > depth and stack[depth] == name}
        width = sum(some.values())
        if width < _MIN_SHARE:
            continue
        axes.barh(depth, width, 0.95, left, color=color, edgecolor="white", linewidth=0.5)
        shown = name.rpartition(".")[2]
        if width > 0.012 * len(shown) / 2:
            axes.text(left + width / 2, depth, shown, ha="center", va="center", fontsize=7, clip_on=True)
        _draw(axes, some, depth + 1, left, color)
        left += width
    return left


def measure(
    requests: int, features: int, classes: int, weights: str = "open", layout: str = "row"
) -> tuple[dict[str, Any], dict[Stack, float]]:
    """Send requests one by one, of one row or of a full batch.

    Returns:
        What a request took, and the seconds of each stack.
    """
    model = linear(np.random.default_rng(0).normal(size=(classes, features)) / features)
    keys, hiding_bits = (registered_keys(), DEFAULT_HIDING_BITS) if weights == "private" else (None, None)
    registry = ModelRegistry([served("profiled", model, keys=keys, hiding_bits=hiding_bits)])
    clock = CallClock()
    with (
        threadpool_limits(1, user_api="blas"),
        clock.running(),
        running_server(registry, keys=keys) as address,
        Client(address, layout=layout) as client,
    ):
        row_count = 1 if layout == "row" else client.offer().rows_per_item
        grid = client.model.grid
        items = [features_of(grid, random_rows(grid, row_count, seed)) for seed in range(_ITEMS[layout])]
        for item in items[:3]:
            client.predict(item)
        with clock.counting():
            start = time.perf_counter()
            for number in range(requests):
                client.predict(items[number % len(items)])
            seconds = time.perf_counter() - start
    stacks = clock.stacks()
    functions = [
        {"side": side, "function": function, "ms": 1e3 * own / requests}
        for (side, function), own in nlargest(_SHOWN_FUNCTIONS, own_seconds(stacks).items(), key=itemgetter(1))
    ]
    what = {"weights": weights, "layout": layout, "rows": row_count, "requests": requests}
    return what | {"request_ms": 1e3 * seconds / requests, "functions": functions}, stacks


def main() -> None:
    """Profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", choices=["private", "open"], default="private", help="(%(default)s)")
    parser.add_argument("--layout", choices=list(_REQUESTS), default="row", help="(%(default)s)")
    parser.add_argument("--requests", type=int, help=f"(by layout: {_REQUESTS})")
    parser.add_argument("--features", type=int, default=784, help="of a random model (%(default)s)")
    parser.add_argument("--classes", type=int, default=10, help="of it (%(default)s)")
    arguments = parser.parse_args()
    report = described_run()
    requests = arguments.requests or _REQUESTS[arguments.layout]
    result, stacks = measure(requests, arguments.features, arguments.classes, arguments.weights, arguments.layout)
    path = OUTPUT / f"profile_{arguments.weights}_{arguments.layout}.json"
    path.write_text(json.dumps(report | {"profile": result}, indent=2) + "\n")
    folded = (f"{';'.join(stack)} {round(1e6 * seconds)}\n" for stack, seconds in stacks.items())
    path.with_suffix(".folded").write_text("".join(folded))
    plot(stacks, result, path.with_suffix(".png"))
    print(table(result))
    print(f"\n{title(result)}: {result['request_ms']:.2f} ms here, with the clock, client and server in one process")
    print(f"written: {path}, {path.with_suffix('.png')}, {path.with_suffix('.folded')}")


if __name__ == "__main__":
    main()
