"""Clients on links that delay and throttle, and the proxy that makes them."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sealserve._rpc.transfer_time import LOOK_CALLS
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.protocol.item import PackedPair, Residues
from tests.support.certificates import Authority
from tests.support.digits import Digits
from tests.support.fault_proxy import FaultProxy
from tests.support.serving import HANG_SECONDS, SETTINGS, digits_registry, running_server
from tests.support.slow_link import Direction, SlowLink, slow_link

AUTHORITY = Authority("links")
DATA = np.random.default_rng(0).bytes(300_000)


def test_bytes_leave_one_after_the_other_and_arrive_a_delay_later() -> None:
    direction = Direction(bits_per_second=8e6, delay_seconds=0.5)  # a byte a microsecond
    assert direction.send(1000, now=10.0) == pytest.approx(10.501)
    assert direction.send(1000, now=10.0) == pytest.approx(10.502)  # behind the first
    assert direction.waiting_seconds(10.0) == pytest.approx(0.002)
    assert direction.send(500, now=20.0) == pytest.approx(20.5005)  # an idle link stores no tokens
    assert direction.waiting_seconds(30.0) == 0.0
    assert direction.byte_count == 2500


def test_each_direction_has_half_the_round_trip_and_the_whole_rate() -> None:
    link = SlowLink.of(round_trip_seconds=0.05, bits_per_second=20e6)
    assert link.up is not link.down
    for direction in (link.up, link.down):
        assert direction.send(2_500_000, now=0.0) == pytest.approx(1.025)


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what one connection brings. Gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(1 << 16):
                    connection.sendall(data)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(HANG_SECONDS)


def test_what_passes_is_the_same_and_takes_as_long_as_it_must() -> None:
    """A busy machine can only make it longer. The directions work at the same time."""
    link = SlowLink.of(round_trip_seconds=0.1, bits_per_second=16e6)
    with echo() as port, FaultProxy(port) as proxy:
        proxy.use(link.fault)
        with socket.create_connection(("127.0.0.1", proxy.port)) as client:
            began = time.monotonic()
            threading.Thread(target=client.sendall, args=(DATA,), daemon=True).start()
            received = b""
            while len(received) < len(DATA):
                received += client.recv(1 << 16)
            seconds = time.monotonic() - began
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""  # the end passes, too
    assert received == DATA
    assert link.up.byte_count == link.down.byte_count == len(DATA)
    assert 0.1 + 8 * len(DATA) / 16e6 <= seconds < HANG_SECONDS


def test_tls_passes_untouched_in_a_process_of_its_own(digits_model: Digits, tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue("service.example.org").write(tmp_path)
    settings = SETTINGS.with_changes(tls_certificate=certificate, tls_private_key=key)
    estimator, X = digits_model.estimator, digits_model.X
    trusting = Credentials(ca_certificate=AUTHORITY.certificate)
    with (
        running_server(digits_registry(estimator), settings) as address,
        slow_link(int(address.rpartition(":")[2]), 0.01, 1e9) as port,
        Client(f"127.0.0.1:{port}", credentials=trusting, timeout_seconds=HANG_SECONDS) as client,
    ):
        assert (client.predict(X[:20]) == estimator.predict(X[:20])).all()
        began = time.monotonic()
        client.predict(X[:1])
        assert time.monotonic() - began >= 0.01


def test_a_client_finds_out_that_its_link_is_slow(digits_model: Digits) -> None:
    """At first it takes an address on this machine for a quick one. A tunnel begins here, too."""
    estimator, X = digits_model.estimator, digits_model.X
    link = SlowLink.of(round_trip_seconds=0.0, bits_per_second=20e6)
    with running_server(digits_registry(estimator)) as address, FaultProxy(int(address.rpartition(":")[2])) as proxy:
        proxy.use(link.fault)
        with Client(f"127.0.0.1:{proxy.port}", layout="row", timeout_seconds=HANG_SECONDS) as client:

            def carried(row: int) -> tuple[int, int]:
                before = link.up.byte_count, link.down.byte_count
                assert client.predict(X[row : row + 1]) == estimator.predict(X[row : row + 1])
                return link.up.byte_count - before[0], link.down.byte_count - before[1]

            early = client.send(client.encrypt(X[:1]))
            uploads, downloads = zip(*(carried(row) for row in range(LOOK_CALLS + 2)), strict=True)
            assert client._connections.transfer_time.seconds_a_byte >= 8 / 20e6
            late = client.send(client.encrypt(X[:1]))
            assert {type(piece) for piece in early.scores} == {Residues}
            assert {type(piece) for piece in late.scores} == {PackedPair}
            for reply in (early, late):  # each is read as what it is
                np.testing.assert_array_equal(client.decrypt(reply).predictions, estimator.predict(X[:1]))
    assert max(uploads[-2:]) < 0.6 * min(uploads[1:LOOK_CALLS])
    assert max(downloads[-2:]) < 0.8 * min(downloads[1:LOOK_CALLS])


def test_a_stream_fills_a_link_of_a_long_round_trip(digits_model: Digits) -> None:
    """One row after the other would take a round trip each, 6 seconds."""
    estimator, rows = digits_model.estimator, digits_model.X[:60]
    link = SlowLink.of(round_trip_seconds=0.1, bits_per_second=1e9)
    with running_server(digits_registry(estimator)) as address, FaultProxy(int(address.rpartition(":")[2])) as proxy:
        proxy.use(link.fault)
        with Client(f"127.0.0.1:{proxy.port}", layout="row", timeout_seconds=HANG_SECONDS) as client:
            client.predict(rows[:1])
            began = time.monotonic()
            labels = dict(client.stream(rows))
            assert time.monotonic() - began < 3.0
    assert [labels[index] for index in range(len(rows))] == estimator.predict(rows).tolist()
