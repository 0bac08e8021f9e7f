"""Kustomize, the check of manifests, and podman-compose: `make kubernetes-tools` installs them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.serving import ROOT

MANIFESTS = ROOT / "deploy/kubernetes"
_TOOLS = ROOT / "build/kubernetes"
_KUSTOMIZE, _PYTHON = _TOOLS / "bin/kustomize", _TOOLS / "bin/python"


def require() -> None:
    """Skip the test where the tools are not installed; in CI that is a failure."""
    if _KUSTOMIZE.is_file() and (_TOOLS / ".installed").is_file():
        return
    reason = "Kustomize and what checks manifests are not installed: `make kubernetes-tools`"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def rendered(directory: Path) -> list[Any]:
    """The manifests that Kustomize makes of a directory."""
    require()
    done = subprocess.run([_KUSTOMIZE, "build", directory], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def faults(manifests: list[Any]) -> list[str]:
    """What Kubernetes, or Compose, would find wrong with manifests, by their schemas."""
    require()
    done = subprocess.run(
        [_PYTHON, ROOT / ".ci/check_manifests.py"],
        input=yaml.safe_dump_all(manifests),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    *found, summary = done.stdout.splitlines()
    assert summary == f"{len(manifests)} manifests, {len(found)} faults"
    assert done.returncode == (1 if found else 0)
    return found


def podman_compose() -> Path:
    """The program that runs a Compose file with podman."""
    require()
    return _TOOLS / "bin/podman-compose"
