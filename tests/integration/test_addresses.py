"""Addresses in all their forms, at real services: Unix sockets, and names of several services."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import DeadlineError, QuotaExceededError, UnavailableError
from sealserve_service.settings.errors import AddressError
from sealserve_service.telemetry.metrics import Telemetry
from tests.support.certificates import Authority
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.serving import HANG_SECONDS, SETTINGS, digits_registry, running_server

AUTHORITY = Authority("ours")


@pytest.mark.parametrize("form", ["{}", "ipv4:{}", "dns:///localhost:{port}", "LOCALHOST:{port}"])
def test_forms_of_one_address(digits_server: str, digits_model: Digits, form: str) -> None:
    address = form.format(digits_server, port=digits_server.rpartition(":")[2])
    with Client(address, timeout_seconds=HANG_SECONDS) as client:
        assert (client.predict(digits_model.X[:5]) == digits_model.estimator.predict(digits_model.X[:5])).all()


# Several services at one address


def test_calls_are_balanced_over_all_addresses(digits_model: Digits) -> None:
    telemetries = [Telemetry() for _ in range(3)]
    registry = digits_registry(digits_model.estimator)
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(running_server(registry, telemetry=telemetry)) for telemetry in telemetries]
        with Client(f"ipv4:{','.join(running)}", timeout_seconds=HANG_SECONDS) as client:
            client.model  # noqa: B018  # a property that asks the service; all connections open meanwhile
            for row in digits_model.X[:60]:
                client.predict([row])
    counts = [received_bytes(telemetry) for telemetry in telemetries]
    assert min(counts) > 0.8 * sum(counts) / 3, counts


def test_one_of_several_that_is_gone_costs_nothing(digits_server: str, digits_model: Digits) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        gone = f"127.0.0.1:{unused.getsockname()[1]}"
        with Client(f"ipv4:{gone},{digits_server}", timeout_seconds=HANG_SECONDS) as client:
            labels = [client.predict([row])[0] for row in digits_model.X[:10]]
    assert labels == digits_model.estimator.predict(digits_model.X[:10]).tolist()


def received_bytes(telemetry: Telemetry) -> float:
    """How many bytes of predictions a service has received."""
    labels = {"method": "/sealserve.v1.PredictionService/Predict"}
    return telemetry.registry.get_sample_value("sealserve_received_bytes_total", labels) or 0.0


# Unix sockets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "service.sock"


@contextlib.contextmanager
def serving(path: Path, digits: Digits) -> Iterator[None]:
    settings = SETTINGS.with_changes(address=f"unix:{path}")
    with running_server(digits_registry(digits.estimator), settings):
        yield


def test_a_service_on_a_unix_socket(path: Path, digits_model: Digits) -> None:
    before = os.umask(0)
    try:
        with serving(path, digits_model):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            for address in (f"unix:{path}", f"unix://{path}"):
                with Client(address, timeout_seconds=HANG_SECONDS) as client:
                    expected = digits_model.estimator.predict(digits_model.X[:5])
                    assert (client.predict(digits_model.X[:5]) == expected).all()
        assert os.umask(0) == 0, "the process's own mask is as before"
    finally:
        os.umask(before)
    assert not path.exists()


def test_probes_on_a_unix_socket_need_no_token(path: Path, tmp_path: Path, digits_model: Digits) -> None:
    identities = IdentitiesFile(tmp_path / "identities.toml", lab=ALL).path
    settings = SETTINGS.with_changes(address=f"unix:{path}", identities=identities)
    with running_server(digits_registry(digits_model.estimator), settings):
        assert main(["health", "--address", f"unix:{path}"]) == 0
        assert main(["models", "list", "--address", f"unix:{path}"]) == 1


def test_a_socket_in_use_is_not_taken(path: Path, digits_model: Digits) -> None:
    with serving(path, digits_model):
        with pytest.raises(AddressError, match="in use"), serving(path, digits_model):
            pass
        with Client(f"unix:{path}", timeout_seconds=HANG_SECONDS) as client:
            assert client.model.name == "digits"


def test_a_socket_that_a_dead_service_left_is_replaced(path: Path, digits_model: Digits) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(path, digits_model), Client(f"unix:{path}", timeout_seconds=HANG_SECONDS) as client:
        assert client.model.name == "digits"


def test_a_file_of_another_kind_is_kept(path: Path, digits_model: Digits) -> None:
    path.write_text("precious")
    with pytest.raises(AddressError, match="another kind"), serving(path, digits_model):
        pass
    assert path.read_text() == "precious"
    with pytest.raises(AddressError, match="directory"), serving(path.parent / "none" / "s", digits_model):
        pass


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"address": "unix:"}, "is not unix:PATH"),
        ({"address": "unix:/" + "x" * 200}, "at most 107 bytes"),
        ({"address": "unix:/run/s", "processes": 2, "key_store": "none", "weights": "open"}, "one, or on HOST:PORT"),
    ],
)
def test_sockets_that_cannot_be(changes: dict[str, object], text: str) -> None:
    with pytest.raises(AddressError, match=text):
        SETTINGS.with_changes(**changes)


# What an error says


def test_tls_to_plaintext_and_plaintext_to_tls(digits_server: str, digits_model: Digits, tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue("service.example.org").write(tmp_path)
    settings = SETTINGS.with_changes(tls_certificate=certificate, tls_private_key=key)
    with running_server(digits_registry(digits_model.estimator), settings) as tls_server:
        said = {
            "plaintext": unreachable(tls_server, Credentials()),
            "tls": unreachable(digits_server, Credentials(ca_certificate=AUTHORITY.certificate)),
            "authority": unreachable(tls_server, Credentials(ca_certificate=Authority("b").certificate)),
            "name": unreachable(
                tls_server, Credentials(ca_certificate=AUTHORITY.certificate, server_name="x.example.org")
            ),
        }
    assert f"{tls_server} cannot be reached in plaintext: it hung up, as one does that speaks TLS" in said["plaintext"]
    assert f"{digits_server} cannot be reached with TLS: it answers in plaintext" in said["tls"]
    assert f"{tls_server} cannot be reached with TLS: its certificate is not of a trusted" in said["authority"]
    assert f"{tls_server} cannot be reached with TLS: its certificate has another name" in said["name"]


def test_nothing_that_listens_is_named() -> None:
    assert "127.0.0.1:1 cannot be reached in plaintext" in unreachable("127.0.0.1:1", Credentials())


def unreachable(address: str, credentials: Credentials) -> str:
    with (
        Client(address, credentials=credentials, timeout_seconds=HANG_SECONDS) as client,
        pytest.raises(UnavailableError) as caught,
    ):
        client.model  # noqa: B018  # a property that asks the service
    return str(caught.value)


# Times


@pytest.mark.parametrize("seconds", [float("inf"), 2**40, 1e300])
def test_no_limit(digits_server: str, digits_model: Digits, seconds: float) -> None:
    with Client(digits_server, timeout_seconds=seconds) as client:
        assert client.predict(digits_model.X[:1], timeout_seconds=seconds).shape == (1,)
        assert client.predict(digits_model.X[:300]).shape == (300,)
        assert len(list(client.stream(digits_model.X[:5], timeout_seconds=seconds))) == 5


@pytest.mark.parametrize("seconds", [0, 1e-9, 0.001])
def test_a_tiny_deadline_is_a_deadline(digits_server: str, digits_model: Digits, seconds: float) -> None:
    with Client(digits_server, timeout_seconds=HANG_SECONDS) as client:
        client.predict(digits_model.X[:1])
        for _ in range(20):
            with contextlib.suppress(DeadlineError):
                client.predict(digits_model.X[:1], timeout_seconds=seconds)
        with pytest.raises(DeadlineError):
            client.predict(digits_model.X[:1], timeout_seconds=0)
        assert client.predict(digits_model.X[:1]).shape == (1,)


def test_a_turn_that_would_come_too_late_is_a_deadline(
    digits_server: str, digits_model: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sealserve._rpc import connections

    with Client(digits_server, timeout_seconds=HANG_SECONDS) as client:
        client.predict(digits_model.X[:1])
        monkeypatch.setattr(connections, "typed_error", lambda *_: QuotaExceededError("deadline", 1.0))
        with pytest.raises(DeadlineError):
            client.predict(digits_model.X[:1], timeout_seconds=1e-6)
