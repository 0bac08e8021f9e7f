"""`sealserve tokens`: new tokens, their file, and what the file holds."""

import argparse
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sealserve.errors import InputError
from sealserve_service.commands import tokens
from sealserve_service.tenants.authenticator import Authenticator
from sealserve_service.tenants.identities import digest_of, read_identities
from sealserve_service.tenants.tenant import Tenant
from sealserve_service.watched_files import UnusableFileError
from tests.support.identities import ALL, authenticated

PATH = Path("identities.toml")


def run_tokens(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    tokens.COMMAND.configure(parser)
    return tokens.COMMAND.run(parser.parse_args(arguments))


def test_days_are_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("0", "1e9", "inf", "nan", "many"):
        with pytest.raises(SystemExit):
            run_tokens("new", "--tenant", "clinic", "--days", wrong)
        assert f"{wrong!r} is not a number above 0 and at most 36500" in capsys.readouterr().err


def test_a_new_token_and_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
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
    assert "clinic               yes   yes   yes                  2            0  all" in report
    assert "lab                  no    no    yes                  1            0  none" in report
    assert report.count("good for ever") == 3


def test_a_new_token_makes_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "identities.toml"
    assert run_tokens("new", "--tenant", "clinic", "--file", str(path)) == 0
    assert authenticated(Authenticator(path), f"Bearer {capsys.readouterr().out.strip()}") == "clinic"


def test_tokens_refuses_what_makes_no_sense(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="'Clinic' is no name of a tenant"):
        run_tokens("new", "--tenant", "Clinic")
    path = tmp_path / "identities.toml"
    path.write_text("[tenants.")
    for command in (["new", "--tenant", "clinic", "--file"], ["check"]):
        with pytest.raises(UnusableFileError, match=r"identities\.toml"):
            run_tokens(*command, str(path))
    assert path.read_text() == "[tenants."
    assert capsys.readouterr().out == ""
