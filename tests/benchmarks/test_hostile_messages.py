"""Many hostile messages: each kind sends what it says, faults are found, and results are kept."""

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import hostile_kinds, hostile_messages
from benchmarks.hostile_kinds import CHECKED, KINDS, HostileError, Peer
from benchmarks.hostile_messages import GoodClient
from benchmarks.report import OUTPUT
from sealserve.client import Client
from sealserve.v1 import prediction_pb2
from tests.support.mutations import encoded_otherwise
from tests.support.programs import Program
from tests.support.serving import ROOT

Service = tuple[Program, Peer, dict[str, Peer]]


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with hostile_messages.service() as service:
        yield service


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        ("mutated fields", 200, {"OK", "INVALID_ARGUMENT", "NOT_FOUND", CHECKED}),
        ("mutated items of streams", 150, {"scores", "input_mismatch", "malformed_ciphertext", CHECKED}),
        ("raw frames", 1000, {"call OK", "connection closed", "frames ignored or answered"}),
        ("rapid resets", 500, {"call OK", "reset", "cancelled: CANCELLED"}),
        ("slow bodies", 210, {"RESOURCE_EXHAUSTED", hostile_kinds.BROKEN_OFF}),
    ],
)
def test_each_kind(service: Service, kind: str, count: int, expected: set[str]) -> None:
    program, _, peers = service
    ends = KINDS[kind].send(peers[kind], random.Random(1), count)
    assert expected <= ends.keys(), ends
    assert min(ends[name] for name in expected) > 0
    assert program.process.poll() is None
    assert not any("ERROR" in line for line in program.said)


@pytest.mark.slow
def test_slow_bodies_are_held_open_on_hundreds_of_connections(service: Service) -> None:
    program, _, peers = service
    watch, sent = hostile_messages.Watch(program), threading.Event()

    def send() -> None:
        KINDS["slow bodies"].send(peers["slow bodies"], random.Random(2), 300)
        sent.set()

    threading.Thread(target=send).start()
    while not sent.wait(0.1):
        watch.look()
    assert watch.most["descriptors"] >= watch.before["descriptors"] + hostile_kinds.SLOW_CONNECTIONS
    # Both ends of the heartbeat's connection, which begins after some seconds, are the service's.
    assert watch.settled()["descriptors"] <= watch.before["descriptors"] + 2


def test_wrong_scores_are_found(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    _, clinic, peers = service
    monkeypatch.setattr(hostile_kinds, "WEIGHTS", -hostile_kinds.WEIGHTS)
    for kind in ("mutated fields", "mutated items of streams"):
        with pytest.raises(HostileError, match="wrong"):
            KINDS[kind].send(peers[kind], random.Random(3), 150)
    with Client(clinic.address, credentials=clinic.credentials) as client:
        good = GoodClient(client, threading.Event(), Counter(), [])
        threading.Timer(1.0, good.ended.set).start()
        good.ask_on()
    assert set(good.count) == {"wrong"}


def test_batches_are_all_messages_and_of_each_kind_its_share() -> None:
    for count in (0, 1, 7, 50_000, 1_000_001):
        sizes = Counter[str]()
        for name, size in hostile_messages.batches(count):
            assert 0 < size <= hostile_messages.BATCH
            sizes[name] += size
        assert sum(sizes.values()) == count
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1)
    for name, kind in KINDS.items():
        assert sizes[name] == pytest.approx(kind.share * 1e6, abs=3)


def test_growth_is_found() -> None:
    before = {"resident_mb": 200.0, "threads": 720.0, "descriptors": 20.0}
    same = {"before": before, "most": before, "after": before}
    assert hostile_messages.growth(same) == []
    for when, name, more in (("most", "resident_mb", 257), ("most", "threads", 17), ("after", "descriptors", 33)):
        grown = same | {when: before | {name: before[name] + more}}
        assert len(hostile_messages.growth(grown)) == 1


def test_another_encoding_means_the_same() -> None:
    header = prediction_pb2.ItemHeader(
        model="m", row_count=3, reply_forms=["REPLY_FORM_RESIDUES", "REPLY_FORM_SEAL_CIPHERTEXT"]
    )
    message = prediction_pb2.PredictRequest(header=header, ciphertexts=[b"one", b"two"])
    encodings = {encoded_otherwise(message, random.Random(seed)) for seed in range(50)}
    assert len(encodings) > 25
    assert message.SerializeToString() not in encodings
    for encoding in encodings:
        found = prediction_pb2.PredictRequest.FromString(encoding)
        assert found != message, "it has unknown fields"
        found.DiscardUnknownFields()
        assert found == message


RESULT: dict[str, Any] = {
    "date": "2026-01-02",
    "messages": 3000,
    "minutes": 1.5,
    "kinds": {"raw frames": {"messages": 3000, "ends": {"call OK": 1000, "connection closed": 2000}}},
    "good_client": {"ends": {"right": 900}, "p50_ms": 5.0, "p99_ms": 50.0, "p100_ms": 70.0},
    "service": {
        when: {"resident_mb": 200.4, "threads": 720, "descriptors": 20} for when in ("before", "most", "after")
    },
    "faults": [],
}


def test_the_table() -> None:
    said = hostile_messages.table(RESULT)
    assert said.startswith("3,000 messages in 1.5 minutes, to one process with private weights, on 2026-01-02. ")
    assert "900 rows, of which 900 had the right scores" in said
    assert "| raw frames       | 3,000 | 2,000 connection closed, 1,000 call OK |" in said
    assert "| resident memory, MB | 200    | 200  | 200   |" in said
    assert "Fault" not in said
    assert "Fault: it ended" in hostile_messages.table(RESULT | {"faults": ["it ended"]})


@pytest.mark.slow
def test_fifty_thousand_messages(tmp_path: Path) -> None:
    """The command, which fails if the service does, if it grows, or if a score is wrong."""
    command = [sys.executable, "-m", "benchmarks.hostile", "--messages", "50000"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    result = json.loads((tmp_path / OUTPUT / "hostile_messages.json").read_text())["hostile_messages"]
    assert result["messages"] == 50_000
    assert result["faults"] == []
    assert set(result["good_client"]["ends"]) == {"right"}
    for name, kind in KINDS.items():
        assert result["kinds"][name]["messages"] == pytest.approx(50_000 * kind.share, abs=1)
    assert result["kinds"]["mutated fields"]["ends"][CHECKED] > 100
    assert result["kinds"]["mutated items of streams"]["ends"][CHECKED] > 100
