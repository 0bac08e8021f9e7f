"""Three replicas behind the Envoy of deploy/envoy: overload, hostile tenants, and failing replicas.

- overload: how many rows are answered at best, and then of four times as many, sent whatever
  becomes of them; and how long those that are answered take, beside --max-wait and three items.
- hostile: a tenant asks for one row after the other, alone, and beside each kind of bad peer of
  `python -m benchmarks.hostile`. The peers reach the service by Envoy, too.
- pauses: a live stream has a row each 50 ms, beside callers of rows, raw calls and batches, while
  replicas and Envoy are restarted, killed, frozen and added. Its longest pauses, from one result to
  the next, and the longest call of a row.

Replicas, Envoy and load share the machine's cores. With fewer than six of them the load takes what
the replicas would have: if fewer rows are sent than four times the capacity, overload says nothing
about the replicas but that no call fails. Prints tables, and writes replicas.json into build/bench.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import hostile
from benchmarks.callers import benched
from benchmarks.report import OUTPUT, described_run, percent, render
from benchmarks.scaling import RandomModel
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve_service.scoring.admission import DEFAULT_MAX_WAIT_SECONDS
from tests.support.fleet import Fleet, running_fleet
from tests.support.identities import ALL, IdentitiesFile
from tests.support.mixed_load import MixedLoad

PARTS = "overload", "hostile", "pauses"
HOSTS = "127.0.0.2", "127.0.0.3", "127.0.0.4"
NEW_HOST = "127.0.0.5"
FEATURES, CLASSES = 784, 100
OVERLOAD = 4.0
# All load has one address, and stands for many callers.
CALLS = "--max-concurrent-calls=512"


@contextlib.contextmanager
def replicas(*options: str, classes: int = CLASSES) -> Iterator[Fleet]:
    """Serve a random model from three replicas of one process behind Envoy."""
    with tempfile.TemporaryDirectory() as directory:
        model = RandomModel.of(FEATURES, classes).options(Path(directory))
        with running_fleet(HOSTS, Path(directory), *model, "--processes=1", CALLS, *options) as fleet:
            yield fleet


def overloaded(rounds: int, seconds: float) -> dict[str, float]:
    """Measure capacity and overload by turns; returns medians."""
    found = list[dict[str, float]]()
    with replicas() as fleet:
        address = fleet.proxy.address
        for _ in tqdm(range(rounds), desc="rounds", leave=False):
            capacity = benched(address, seconds, "--concurrency=12")["answered_per_second"]
            run = benched(address, seconds, f"--rate={OVERLOAD * capacity}", "--in-flight=256")
            found.append(
                {
                    "capacity": capacity,
                    "sent": run["sent_per_second"],
                    "answered": run["answered_per_second"],
                    "share": run["answered_per_second"] / capacity,
                    "refused": sum(run["refused"].values()) / run["seconds"],
                    "failed": sum(run["failed"].values()),
                    "p99_ms": run["latency_ms"]["p99"],
                    # Each replica has a third of the capacity.
                    "most_ms": 1e3 * (DEFAULT_MAX_WAIT_SECONDS + 3 * len(HOSTS) / capacity),
                }
            )
    return {name: median(figures[name] for figures in found) for name in found[0]}


def beside_hostile(calls: int) -> dict[str, dict[str, float]]:
    """Return the percentiles of a tenant's rows in milliseconds, alone and beside bad peers."""
    row = np.random.default_rng(0).random((1, FEATURES))
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        identities = IdentitiesFile(Path(directory) / "identities.toml", clinic=ALL, mallory=ALL)
        token, bad_token = identities.token("clinic"), identities.token("mallory")
        options = f"--identities={identities.path}", "--public-health", "--trusted-proxies=127.0.0.0/8"
        with (
            replicas(*options, classes=10) as fleet,
            Client(fleet.proxy.address, credentials=Credentials(token=token)) as client,
        ):
            for kind in ("", *hostile.KINDS, *hostile.GREEDY):
                peers = hostile.attacking((kind,), fleet.proxy.address, bad_token) if kind else contextlib.nullcontext()
                with peers:
                    samples = hostile.latencies(lambda: client.predict(row), calls, kind or "alone")
                found[kind or "alone"] = {f"p{part}_ms": float(np.percentile(samples, part)) for part in (50, 99)}
    return found


def restart_all(fleet: Fleet) -> None:
    """Restart one replica after the other."""
    for host in HOSTS:
        fleet.stop(host)
        fleet.start(host)
        fleet.wait_for(len(HOSTS))


def kill_one(fleet: Fleet) -> None:
    """Kill the replica that the stream is on, and start it again."""
    host = fleet.host_of_the_stream()
    fleet.kill(host)
    fleet.wait_for(len(HOSTS) - 1)
    fleet.start(host)
    fleet.wait_for(len(HOSTS))


def freeze_one(fleet: Fleet) -> None:
    """Freeze the replica that the stream is on."""
    with fleet.frozen(fleet.host_of_the_stream()):
        time.sleep(10.0)
    fleet.wait_for(len(HOSTS))


def add_one(fleet: Fleet) -> None:
    """Add a replica, and take it away."""
    fleet.names.hosts.append(NEW_HOST)
    fleet.start(NEW_HOST)
    fleet.wait_for(len(HOSTS) + 1)
    fleet.names.hosts.remove(NEW_HOST)
    fleet.stop(NEW_HOST)
    fleet.wait_for(len(HOSTS))


DISRUPTIONS: dict[str, Callable[[Fleet], None]] = {
    "nothing": lambda _: time.sleep(5.0),
    "rolling restart": restart_all,
    "kill -9": kill_one,
    "frozen for 10 s": freeze_one,
    "scale-out, scale-in": add_one,
    "another Envoy": lambda fleet: fleet.replace_proxy(2.0),
}


def paused(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the longest times of each round in milliseconds, by what was done to the replicas."""
    weights = np.array([[1.0, -1.0, 0.5, 0.25], [0.5, 2.0, -1.0, 0.0]])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "line.npz"
        np.savez(path, coef=weights, intercept=np.zeros(len(weights)))
        model = f"--model=line={path}", "--input-range=0,1", "--processes=1", "--lame-duck=2"
        with running_fleet(HOSTS, Path(directory), *model) as fleet:
            load = MixedLoad(fleet.proxy.address, [weights])

            def disrupt() -> None:
                for number in tqdm(range(rounds), desc="rounds", leave=False):
                    for name, act in DISRUPTIONS.items():
                        load.phase = f"{name} {number}"
                        act(fleet)
                        time.sleep(1.0)
                        load.phase = "between"
                        time.sleep(3.0)

            load.run(disrupt)
    if load.faults:
        raise SystemExit(f"calls failed: {load.faults}")
    return {
        name: {
            kind: [1e3 * load.longest(caller, f"{name} {number}") for number in range(rounds)]
            for kind, caller in (("stream", "stream"), ("row", "row"))
        }
        for name in DISRUPTIONS
    }


def table(result: dict[str, Any]) -> str:
    """Render the parts that were measured."""
    said = []
    if figures := result.get("overload"):
        head = (
            "capacity/s",
            "sent/s",
            "answered/s",
            "of capacity",
            "refused/s",
            "failed",
            "p99, ms",
            "max-wait and 3 items",
        )
        cells = [f"{figures[name]:.0f}" for name in ("refused", "failed", "p99_ms", "most_ms")]
        rates = [f"{figures[name]:.0f}" for name in ("capacity", "sent", "answered")]
        said.append(render([head, (*rates, percent(figures["share"]), *cells)]))
    if by_kind := result.get("hostile"):
        rows: list[tuple[str, ...]] = [("a tenant's row, beside", "p50, ms", "p99, ms", "p99 over alone")]
        alone = by_kind["alone"]["p99_ms"]
        for kind, ms in by_kind.items():
            rows.append((kind, f"{ms['p50_ms']:.1f}", f"{ms['p99_ms']:.1f}", f"{ms['p99_ms'] / alone:.2f}"))
        said.append(render(rows))
    if by_event := result.get("pauses"):
        rows = [("longest pause of a stream, ms", "median", "of all", "longest call of a row, ms", "of all")]
        for event, found in by_event.items():
            longest = (f"{which(found[kind]):.0f}" for kind in ("stream", "row") for which in (median, max))
            rows.append((event, *longest))
        said.append(render(rows))
    return "\n\n".join(said)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load (%(default)g)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often overload and pauses are repeated (%(default)s)"
    )
    parser.add_argument("--calls", type=int, default=300, help="calls beside each kind of bad peer (%(default)s)")
    asked = parser.parse_args()
    result: dict[str, Any] = {}
    if "overload" in asked.parts:
        result["overload"] = overloaded(asked.rounds, asked.seconds)
    if "hostile" in asked.parts:
        result["hostile"] = beside_hostile(asked.calls)
    if "pauses" in asked.parts:
        result["pauses"] = paused(asked.rounds)
    (OUTPUT / "replicas.json").write_text(json.dumps(described_run() | {"replicas": result}, indent=2) + "\n")
    print(table(result))
    print(f"written: {OUTPUT / 'replicas.json'}")


if __name__ == "__main__":
    main()
