"""Many hostile messages to one service, of all kinds at once, while a good client asks for scores.

Each kind is a tenant of its own; `hostile_kinds` says what they are. They come from several
processes. The service keeps few keys, so that what it may keep is not taken for growth.
"""

import contextlib
import random
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks.hostile_kinds import (
    CLASSES,
    FEATURES,
    KINDS,
    ROW,
    TIMEOUT_SECONDS,
    WEIGHTS,
    HostileError,
    Peer,
    plaintext_scores,
)
from benchmarks.report import render
from sealserve.client import Client
from sealserve.errors import SealserveError
from tests.support.identities import ALL, IdentitiesFile
from tests.support.programs import Program, serve

KEY_BYTES = 16 << 20
BATCH = 1000
PROCESSES = 3
ASK_SECONDS = 0.05
SETTLING_SECONDS = 60.0
# What the service may have more of than before: the threads of gRPC's core, the connections of the
# good client, and what the allocator keeps.
MORE_THREADS, MORE_DESCRIPTORS, MORE_RESIDENT_MB = 16, 32, 256.0
QUANTITIES = {"resident_mb": "resident memory, MB", "threads": "threads", "descriptors": "file descriptors"}


@dataclass
class GoodClient:
    """A client that asks for one row after the other, and checks each score."""

    client: Client
    ended: threading.Event
    count: Counter[str]
    latencies_ms: list[float]

    def ask_on(self) -> None:
        """Ask until it is time to end."""
        bound = max(offer.score_error_bound for offer in self.client.model.offers) + 1e-9
        generator = np.random.default_rng(2)
        while not self.ended.wait(ASK_SECONDS):
            rows = generator.integers(0, 256, (1, FEATURES)) / 255
            began = time.perf_counter()
            try:
                is_right = np.abs(self.client.predict(rows) - plaintext_scores(rows)).max() <= bound
                self.count["right" if is_right else "wrong"] += 1
            except SealserveError as error:
                self.count[type(error).__name__] += 1
            self.latencies_ms.append(1e3 * (time.perf_counter() - began))


class Watch:
    """What a process has, and the most that it had."""

    def __init__(self, program: Program) -> None:
        program.forget_peak()
        self._program = program
        self._process = psutil.Process(program.process.pid)
        self.before = self.most = self.now()

    def now(self) -> dict[str, float]:
        """Return the quantities, by the names in QUANTITIES."""
        with self._process.oneshot():
            resident, threads = self._process.memory_info().rss / 1e6, self._process.num_threads()
            return {"resident_mb": resident, "threads": threads, "descriptors": self._process.num_fds()}

    def look(self) -> bool:
        """Take the most of now and before; return whether the process still runs."""
        if self._program.process.poll() is not None:
            return False
        now = self.now()
        self.most = {name: max(now[name], most) for name, most in self.most.items()}
        self.most["resident_mb"] = max(self.most["resident_mb"], self._program.peak_bytes / 1e6)
        return True

    def settled(self) -> dict[str, float]:
        """Return the quantities when others' connections are closed, or after SETTLING_SECONDS."""
        end = time.monotonic() + SETTLING_SECONDS
        while (now := self.now())["descriptors"] > self.before["descriptors"] and time.monotonic() < end:
            time.sleep(0.1)
        return now


def batches(count: int) -> list[tuple[str, int]]:
    """Return the kinds and sizes of batches that are so many messages together, in random order."""
    found = list[tuple[str, int]]()
    names, left = list(KINDS), count
    for name in names:
        of_kind = left if name == names[-1] else min(left, round(count * KINDS[name].share))
        left -= of_kind
        found += [(name, min(BATCH, of_kind - begin)) for begin in range(0, of_kind, BATCH)]
    random.Random(0).shuffle(found)
    return found


def send_batch(name: str, peer: Peer, seed: int, count: int) -> Counter[str]:
    """Send a batch, in a process of the pool.

    Raises:
        HostileError: whatever went wrong. gRPC's own errors do not travel between processes.
    """
    try:
        return KINDS[name].send(peer, random.Random(seed), count)
    except Exception as error:
        raise HostileError(f"{name}: {type(error).__name__}: {error}"[:1000]) from None


def send_all(
    peers: dict[str, Peer], count: int, look: Callable[[], bool]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Send so many messages from several processes; a keyboard interrupt ends it early.

    Args:
        peers: of each kind.
        count: of messages.
        look: called after each batch; if it returns false, the service has ended.

    Returns:
        Of each kind how many messages were sent and how they ended; and what has failed.
    """
    kinds: dict[str, dict[str, Any]] = {name: {"messages": 0, "ends": Counter[str]()} for name in KINDS}
    faults, spawn = list[str](), get_context("spawn")
    with (
        ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool,
        # Slow ones have a process of their own: all others would have to wait for them.
        ProcessPoolExecutor(1, mp_context=spawn) as slow_pool,
        tqdm(total=count, unit="message", leave=False) as bar,
    ):
        sent: dict[Future[Counter[str]], tuple[str, int]] = {}
        for seed, (name, size) in enumerate(batches(count)):
            chosen = slow_pool if name == "slow bodies" else pool
            sent[chosen.submit(send_batch, name, peers[name], seed, size)] = name, size
        try:
            for future in as_completed(sent):
                name, size = sent[future]
                if not look():
                    raise KeyboardInterrupt  # the rest could only fail
                try:
                    kinds[name]["ends"].update(future.result())
                    kinds[name]["messages"] += size
                except HostileError as error:
                    faults.append(str(error))
                bar.update(size)
        except KeyboardInterrupt:
            for each in (pool, slow_pool):
                each.shutdown(cancel_futures=True)  # those that are being sent still end
    return kinds, faults


@contextlib.contextmanager
def service() -> Iterator[tuple[Program, Peer, dict[str, Peer]]]:
    """Run a service with private weights; give it, a good tenant, and one for each hostile kind."""
    with tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "model.npz"
        np.savez(model, coef=WEIGHTS, intercept=np.zeros(CLASSES))
        tenants = {f"mallory-{number}": name for number, name in enumerate(KINDS)}
        identities = IdentitiesFile(Path(directory) / "identities.toml", clinic=ALL, **dict.fromkeys(tenants, ALL))
        tokens = {tenant: identities.token(tenant) for tenant in ("clinic", *tenants)}
        options = (
            f"--model={model}",
            "--input-range=0,1",
            "--weights=private",
            "--processes=1",
            f"--identities={identities.path}",
            f"--key-memory-bytes={KEY_BYTES}",
            f"--key-cache-bytes={KEY_BYTES}",
            "--empty-calls-per-minute=1e9",  # otherwise most would be refused unread
        )
        with serve(*options, log=Path(directory) / "log") as program:
            peers = {name: Peer(program.address, tokens[tenant]) for tenant, name in tenants.items()}
            yield program, Peer(program.address, tokens["clinic"]), peers


def _good_client(clinic: Peer) -> Client:
    return Client(clinic.address, credentials=clinic.credentials, timeout_seconds=TIMEOUT_SECONDS)


def measure(count: int) -> dict[str, Any]:
    """Serve, and send so many messages."""
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    with service() as (program, clinic, peers), _good_client(clinic) as client:
        good = GoodClient(client, threading.Event(), Counter(), [])
        client.predict(ROW[None])
        watch, began = Watch(program), time.monotonic()
        asking = threading.Thread(target=good.ask_on)
        asking.start()
        try:
            kinds, faults = send_all(peers, count, watch.look)
        finally:
            good.ended.set()
            asking.join()
        minutes = (time.monotonic() - began) / 60
        ended = program.process.poll()
        after = watch.before if ended is not None else watch.settled()
        faults += [f"the log says: {line}" for line in program.said if re.search("Traceback| ERROR | CRITICAL ", line)]
    if ended is not None:
        faults.append(f"the service has ended, with exit code {ended}")
    result = {
        "date": date,
        "messages": sum(kind["messages"] for kind in kinds.values()),
        "minutes": minutes,
        "kinds": {name: kind | {"ends": dict(sorted(kind["ends"].items()))} for name, kind in kinds.items()},
        "good_client": {
            "ends": dict(good.count),
            **{f"p{percent}_ms": float(np.percentile(good.latencies_ms, percent)) for percent in (50, 99, 100)},
        },
        "service": {"before": watch.before, "most": watch.most, "after": after},
    }
    return result | {"faults": faults + growth(result["service"]) + _of_good_client(good.count)}


def growth(found: dict[str, dict[str, float]]) -> list[str]:
    """Say which quantities have grown by more than they may."""
    bounds = {
        ("threads", "most"): MORE_THREADS,
        ("descriptors", "after"): MORE_DESCRIPTORS,
        ("resident_mb", "most"): MORE_RESIDENT_MB,
    }
    return [
        f"{QUANTITIES[name]}: {found[when][name]:.0f} {when}, {found['before'][name]:.0f} before"
        for (name, when), bound in bounds.items()
        if found[when][name] > found["before"][name] + bound
    ]


def _of_good_client(count: Counter[str]) -> list[str]:
    return [f"the good client: {number} {what}" for what, number in count.items() if what != "right"]


def table(result: dict[str, Any]) -> str:
    """Render the result."""
    kinds: list[tuple[str, ...]] = [("hostile messages", "sent", "how they ended")]
    for name, kind in result["kinds"].items():
        ends = ", ".join(f"{number:,} {what}" for what, number in sorted(kind["ends"].items(), key=lambda one: -one[1]))
        kinds.append((name, f"{kind['messages']:,}", ends))
    service: list[tuple[str, ...]] = [("the service's", "before", "most", "after")]
    for name, title in QUANTITIES.items():
        service.append((title, *(f"{result['service'][when][name]:.0f}" for when in ("before", "most", "after"))))
    good = result["good_client"]
    said = (
        f"{result['messages']:,} messages in {result['minutes']:.1f} minutes, to one process with private "
        f"weights, on {result['date']}. Meanwhile a good client asked for "
        f"{sum(good['ends'].values()):,} rows, of which {good['ends'].get('right', 0):,} had the right scores; p50 "
        f"{good['p50_ms']:.1f} ms, p99 {good['p99_ms']:.1f} ms, at most {good['p100_ms']:.0f} ms."
    )
    faults = "".join(f"\n\nFault: {fault}" for fault in result["faults"])
    return f"{said}\n\n{render(kinds)}\n\n{render(service)}{faults}"
