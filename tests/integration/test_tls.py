"""TLS over real sockets: who is trusted, and certificates that change while serving.

Plaintext is refused where it has no place.
"""

import dataclasses
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.credentials import Credentials
from sealserve.errors import UnauthenticatedError, UnavailableError
from sealserve_service.process.supervisor import run
from sealserve_service.rpc.certificates import server_credentials
from sealserve_service.settings import Settings
from sealserve_service.settings.errors import AddressError
from sealserve_service.watched_files import UnusableFileError
from tests.support import programs
from tests.support.certificates import DAY, Authority, Pair
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.raw import RawClient, assert_scores
from tests.support.serving import HANG_SECONDS, SETTINGS, digits_registry, running_server
from tests.support.waiting import wait_until

OURS, THEIRS = Authority("ours"), Authority("theirs")
TRUSTING = Credentials(ca_certificate=OURS.certificate)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return OURS.issue("service.example.org").write(tmp_path)


@pytest.fixture
def settings(files: tuple[Path, Path]) -> Settings:
    return SETTINGS.with_changes(tls_certificate=files[0], tls_private_key=files[1])


@pytest.fixture
def client_ca(tmp_path: Path) -> Path:
    path = tmp_path / "clients.pem"
    path.write_bytes(OURS.certificate)
    return path


@pytest.fixture
def tls_server(digits_model: Digits, settings: Settings) -> Iterator[str]:
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        yield address


def showing(pair: Pair) -> Credentials:
    return dataclasses.replace(TRUSTING, client_certificate=pair.certificate, client_key=pair.key)


def predicts(address: str, digits: Digits, credentials: Credentials | None) -> bool:
    """Whether a client gets right answers; False if it cannot connect."""
    with Client(address, credentials=credentials, timeout_seconds=HANG_SECONDS) as client:
        try:
            scores = client.decision_function(digits.X[:2])
        except UnavailableError:
            return False
    assert np.abs(scores - digits.scores[:2]).max() < 0.01
    return True


def test_a_client_that_trusts_the_authority(tls_server: str, digits_model: Digits, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(OURS.certificate)
    assert predicts(tls_server, digits_model, TRUSTING)
    assert predicts(tls_server, digits_model, Credentials(ca_certificate=path))
    assert predicts(tls_server, digits_model, dataclasses.replace(TRUSTING, server_name="service.example.org"))


def test_a_probe_trusts_the_certificate_itself(
    tls_server: str, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is beside the service, where the certificate is and its authority may not be."""
    trust = ["--ca-certificate", str(files[0]), "--server-name", "service.example.org"]
    assert main(["health", "--address", tls_server, *trust]) == 0
    assert capsys.readouterr().out == "SERVING\n"


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials(ca_certificate=THEIRS.certificate),
        Credentials(server_name="service.example.org"),
        dataclasses.replace(TRUSTING, server_name="another.example.org"),
        Credentials(),
    ],
    ids=["another authority", "the public authorities", "another name", "plaintext"],
)
def test_a_client_that_does_not(tls_server: str, digits_model: Digits, credentials: Credentials) -> None:
    assert not predicts(tls_server, digits_model, credentials)
    assert predicts(tls_server, digits_model, TRUSTING)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_spoken_is_tls_of_this_decade(tls_server: str, version: ssl.TLSVersion) -> None:
    host, _, port = tls_server.rpartition(":")
    context = ssl.create_default_context(cadata=OURS.certificate.decode())
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((host, int(port)), HANG_SECONDS) as connection,
        context.wrap_socket(connection, server_hostname=host) as spoken,
    ):
        assert spoken.version() == version.name.replace("_", ".")


# Mutual TLS


def test_mutual_tls_wants_a_certificate_of_its_authority(
    settings: Settings, client_ca: Path, digits_model: Digits
) -> None:
    settings = settings.with_changes(tls_client_ca=client_ca)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        assert predicts(address, digits_model, showing(OURS.issue("somebody")))
        refused = {
            "none": TRUSTING,
            "of another authority": showing(THEIRS.issue("somebody")),
            "expired": showing(OURS.issue("somebody", expires=timedelta(seconds=-1))),
            "with another's key": showing(Pair(OURS.issue("one").certificate, OURS.issue("two").key)),
        }
        assert {name: predicts(address, digits_model, shown) for name, shown in refused.items()} == dict.fromkeys(
            refused, False
        )
        assert predicts(address, digits_model, showing(OURS.issue("somebody else")))


def test_certificates_of_known_subjects_need_no_token(
    settings: Settings, client_ca: Path, digits_model: Digits, tmp_path: Path
) -> None:
    file = IdentitiesFile(
        tmp_path / "identities.toml",
        gateway=f'{ALL}\ncertificates = ["CN=gateway"]',
        lab=f'{ALL}\ncertificates = ["URI=spiffe://example.org/lab"]',
        clinic=ALL,
    )
    token = file.token("clinic")
    settings = settings.with_changes(tls_client_ca=client_ca, identities=file.path)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        assert predicts(address, digits_model, showing(OURS.issue("gateway")))
        assert predicts(address, digits_model, showing(OURS.issue("x", uri="spiffe://example.org/lab")))
        stranger = showing(OURS.issue("stranger"))
        assert predicts(address, digits_model, dataclasses.replace(stranger, token=token))
        wrong = dataclasses.replace(showing(OURS.issue("gateway")), token=f"{token}x")
        for credentials in (stranger, wrong):
            with pytest.raises(UnauthenticatedError):
                predicts(address, digits_model, credentials)
        assert not predicts(address, digits_model, dataclasses.replace(TRUSTING, token=token))


# Changes


def test_a_new_certificate_is_served_while_a_stream_is_open(
    settings: Settings, digits_model: Digits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    X, scores = digits_model.X, digits_model.scores
    trusting_theirs = Credentials(ca_certificate=THEIRS.certificate)
    with (
        running_server(digits_registry(digits_model.estimator), settings) as address,
        RawClient(address, credentials=TRUSTING) as raw,
        raw.conversation() as stream,
    ):
        stream.send(raw.item(1, X[0]))
        assert_scores(next(stream.answers)[1], scores[0])

        caplog.clear()
        (tmp_path / "server.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
        assert predicts(address, digits_model, TRUSTING)
        theirs = THEIRS.issue("service.example.org")
        (tmp_path / "server.crt").write_bytes(theirs.certificate)  # the key is still of the old one
        assert predicts(address, digits_model, TRUSTING)
        assert [record.levelname for record in caplog.records if record.name.startswith("sealserve")] == ["ERROR"] * 2
        assert "no certificates in PEM" in caplog.text
        assert "is not the private key of" in caplog.text
        caplog.clear()

        theirs.write(tmp_path)
        assert predicts(address, digits_model, trusting_theirs)
        assert not predicts(address, digits_model, TRUSTING)

        (tmp_path / "server.key").unlink()
        assert predicts(address, digits_model, trusting_theirs)
        assert [record.levelname for record in caplog.records if record.name.startswith("sealserve")] == ["ERROR"]

        stream.send(raw.item(2, X[1]))
        assert_scores(next(stream.answers)[1], scores[1])


@pytest.mark.slow
def test_a_certificate_that_is_not_valid_yet_replaces_none_until_it_is(
    settings: Settings, digits_model: Digits, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soon = timedelta(seconds=4)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        THEIRS.issue("service.example.org", begins=soon).write(tmp_path)
        for _ in range(2):
            assert predicts(address, digits_model, TRUSTING)
        errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        assert "is not valid before" in errors[0]
        wait_until(lambda: predicts(address, digits_model, Credentials(ca_certificate=THEIRS.certificate)))
        assert not predicts(address, digits_model, TRUSTING)


def test_authorities_between_are_served_with_the_certificate(
    settings: Settings, digits_model: Digits, tmp_path: Path
) -> None:
    issue_below(tmp_path, BETWEEN)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        assert predicts(address, digits_model, TRUSTING)


def test_an_authority_that_is_cut_short_changes_nothing(
    settings: Settings, client_ca: Path, digits_model: Digits, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings.with_changes(tls_client_ca=client_ca)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        client_ca.write_bytes(THEIRS.certificate + OURS.certificate[:-30])
        assert predicts(address, digits_model, showing(OURS.issue("client")))
        assert not predicts(address, digits_model, showing(THEIRS.issue("client")))
        assert "is cut short" in caplog.text


def test_the_authority_of_clients_may_change(settings: Settings, client_ca: Path, digits_model: Digits) -> None:
    settings = settings.with_changes(tls_client_ca=client_ca)
    theirs, ours = showing(THEIRS.issue("client")), showing(OURS.issue("client"))
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        assert predicts(address, digits_model, ours)
        assert not predicts(address, digits_model, theirs)
        client_ca.write_bytes(THEIRS.certificate)
        assert predicts(address, digits_model, theirs)
        assert not predicts(address, digits_model, ours)
        client_ca.write_bytes(THEIRS.certificate + OURS.certificate)
        assert predicts(address, digits_model, theirs)
        assert predicts(address, digits_model, ours)


# Files at the start


def spoiled(name: str, content: bytes | None) -> Callable[[Path], object]:
    def spoil(directory: Path) -> None:
        if content is None:
            (directory / name).unlink()
        else:
            (directory / name).write_bytes(content)

    return spoil


BETWEEN, BETWEEN_EXPIRED = Authority("between"), Authority("between, expired", expires=-DAY)


def append(directory: Path, data: bytes) -> None:
    with (directory / "server.crt").open("ab") as file:
        file.write(data)


def issue_below(directory: Path, between: Authority) -> None:
    """Write a certificate that an authority between has signed, and then that of this authority."""
    between.issue("service.example.org").write(directory)
    append(directory, OURS.certify(between))


BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no certificate": (spoiled("server.crt", None), r"server\.crt: No such file"),
    "no key": (spoiled("server.key", None), r"server\.key: No such file"),
    "an empty certificate": (spoiled("server.crt", b""), r"server\.crt: there are no certificates"),
    "nonsense for a key": (spoiled("server.key", b"nonsense"), r"server\.key: it is not a private key"),
    "another's key": (spoiled("server.key", OURS.issue("another").key), "is not the private key of"),
    "an expired certificate": (
        lambda directory: OURS.issue("x", expires=timedelta(seconds=-1)).write(directory),
        "has expired on",
    ),
    "a certificate of tomorrow": (
        lambda directory: OURS.issue("x", begins=DAY, expires=2 * DAY).write(directory),
        r"server\.crt: the certificate is not valid before 20",
    ),
    "a certificate that is cut short": (
        lambda directory: (directory / "server.crt").write_bytes((directory / "server.crt").read_bytes()[:-40]),
        r"server\.crt: the file is cut short: 1 certificates begin in it, and 0 end",
    ),
    "another's authority after it": (
        lambda directory: append(directory, THEIRS.certificate),
        r"server\.crt: certificate 2 is not that of the authority that signed",
    ),
    "one between that has expired": (
        lambda directory: issue_below(directory, BETWEEN_EXPIRED),
        r"server\.crt: certificate 2 has expired on",
    ),
    "one between that is no authority": (
        lambda directory: append(directory, OURS.issue("no authority").certificate),
        r"server\.crt: certificate 2 is not that of the authority",
    ),
    "nonsense for an authority": (spoiled("clients.pem", b"nonsense"), r"clients\.pem: there are no certificates"),
    "an authority that is cut short": (
        spoiled("clients.pem", OURS.certificate + THEIRS.certificate[:-30]),
        r"clients\.pem: the file is cut short: 2 certificates begin in it, and 1 end",
    ),
    "an authority that has expired": (
        spoiled("clients.pem", Authority("old", expires=-DAY).certificate),
        r"clients\.pem: no certificate is valid now: the first one has expired on",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_not_right_stop_the_start(
    name: str, files: tuple[Path, Path], client_ca: Path, tmp_path: Path
) -> None:
    spoil, message = BAD_FILES[name]
    spoil(tmp_path)
    with pytest.raises(UnusableFileError, match=message):
        server_credentials(*files, client_ca)


def test_a_key_is_not_repeated_in_errors(files: tuple[Path, Path]) -> None:
    text = files[1].read_text().splitlines()
    files[1].write_text("\n".join([*text[:-1], text[1], text[-1]]))
    with pytest.raises(UnusableFileError) as caught:
        server_credentials(*files, None)
    assert text[1][:16] not in str(caught.value)
    assert caught.value.__cause__ is None


# Plaintext


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:50051", "example.org:50051"])
@pytest.mark.parametrize("processes", [1, 2])
def test_plaintext_is_served_on_loopback_only(address: str, processes: int) -> None:
    with pytest.raises(AddressError, match="--insecure"):
        run(Settings(address=address, processes=processes))


def test_plaintext_elsewhere_is_asked_for_aloud(digits_model: Digits) -> None:
    with pytest.raises(AddressError, match="can be reached from other machines"):
        SETTINGS.with_changes(address="0.0.0.0:0")
    settings = SETTINGS.with_changes(address="0.0.0.0:0", insecure=True)
    with running_server(digits_registry(digits_model.estimator), settings) as address:
        assert predicts(address, digits_model, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tls-certificate", "x"], "go together"),
        (["--tls-private-key", "x"], "go together"),
        (["--tls-client-ca", "x"], "needs --tls-certificate"),
        (["--tls-certificate", "x", "--tls-private-key", "y", "--insecure"], "choose one"),
    ],
)
def test_options_that_contradict_each_other(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--model", "a.npz", *options]) == 1
    assert message in capsys.readouterr().err


# The programs


@pytest.mark.slow
def test_the_programs(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From nothing: a service with TLS and a token, configured by its environment.

    Then the commands that use it.
    """
    np.savez(tmp_path / "line.npz", coef=np.array([1.0, -2.0]), intercept=np.array(0.5))
    np.save(tmp_path / "rows.npy", np.array([[1.0, 0.5]]))
    (tmp_path / "ca.pem").write_bytes(OURS.certificate)
    file = IdentitiesFile(tmp_path / "identities.toml", clinic=ALL)
    (tmp_path / "token").write_text(file.token("clinic") + "\n")
    with programs.serve(
        *("--model", str(tmp_path / "line.npz"), "--input-range", "0,1", "--processes", "2"),
        address="0.0.0.0:0",
        SEALSERVE_TLS_CERTIFICATE=str(files[0]),
        SEALSERVE_TLS_PRIVATE_KEY=str(files[1]),
        SEALSERVE_IDENTITIES=str(file.path),
    ) as program:
        service = ["--address", program.address.replace("0.0.0.0", "127.0.0.1"), "--timeout", "20"]  # noqa: S104
        tls = ["--ca-certificate", str(tmp_path / "ca.pem"), "--server-name", "service.example.org"]
        rows = ["--input", str(tmp_path / "rows.npy")]
        assert main(["health", *service, *tls]) == 0
        assert main(["predict", *service, *tls, "--token-file", str(tmp_path / "token"), *rows]) == 0
        assert capsys.readouterr().out.split()[0] == "SERVING"
        assert main(["predict", *service, *tls, *rows]) == 1
        assert "no valid credentials" in capsys.readouterr().err
        assert main(["models", "list", *service, "--token-file", str(tmp_path / "token")]) == 1
        assert "cannot be reached" in capsys.readouterr().err

        monkeypatch.setenv("SEALSERVE_TOKEN", (tmp_path / "token").read_text().strip())
        monkeypatch.setenv("SEALSERVE_CA_CERTIFICATE", str(tmp_path / "ca.pem"))
        assert main(["models", "list", *service]) == 0
        assert main(["predict", *service, *rows]) == 0
        assert float(capsys.readouterr().out.split()[-1]) == pytest.approx(0.5, abs=1e-2)
        assert main(["keys", "list", *service]) == 1  # several processes keep no keys in memory
        assert "UNIMPLEMENTED" in capsys.readouterr().err


def test_a_token_file_without_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "token").write_text("\n")
    assert main(["models", "list", "--token-file", str(tmp_path / "token")]) == 1
    assert "holds no token" in capsys.readouterr().err
    assert main(["models", "list", "--token-file", str(tmp_path / "missing")]) == 1
    assert "No such file" in capsys.readouterr().err
