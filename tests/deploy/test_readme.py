"""deploy/aci/README.md: what it says to type exists, and works as far as it can without Azure."""

import re
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from sealserve_service.tenants.identities import digest_of, read_identities
from tests.support.guide import README, blocks, certificates_and_token
from tests.support.serving import ROOT
from tests.support.templates import VARIABLE, YAML

SCRIPTS = "".join((ROOT / "deploy/aci" / name).read_text() for name in ("deploy", "smoke", "delete"))


def test_the_commands_are_bash() -> None:
    bash = shutil.which("bash")
    assert bash
    for block in blocks("bash"):
        assert subprocess.run([bash, "-n"], input=block, text=True, check=False).returncode == 0, block


def test_every_variable_is_told_of() -> None:
    used = set(re.findall(r"ACI_[A-Z_]+", SCRIPTS)) - {"ACI_RETRY_SECONDS", "ACI_POLL_SECONDS"}  # of the tests
    assert used <= set(re.findall(r"ACI_[A-Z_]+", README))
    exported = set(re.findall(r"(?:export|^|\s)([A-Z0-9_]+)=", "\n".join(blocks("bash"))))
    assert set(VARIABLE.findall(YAML)) <= exported


def test_its_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {word for line in re.findall(r"^make ([a-z -]+)", "\n".join(blocks("bash")), re.M) for word in line.split()}
    assert {"image", "push-image", "deploy-aci", "smoke-aci", "delete-aci"} <= named
    assert all(re.search(rf"^{target}:.*## ", makefile, re.MULTILINE) for target in named)


@pytest.mark.parametrize("link", re.findall(r"\]\(((?!https?:)[^)#]+)", README))
def test_its_links_lead_somewhere(link: str) -> None:
    assert (ROOT / "deploy/aci" / link).exists()


def test_its_certificates_and_token_are_good(tmp_path: Path) -> None:
    made = certificates_and_token(tmp_path, "scorer", "westeurope")
    identities = made.directory / "identities.toml"
    known = read_identities(identities, identities.read_bytes())
    assert known.tokens[digest_of(made.token)].tenant.name == "me"
    assert made.token not in identities.read_text()
    context = ssl.create_default_context(cafile=made.directory / "ca.crt")
    assert len(context.get_ca_certs()) == 1
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
        made.directory / "tls.crt", made.directory / "tls.key"
    )
    assert made.directory.stat().st_mode & 0o77 == 0
