"""The settings of a service: frozen, from flags and environment. Nothing else reads the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sealserve.model import Limits

DEFAULT_ADDRESS = "127.0.0.1:50051"


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from and what the operator says of it.

    Attributes:
        input_range, input_step, calibration: at most what the model's own scaler does not tell.
        max_score_error: the wanted error bound; None leaves it to the planner.
    """

    name: str
    path: Path
    input_range: tuple[float, float] | None = None
    input_step: float | None = None
    calibration: Path | None = None
    max_score_error: float | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that a serving process is told.

    Attributes:
        share_port: several processes listen on one port (SO_REUSEPORT).
        grace_seconds: how long work in flight may go on after SIGTERM.
        max_concurrent_calls: calls that one process serves at once; further ones get RESOURCE_EXHAUSTED.
    """

    address: str = DEFAULT_ADDRESS
    processes: int = 1
    log_level: str = "info"
    trust_pickle: bool = False
    models: tuple[ModelSource, ...] = ()
    share_port: bool = False
    grace_seconds: float = 20.0
    max_concurrent_calls: int = 256
    limits: Limits = field(
        default_factory=lambda: Limits(
            max_message_bytes=2 << 20, max_open_items=256, item_timeout_seconds=60.0, window_bytes=8 << 20
        )
    )


def from_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the defaults of flags that the environment sets: SEALSERVE_ADDRESS and so on, keyed by flag."""
    names = ("address", "processes", "log_level")
    return {name: environment[key] for name in names if (key := f"SEALSERVE_{name.upper()}") in environment}
