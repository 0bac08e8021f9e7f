"""deploy/aci/README.md as a program: its blocks of code, and what its commands make."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.serving import HANG_SECONDS, ROOT

README = (ROOT / "deploy/aci/README.md").read_text()


@dataclass(frozen=True)
class Made:
    """What a reader has after the step about certificates and a token."""

    directory: Path
    token: str


def blocks(language: str) -> list[str]:
    """The blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def certificates_and_token(directory: Path, name: str, region: str) -> Made:
    """Do as the step about certificates and a token says."""
    (block,) = [block for block in blocks("bash") if "openssl" in block]
    programs, made = directory / "bin", directory / "tls"
    programs.mkdir()
    (programs / "sealserve").write_text(f'#!/bin/sh\nexec {sys.executable} -m sealserve.cli.main "$@"\n')
    (programs / "sealserve").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    token = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{block}\necho $SEALSERVE_TOKEN"],  # noqa: S607
        env={**os.environ, "PATH": path, "ACI_NAME": name, "ACI_REGION": region, "ACI_TLS": str(made)},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=True,
    ).stdout.strip()
    return Made(made, token)
