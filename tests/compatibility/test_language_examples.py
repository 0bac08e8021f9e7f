"""Examples in Go, Java and Node, really built: scikit-learn's predictions through an agent."""

import io
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.agent_models import AgentModels, agent_models, check_predictions, registry_of
from tests.support.agent_programs import running_program
from tests.support.digits import Digits, digits
from tests.support.language_examples import LANGUAGES, Built, build
from tests.support.language_tools import require, run
from tests.support.pages import blocks_of
from tests.support.serving import HANG_SECONDS, ROOT, registered_keys, running_server

ROWS, SINGLE_ROWS = 1000, 60
MODELS = ("digits", "table", "trees")
"""Numbers, a table with strings, and a boosted ensemble."""

Ask = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def models(digits_model: Digits, tmp_path_factory: pytest.TempPathFactory) -> AgentModels:
    return agent_models(digits_model, 1500)


@pytest.fixture(scope="module")
def rows(models: AgentModels) -> dict[str, Any]:
    frame = models.frame[:ROWS]
    assert not frame["words"].str.contains('[",]').any(), "the files have no quotes"
    return {"digits": digits()[1][-ROWS:], "table": frame, "trees": models.normal[:ROWS]}


@pytest.fixture(scope="module")
def place(models: AgentModels, rows: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """An agent, on a Unix socket and a port: the files of rows, its addresses and its token."""
    keys, folder, files = registered_keys(), tmp_path_factory.mktemp("agent"), tmp_path_factory.mktemp("rows")
    for name, X in rows.items():
        pd.DataFrame(X).to_csv(files / f"{name}.csv", index=False)
    listen = [f"unix:{folder / 'agent.sock'}", "127.0.0.1:0"]
    token = folder / "agent.token"
    with (
        running_server(registry_of(models, keys, folder), keys=keys) as address,
        running_program(
            address, folder, *(f"--listen={each}" for each in listen), f"--agent-token-file={token}"
        ) as program,
    ):
        yield [str(files), listen[0], program.line.rpartition(", ")[2], str(token)]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("go", marks=pytest.mark.slow),
        pytest.param("node", marks=pytest.mark.slow),
        pytest.param("java", marks=pytest.mark.long),
    ],
)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The example of a language."""
    language = LANGUAGES[request.param]
    require(*language.needs, installs=language.installs)
    return build(request.param, tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def ask(built: Built, place: list[str]) -> Ask:
    """Run the example."""
    files, unix, tcp, token = place

    def ask(
        command: str, model: str, rows: Path | None = None, *, by_port: bool = False, with_token: bool = True
    ) -> Any:
        path = rows or Path(files) / f"{model}.csv"
        words = built.command(tcp if by_port else unix, token if with_token else "", command, model, path)
        return finished(words, Path(files))

    return ask


def finished(command: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10 * HANG_SECONDS, check=False)


def check(found: "subprocess.CompletedProcess[str]", estimator: Any, X: Any) -> None:
    """Check the CSV that an example prints."""
    assert found.returncode == 0, found.stderr
    table = pd.read_csv(io.StringIO(found.stdout))
    parts = [table.filter(regex=f"^{name}_").to_numpy() for name in ("label", "score", "probability")]
    check_predictions(estimator, X, parts[0].ravel(), *parts[1:])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("command", ["batch", "stream"])
def test_a_thousand_rows_get_scikit_learns_predictions(
    ask: Ask, models: AgentModels, rows: dict[str, Any], model: str, command: str
) -> None:
    check(ask(command, model), models.estimators[model], rows[model])


def test_single_rows_get_them_over_a_port(ask: Ask, models: AgentModels, rows: dict[str, Any], tmp_path: Path) -> None:
    X = rows["table"][:SINGLE_ROWS]
    X.to_csv(tmp_path / "rows.csv", index=False)
    check(ask("rows", "table", tmp_path / "rows.csv", by_port=True), models.estimators["table"], X)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("deadline", "DEADLINEEXCEEDED -"),
        ("cancel", "CANCELLED -"),
        ("refused", "INVALIDARGUMENT INPUT there is no output 'logits'"),
    ],
)
def test_a_call_that_fails_has_its_status_and_reason(ask: Ask, command: str, expected: str) -> None:
    found = ask(command, "digits")
    assert found.returncode == 1
    code, reason, text = found.stderr.strip().split(" ", 2)
    code = code.upper().replace("_", "").replace("CANCELED", "CANCELLED")  # each language spells it its way
    assert f"{code} {reason} {text}".startswith(expected)


def test_without_the_token_there_is_nothing(ask: Ask) -> None:
    found = ask("batch", "digits", with_token=False)
    assert found.returncode == 1
    assert found.stderr.upper().startswith("UNAUTHENTICATED UNAUTHENTICATED ")


def test_the_example_times_its_calls(ask: Ask) -> None:
    times = [line.split() for line in ask("time", "trees").stdout.splitlines()]
    assert [int(size) for size, _ in times] == [1, ROWS]
    assert all(float(milliseconds) > 0 for _, milliseconds in times)


def test_what_the_page_says_runs(
    built: Built, place: list[str], models: AgentModels, rows: dict[str, Any], tmp_path: Path
) -> None:
    """The page asks for a row of three columns. The model here has six."""
    _, unix, tcp, token = place
    language, file = {"go": ("go", "page/main.go"), "java": ("java", "Ask.java"), "node": ("js", "ask.js")}[
        built.language
    ]
    (text,) = (block.text for block in blocks_of((ROOT / "docs/agent.md").read_text()) if block.language == language)
    row = rows["trees"][0].tolist()
    for said, here in {
        "tumors": "trees",
        "0.1, 0.5, 0.2": ", ".join(map(repr, row)),
        "addFp64Contents(0.1).addFp64Contents(0.5).addFp64Contents(0.2)": ".".join(
            f"addFp64Contents({value!r})" for value in row
        ),
        "{1, 3}": "{1, 6}",
        "[1n, 3n]": "[1n, 6n]",
        "addShape(3)": "addShape(6)",
        "127.0.0.1:8001": tcp,
        "unix:agent.sock": unix,
        '"agent.sock"': repr(unix.removeprefix("unix:")),
        "agent.token": token,
    }.items():
        text = text.replace(said, here)
    path = built.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    command = {
        "go": [str(built.folder / "page/main")],
        "java": ["java", "-cp", f"{built.folder}/target/classes:{built.folder}/target/lib/*", str(path)],
        "js": ["node", str(path)],
    }[language]
    if language == "go":
        run("go", "build", "-o", command[0], "./page", folder=built.folder)
    found = finished(command, tmp_path)
    assert found.returncode == 0, found.stderr
    label = str(models.estimators["trees"].predict(rows["trees"][:1])[0])
    assert label in found.stdout or ", ".join(map(str, label.encode())) in found.stdout  # Node shows bytes
    assert "score" in found.stdout
    assert "probability" in found.stdout
