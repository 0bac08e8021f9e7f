"""A picture of the dashboard, with what a loaded service shows on it.

Grafana does not draw the picture. A real service is loaded for some minutes, a real Prometheus
scrapes it each second and answers the very queries of the dashboard, and Matplotlib draws the
answers. The picture says so, and holds a digest of the queries: a test compares it with that of
the dashboard.

The load is that of the soak: private rows, private columns, registrations of keys and bad requests.
In the middle third there are more callers than the service has room for. It needs Prometheus, which
`make promtool` installs.
"""

import argparse
import contextlib
import hashlib
import json
import math
import re
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.soak import CLASSES, FEATURES, Load
from sealserve.errors import SealserveError
from tests.support.azurite import free_port
from tests.support.programs import serve
from tests.support.serving import HANG_SECONDS, ROOT

DASHBOARD = ROOT / "deploy/kubernetes/components/monitoring/sealserve.json"
PICTURE = ROOT / "docs/dashboard.png"
DIGEST = "Queries"
"""The name of the digest among the texts of the picture's file."""

_WINDOW = "10s"
_COLUMNS, _INCHES_A_COLUMN, _INCHES_A_LINE, _DOTS = 24, 0.75, 0.36, 75
_MOST_LINES_OF_A_LEGEND = 8
_MANY_CALLERS = 12
_UNITS = {"s": "s", "bytes": "MB", "Bps": "MB/s", "percentunit": "share", "none": "", "d": "days"}
_MEGA = 1e6


@dataclass(frozen=True)
class Query:
    """A query of a panel, with the form of the names of its lines."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel of the dashboard; x, y, width and height are in its grid of 24 columns."""

    title: str
    unit: str
    x: int
    y: int
    width: int
    height: int
    queries: tuple[Query, ...]


def panels(dashboard: Any) -> list[Panel]:
    """Return the panels of a dashboard of Grafana's, without the headings of its rows."""
    return [
        Panel(
            panel["title"],
            panel["fieldConfig"]["defaults"]["unit"],
            panel["gridPos"]["x"],
            panel["gridPos"]["y"],
            panel["gridPos"]["w"],
            panel["gridPos"]["h"],
            tuple(Query(target["expr"], target["legendFormat"]) for target in panel["targets"]),
        )
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    ]


def filled(expression: str, window: str = _WINDOW) -> str:
    """Return a query as Grafana sends it, for all that its variables can be."""
    return re.sub(r"\$(namespace|model)\b", ".*", expression.replace("$__rate_interval", window))


def digest(dashboard: Any) -> str:
    """Return the SHA-256 of all that the picture shows of a dashboard."""
    return hashlib.sha256(repr(panels(dashboard)).encode()).hexdigest()


# Loading and scraping


@contextlib.contextmanager
def prometheus(metrics_address: str, directory: Path) -> Iterator[str]:
    """Run Prometheus, which scrapes an address each second; give its URL."""
    scrape = {"job_name": "sealserve", "static_configs": [{"targets": [metrics_address]}]}
    configuration = directory / "prometheus.json"  # JSON is YAML
    configuration.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}))
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    ]
    with subprocess.Popen(command) as process:
        try:
            yield f"http://{address}"
        finally:
            process.terminate()


def answers(url: str, expression: str, began: float, ended: float) -> list[dict[str, Any]]:
    """Ask Prometheus for the lines of a query, with labels (`metric`) and points (`values`)."""
    asked = {"query": expression, "start": began, "end": ended, "step": 1}
    address = f"{url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
    with urllib.request.urlopen(address, timeout=HANG_SECONDS) as response:  # noqa: S310  # our own
        found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    return found


def load(address: str, weights: Any, seconds: float) -> None:
    """Load a service; there are many more callers in the middle third of the time."""
    calls, ended, quiet, done = Load(address, weights), threading.Event(), threading.Event(), Counter[str]()

    def begin(pool: ThreadPoolExecutor, act: Callable[[threading.Event, Counter[str]], None], until: Any) -> Any:
        return pool.submit(act, until, done)

    with ThreadPoolExecutor(4 + _MANY_CALLERS) as pool:
        running: list[Future[None]] = []
        try:
            for act in (calls.rows, calls.columns, calls.registrations, calls.bad_requests):
                running.append(begin(pool, act, ended))
            time.sleep(seconds / 3)
            running += [begin(pool, calls.rows, quiet) for _ in range(_MANY_CALLERS)]
            time.sleep(seconds / 3)
            quiet.set()
            time.sleep(seconds / 3)
        finally:
            quiet.set()
            ended.set()
        for future in running:
            with contextlib.suppress(SealserveError):  # it had no room for some for too long
                future.result()


def measure(seconds: float) -> list[tuple[Panel, list[tuple[str, list[float], list[float]]]]]:
    """Return each panel with its lines: the name, seconds from the start, and values."""
    shown = panels(json.loads(DASHBOARD.read_text()))
    weights = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        np.savez(directory / "model.npz", coef=weights, intercept=np.zeros(CLASSES))
        metrics = f"127.0.0.1:{free_port()}"
        options = "--input-range=0,1", "--weights=private", "--max-wait=0.03", "--key-store", str(directory / "keys")
        with (
            serve(
                f"--model={directory / 'model.npz'}",
                *options,
                *("--processes=2", f"--metrics-address={metrics}", "--empty-calls-per-minute=1e9"),
                log=directory / "log",
            ) as program,
            prometheus(metrics, directory) as url,
        ):
            began = time.time()
            load(program.address, weights, seconds)
            ended = time.time()
            return [(panel, list(_lines(url, panel, began, ended))) for panel in shown]


def _lines(url: str, panel: Panel, began: float, ended: float) -> Iterator[tuple[str, list[float], list[float]]]:
    for query in panel.queries:
        for line in answers(url, filled(query.expression), began, ended):
            points = [(float(time_), float(value)) for time_, value in line["values"]]
            yield (
                _name(query.legend, line["metric"]),
                [time_ - began for time_, _ in points],
                [value for _, value in points],
            )


def _name(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend).strip()


# Drawing


def draw(measured: list[tuple[Panel, list[tuple[str, list[float], list[float]]]]], path: Path, of: str) -> None:
    """Draw panels where the dashboard has them.

    Args:
        measured: the panels and their lines.
        path: of the picture.
        of: the digest to save with it.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    height = max(panel.y + panel.height for panel, _ in measured)
    figure = plt.figure(figsize=(_COLUMNS * _INCHES_A_COLUMN, height * _INCHES_A_LINE + 0.5))
    for panel, lines in measured:
        box = (
            (panel.x + 0.7) / _COLUMNS,
            1 - (panel.y + 0.80 * panel.height + 0.4) / (height + 1.4),
            (panel.width - 1.2) / _COLUMNS,
            0.62 * panel.height / (height + 1.4),
        )
        axes = figure.add_axes(box)
        mega = panel.unit in ("bytes", "Bps")
        for name, times, values in lines:
            axes.plot(times, [value / _MEGA if mega else value for value in values], linewidth=1, label=name)
        unit = _UNITS.get(panel.unit, panel.unit.removeprefix("suffix: "))
        axes.set_title(f"{panel.title}{f', {unit}' if unit else ''}", fontsize=9, loc="left")
        axes.set_ylim(bottom=0)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if not lines or all(math.isnan(value) for _, _, values in lines for value in values):
            axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", fontsize=8, color="gray")
        elif len(lines) <= _MOST_LINES_OF_A_LEGEND:
            axes.legend(fontsize=6, loc="upper left", framealpha=0.6)
    note = (
        "Drawn by benchmarks/dashboard.py with Matplotlib, not by Grafana: a service under load, "
        "and Prometheus's answers to the dashboard's queries. Seconds from the start."
    )
    figure.text(0.03, 0.004, note, fontsize=8)
    figure.savefig(path, dpi=_DOTS, metadata={DIGEST: of})


def main() -> None:
    """Measure, and draw the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dashboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=90.0, help="how long to load the service (%(default)g)")
    parser.add_argument("--output", type=Path, default=PICTURE, help="where to write the picture (%(default)s)")
    arguments = parser.parse_args()
    draw(measure(arguments.seconds), arguments.output, digest(json.loads(DASHBOARD.read_text())))
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
