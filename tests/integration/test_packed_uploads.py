"""Packed uploads over real sockets: fewer bytes, the same scores, and no harm to older peers."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.aio import AsyncClient
from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.serving import HANG_SECONDS, linear, registered_keys, running_server, served

RANDOM = np.random.default_rng(19)
MODEL = linear(RANDOM.normal(size=(2, 40)))
ROWS = RANDOM.integers(0, 256, (30, 40)) / 255
RESIDUES = 2 * 4096  # of a polynomial: two primes
PACKED_BYTES, SEEDED_BYTES, FULL_BYTES = 32 + 64 + RESIDUES * 46 // 8, 113 + 8 * RESIDUES + 81, 113 + 16 * RESIDUES


@dataclass(frozen=True)
class Counting:
    """A server that counts what it receives.

    Its models are "private", and "older": as a service of an earlier version describes it.
    """

    address: str
    telemetry: Telemetry

    @property
    def received_bytes(self) -> float:
        """Of the predictions."""
        methods = [f"/sealserve.v1.PredictionService/{name}" for name in ("Predict", "StreamPredict")]
        sample = self.telemetry.registry.get_sample_value
        return sum(sample("sealserve_received_bytes_total", {"method": method}) or 0.0 for method in methods)

    def client(self, model: str = "private", **options: Any) -> Client:
        return Client(self.address, model=model, timeout_seconds=HANG_SECONDS, **options)

    def received(self, rows: NDArray[np.float64], **options: Any) -> float:
        """Score rows with a client's options, check them; return the bytes that arrived."""
        before = self.received_bytes
        with self.client(**options) as client:
            assert_right(client.predict(rows), client, rows)
        return self.received_bytes - before


@pytest.fixture(scope="module")
def server() -> Iterator[Counting]:
    keys, telemetry = registered_keys(), Telemetry()
    private = served("private", MODEL, keys=keys, hiding_bits=40)
    offers = tuple(dataclasses.replace(offer, ciphertext_forms=frozenset()) for offer in private.model.offers)
    older = dataclasses.replace(private, model=dataclasses.replace(private.model, name="older", offers=offers))
    with running_server(ModelRegistry([private, older]), keys=keys, telemetry=telemetry) as address:
        yield Counting(address, telemetry)


def assert_right(scores: NDArray[np.float64], client: Client, rows: NDArray[np.float64]) -> None:
    """Compare scores with the plaintext model's."""
    assert np.abs(scores - MODEL.decision(rows)).max() <= client.offer(len(rows)).score_error_bound


@pytest.mark.parametrize(("layout", "count"), [("row", 1), ("column", 40)])
def test_a_seeded_upload_is_packed(server: Counting, layout: str, count: int) -> None:
    received = server.received(ROWS[:1], layout=layout, seeded=True)
    assert received == pytest.approx(count * PACKED_BYTES, abs=10 * count + 300)


def test_of_a_stream_too(server: Counting) -> None:
    before = server.received_bytes
    with server.client(seeded=True, layout="row") as client:
        results = dict(client.stream(ROWS, rows_per_item=1))
        assert_right(np.stack([results[row] for row in range(30)]), client, ROWS)
    assert server.received_bytes - before == pytest.approx(30 * PACKED_BYTES, abs=30 * 300)


def test_of_processes_that_encrypt(server: Counting) -> None:
    received = server.received(ROWS, layout="column", seeded=True, encrypt_processes=1)
    assert received == pytest.approx(40 * PACKED_BYTES, abs=1000)


def test_of_asyncio(server: Counting) -> None:
    async def predicted() -> NDArray[Any]:
        async with AsyncClient(server.address, model="private", seeded=True) as client:
            return await client.predict(ROWS[:1])

    before = server.received_bytes
    scores = asyncio.run(predicted())
    with server.client() as client:
        assert_right(scores, client, ROWS[:1])
    assert server.received_bytes - before == pytest.approx(PACKED_BYTES, abs=300)


def test_of_the_command_line(server: Counting, tmp_path: Path) -> None:
    before = server.received_bytes
    np.save(tmp_path / "rows.npy", ROWS[:1])
    files = ("--input", str(tmp_path / "rows.npy"), "--output", str(tmp_path / "scores.npy"))
    assert main(["predict", "--address", server.address, "--model", "private", "--seeded", *files]) == 0
    with server.client() as client:
        assert_right(np.load(tmp_path / "scores.npy"), client, ROWS[:1])
    assert server.received_bytes - before == pytest.approx(PACKED_BYTES, abs=300)


@pytest.mark.parametrize("replay", [[], ["--replay"]])
def test_of_a_load(server: Counting, replay: list[str], tmp_path: Path) -> None:
    figures = tmp_path / "bench.json"
    options = ("--seconds", "0.3", "--warm-up", "0", "--seeded", "--json", str(figures), *replay)
    assert main(["bench", "--address", server.address, "--model", "private", *options]) == 0
    summary = json.loads(figures.read_text())
    assert summary["answered"] == summary["sent"] > 0
    assert summary["request_bytes_a_row"] == pytest.approx(PACKED_BYTES, abs=300)


# Older peers


def test_a_service_that_does_not_name_the_form_gets_seeded_ciphertexts(server: Counting) -> None:
    for model, is_named in (("private", True), ("older", False)):
        with server.client(model) as client:
            assert [bool(offer.ciphertext_forms) for offer in client.model.offers] == [is_named] * 2
    received = server.received(ROWS[:1], model="older", layout="row", seeded=True)
    assert received == pytest.approx(SEEDED_BYTES, abs=300)


def test_a_client_that_does_not_know_the_form_sends_seeded_ciphertexts(
    server: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealserve.protocol.wire._models.CIPHERTEXT_FORMS", {})
    assert server.received(ROWS[:1], layout="row", seeded=True) == pytest.approx(SEEDED_BYTES, abs=300)


def test_by_default_nothing_is_packed_on_this_machine(server: Counting) -> None:
    assert server.received(ROWS[:1], layout="row") == pytest.approx(FULL_BYTES, abs=300)


def test_by_default_a_single_row_to_another_machine_is(server: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealserve.protocol.address.is_loopback", lambda host: False)
    received = server.received(ROWS[:1], layout="row", credentials=Credentials(insecure=True))
    assert received == pytest.approx(PACKED_BYTES, abs=300)
