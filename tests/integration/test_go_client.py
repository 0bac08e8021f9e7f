"""The native Go client: its tests against the vectors, and against services that run here."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.client import Client
from tests.support import go
from tests.support.agent_models import AgentModels, agent_models, registry_of
from tests.support.azurite import free_port
from tests.support.digits import Digits
from tests.support.programs import serve
from tests.support.serving import registered_keys, running_server
from tests.support.waiting import wait_until

ROWS = 1000


def passed(*arguments: str, variables: dict[str, str] | None = None) -> str:
    """Run Go's tests, all of which have to pass."""
    found = go.run("test", "-count=1", "-v", *arguments, variables=variables)
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-4000:]
    return found.stdout


@pytest.mark.slow
def test_the_client_is_proven_by_the_vectors() -> None:
    """Go's own test fails if a file of the vectors is not read."""
    printed = passed("./...")
    skipped = set(re.findall(r"--- SKIP: (\w+)", printed))
    assert skipped == {
        name for name in re.findall(r"=== RUN   (\w+)", printed) if name.startswith(("TestLive", "TestCross"))
    }
    assert "--- PASS: TestVectorReplies" in printed


@pytest.mark.slow
def test_predictions_are_those_of_scikit_learn(digits_model: Digits, tmp_path: Path) -> None:
    models = agent_models(digits_model, count=2 * ROWS)
    keys = registered_keys()
    with running_server(registry_of(models, keys, tmp_path), keys=keys) as address:
        cases = [case(name, models, digits_model, address) for name in models.estimators]
        assert sum(len(each["Rows"]) >= ROWS for each in cases) >= 4
        path = tmp_path / "live.json"
        path.write_text(json.dumps({"Address": address, "Cases": cases}))
        printed = passed("-run", "^TestLive", ".", variables={"SEALSERVE_LIVE": str(path)})
    assert re.findall(r"--- SKIP: (\w+)", printed) == ["TestLiveRestart"]  # the next test's
    assert "--- PASS: TestLiveStream" in printed


@pytest.mark.slow
def test_a_client_survives_a_kill_of_the_service(tmp_path: Path) -> None:
    np.savez(tmp_path / "line.npz", coef=np.array([[1.0, -2.0, 0.5]]), intercept=np.zeros(1))
    options, address = [f"--model={tmp_path / 'line.npz'}", "--input-range=0,1"], f"127.0.0.1:{free_port()}"
    variables = {"SEALSERVE_RESTART": str(tmp_path), "SEALSERVE_ADDRESS": address}
    with ThreadPoolExecutor(1) as thread:
        with serve(*options, address=address) as program:
            tests = thread.submit(passed, "-run", "^TestLiveRestart$", ".", variables=variables)
            wait_until((tmp_path / "asked").exists, seconds=300.0)
            program.process.kill()
        wait_until((tmp_path / "down").exists)
        with serve(*options, address=address):
            assert "--- PASS: TestLiveRestart" in tests.result()


def case(name: str, models: AgentModels, digits_model: Digits, address: str) -> dict[str, Any]:
    """Rows of a model, what its estimator says of them, and how far Python's client is off."""
    estimator: Any = models.estimators[name]
    rows: Any = models.frame[:ROWS] if name == "table" else models.normal[:ROWS]
    if name == "digits":
        rows = digits_model.X
    found: dict[str, Any] = {
        "Model": name,
        "Rows": np.asarray(rows).tolist(),
        "Columns": list(models.frame) if name == "table" else None,
    }
    if name == "prices":
        exact = estimator.predict(rows)
        found["Targets"] = listed(exact)
    elif name == "trees":  # of gradients, whose raw scores have another shape
        exact = estimator.predict_proba(rows)
    else:
        exact = estimator.decision_function(rows)
        found["Scores"] = listed(np.reshape(exact, (len(found["Rows"]), -1)))
    if name != "prices":
        found |= {"Labels": listed(estimator.predict(rows)), "Probabilities": listed(estimator.predict_proba(rows))}
    method = {"prices": "predict", "trees": "predict_proba"}.get(name, "decision_function")
    return found | {"Tolerance": 2 * max(errors(address, name, method, rows, exact)) + 1e-9}


def errors(address: str, name: str, method: str, rows: Any, exact: NDArray[np.float64]) -> Iterator[float]:
    """Yield how far Python's client is from what is exact, in each layout."""
    for layout in ("row", "column"):
        with Client(address, model=name, layout=layout) as client:
            yield float(np.abs(getattr(client, method)(rows) - exact).max())


def listed(values: NDArray[Any]) -> list[Any]:
    """An array as JSON has it."""
    listed: list[Any] = values.tolist()
    return listed
