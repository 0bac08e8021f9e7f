"""Credentials: when they use TLS, what they refuse, and that they keep their secrets."""

from pathlib import Path
from typing import Any

import pytest

from sealserve.credentials import Credentials, pem
from sealserve.errors import CredentialsError
from sealserve.protocol.address import host_of, is_loopback


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        ("127.0.0.1:50051", True),
        ("127.8.9.10:1", True),
        ("localhost:50051", True),
        ("[::1]:50051", True),
        ("[::ffff:127.0.0.1]:50051", True),
        ("0.0.0.0:50051", False),
        ("[::]:50051", False),
        ("10.0.0.1:50051", False),
        ("localhost.example.org:50051", False),
        ("127.0.0.1.example.org:50051", False),
        ("dns:///localhost", False),
        ("", False),
    ],
)
def test_plaintext_is_for_this_machine(address: str, is_local: bool) -> None:
    assert is_loopback(host_of(address)) is is_local
    assert Credentials().uses_tls(address) is not is_local
    assert Credentials(token="t").uses_tls(address) is not is_local
    assert Credentials(server_name="x").uses_tls(address)
    assert Credentials(ca_certificate=b"x").uses_tls(address)
    assert not Credentials(insecure=True).uses_tls(address)


def test_credentials_keep_their_secrets() -> None:
    credentials = Credentials(
        ca_certificate="ca.pem", client_certificate=b"certificate", client_key=b"key", token="t0k"
    )
    assert "t0k" not in repr(credentials)
    assert "key" not in repr(credentials)
    assert "ca.pem" in repr(credentials)


@pytest.mark.parametrize(
    "fields",
    [
        {"client_certificate": b"x"},
        {"client_key": b"x"},
        {"token": "a b"},
        {"token": "a\nb"},
        {"token": "\u00e9"},
        {"insecure": True, "ca_certificate": b"x"},
        {"insecure": True, "server_name": "x"},
    ],
)
def test_credentials_that_make_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(CredentialsError) as caught:
        Credentials(**fields)
    assert "a b" not in str(caught.value)


def test_files_of_credentials(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    whole = b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
    path.write_bytes(whole)
    assert pem(path) == pem(str(path)) == pem(whole) == path.read_bytes()
    with pytest.raises(CredentialsError, match="is cut short"):
        pem(whole + whole[:-30])
    assert pem(None) is None
    for bad in (tmp_path / "missing", tmp_path, b"no PEM"):
        with pytest.raises(CredentialsError):
            pem(bad)
