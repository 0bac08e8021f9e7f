"""Kustomize and the check of manifests: `make kubernetes-tools` installs both."""

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
    reason = "Kustomize and kubernetes-validate are not installed: `make kubernetes-tools`"
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
    """What Kubernetes would find wrong with manifests, by their schemas."""
    return _checked(".ci/check_manifests.py", yaml.safe_dump_all(manifests))


def _checked(program: str, text: str) -> list[str]:
    require()
    done = subprocess.run([_PYTHON, ROOT / program], input=text, capture_output=True, text=True, check=False)
    *found, summary = done.stdout.splitlines() or [done.stderr]
    assert summary.endswith(f"{len(found)} faults"), done.stderr
    assert done.returncode == (1 if found else 0)
    return found
