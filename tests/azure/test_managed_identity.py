"""A blob container that is used with the identity that Azure gives a process.

The identity's endpoint is simulated; the rest is real.
"""

import base64
import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sealserve.errors import KeyStoreUnavailableError
from sealserve_service.keys.stores.azure_blob import with_managed_identity
from sealserve_service.settings.errors import KeyStoreSettingsError
from tests.support.azurite import Azurite, running_azurite
from tests.support.registered_keys import record_of
from tests.support.serving import HANG_SECONDS

HEADER = "told-to-this-process-only"
STORAGE = "https://storage.azure.com"
DATA = bytes(range(256)) * 40
RECORD = record_of(DATA)


class IdentityEndpoint(ThreadingHTTPServer):
    """The endpoint that Azure puts beside a process.

    It gives a token to whoever sends the right header, and records who asked for what.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _IdentityHandler)
        self.asked: list[dict[str, list[str]]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.audience = STORAGE


class _IdentityHandler(BaseHTTPRequestHandler):
    server: IdentityEndpoint

    def do_GET(self) -> None:  # http.server's name
        self.server.asked.append(parse_qs(urlsplit(self.path).query))
        self.server.may_answer.wait(HANG_SECONDS)
        self.send_response(200 if self.headers["X-IDENTITY-HEADER"] == HEADER else 403)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        expires = int(time.time()) + 3600
        token = {"access_token": bearer(self.server.audience, expires), "expires_on": str(expires)}
        self.wfile.write(json.dumps(token | {"resource": STORAGE, "token_type": "Bearer"}).encode())

    def log_message(self, *_: object) -> None:
        pass


def bearer(audience: str, expires: int) -> str:
    """A token as Entra issues it, without its signature, which Azurite's basic mode ignores."""
    issuer = "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/"
    claims = {"aud": audience, "iss": issuer, "iat": expires - 3700, "nbf": expires - 3700, "exp": expires}
    parts = [{"alg": "RS256", "typ": "JWT"}, claims]
    return ".".join([*(_base64url(json.dumps(part).encode()) for part in parts), _base64url(b"signature")])


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def certificate(directory: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate of 127.0.0.1 and its key; returns both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return paths


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Iterator[IdentityEndpoint]:
    with IdentityEndpoint() as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{endpoint.server_port}/token")
        monkeypatch.setenv("IDENTITY_HEADER", HEADER)
        yield endpoint
        endpoint.may_answer.set()
        endpoint.shutdown()


@pytest.fixture
def secure_azurite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azurite]:
    paths = certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(paths[0]))
    with running_azurite(certificate=paths) as azurite:
        yield azurite


def test_keys_are_kept_with_an_identity_and_no_secret(identity: IdentityEndpoint, secure_azurite: Azurite) -> None:
    store = with_managed_identity(
        secure_azurite.account_url, secure_azurite.new_container(), client_id="of-the-service"
    )
    assert store.put(RECORD, DATA) == RECORD
    assert store.read("alice", RECORD.key_id) == DATA
    assert list(store.list("alice")) == [RECORD]
    store.delete("alice", RECORD.key_id)
    assert list(store.list("alice")) == []
    store.close()
    [asked] = identity.asked
    assert (asked["resource"], asked["client_id"]) == ([STORAGE], ["of-the-service"])


def test_an_identity_that_is_not_let_in_is_unavailable(identity: IdentityEndpoint, secure_azurite: Azurite) -> None:
    identity.audience = "https://elsewhere.example"
    store = with_managed_identity(secure_azurite.account_url, secure_azurite.new_container())
    with pytest.raises(KeyStoreUnavailableError):
        store.put(RECORD, DATA)
    store.close()


def test_an_identity_that_is_not_given_is_unavailable_in_time(
    identity: IdentityEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    identity.may_answer.clear()
    store = with_managed_identity("https://127.0.0.1:1/account", "keys", timeout_seconds=0.5)
    begin = time.monotonic()
    with pytest.raises(KeyStoreUnavailableError):
        store.get("alice", RECORD.key_id)
    assert time.monotonic() - begin < HANG_SECONDS / 2
    assert identity.asked
    assert HEADER not in caplog.text
    store.close()


MALFORMED = [
    *(
        "",
        "https://",
        "account",
        "http://account.blob.core.windows.net",
        "https://secret@account.blob.core.windows.net",
    ),
    "https://account.blob.core.windows.net?sig=secret",
]


@pytest.mark.parametrize("account_url", MALFORMED)
def test_a_malformed_account_url_is_refused(account_url: str) -> None:
    with pytest.raises(KeyStoreSettingsError) as refusal:
        with_managed_identity(account_url, "keys")
    assert "secret" not in str(refusal.value)
