"""The tenant of a call: by its token, by its certificate, or nobody."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sealserve_service.tenants.authenticator import Authenticator, is_local_probe
from sealserve_service.tenants.identities import digest_of, new_token
from sealserve_service.tenants.tenant import ANONYMOUS
from tests.support.identities import ALL, Call, IdentitiesFile, authenticated

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def file(tmp_path: Path) -> IdentitiesFile:
    return IdentitiesFile(tmp_path / "identities.toml", clinic=ALL, lab=f'{ALL}\ncertificates = ["CN=x", "URI=y:z"]')


def test_without_a_file_everybody_is_one_tenant() -> None:
    assert authenticated(Authenticator()) == authenticated(Authenticator(), "Bearer nonsense") == ANONYMOUS.name


def test_a_token_names_its_tenant(file: IdentitiesFile) -> None:
    clinic, lab, later = file.token("clinic"), file.token("lab"), file.token("lab", NOW + HOUR)
    expired, revoked = file.token("clinic", NOW), file.token("clinic", None, "revoked = true")
    authenticator = Authenticator(file.path, clock=lambda: NOW)
    assert authenticated(authenticator, f"Bearer {clinic}") == "clinic"
    assert authenticated(authenticator, f"bearer  {clinic} ") == "clinic"
    assert authenticated(authenticator, f"Bearer {lab}") == authenticated(authenticator, f"Bearer {later}") == "lab"
    refused = [
        f"Bearer {expired}",
        f"Bearer {revoked}",
        f"Bearer {new_token()}",
        f"Bearer {clinic}x",
        f"Bearer {clinic[:-1]}",
        f"Bearer {digest_of(clinic)}",
        f"Basic {clinic}",
        clinic,
        "Bearer",
        "Bearer ",
        "",
        "Bearer \udcff\udcfe",
    ]
    assert {header: authenticated(authenticator, header) for header in refused} == dict.fromkeys(refused, "")
    assert authenticated(authenticator) == ""
    assert authenticated(authenticator, f"Bearer {clinic}", f"Bearer {clinic}") == ""


def test_a_certificate_names_its_tenant(file: IdentitiesFile) -> None:
    clinic = file.token("clinic")
    authenticator = Authenticator(file.path)
    assert authenticated(authenticator, x509_common_name=[b"x"]) == "lab"
    assert authenticated(authenticator, x509_common_name=[b"other"], peer_uri=[b"a:b", b"y:z"]) == "lab"
    assert authenticated(authenticator, x509_common_name=[b"y:z"], peer_uri=[b"x"]) == ""
    assert authenticated(authenticator, x509_common_name=[b"X"]) == ""
    assert authenticated(authenticator, x509_common_name=[b"\xff"]) == ""
    assert authenticated(authenticator, f"Bearer {clinic}", x509_common_name=[b"x"]) == "clinic"
    assert authenticated(authenticator, "Bearer wrong", x509_common_name=[b"x"]) == ""


def test_a_certificate_of_two_tenants_is_nobodys(tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "i.toml", a='certificates = ["CN=x"]', b='certificates = ["URI=y:z"]')
    assert authenticated(Authenticator(file.path), x509_common_name=[b"x"], peer_uri=[b"y:z"]) == ""


def test_only_this_machine_asks_for_health_without_credentials() -> None:
    def lets_pass(method: str, peer: str) -> bool:
        context: Any = Call([], {}, peer)
        return is_local_probe(method, context)

    here, there = "ipv4:127.0.0.1:4000", "ipv4:192.0.2.1:4000"
    check, predict = "/grpc.health.v1.Health/Check", "/sealserve.v1.PredictionService/Predict"
    assert lets_pass(check, here)
    assert lets_pass(check, "ipv6:%5B::1%5D:4000")
    assert lets_pass(check, "ipv6:[::ffff:127.0.0.1]:4000")
    assert not lets_pass(check, there)
    assert not lets_pass(check, "ipv6:%5B2001:db8::1%5D:4000")
    assert not lets_pass(check, "unknown")
    assert not lets_pass(predict, here)


def test_the_log_says_why_and_not_with_what(file: IdentitiesFile, caplog: pytest.LogCaptureFixture) -> None:
    token = file.token("clinic", NOW)
    with caplog.at_level(logging.INFO):
        assert authenticated(Authenticator(file.path, clock=lambda: NOW), f"Bearer {token}") == ""
    assert f"the token {digest_of(token)[:8]} of tenant clinic is expired" in caplog.text
    assert token not in caplog.text
