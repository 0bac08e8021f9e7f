"""Curves: what was measured along an axis beside a model of the cost, as table, text and plot."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linprog

from benchmarks.report import percent, render

STRAIGHT = 0.2  # times are on a straight line if no relative error is greater

# Why a measurement is slower than its model, by the beginning of the name of its series.
WHY = {
    "row: server": "the model leaves out that the process also receives and answers meanwhile",
    "column: server": "the model's unit costs are those of warm caches; a chunk comes from another core, after a pause "
    "in which sums and weights have left the caches",
    "row: rows/s": "the model builds on a lone row, which is a unary call; several rows open a stream, which takes as "
    "long as a few rows",
    "column: rows/s": "the model has both ends compute as fast as alone, and here they share two cores",
    "1 process": "the model has a request cost what it costs a lone caller; here callers are threads of one process, "
    "and the more there are, the longer they and the threads that answer wait for its GIL",
    "2 processes": "as with one process; a second process helps until all cores are busy",
}

# Why a line of times bends, by the beginning of the series' name.
BENDS = {
    "row: server": "where a row leaves room in a polynomial, several classes share one of the reply; until each class "
    "has its own, a further feature costs a share of another inverse transform, and from there on a share of a "
    "ciphertext",
}


def straight(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Find the line y = a + b x with the least greatest relative error (Chebyshev's).

    Returns:
        a, b, and that error.
    """
    relative = np.stack([np.ones(len(x)), np.array(x)], axis=1) / np.array(y)[:, None]
    no_more = -np.ones((len(x), 1))  # +-(relative (a, b) - 1) <= error
    found = linprog(
        (0, 0, 1),
        A_ub=np.block([[relative, no_more], [-relative, no_more]]),
        b_ub=np.repeat((1.0, -1.0), len(x)),
        bounds=((None, None), (None, None), (0, None)),
    )
    a, b, error = found.x.tolist()
    return a, b, error


def grouped(points: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    """Group points by their axis, or by their series."""
    found: dict[str, list[dict[str, Any]]] = {}
    for point in points:
        found.setdefault(point[key], []).append(point)
    return found


def table(points: list[dict[str, Any]]) -> str:
    """Render the points: a table an axis, then a sentence a series."""
    said = []
    for axis, some in grouped(points, "axis").items():
        lines = [[axis, "", "measured", "by the model", "parameter set", "service, MB", "grown at work, MB"]]
        for point in some:
            cells = (f"{point[key]:,.3g}" for key in ("measured", "modelled"))
            memory = [f"{round(point[key])}" if point["resident_mb"] else "" for key in ("resident_mb", "grown_mb")]
            lines.append([f"{point['x']:,}", point["series"], *cells, point["parameter_set"], *memory])
        said.append(render(lines))
        said += [" ".join(sentences(own)) for own in grouped(some, "series").values()]
    return "\n\n".join(said)


def sentences(points: list[dict[str, Any]]) -> Iterator[str]:
    """Say where a series is furthest from its model and why, how straight it is, and its memory.

    Straightness is said of times only.
    """
    axis, series = points[0]["axis"], points[0]["series"]
    worst = max(points, key=lambda point: abs(np.log(point["measured"] / point["modelled"])))
    ratio = worst["measured"] / worst["modelled"]
    is_slower = ratio < 1 if "rows/s" in series else ratio > 1  # the opposite needs other reasons
    why = _because(WHY, series) if is_slower else ""
    yield f"{series}: furthest from its model at {worst['x']:,} {axis}, {ratio:.2f} times as much{why}."
    if "server" in series and len(points) > 2:
        yield from straightness(points)
    if all(point["resident_mb"] for point in points):
        memory, weights = (_from_to(points, key) for key in ("resident_mb", "weights_mb"))
        of_which = f" ({weights} of it weights)" if any(point["weights_mb"] for point in points) else ""
        grown = round(max(point["grown_mb"] for point in points))
        yield f"The service's memory: {memory}{of_which}, and at most {grown} MB more at work."


def _from_to(points: list[dict[str, Any]], key: str) -> str:
    least, most = (round(find(point[key] for point in points)) for find in (min, max))
    return f"{least} to {most} MB"


def straightness(points: list[dict[str, Any]]) -> Iterator[str]:
    """Say how far times are from a straight line over the whole axis.

    If they are far from it, say why, and from which point on they are close. A line that bends
    because the cost bends is bent in the model too.
    """
    x = [point["x"] for point in points]

    def error(first: int, key: str = "measured") -> float:
        return straight(x[first:], [point[key] for point in points[first:]])[2]

    yield f"Within {percent(error(0))} of a straight line from {x[0]:,} to {x[-1]:,}."
    if error(0) <= STRAIGHT:
        return
    why = _because(BENDS, points[0]["series"])
    yield f"The model's own is within {percent(error(0, 'modelled'))}{why}."
    for first in range(1, len(points) - 3):  # a line has two parameters: three points are none
        if error(first) <= STRAIGHT:
            yield f"Within {percent(error(first))} from {x[first]:,} on."
            return
    yield f"From nowhere on within {percent(STRAIGHT)}."


def _because(reasons: Mapping[str, str], series: str) -> str:
    return next((f": {why}" for name, why in reasons.items() if series.startswith(name)), "")


def plot(points: list[dict[str, Any]], path: Path) -> None:
    """Draw each axis: what is measured as points, the model as a line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    axes = grouped(points, "axis")
    columns = min(3, len(axes))
    rows = -(-len(axes) // columns)
    figure, places = plt.subplots(
        rows, columns, figsize=(5.5 * columns, 4.2 * rows), layout="constrained", squeeze=False
    )
    for place in places.ravel()[len(axes) :]:
        place.set_axis_off()
    for (axis, some), place in zip(axes.items(), places.ravel(), strict=False):
        for (name, own), color in zip(grouped(some, "series").items(), ("#3b6fb6", "#d98c00", "#5aa469"), strict=False):
            x = [point["x"] for point in own]
            place.plot(x, [point["measured"] for point in own], "o", color=color, label=name)
            place.plot(x, [point["modelled"] for point in own], "--", color=color)
        place.set_xscale("log", base=2)
        place.set_yscale("log")
        place.set_xlabel(axis)
        place.legend(frameon=False)
        place.grid(alpha=0.3)
    figure.suptitle("Measured (points), and by the model of the cost (lines)")
    figure.savefig(path, dpi=110)
    plt.close(figure)
