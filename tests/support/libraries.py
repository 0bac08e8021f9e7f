"""Libraries that only tests need."""

import importlib
import os
from typing import Any

import pytest


def library(name: str) -> Any:
    """Import a library; skip the tests without it, except in CI, where that is a failure."""
    if os.environ.get("CI") == "true":
        return importlib.import_module(name)
    return pytest.importorskip(name)
