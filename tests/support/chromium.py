"""Chromium, which runs the TypeScript SDK's tests of browsers without a window.

In CI, or where the environment asks for it, a test that needs it installs it: Debian has a package.
"""

import os
import shutil
import subprocess

import pytest

from tests.support.serving import ROOT

_INSTALL = "SEALSERVE_INSTALL_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def require() -> str:
    """Return the executable of Chromium. Skip the test where there is none."""
    if not (found := _find()) and (os.environ.get("CI") == "true" or os.environ.get(_INSTALL) == "1"):
        subprocess.run([ROOT / ".ci/install_chromium"], check=True)
        found = _find()
        assert found, "Chromium was installed, and is not on PATH"
    if not found:
        pytest.skip(f"Chromium is missing: `make chromium`, or {_INSTALL}=1")
    return found


def _find() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)
