"""Three replicas behind the Envoy of deploy/envoy: what callers notice when replicas change or fail.

Rows, raw calls (sent once, without a retry of the SDK's), batches and a live stream go on all the
time. None fails, and none is wrong.
"""

import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.client import Client
from tests.support.azurite import running_azurite
from tests.support.fleet import Fleet, running_fleet
from tests.support.serving import HANG_SECONDS
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

HOSTS = "127.0.0.2", "127.0.0.3", "127.0.0.4"
NEW_HOST = "127.0.0.5"
FROZEN = "frozen for 10 s"
ROW_COUNT, BATCH_ROWS = 3000, 500
WEIGHTS = np.array([[1.0, -1.0, 0.5, 0.25], [0.5, 2.0, -1.0, 0.0]])
ROWS = np.random.default_rng(22).random((BATCH_ROWS, 4))
SCORES = ROWS @ WEIGHTS.T

MOST_SECONDS = {("stream", FROZEN): 4.0, ("batch", FROZEN): 4.0}
"""By how much disruptions prolong the longest answer: 1 s, but for streams on a frozen replica."""


@dataclass
class Load:
    """Callers of all kinds, and what became of their calls.

    Attributes:
        address: of the service.
        disruption: what is being done to the service.
        seconds: how long answers took, by kind of call and by disruption. Of the stream: the time
            from one result to the next.
        faults: what failed or was wrong.
    """

    address: str
    disruption: str = "start"
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[str] = field(default_factory=Counter)
    _ended: threading.Event = field(default_factory=threading.Event)

    def count(self, kind: str) -> int:
        return sum(len(times) for (found, _), times in list(self.seconds.items()) if found == kind)

    def longest(self, kind: str, disruption: str) -> float:
        return max(self.seconds[kind, disruption], default=0.0)

    def run(self, disrupt: Callable[[], None]) -> None:
        """Load the service until it has been disrupted and enough rows are answered."""
        callers = [self._rows, self._rows, self._rows, self._raw_calls, self._batches, self._stream]
        threads = [threading.Thread(target=self._guarded, args=(caller,), daemon=True) for caller in callers]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: all(self.count(kind) for kind in ("row", "raw call", "batch", "stream")))
            self.disruption = "nothing"
            time.sleep(2.0)
            disrupt()
            self.disruption = "nothing"
            wait_until(lambda: self.faults or self.count("row") >= ROW_COUNT, 3 * HANG_SECONDS)
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(HANG_SECONDS)
        assert not any(thread.is_alive() for thread in threads)

    def _guarded(self, caller: Callable[[], None]) -> None:
        try:
            caller()
        except BaseException as error:
            self.faults[f"{caller.__name__}: {error!r}"] += 1
            raise

    def _client(self, layout: str) -> Client:
        return Client(self.address, layout=layout, timeout_seconds=HANG_SECONDS)

    def _note(self, kind: str, began: float, disruption: str) -> None:
        self.seconds[kind, disruption].append(time.monotonic() - began)

    def _check(self, kind: str, found: NDArray[Any], expected: NDArray[Any], client: Client) -> None:
        if np.abs(found - expected).max() > max(offer.score_error_bound for offer in client.model.offers):
            self.faults[f"a {kind} is wrong"] += 1

    def _rows(self) -> None:
        with self._client("row") as client:
            for index in itertools.cycle(range(len(ROWS))):
                if self._ended.wait(0.02):
                    return
                began, disruption = time.monotonic(), self.disruption
                found = client.predict(ROWS[index : index + 1])
                self._note("row", began, disruption)
                self._check("row", found, SCORES[index : index + 1], client)

    def _raw_calls(self) -> None:
        with self._client("row") as client:
            client.register_key()
            item = client.encrypt(ROWS[:1], keep=True)
            while not self._ended.wait(0.03):
                began, disruption = time.monotonic(), self.disruption
                reply = client.send(item)
                self._note("raw call", began, disruption)
                self._check("raw call", client.decrypt(reply).scores, SCORES[:1], client)

    def _batches(self) -> None:
        with self._client("column") as client:
            while not self._ended.wait(1.0):
                began, disruption = time.monotonic(), self.disruption
                found = client.predict(ROWS)
                self._note("batch", began, disruption)
                self._check("batch", found, SCORES, client)

    def _stream(self) -> None:
        sent, seen = itertools.count(), Counter[int]()

        def rows() -> Iterator[NDArray[np.float64]]:
            while not self._ended.wait(0.05):
                yield ROWS[next(sent) % len(ROWS)]

        with self._client("row") as client:
            before, disruption = time.monotonic(), self.disruption
            for index, found in client.stream(rows()):
                self._note("stream", before, disruption)
                before, disruption = time.monotonic(), self.disruption
                seen[index] += 1
                self._check("stream's row", found, SCORES[index % len(ROWS)], client)
        if dict(seen) != dict.fromkeys(range(next(sent)), 1):
            self.faults["rows of the stream are missing, or come twice"] += 1


def busiest_with_streams(fleet: Fleet) -> str:
    """The replica that the live stream is on: it is never without a call."""
    least = Counter(fleet.proxy.by_replica("rq_active"))
    for _ in range(20):
        time.sleep(0.02)
        least &= Counter(fleet.proxy.by_replica("rq_active"))
    assert least
    return max(least, key=lambda host: least[host])


def disrupted(fleet: Fleet, load: Load) -> None:
    """Do to the replicas, one after the other, what production does to them."""
    load.disruption = "rolling restart"
    for host in HOSTS:
        fleet.stop(host)
        fleet.start(host)
        fleet.wait_for(3)
    load.disruption = "kill -9"
    host = busiest_with_streams(fleet)
    fleet.kill(host)
    fleet.wait_for(2)
    fleet.start(host)
    fleet.wait_for(3)
    load.disruption = FROZEN
    with fleet.frozen(busiest_with_streams(fleet)):
        time.sleep(10.0)
    fleet.wait_for(3)
    load.disruption = "scale-out"
    fleet.names.hosts.append(NEW_HOST)
    fleet.start(NEW_HOST)
    fleet.wait_for(4)
    wait_until(lambda: fleet.proxy.by_replica("rq_total")[NEW_HOST] > 20)
    load.disruption = "scale-in"
    fleet.names.hosts.remove(NEW_HOST)
    fleet.stop(NEW_HOST)
    load.disruption = "Envoy restarted"
    fleet.replace_proxy(3.0)
    time.sleep(1.0)


def test_nothing_fails_while_replicas_change_and_fail(tmp_path: Path) -> None:
    np.savez(tmp_path / "line.npz", coef=WEIGHTS, intercept=np.zeros(2))
    with running_azurite() as azurite:
        options = (
            *("--model", f"line={tmp_path / 'line.npz'}", "--input-range", "0,1", "--weights", "private"),
            *("--processes", "1", "--replicas", "3", "--key-store", f"azure:{azurite.new_container()}"),
            *("--lame-duck", "2", "--grace-seconds", "10"),
        )
        secret = {"SEALSERVE_KEY_STORE_CONNECTION_STRING": azurite.connection_string}
        with running_fleet(HOSTS, tmp_path, *options, **secret) as fleet:
            load = Load(fleet.proxy.address)
            load.run(lambda: disrupted(fleet, load))
            shares = fleet.proxy.by_replica("rq_total")
    for kind, disruption in sorted(load.seconds):
        times = load.seconds[kind, disruption]
        print(f"{disruption:>16} {kind:>9} {len(times):5} longest {1e3 * max(times):6.0f} ms")
    assert not load.faults
    assert load.count("row") >= ROW_COUNT
    assert min(shares[host] for host in HOSTS) >= 0.15 * sum(shares.values()), shares
    for kind, disruption in load.seconds:
        excess = load.longest(kind, disruption) - load.longest(kind, "nothing")
        assert excess <= MOST_SECONDS.get((kind, disruption), 1.0), (kind, disruption)
