"""Replicas behind the Envoy of deploy/envoy: what callers notice when replicas change or fail.

Rows, raw calls, batches and a live stream go on all the time. None of them fails, and none is
wrong. Times are printed, and bounded with room for a machine that does other things, too. On an
idle one a disruption prolongs the longest call of a row by 0.1 s, a frozen replica by 0.5 s. A
stream pauses for 0.1 to 0.3 s. If its replica is frozen, the SDK notices by how long answers took
before. Where it cannot, Envoy's pings do: it sends one a second, and waits a second for the answer.
"""

import contextlib
import copy
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from sealserve.client import Client
from tests.support.azurite import running_azurite
from tests.support.fleet import Fleet, running_fleet
from tests.support.mixed_load import BEFORE, ROWS, MixedLoad
from tests.support.pages import blocks_of
from tests.support.serving import HANG_SECONDS, ROOT
from tests.support.streams import Streamed, both, timed
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

HOSTS = "127.0.0.2", "127.0.0.3", "127.0.0.4"
NEW_HOST = "127.0.0.5"
ROW_COUNT = 3000
AGE_SECONDS = 3
RETRIES = "cluster.sealserve.upstream_rq_retry"
FROZEN = "frozen for 10 s"
OLD = np.array([[1.0, -1.0, 0.5, 0.25], [0.5, 2.0, -1.0, 0.0]])
NEW, LATEST = OLD + 1.0, OLD + 2.0
ROLLOUTS = (ROOT / "docs/rollouts.md").read_text()
MOST_SECONDS = 2.0
MOST_SECONDS_OF_A_STREAM = 0.3
"""For how long a frozen replica stops a live stream, on a machine that does little else."""
"""By how much a disruption prolongs the longest answer."""
MOST_SECONDS_FROZEN = {"stream": 4.0, "batch": 4.0}
"""The same for what is on a frozen replica, where it differs."""


def options(folder: Path, weights: Any = OLD, previous: str = "") -> list[str]:
    """What serves a model and, if it is named, its previous version."""
    path = folder / f"{weights.sum()}.npz"
    np.savez(path, coef=weights, intercept=np.zeros(len(weights)))
    served = ["--model", f"line={path}", "--input-range", "0,1", "--processes", "1", "--lame-duck", "2"]
    return [*served, "--previous", previous] if previous else served


def manager_of(configuration: Any) -> Any:
    """The part of Envoy's configuration that is about calls."""
    return configuration["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def age_soon(configuration: Any) -> None:
    """Have connections of clients end after AGE_SECONDS instead of a minute."""
    lives = manager_of(configuration)["common_http_protocol_options"]
    assert lives["max_connection_duration"] == "60s"
    lives["max_connection_duration"] = f"{AGE_SECONDS}s"


def disrupt(fleet: Fleet, load: MixedLoad) -> None:
    """Do to the replicas, one after the other, what production does to them."""
    load.phase = "rolling restart"
    for host in HOSTS:
        fleet.stop(host)
        fleet.start(host)
        fleet.wait_for(3)
    load.phase = "kill -9"
    host = fleet.host_of_the_stream()
    fleet.kill(host)
    fleet.wait_for(2)
    fleet.start(host)
    fleet.wait_for(3)
    load.phase = FROZEN
    retries = fleet.proxy.counters(RETRIES)[""]
    with fleet.frozen(fleet.host_of_the_stream()):
        time.sleep(10.0)
    fleet.wait_for(3)
    counters = fleet.proxy.counters(RETRIES)
    assert counters[""] > retries, "what a frozen replica does not answer goes to another one, too"
    assert counters["_overflow"] == 0
    load.phase = "scale-out"
    fleet.names.hosts.append(NEW_HOST)
    fleet.start(NEW_HOST)
    fleet.wait_for(4)
    wait_until(lambda: fleet.proxy.by_replica("rq_total")[NEW_HOST] > 20)
    load.phase = "scale-in"
    fleet.names.hosts.remove(NEW_HOST)
    fleet.stop(NEW_HOST)
    load.phase = "Envoy restarted"
    assert fleet.proxy.counters("http.calls.downstream_cx_max_duration_reached")[""] > 0
    fleet.replace_proxy(AGE_SECONDS + 1.0, is_asked=False)
    time.sleep(1.0)


def test_nothing_fails_while_replicas_change_and_fail(tmp_path: Path) -> None:
    with running_azurite() as azurite:
        shared = "--weights", "private", "--replicas", "3", "--key-store", f"azure:{azurite.new_container()}"
        secret = {"SEALSERVE_KEY_STORE_CONNECTION_STRING": azurite.connection_string}
        with running_fleet(HOSTS, tmp_path, *options(tmp_path), *shared, edit=age_soon, **secret) as fleet:
            load = MixedLoad(fleet.proxy.address, [OLD])
            load.run(lambda: disrupt(fleet, load), ROW_COUNT)
            shares = fleet.proxy.by_replica("rq_total")
    print(load.table())
    assert not load.faults
    assert min(shares[host] for host in HOSTS) >= 0.1 * sum(shares.values()), shares
    for kind, phase in load.seconds:
        excess = load.longest(kind, phase) - load.longest(kind, BEFORE)
        most = MOST_SECONDS_FROZEN.get(kind, MOST_SECONDS) if phase == FROZEN else MOST_SECONDS
        assert phase == "start" or excess <= most, (kind, phase)


def longest_pause(fleet: Fleet, stream: Streamed) -> float:
    """Freeze the replica that a live stream is on; return the stream's longest pause in seconds.

    When the last row comes, Envoy's pings may not have noticed yet.
    """
    rows = np.resize(ROWS, (120, ROWS.shape[1]))
    with contextlib.ExitStack() as frozen:

        def source() -> Iterator[Any]:
            for number, row in enumerate(rows):
                if number == 60:
                    frozen.enter_context(fleet.frozen(fleet.host_of_the_stream()))
                    began.append(time.monotonic())
                time.sleep(0.015)
                yield row

        began = list[float]()
        results, arrived = timed(stream, fleet.proxy.address, source())
    found = np.array([scores for _, scores in sorted(results, key=lambda result: result[0])])
    assert found == pytest.approx(rows @ OLD.T, abs=0.1), "none is missing, none comes twice"
    fleet.wait_for(len(HOSTS))
    return max(
        later - earlier for earlier, later in itertools.pairwise([*began, *(t for t in arrived if t > began[0])])
    )


@both
def test_a_stream_leaves_a_frozen_replica_within_300_ms(tmp_path: Path, stream: Streamed) -> None:
    """The best of five counts: other programs may delay it, and Envoy may choose the replica again.

    Without the SDK's own watch each pauses for 1 s at least, until Envoy's ping is not answered.
    """
    with running_fleet(HOSTS, tmp_path, *options(tmp_path)) as fleet:
        pauses = list[float]()
        while len(pauses) < 5 and min(pauses, default=1.0) >= MOST_SECONDS_OF_A_STREAM:
            pauses.append(longest_pause(fleet, stream))
    print(pauses)
    assert min(pauses) < MOST_SECONDS_OF_A_STREAM


def test_a_lone_replica_that_has_missed_a_health_check_gets_calls(tmp_path: Path) -> None:
    """There is no better one."""
    with (
        running_fleet(HOSTS[:1], tmp_path, *options(tmp_path)) as fleet,
        Client(fleet.proxy.address, layout="row", timeout_seconds=HANG_SECONDS) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        item = client.encrypt(ROWS[:1], keep=True)
        with fleet.frozen(HOSTS[0]):
            fleet.wait_for(0)
            sent = pool.submit(client.send, item)
            time.sleep(0.5)
            assert not sent.done(), sent.exception()
        assert client.decrypt(sent.result()).scores == pytest.approx(ROWS[:1] @ OLD.T, abs=0.1)


def canary(configuration: Any, new_address: tuple[str, int], weight: int) -> None:
    """Do to Envoy's configuration what docs/rollouts.md says."""
    (block,) = (block for block in blocks_of(ROLLOUTS) if block.language == "yaml")
    split = yaml.safe_load(block.text)
    versions = split["weighted_clusters"]["clusters"]
    assert [version["name"] for version in versions] == ["sealserve", "sealserve-new"]
    versions[0]["weight"], versions[1]["weight"] = 100 - weight, weight
    resources = configuration["static_resources"]
    for route in manager_of(configuration)["route_config"]["virtual_hosts"][0]["routes"]:
        assert route["route"].pop("cluster") == "sealserve"
        route["route"] |= split
    new = copy.deepcopy(resources["clusters"][0]) | {"name": "sealserve-new"}
    endpoint = new["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    endpoint["address"]["socket_address"] = dict(zip(("address", "port_value"), new_address, strict=True))
    resources["clusters"].append(new)


def roll_out(fleet: Fleet, load: MixedLoad, folder: Path) -> None:
    """Bring out versions of a model in the three ways of docs/rollouts.md."""
    old = options(folder, OLD)[1]
    blue, green = HOSTS[:2], (HOSTS[2], NEW_HOST)
    fleet.start(green[0], *options(folder, NEW))
    for weight in (50, 100, 0):
        fleet.edit = partial(canary, new_address=(green[0], fleet.port), weight=weight)
        load.phase = "other weights"
        fleet.replace_proxy(1.0)
        wait_until(lambda: fleet.proxy.healthy_count("sealserve-new") == 1)
        load.phase = f"{weight} % of clients"
        time.sleep(1.0)
    fleet.edit = None
    fleet.replace_proxy(1.0)
    load.phase = "rolling"
    for host in blue:
        fleet.stop(host)
        fleet.start(host, *options(folder, NEW, previous=old))
        fleet.wait_for(2)
    assert_new_clients_get(NEW, fleet)
    load.phase = "blue/green"
    fleet.stop(green[0])
    for host in green:
        fleet.start(host, *options(folder, LATEST, previous=old))
    fleet.names.hosts += green
    fleet.wait_for(4)
    fleet.names.hosts[:] = green
    fleet.wait_for(2)
    for host in blue:
        fleet.stop(host)
    assert_new_clients_get(LATEST, fleet)


def assert_new_clients_get(weights: Any, fleet: Fleet) -> None:
    with Client(fleet.proxy.address, timeout_seconds=HANG_SECONDS) as client:
        assert client.predict(ROWS[:1]) == pytest.approx(ROWS[:1] @ weights.T, abs=0.1)


def test_nothing_fails_while_versions_change(tmp_path: Path) -> None:
    with running_fleet(HOSTS[:2], tmp_path, *options(tmp_path)) as fleet:
        load = MixedLoad(fleet.proxy.address, [OLD, NEW, LATEST], row_callers=6)
        load.run(lambda: roll_out(fleet, load, tmp_path))
    print(load.table(), load.stale)
    assert not load.faults
    callers = [f"row {number}" for number in range(load.row_callers)]

    def versions_of(phase: str) -> list[set[int]]:
        return [set(load.found[caller, phase]) for caller in callers]

    assert set(load.stale) <= {"other weights"}
    assert load.stale.total() <= 4, "a change of weights refuses a caller's items once"
    assert all(len(versions) == 1 for versions in versions_of("50 % of clients"))
    assert set.union(*versions_of("50 % of clients")) == {0, 1}
    assert versions_of("100 % of clients") == [{1}] * len(callers)
    assert versions_of("0 % of clients") == versions_of("rolling") == [{0}] * len(callers)
