"""Replicas behind one name, without a proxy: clients share them out, and leave what fails."""

import contextlib
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.digits import Digits
from tests.support.name_server import name_server
from tests.support.programs import serve
from tests.support.serving import HANG_SECONDS, SETTINGS, RunningServer, digits_registry, running
from tests.support.streams import Streamed, assert_complete, both, timed

AGE_SECONDS = 2.0
ROWS = "sealserve_rows_total"


@contextlib.contextmanager
def replicas(digits: Digits, hosts: list[str], **changes: Any) -> Iterator[tuple[list[RunningServer], list[Telemetry]]]:
    """Servers on hosts of loopback, all on the port of the first one."""
    telemetries, servers, port = [Telemetry() for _ in hosts], list[RunningServer](), "0"
    with contextlib.ExitStack() as stack:
        for host, telemetry in zip(hosts, telemetries, strict=True):
            settings = SETTINGS.with_changes(address=f"{host}:{port}", **changes)
            server = stack.enter_context(running(digits_registry(digits.estimator), settings, None, telemetry))
            port = server.address.rpartition(":")[2]
            servers.append(RunningServer(f"{host}:{port}", server.begin_stop))
        yield servers, telemetries


def row_counts(telemetries: list[Telemetry]) -> list[float]:
    """How many rows each replica has scored."""
    labels = {"model": "digits", "layout": "row"}
    return [telemetry.registry.get_sample_value(ROWS, labels) or 0.0 for telemetry in telemetries]


@pytest.mark.slow
def test_a_new_replica_gets_its_share_within_two_ages_of_a_connection(digits_model: Digits) -> None:
    """Without an age, connections to the others would last, and the name would not be looked up."""
    hosts = [f"127.0.0.{number}" for number in range(2, 6)]
    with replicas(digits_model, hosts, max_connection_age=AGE_SECONDS) as (servers, telemetries):
        port = int(servers[0].address.rpartition(":")[2])
        with (
            name_server(*hosts[:3]) as names,
            Client(names.target(port), credentials=Credentials(insecure=True), timeout_seconds=HANG_SECONDS) as client,
        ):
            client.model  # noqa: B018  # a property that asks the service; all connections open meanwhile
            time.sleep(0.5)
            for row in digits_model.X[:60]:
                client.predict([row])
            counts = row_counts(telemetries)
            assert counts[3] == 0
            assert all(0.25 * 60 <= count <= 0.4 * 60 for count in counts[:3]), counts
            names.hosts = hosts
            end = time.monotonic() + 2 * AGE_SECONDS
            while time.monotonic() < end:
                client.predict([digits_model.X[0]])
            before = row_counts(telemetries)
            for row in digits_model.X[:80]:
                client.predict([row])
            shares = [now - then for now, then in zip(row_counts(telemetries), before, strict=True)]
    assert shares[3] >= 0.6 * 80 / 4, shares


@both
@pytest.mark.slow
def test_a_live_stream_goes_on_elsewhere_at_once(digits_model: Digits, stream: Streamed) -> None:
    """Before, it stood still for the 1 to 2 s that the stopping replica had asked for.

    Other programs may delay a run, but not each of three.
    """
    assert min(_longest_excess(digits_model, stream) for _ in range(3)) <= 0.3


def _longest_excess(digits: Digits, stream: Streamed) -> float:
    """Stop the replica that a live stream is on.

    Return by how many seconds its longest pause exceeds what is usual.
    """
    rows = digits.X[:150]
    with replicas(digits, ["127.0.0.2", "127.0.0.3"]) as (servers, telemetries):

        def source() -> Iterator[Any]:
            for number, row in enumerate(rows):
                time.sleep(0.02)
                if number == 75:
                    counts = row_counts(telemetries)
                    servers[counts.index(max(counts))].begin_stop()
                yield row

        results, arrived = timed(stream, f"ipv4:{','.join(server.address for server in servers)}", source())
    assert_complete(results, digits.estimator.predict(rows))
    pauses = sorted(later - earlier for earlier, later in itertools.pairwise(arrived))
    return pauses[-1] - pauses[len(pauses) * 9 // 10]


@pytest.mark.slow
def test_a_frozen_replica_loses_no_row(tmp_path: Path) -> None:
    """It answers nothing, not even pings: calls to it are made again elsewhere, then no more."""
    np.savez(tmp_path / "line.npz", coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    options = ("--model", f"line={tmp_path / 'line.npz'}", "--input-range", "0,1", "--processes", "1")
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(serve(*options)) for _ in range(3)]
        address = f"ipv4:{','.join(program.address for program in programs)}"
        with Client(address) as client:
            rows = np.random.default_rng(0).uniform(size=(60, 2))
            expected = rows @ [1.0, -2.0] + 0.5
            for row, score in zip(rows, expected, strict=True):
                assert client.predict([row])[0] == pytest.approx(score, abs=1e-2)
            os.kill(programs[1].process.pid, signal.SIGSTOP)
            try:
                waits = Counter[bool]()
                for row, score in zip(rows, expected, strict=True):
                    began = time.monotonic()
                    assert client.predict([row])[0] == pytest.approx(score, abs=1e-2)
                    waits[time.monotonic() - began > 5.0] += 1
            finally:
                os.kill(programs[1].process.pid, signal.SIGCONT)
    assert waits[True] <= 1, "it is left after the first call that it has not answered"
