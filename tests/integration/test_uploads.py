"""Uploads of a client, full or half size, encrypted here or in processes of its own.

The scores are the same.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from sealserve.aio import AsyncClient
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import InputError
from sealserve.he.layouts import LAYOUTS
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.serving import HANG_SECONDS, linear, running_server, served

RANDOM = np.random.default_rng(6)
MODEL = linear(RANDOM.normal(size=(2, 40)))
ROWS = RANDOM.integers(0, 256, (30, 40)) / 255


@dataclass(frozen=True)
class Counting:
    """A server that counts what it receives."""

    address: str
    telemetry: Telemetry

    @property
    def received_bytes(self) -> float:
        """Of the predictions."""
        methods = [f"/sealserve.v1.PredictionService/{name}" for name in ("Predict", "StreamPredict")]
        sample = self.telemetry.registry.get_sample_value
        return sum(sample("sealserve_received_bytes_total", {"method": method}) or 0.0 for method in methods)


@pytest.fixture(scope="module")
def server() -> Iterator[Counting]:
    """Of a model whose seeded ciphertexts are not packed: see test_packed_uploads."""
    telemetry, model = Telemetry(), served("wide", MODEL)
    offers = tuple(dataclasses.replace(offer, ciphertext_forms=frozenset()) for offer in model.model.offers)
    model = dataclasses.replace(model, model=dataclasses.replace(model.model, offers=offers))
    with running_server(ModelRegistry([model]), telemetry=telemetry) as address:
        yield Counting(address, telemetry)


def assert_right(scores: NDArray[np.float64], client: Client, rows: NDArray[np.float64]) -> None:
    """Compare scores with the plaintext model's."""
    assert np.abs(scores - MODEL.decision(rows)).max() <= client.offer(len(rows)).weight_rounding_error_bound


def received(server: Counting, rows: NDArray[np.float64], **options: Any) -> float:
    """Score rows with a client's options, check them; return the bytes that the server received."""
    before = server.received_bytes
    with Client(server.address, timeout_seconds=HANG_SECONDS, **options) as client:
        assert_right(client.predict(rows), client, rows)
    return server.received_bytes - before


@pytest.mark.parametrize("layout", ["row", "column"])
def test_half_size_uploads(server: Counting, layout: str) -> None:
    full, half = (received(server, ROWS[:1], layout=layout, seeded=seeded) for seeded in (False, True))
    assert 0.5 < half / full < 0.52


def test_half_size_is_the_default_to_other_machines(server: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    full = {layout: received(server, ROWS[:1], layout=layout) for layout in ("row", "column")}
    monkeypatch.setattr("sealserve.protocol.address.is_loopback", lambda host: False)
    plaintext = Credentials(insecure=True)
    for layout, byte_count in full.items():
        away = received(server, ROWS[:1], layout=layout, credentials=plaintext)
        assert 0.5 < away / byte_count < 0.52
        again = received(server, ROWS[:1], layout=layout, seeded=False, credentials=plaintext)
        assert again == pytest.approx(byte_count, abs=100)


@pytest.mark.parametrize("layout", ["row", "column"])
def test_uploads_follow_what_calls_have_shown(server: Counting, layout: str) -> None:
    """Full ciphertexts where bytes are quick, seeded ones where they are slow, and back."""
    with Client(server.address, layout=layout, timeout_seconds=HANG_SECONDS) as client:

        def uploaded(seconds_a_byte: float) -> float:
            client._connections.transfer_time.seconds_a_byte = seconds_a_byte
            before = server.received_bytes
            assert_right(client.predict(ROWS[:1]), client, ROWS[:1])
            return server.received_bytes - before

        quick, slow, quick_again = map(uploaded, (1e-9, 1e-6, 1e-9))
        assert 0.5 < slow / quick < 0.52
        assert quick_again == pytest.approx(quick, abs=100)
        seeding = LAYOUTS[layout].seeding_seconds_a_byte
        assert uploaded(0.99 * seeding) == pytest.approx(quick, abs=100)
        assert uploaded(1.01 * seeding) == pytest.approx(slow, abs=100)


def test_replies_to_items_of_either_form_are_read(server: Counting) -> None:
    """Also if what calls have shown has changed between the request and the reply."""
    with Client(server.address, layout="row", timeout_seconds=HANG_SECONDS) as client:
        times = client._connections.transfer_time
        times.seconds_a_byte = 1e-6
        reply = client.send(client.encrypt(ROWS[:1]))
        times.seconds_a_byte = 1e-9
        client.predict(ROWS[:1])
        assert_right(client.decrypt(reply).scores[:, :], client, ROWS[:1])


@pytest.mark.parametrize("seeded", [False, True])
def test_processes_that_encrypt(server: Counting, seeded: bool) -> None:
    children = set(psutil.Process().children())
    with Client(
        server.address, layout="column", seeded=seeded, encrypt_processes=2, timeout_seconds=HANG_SECONDS
    ) as client:
        assert_right(client.predict(ROWS), client, ROWS)
        assert set(psutil.Process().children()) - children
        results = dict(client.stream(np.tile(ROWS, (100, 1))))
        assert_right(np.stack([results[index] for index in range(3000)]), client, np.tile(ROWS, (100, 1)))


def test_processes_that_encrypt_for_asyncio(server: Counting) -> None:
    async def scores() -> NDArray[np.float64]:
        async with AsyncClient(server.address, layout="column", encrypt_processes=1) as client:
            return await client.predict(ROWS)

    with contextlib.closing(Client(server.address, layout="column")) as client:
        assert_right(asyncio.run(scores()), client, ROWS)


@pytest.mark.parametrize("options", [{"encrypt_processes": -1}, {"layout": "diagonal"}], ids=str)
def test_options_that_make_no_sense(server: Counting, options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Client(server.address, **options)
