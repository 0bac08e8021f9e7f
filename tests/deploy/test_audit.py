"""`make audit` and `make sbom`: what is reported, what is accepted, and what could not be asked."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import ROOT

ADVISORY = {"id": "PYSEC-2030-1", "aliases": ["CVE-2030-7"], "fix_versions": ["1.1"], "description": ""}
CLEAN = {"name": "numpy", "version": "2.0", "vulns": []}
VULNERABLE = {"name": "protobuf", "version": "1.0", "vulns": [ADVISORY]}
SKIPPED = {"name": "grpcio", "skip_reason": "Dependency not found on PyPI and could not be audited: grpcio (1.85.1)"}


def audit(path: Path, dependencies: list[dict[str, Any]] | None, exceptions: str = "") -> tuple[int, str]:
    """Run the program with a pip-audit that answers so; return exit code and output."""
    shutil.copy(ROOT / ".ci/audit.py", path)
    (path / "advisories.toml").write_text(exceptions)
    answer = "" if dependencies is None else json.dumps({"dependencies": dependencies, "fixes": []})
    tool = path / "pip-audit"
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit 1\n")
    tool.chmod(0o755)
    command = [sys.executable, str(path / "audit.py"), str(tool), "a.lock", "b.lock"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout


def exception(name: str = "CVE-2030-7", until: str = "2999-12-31", reason: str = "we do not call it") -> str:
    return f'[[exceptions]]\nid = "{name}"\nuntil = {until}\nreason = "{reason}"\n'


def test_nothing_is_known(tmp_path: Path) -> None:
    code, output = audit(tmp_path, [CLEAN])
    assert (code, output.splitlines()[-1]) == (0, "no known vulnerabilities")


def test_an_advisory_fails(tmp_path: Path) -> None:
    code, output = audit(tmp_path, [CLEAN, VULNERABLE])
    assert code == 1
    assert "b.lock: protobuf 1.0: PYSEC-2030-1; fixed in 1.1" in output


@pytest.mark.parametrize("name", ["PYSEC-2030-1", "CVE-2030-7"])
def test_an_exception_is_accepted_under_any_of_its_names(tmp_path: Path, name: str) -> None:
    assert audit(tmp_path, [VULNERABLE], exception(name))[0] == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (exception(until="2020-01-31"), "expired on 2020-01-31"),
        (exception(until='"soon"'), "a date until which it holds"),
        (exception(reason=" "), "and a reason"),
        ('[[exceptions]]\nid = "CVE-2030-7"', "has an id, a date"),
        (exception() + exception("CVE-2030-8"), "CVE-2030-8 concerns no package any more"),
    ],
)
def test_an_exception_that_does_not_hold_fails(tmp_path: Path, text: str, fault: str) -> None:
    code, output = audit(tmp_path, [VULNERABLE], text)
    assert code == 1
    assert fault in output


@pytest.mark.parametrize("dependencies", [[CLEAN, SKIPPED], None], ids=["a package is unknown", "no answer"])
def test_what_was_not_looked_up_is_not_taken_for_clean(
    tmp_path: Path, dependencies: list[dict[str, Any]] | None
) -> None:
    code, output = audit(tmp_path, dependencies)
    assert code == 2
    assert "a.lock was NOT audited" in output
    assert "this machine does not reach them" in output
    assert "no known vulnerabilities" not in output


def test_the_exceptions_of_this_project_are_dated_and_reasoned() -> None:
    program = (
        "import audit, tomllib; from datetime import date\n"
        "for found in tomllib.loads(audit.EXCEPTIONS.read_text())['exceptions']:\n"
        "    assert not audit.fault_of(found, date.min), found"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT / ".ci", check=True)


def test_every_lock_is_audited_and_check_audits_none() -> None:
    def commands(target: str) -> str:
        command = ["make", "--no-print-directory", "--dry-run", target]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    for lock in ROOT.glob("requirements*.lock"):
        assert lock.name in commands("audit")
        assert lock.name in commands("sbom")
    assert "pip-audit" not in commands("check")
    assert "audit.py" not in commands("check")
