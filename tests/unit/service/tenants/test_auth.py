"""Identities: their file, whose a call is, files that change under watch, tokens, and what clients show."""

import argparse
import hashlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealserve.credentials import Credentials, pem
from sealserve.errors import CredentialsError, InputError, ModelNotFoundError, UnauthenticatedError
from sealserve.protocol.address import host_of, is_loopback
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.commands import tokens
from sealserve_service.tenants.authenticator import Authenticator
from sealserve_service.tenants.identities import digest_of, new_token, read_identities
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant
from sealserve_service.watched_files import UnusableFileError, WatchedFiles
from tests.support.identities import ALL, IdentitiesFile
from tests.support.serving import linear, served

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PATH = Path("identities.toml")
DIGEST = "ab" * 32


class Call:
    """As much of a call's context as is asked for who makes it."""

    def __init__(self, headers: Sequence[str], certificate: dict[str, list[bytes]], peer: str) -> None:
        self._headers, self._certificate, self._peer = headers, certificate, peer

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("user-agent", "a test"), *(("authorization", header) for header in self._headers)]

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._certificate

    def peer(self) -> str:
        return self._peer


def authenticated(authenticator: Authenticator, *headers: str, **certificate: list[bytes]) -> str:
    """The name of the tenant of a call, empty if it has none."""
    context: Any = Call(headers, certificate, "ipv4:192.0.2.1:4000")
    try:
        return authenticator.authenticate(context).name
    except UnauthenticatedError:
        return ""


# The file


def test_reads_a_file() -> None:
    text = f"""
        [tenants.clinic]
        models = ["mnist", "iris"]
        list_models = true
        certificates = ["CN=gateway, of a kind", "URI=spiffe://example.org/clinic"]
        [tenants.lab]
        models = ["*"]
        register_keys = true
        quota = {{ rows_per_minute = 600, key_bytes = 50_000_000 }}
        [[tokens]]
        tenant = "clinic"
        sha256 = "{DIGEST}"
        expires = 2026-06-01T02:00:00+02:00
        [tenants.nobody]
        [[tokens]]
        tenant = "lab"
        sha256 = "{"cd" * 32}"
        revoked = true
        """
    identities = read_identities(PATH, text.encode())
    clinic = Tenant("clinic", frozenset({"mnist", "iris"}), may_list_models=True, may_register_keys=False)
    quota = Quota(rows_per_minute=600, key_bytes=50_000_000)
    lab = Tenant("lab", None, may_list_models=False, may_register_keys=True, quota=quota)
    nobody = Tenant("nobody", frozenset(), may_list_models=False, may_register_keys=False)
    assert identities.tenants == {"clinic": clinic, "lab": lab, "nobody": nobody}
    assert set(identities.subjects) == {"CN=gateway, of a kind", "URI=spiffe://example.org/clinic"}
    assert set(identities.subjects.values()) == {clinic}
    token = identities.tokens[DIGEST]
    assert token.tenant is identities.tenants["clinic"]
    assert [token.fault(NOW - HOUR), token.fault(NOW), token.fault(NOW + HOUR)] == ["", "expired", "expired"]
    assert identities.tokens["cd" * 32].fault(NOW) == "revoked"


TENANT = '[tenants.a]\nmodels = ["*"]\n'
BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "no tenant"),
    "no tenants": (f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"', "no tenant"),
    "no TOML": ("[tenants.a", "Expected"),
    "no text": (b"\xff\xfe\0", "decode"),
    "a second table": (TENANT + TENANT, "twice|Cannot declare"),
    "an unknown word": (TENANT + "list_model = true", "'list_model'"),
    "an unknown table": ("[tenant.a]\n", "'tenant'"),
    "tenants that are none": ("tenants = 3", "tenants is not a dict"),
    "a tenant that is none": ("[tenants]\na = 3", "tenant 'a' is not a dict"),
    "a name in capitals": ("[tenants.A]", "tenant 'A'"),
    "a name with a slash": ('[tenants."a/b"]', "tenant 'a/b'"),
    "the anonymous tenant": ("[tenants.anonymous]", "is taken"),
    "models that are no list": ('[tenants.a]\nmodels = "*"', "models is not a list"),
    "a model that is no name": ("[tenants.a]\nmodels = [3]", "models is not a str"),
    "a permission that is no bool": ('[tenants.a]\nlist_models = "no"', "list_models is not a bool"),
    "a quota that is none": (TENANT + "quota = 3", "quota is not a dict"),
    "an unknown quota": (TENANT + "quota = { rows = 3 }", "not 'rows'"),
    "a quota of nothing": (TENANT + "quota = { key_bytes = 0 }", "key_bytes is not a number above 0"),
    "a quota that is no number": (TENANT + "quota = { key_bytes = true }", "key_bytes is not a number above 0"),
    "a certificate by its serial": ('[tenants.a]\ncertificates = ["serial=3"]', "neither CN="),
    "two tenants of one certificate": (
        '[tenants.a]\ncertificates = ["CN=x"]\n[tenants.b]\ncertificates = ["CN=x"]',
        "two tenants have the certificate 'CN=x'",
    ),
    "a token of nobody": (TENANT + f'[[tokens]]\ntenant = "b"\nsha256 = "{DIGEST}"', "token 1: there is no tenant 'b'"),
    "a token without a digest": (TENANT + '[[tokens]]\ntenant = "a"', "token 1: its sha256"),
    "a token twice": (TENANT + 2 * f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"\n', "token 2 is there twice"),
    "a token's unknown word": (TENANT + f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"\nexpiry = 3', "'expiry'"),
    "an expiry without a zone": (
        TENANT + f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"\nexpires = 2026-06-01T00:00:00',
        "lacks a zone",
    ),
    "an expiry that is a day": (
        TENANT + f'[[tokens]]\ntenant = "a"\nsha256 = "{DIGEST}"\nexpires = 2026-06-01',
        "expires is not a datetime",
    ),
    "tokens that are a table": (TENANT + "[tokens]", "tokens is not a list"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_refuses_a_file_that_is_not_right(name: str) -> None:
    content, message = BAD_FILES[name]
    with pytest.raises(UnusableFileError, match=message) as caught:
        read_identities(PATH, content if isinstance(content, bytes) else content.encode())
    assert str(caught.value).startswith("identities.toml: ")


@pytest.mark.parametrize(
    "text",
    [
        '[[tokens]]\ntenant = "a"\nsha256 = "{token}"',
        '[[tokens]]\ntenant = "{token}"\nsha256 = "' + DIGEST + '"',
        '[[tokens]]\ntenant = "a"\n{token} = "' + DIGEST + '"',
        "[tenants.{token}]",
        "{token}",
    ],
)
def test_never_repeats_a_token_that_stands_in_the_wrong_place(text: str) -> None:
    token = new_token()
    with pytest.raises(UnusableFileError) as caught:
        read_identities(PATH, (TENANT + text.format(token=token)).encode())
    assert token[10:20] not in str(caught.value)


# Calls


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
        return Authenticator().lets_pass(method, context)

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


# What a tenant may use


@pytest.fixture(scope="module")
def registry() -> ModelRegistry:
    return ModelRegistry(served(name, linear([[1.0, 2.0]])) for name in ("iris", "mnist", "wine"))


def test_a_model_that_a_tenant_may_not_use_is_not_there(registry: ModelRegistry) -> None:
    tenant = Tenant("clinic", frozenset({"iris", "wine", "of tomorrow"}))
    assert [one.model.name for one in registry.after("", tenant)] == ["iris", "wine"]
    assert [one.model.name for one in registry.after("iris", tenant)] == ["wine"]
    assert registry.get("wine", tenant).model.name == "wine"
    for name in ("mnist", "of tomorrow", "nix", ""):
        with pytest.raises(ModelNotFoundError) as caught:
            registry.get(name, tenant)
        assert vars(caught.value) == {"model": name}


def test_no_name_means_the_tenants_only_model(registry: ModelRegistry) -> None:
    assert registry.get("", Tenant("one", frozenset({"mnist", "nix"}))).model.name == "mnist"
    for tenant in (Tenant("none", frozenset()), Tenant("all")):
        with pytest.raises(ModelNotFoundError, match="name a model"):
            registry.get("", tenant)


# Files that change


def parse(contents: list[bytes]) -> bytes:
    joined = b"+".join(contents)
    if b"bad" in joined:
        raise UnusableFileError("it is bad")
    return joined


def errors(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno >= logging.ERROR for record in caplog.records)


def test_watched_files_follow_what_is_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    files = WatchedFiles([one, two], parse, interval_seconds=0)
    assert files.current() == b"1+2"
    two.write_bytes(b"3")  # as long as before, and maybe in the same tick of the clock
    assert files.current() == b"1+3"
    changes: list[Callable[[], object]] = [
        lambda: one.write_bytes(b"bad"),
        lambda: one.write_bytes(b"bad, too"),
        lambda: two.unlink(),
    ]
    for number, change in enumerate(changes, 1):
        change()
        assert [files.current() for _ in range(3)] == [b"1+3"] * 3
        assert errors(caplog) == number, "an error for every change, however often somebody asks"
    two.write_bytes(b"3")
    one.write_bytes(b"1")
    assert files.current() == b"1+3"
    assert errors(caplog) == 3
    one.unlink()
    one.symlink_to(two)
    assert files.current() == b"3+3"


def test_watched_files_are_not_read_for_every_question(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    files = WatchedFiles([path], parse, interval_seconds=3600)
    path.write_bytes(b"2")
    assert files.current() == b"1"


def test_watched_files_must_be_good_at_first(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match=r"missing.*No such file"):
        WatchedFiles([tmp_path / "missing"], parse)
    (tmp_path / "file").write_bytes(b"bad")
    with pytest.raises(UnusableFileError, match="it is bad"):
        WatchedFiles([tmp_path / "file"], parse)


# Tokens on the command line


def run_tokens(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    tokens.COMMAND.configure(parser)
    return tokens.COMMAND.run(parser.parse_args(arguments))


def test_a_new_token_and_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("0", "1e9", "inf", "nan", "many"):
        with pytest.raises(SystemExit):
            run_tokens("new", "--tenant", "clinic", "--days", wrong)
        assert f"{wrong!r} is not a number above 0 and at most 36500" in capsys.readouterr().err
    assert run_tokens("new", "--tenant", "clinic", "--days", "30") == 0
    captured = capsys.readouterr()
    token = captured.out.strip()
    assert token.startswith("sealserve_")
    assert len(token) == len("sealserve_") + 43
    assert token not in captured.err
    assert hashlib.sha256(token.encode()).hexdigest() in captured.err
    identities = read_identities(PATH, f"[tenants.clinic]\n{ALL}\n{captured.err}".encode())
    assert not identities.tokens[digest_of(token)].fault(datetime.now(UTC) + timedelta(days=29))
    assert identities.tokens[digest_of(token)].fault(datetime.now(UTC) + timedelta(days=30)) == "expired"


def test_new_tokens_join_their_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "identities.toml"
    path.write_text("[tenants.lab]  # no line break at the end")
    for tenant in ("clinic", "lab", "clinic"):
        assert run_tokens("new", "--tenant", tenant, "--file", str(path)) == 0
    made = capsys.readouterr().out.split()
    identities = read_identities(path, path.read_bytes())
    assert [identities.tokens[digest_of(token)].tenant.name for token in made] == ["clinic", "lab", "clinic"]
    assert identities.tenants["clinic"] == Tenant("clinic")
    assert not identities.tenants["lab"].may_list_models
    assert not [token for token in made if token in path.read_text()]

    assert run_tokens("check", str(path)) == 0
    report = capsys.readouterr().out
    assert "clinic               yes   yes        2            0  all" in report
    assert "lab                  no    no         1            0  none" in report
    assert report.count("good for ever") == 3


def test_a_new_token_makes_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "identities.toml"
    assert run_tokens("new", "--tenant", "clinic", "--file", str(path)) == 0
    assert authenticated(Authenticator(path), f"Bearer {capsys.readouterr().out.strip()}") == "clinic"


def test_tokens_refuses_what_makes_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="'Clinic' names no tenant"):
        run_tokens("new", "--tenant", "Clinic")
    path = tmp_path / "identities.toml"
    path.write_text("[tenants.")
    for command in (["new", "--tenant", "clinic", "--file"], ["check"]):
        with pytest.raises(UnusableFileError, match=r"identities\.toml"):
            run_tokens(*command, str(path))
    assert path.read_text() == "[tenants."
    assert capsys.readouterr().out == ""


# The client's side


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
    assert Credentials().use_tls(address) is not is_local
    assert Credentials(token="t").use_tls(address) is not is_local
    assert Credentials(server_name="x").use_tls(address)
    assert Credentials(ca_certificate=b"x").use_tls(address)
    assert not Credentials(insecure=True).use_tls(address)


@given(text=st.text(max_size=30))
def test_any_address_is_one_or_the_other(text: str) -> None:
    assert is_loopback(host_of(text)) in (True, False)


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
    path.write_bytes(b"-----BEGIN CERTIFICATE-----")
    assert pem(path) == pem(str(path)) == pem(b"-----BEGIN CERTIFICATE-----") == path.read_bytes()
    assert pem(None) is None
    for bad in (tmp_path / "missing", tmp_path, b"no PEM"):
        with pytest.raises(CredentialsError):
            pem(bad)
