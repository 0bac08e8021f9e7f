"""`make bench-profile`: where the time of one request goes, at the client and at the server.

Both run in this process, which asks for one row after the other. Each call of a function, SEAL's and NumPy's included,
is timed where it happens; a sampler would not do, as SEAL's functions keep it from looking while they run. Prints a
table, and writes into build/bench: profile.json, profile.png (a flame graph), and profile.folded for speedscope.app.
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

from sealserve._load_items import random_rows
from sealserve.client import Client
from sealserve_service.models.registry import ModelRegistry
from tests.benchmarks.report import OUTPUT, described_run, render
from tests.serving import linear, running_server, served

Stack = tuple[str, ...]
SIDES = {"client": "sealserve.client", "server": "sealserve_service"}
_SHOWN_FUNCTIONS = 25
_MIN_SHARE = 0.004  # of the whole: what is narrower is not drawn


@dataclass
class Node:
    """A function, called from where it stands in the tree: seconds of its own, without those that it called."""

    seconds: float = 0.0
    called: dict[str, "Node"] = field(default_factory=dict)

    def stacks(self, above: Stack = ()) -> Iterator[tuple[Stack, float]]:
        """Yield every stack from here on with its own seconds."""
        yield above, self.seconds
        for name, node in self.called.items():
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
        """Seconds of each stack that is a client's or a server's."""
        found: defaultdict[Stack, float] = defaultdict(float)
        for root in self._roots:
            for stack, seconds in root.stacks():
                if seconds and (ours := stack_of(stack)):
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
    """Return the functions of a stack from the outermost of ours on, its side first; () if none is ours."""
    for side, module in SIDES.items():
        first = next((at for at, name in enumerate(names) if name.startswith(f"{module}.")), None)
        if first is not None:
            return (side, *names[first:])
    return ()


def own_seconds(stacks: dict[Stack, float]) -> dict[tuple[str, str], float]:
    """Sum each stack up for its innermost function: (side, function) -> seconds."""
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for stack, seconds in stacks.items():
        found[stack[0], stack[-1]] += seconds
    return found


def table(result: dict[str, Any]) -> str:
    """Render where the time went: the functions that took most."""
    lines = [["at the", "function, without what it calls", "ms a request", "of a request"]]
    for entry in result["functions"]:
        share = entry["ms"] / result["request_ms"]
        lines.append([entry["side"], entry["function"], f"{entry['ms']:.3f}", f"{share:.1%}"])
    return render(lines)


def plot(stacks: dict[Stack, float], seconds: float, path: Path) -> None:
    """Draw a flame graph: width is time, a function above who called it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(14, 8), layout="constrained")
    left = 0.0
    for side, color in (("client", "#8fa8c8"), ("server", "#e2b063")):
        some = {stack: own / seconds for stack, own in stacks.items() if stack[0] == side}
        left = _draw(axes, some, 0, left, color)
    axes.set_xlim(0, max(left, 0.01))
    axes.set_yticks([])
    axes.set_xlabel("share of a request's time; the client's includes its waiting for the server")
    axes.set_title("Where the time of one request goes: the width is time, a function stands on who called it")
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


def measure(requests: int, features: int, classes: int) -> tuple[dict[str, Any], dict[Stack, float]]:
    """Ask for rows one by one; returns what it took, and the seconds of each stack."""
    model = served("profiled", linear(np.random.default_rng(0).normal(size=(classes, features)) / features))
    clock = CallClock()
    with (
        threadpool_limits(1, user_api="blas"),
        clock.running(),
        running_server(ModelRegistry([model])) as address,
        Client(address, layout="row") as client,
    ):
        rows = random_rows(client.model.grid, 64, 0)
        for row in rows[:3, None]:
            client.predict(row)
        with clock.counting():
            start = time.perf_counter()
            for number in range(requests):
                client.predict(rows[number % len(rows)][None])
            seconds = time.perf_counter() - start
    stacks = clock.stacks()
    functions = [
        {"side": side, "function": function, "ms": 1e3 * own / requests}
        for (side, function), own in nlargest(_SHOWN_FUNCTIONS, own_seconds(stacks).items(), key=itemgetter(1))
    ]
    return {"requests": requests, "request_ms": 1e3 * seconds / requests, "functions": functions}, stacks


def main() -> None:
    """Profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--features", type=int, default=784, help="of a random model (%(default)s)")
    parser.add_argument("--classes", type=int, default=10, help="of it (%(default)s)")
    arguments = parser.parse_args()
    report = described_run()
    result, stacks = measure(arguments.requests, arguments.features, arguments.classes)
    (OUTPUT / "profile.json").write_text(json.dumps(report | {"profile": result}, indent=2) + "\n")
    folded = (f"{';'.join(stack)} {round(1e6 * seconds)}\n" for stack, seconds in stacks.items())
    (OUTPUT / "profile.folded").write_text("".join(folded))
    plot(stacks, result["requests"] * result["request_ms"] / 1e3, OUTPUT / "profile.png")
    print(table(result))
    print(f"\na request takes {result['request_ms']:.2f} ms here, with the clock, and client and server in one process")
    print(f"written: {OUTPUT / 'profile.json'}, {OUTPUT / 'profile.png'}, {OUTPUT / 'profile.folded'}")


if __name__ == "__main__":
    main()
