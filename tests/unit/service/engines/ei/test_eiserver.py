"""EIServer in processes of its own: right scores for good input, a typed error for bad.

A bad request disturbs no other.
"""

import dataclasses
import logging
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import ArrayLike

from sealserve.errors import (
    CiphertextFault,
    ItemTimeoutError,
    KeyNotFoundError,
    MalformedCiphertextError,
    PlanError,
    QuotaExceededError,
    ServiceError,
)
from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.ei_slots import EI_PARAMETERS
from sealserve.protocol.item import ItemHeader, SealCiphertext
from sealserve_service.engines.ei.eiserver import EIServerEngine
from sealserve_service.engines.ei.eiserver_process import unpack_reply
from sealserve_service.engines.ei.eiserver_processes import EIServerProcesses
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.ei_user import EIUser
from tests.support.serving import linear, served
from tests.support.waiting import wait_until

RANDOM = np.random.default_rng(11)
KEY_ID = "0" * 64
OFFER = dataclasses.replace(
    served("offered", linear([[1.0]])).model.offers[0], layout=LAYOUTS["ei-slots"], parameters=EI_PARAMETERS
)
WEIGHTS, INTERCEPT = RANDOM.normal(size=(1, 8)), np.array([0.25])
ROW = RANDOM.random(8)
SCORE = (WEIGHTS @ ROW + INTERCEPT)[0]
TOLERANCE = 1e-5  # seen: 2e-6


@pytest.fixture(scope="module")
def processes() -> Iterator[EIServerProcesses]:
    processes = EIServerProcesses(process_count=2)
    yield processes
    processes.close()


@dataclasses.dataclass(frozen=True)
class Request:
    """What a good request is made of."""

    ciphertexts: bytes
    keys: bytes

    def score(self, processes: EIServerProcesses) -> list[bytes]:
        return processes.predict(WEIGHTS, INTERCEPT, self.ciphertexts, self.keys)


@pytest.fixture(scope="module")
def good(ei_user: EIUser) -> Request:
    return Request(b"".join(ei_user.encrypt(ROW)), ei_user.evaluation_keys)


def engine(
    weights: ArrayLike, processes: EIServerProcesses, keys: bytes = b"", intercept: ArrayLike | None = None
) -> EIServerEngine:
    def key_bytes(tenant: str, key_id: str) -> bytes:
        if (tenant, key_id) != (ANONYMOUS.name, KEY_ID):
            raise KeyNotFoundError(key_id)
        return keys

    rows = np.asarray(weights)
    return EIServerEngine(
        rows, np.zeros(len(rows)) if intercept is None else np.asarray(intercept), OFFER, key_bytes, processes
    )


def header(ciphertexts: int = 1, key_id: str = KEY_ID) -> ItemHeader:
    return ItemHeader(
        model="model",
        config_id="",
        layout=LAYOUTS["ei-slots"],
        parameter_set="ei-8192",
        row_count=1,
        ciphertext_count=ciphertexts,
        key_id=key_id,
    )


def running() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_running(child)]


def is_running(process: psutil.Process) -> bool:
    try:
        return "eiserver_process" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_class_without_weights_among_others(ei_user: EIUser, processes: EIServerProcesses) -> None:
    weights, intercept = np.vstack([WEIGHTS, np.zeros(8)]), np.array([0.25, -3.0])
    made = engine(weights, processes, ei_user.evaluation_keys, intercept)
    assert made.offer is OFFER
    scoring = made.begin(header(), ANONYMOUS.name)
    scoring.add(ei_user.encrypt(ROW))
    scores = list(scoring.finish())
    assert all(isinstance(score, SealCiphertext) for score in scores)
    assert np.abs(ei_user.decrypt(scores) - (weights @ ROW + intercept)).max() < TOLERANCE


def test_more_features_than_slots(ei_user: EIUser, processes: EIServerProcesses) -> None:
    weights, row = RANDOM.normal(size=(1, 4100)), RANDOM.random(4100)
    ciphertexts = ei_user.encrypt(row)
    assert len(ciphertexts) == 2
    scoring = engine(weights, processes, ei_user.evaluation_keys).begin(header(2), ANONYMOUS.name)
    for ciphertext in ciphertexts:
        scoring.add([ciphertext])
    assert np.abs(ei_user.decrypt(scoring.finish()) - weights @ row).max() < TOLERANCE


def test_weights_that_would_be_encoded_as_zero_are_refused_when_no_slot_is_free(processes: EIServerProcesses) -> None:
    for tiny in (0.0, 2.0**-35):
        weights = np.full((3, 4096), 1.0)
        weights[1] = tiny
        with pytest.raises(PlanError, match="class 1"):
            engine(weights, processes)
    weights[1, 7] = 2.0**-28
    assert engine(weights, processes).weights is weights
    one_block = np.zeros((1, 8192))
    one_block[0, 5000] = 1.0
    assert engine(one_block, processes).weights is one_block


def of_body(body: bytes, compression: int = 1) -> bytes:
    """A SEAL 3.5 object; zlib is its compression 1."""
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 3, 5, compression, 0, 16 + len(body)) + body


FAULTS: dict[str, tuple[Callable[[bytes], bytes], CiphertextFault]] = {
    "empty": (lambda _: b"", CiphertextFault.LENGTH),
    "truncated by a byte": (lambda data: data[:-1], CiphertextFault.LENGTH),
    "bit-flipped": (lambda data: data[:50_000] + bytes([data[50_000] ^ 1]) + data[50_001:], CiphertextFault.HEADER),
    "a zip bomb": (lambda _: of_body(zlib.compress(bytes(100 << 20))), CiphertextFault.LENGTH),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_ciphertexts_that_eiserver_would_leave_out_are_refused(
    good: Request, processes: EIServerProcesses, fault: str
) -> None:
    spoil, reason = FAULTS[fault]
    scoring = engine(WEIGHTS, processes).begin(header(2), ANONYMOUS.name)
    scoring.add([good.ciphertexts])
    with pytest.raises(MalformedCiphertextError) as caught:
        scoring.add([spoil(good.ciphertexts)])
    assert (caught.value.reason, caught.value.index) == (reason, 1)


def test_keys_that_are_not_registered(good: Request, processes: EIServerProcesses) -> None:
    scoring = engine(WEIGHTS, processes).begin(header(key_id="f" * 64), ANONYMOUS.name)
    scoring.add([good.ciphertexts])
    with pytest.raises(KeyNotFoundError) as caught:
        next(scoring.finish())
    assert caught.value.key_id == "f" * 64


@pytest.mark.slow
def test_an_abort_costs_nobody_else_anything(
    ei_user: EIUser, good: Request, processes: EIServerProcesses, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bad = dataclasses.replace(good, ciphertexts=good.ciphertexts[:-1])
    with ThreadPoolExecutor(2) as threads:
        beside = threads.submit(good.score, processes)
        failed = threads.submit(bad.score, processes)
        with pytest.raises(MalformedCiphertextError) as caught:
            failed.result()
        assert caught.value.reason is CiphertextFault.HEADER
        assert ei_user.decrypt(beside.result()) == pytest.approx(SCORE, abs=TOLERANCE)
    assert f"exit code: -{signal.SIGABRT:d}" in caplog.text
    assert "terminate called" in caplog.text
    assert ei_user.decrypt(good.score(processes)) == pytest.approx(SCORE, abs=TOLERANCE)


BAD_KEYS = {
    "none": b"",
    "zeros": bytes(1000),
    "ones": b"\xff" * 100,
    "a zip bomb": of_body(zlib.compress(bytes(600 << 20), 1)),
}


@pytest.mark.parametrize("keys", BAD_KEYS)
def test_keys_that_are_no_keys(good: Request, processes: EIServerProcesses, keys: str) -> None:
    with pytest.raises(MalformedCiphertextError):
        dataclasses.replace(good, keys=BAD_KEYS[keys]).score(processes)


@pytest.mark.slow
def test_limits_of_time(ei_user: EIUser, good: Request) -> None:
    """Of three requests for one process, the first hangs.

    The third has waited too long when the second begins.
    """
    processes = EIServerProcesses(timeout_seconds=6.0)
    answers: list[object] = []

    def score() -> None:
        try:
            answers.append(ei_user.decrypt(good.score(processes))[0])
        except ServiceError as error:
            answers.append(error)

    threads = [threading.Thread(target=score) for _ in range(3)]
    threads[0].start()
    wait_until(running)
    (hung,) = running()
    hung.suspend()
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join()
    late, busy, score_of_the_other = sorted(answers, key=lambda answer: type(answer).__name__)
    assert isinstance(late, ItemTimeoutError)
    assert late.waited_seconds == 6.0
    assert isinstance(busy, QuotaExceededError)
    assert score_of_the_other == pytest.approx(SCORE, abs=TOLERANCE)
    assert not is_running(hung)


def test_limits_of_memory(good: Request) -> None:
    with pytest.raises(RuntimeError, match="needs more memory than its limit of 1000000 bytes"):
        EIServerProcesses(memory_bytes=1_000_000)
    processes = EIServerProcesses(memory_bytes=130 << 20)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="needs more memory"):
            good.score(processes)


def test_a_process_that_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(RuntimeError, match="could not be started"):
        EIServerProcesses()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="exit code 1"):
        EIServerProcesses()
    monkeypatch.setattr(sys, "executable", "/bin/echo")
    with pytest.raises(RuntimeError, match="has not answered"):
        EIServerProcesses()


def test_a_process_gets_nothing_of_the_servers_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountKey=secret")
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n/usr/bin/env >&2\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    processes = EIServerProcesses()
    processes.close()
    assert "PYTHONPATH=" in caplog.text
    assert "secret" not in caplog.text


def test_a_process_loads_little() -> None:
    program = (
        "import sys, sealserve_service.engines.ei.eiserver_process, encrypted.inference.eiserver; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"numpy", "encrypted.inference.internal.einative"} <= set(loaded)
    assert not {"grpc", "seal", "sklearn", "google.protobuf", "sealserve", "logging"} & set(loaded)


OWNER = """
import sys
from pathlib import Path
import numpy as np
from sealserve_service.engines.ei.eiserver_processes import EIServerProcesses
ciphertexts, keys = (Path(path).read_bytes() for path in sys.argv[1:])
EIServerProcesses().predict(np.ones((100, 8)), np.zeros(100), ciphertexts, keys)
"""


def test_a_process_ends_with_its_owner(good: Request, tmp_path: Path) -> None:
    (tmp_path / "ciphertexts").write_bytes(good.ciphertexts)
    (tmp_path / "keys").write_bytes(good.keys)
    command = [sys.executable, "-c", OWNER, str(tmp_path / "ciphertexts"), str(tmp_path / "keys")]
    with subprocess.Popen(command) as owner:
        orphans: list[psutil.Process] = []

        def has_begun_to_work() -> bool:
            orphans[:] = psutil.Process(owner.pid).children()
            return any(is_running(orphan) and orphan.cpu_times().user > 1.0 for orphan in orphans)

        wait_until(has_begun_to_work)
        owner.send_signal(signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, orphans)))


def test_close_ends_what_runs_and_refuses_the_rest(good: Request) -> None:
    processes = EIServerProcesses()
    with ThreadPoolExecutor(1) as threads:
        score = threads.submit(good.score, processes)
        wait_until(running)
        processes.close()
        assert not running()
        with pytest.raises(RuntimeError, match=f"exit code -{signal.SIGKILL:d}"):
            score.result()
    with pytest.raises(RuntimeError, match="closed"):
        good.score(processes)


def test_replies_that_are_no_replies() -> None:
    length = struct.pack("<Q", 3)
    assert unpack_reply(length + b"abc" + length + b"def", 2) == [b"abc", b"def"]
    for data in (b"", b"\3", length, length + b"ab", length + b"abcd", length + b"abc", b"\xff" * 20):
        with pytest.raises(ValueError, match="not a ciphertext a class"):
            unpack_reply(data, 2)


def mutated(data: bytes, random: np.random.Generator) -> bytes:
    """Damage bytes at random places, or cut or repeat a part.

    Most places are at the beginning, where the structure is.
    """
    spoilt = bytearray(data)
    at = int(random.integers(random.choice([40, 200, len(data)])))
    match random.integers(4):
        case 0:
            spoilt[at] ^= 1 << int(random.integers(8))
        case 1:
            spoilt[at : at + 8] = random.bytes(8)
        case 2:
            del spoilt[at : at + int(random.integers(1, 1000))]
        case _:
            spoilt[at:at] = spoilt[: int(random.integers(1, 1000))]
    return bytes(spoilt)


def inflated(data: bytes) -> bytes:
    """The same ciphertext without compression, so that mutations get past the checksum."""
    return of_body(zlib.decompress(data[16:]), 0)


@pytest.mark.parametrize(
    ("seed", "count"),
    [(0, 4), pytest.param(1, 50, marks=pytest.mark.slow), pytest.param(2, 2000, marks=pytest.mark.long)],
    ids=["a few", "many", "very many"],
)
@pytest.mark.slow
def test_mutated_requests_fail_alone(
    ei_user: EIUser, good: Request, processes: EIServerProcesses, seed: int, count: int
) -> None:
    random = np.random.default_rng(seed)
    requests = [
        Request(mutated(inflated(good.ciphertexts), random), good.keys)
        if number % 2
        else Request(good.ciphertexts, mutated(good.keys, random))
        for number in range(count)
    ]

    def outcome(request: Request) -> str:
        try:
            return f"{len(request.score(processes))} score"
        except (ServiceError, RuntimeError) as error:
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(outcome, requests))
    refused = str(MalformedCiphertextError(CiphertextFault.HEADER))
    assert set(outcomes) <= {"1 score", f"MalformedCiphertextError: {refused}"}
    assert sum("Malformed" in outcome for outcome in outcomes) > count // 4
    assert ei_user.decrypt(good.score(processes)) == pytest.approx(SCORE, abs=TOLERANCE)
    assert not running()
