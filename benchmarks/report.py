"""The report of a benchmark: what it says about its run, and how tables are rendered."""

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

OUTPUT = Path("build/bench")
FIRST = OUTPUT / "first"  # of two runs: see `repeat`
_PACKAGES = ("sealserve", "seal-python", "grpcio", "numpy", "scikit-learn", "encrypted-inference", "tenseal")


def described_run() -> dict[str, Any]:
    """Describe the machine and the versions; makes the folder for the results."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    return {
        "commit": _commit(),
        "machine": {
            "processor": _processor(),
            "cores": psutil.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30),
        },
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
    }


def _commit() -> str:
    """The commit that is measured; "" outside a clone."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _processor() -> str:
    names = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


def undisturbed(times: Sequence[float]) -> float:
    """Return the lower decile of times of the same work: the time that it takes undisturbed.

    A disturbance only ever adds time, and lasts for seconds or minutes. From run to run the lower
    decile is steadier than the median, and steadier than the minimum, which is luck.
    """
    return float(np.quantile(times, 0.1))


def percent(share: float) -> str:
    """Write a share in whole percent."""
    return f"{100 * share:.0f} %"


def render(rows: Sequence[Sequence[str]]) -> str:
    """Render rows of cells as a Markdown table; the first is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *body = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([head, "|" + "|".join("-" * (width + 2) for width in widths) + "|", *body])
