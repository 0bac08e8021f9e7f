"""Unmodified tritonclient and KServe SDK, in their own environment: scikit-learn's predictions."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.agent_models import COLUMNS, AgentModels, agent_models, check_predictions, registry_of
from tests.support.agents import Agent, running_agent, strings
from tests.support.digits import Digits, digits
from tests.support.serving import HANG_SECONDS, ROOT, registered_keys, running_server

PYTHON = ROOT / "build/inference/bin/python"
ROWS = 1000
TOKEN = "the-token"  # noqa: S105


@pytest.fixture(scope="module")
def models(digits_model: Digits) -> AgentModels:
    return agent_models(digits_model, 1500)


@pytest.fixture(scope="module")
def agent(models: AgentModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Agent, Path]]:
    """An agent on a Unix socket and over REST; with a folder."""
    if not PYTHON.exists():
        reason = "tritonclient and kserve are not installed: make inference-tools"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    keys, folder = registered_keys(), tmp_path_factory.mktemp("models")
    with (
        running_server(registry_of(models, keys, folder), keys=keys) as address,
        running_agent(address, token=TOKEN, address=f"unix:{folder / 'agent.sock'}") as agent,
    ):
        yield agent, folder


@pytest.mark.long
@pytest.mark.parametrize(
    ("caller", "kind"),
    [
        ("triton", "grpc"),
        ("triton", "http"),
        ("triton", "json"),
        ("kserve", "grpc"),
        ("kserve", "grpc_typed"),
        ("kserve", "http"),
        ("kserve", "json"),
    ],
)
def test_labels_and_probabilities_are_scikit_learns(
    models: AgentModels, agent: tuple[Agent, Path], caller: str, kind: str
) -> None:
    running, folder = agent
    place = f"unix://{folder / 'agent.sock'}" if kind.startswith("grpc") else f"127.0.0.1:{running.http_port}"
    if caller == "kserve" and not kind.startswith("grpc"):
        place = f"http://{place}"
    frame, rows = models.frame[:ROWS], {"digits": digits()[1][-ROWS:], "trees": models.normal[:ROWS]}
    tensors: dict[str, Any] = {f"{name}/rows": values for name, values in rows.items()}
    for name in COLUMNS:
        column = frame[name]
        tensors[f"table/{name}"] = strings(column) if column.dtype == object else column.to_numpy()
    np.savez(folder / "inputs.npz", **tensors)
    command = [PYTHON, ROOT / f"tests/support/{caller}_caller.py", kind, place, TOKEN]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [*map(str, command), str(folder / "inputs.npz"), str(folder / "outputs.npz")],
        env=environment,
        timeout=10 * HANG_SECONDS,
        check=True,
    )
    with np.load(folder / "outputs.npz", allow_pickle=True) as found:
        for name, X in (rows | {"table": frame}).items():
            estimator = models.estimators[name]
            labels = found[f"{name}/label"]
            if labels.dtype == object:  # bytes from raw contents, strings from JSON
                labels = np.array([label if isinstance(label, str) else label.decode() for label in labels])
            check_predictions(estimator, X, labels, found[f"{name}/score"], found[f"{name}/probability"])
