"""Verdicts through a live service: published, logged, shown, and what they refuse."""

import json
import logging
import re
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.cli.main import main
from sealserve.client import Client
from sealserve.errors import PlanError
from sealserve.he.quantization import InputGrid
from sealserve.protocol.model import Offer, Verdict
from sealserve.protocol.output import Output, Task
from sealserve_service.catalog.registry import ModelRegistry, ServedModel, prepare_model
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.score_error import CalibrationScores
from sealserve_service.planning.verdict import judge
from tests.support.command_line import fails
from tests.support.plans import row_plans
from tests.support.programs import serve
from tests.support.serving import HANG_SECONDS, LIMITS, registered_keys, running_server
from tests.support.waiting import wait_until

RANDOM = np.random.default_rng(163)
FEATURES, CLASSES = 12, 4
WEIGHTS = RANDOM.normal(size=(CLASSES, FEATURES))
ROWS, OTHERS = (RANDOM.uniform(-1, 1, (count, FEATURES)) for count in (2000, 1500))
FINE, MEDIUM, COARSE = 2.0**-14, 2.0**-8, 1.0  # steps of a given grid
NARROW, WIDE, WIDEST = 1.0, 1e6, 1e8  # ends of the range for which the planner chooses steps
MODEL = LinearModel(WEIGHTS, np.zeros(CLASSES), Output(Task.CLASSIFICATION, CLASSES, tuple(range(CLASSES))))


class Files(NamedTuple):
    """A model's file and its calibration rows."""

    model: Path
    rows: Path

    def options(self, reach: float) -> list[str]:
        return [f"--input-range={-reach},{reach}", f"--calibration={self.rows}", "--weights=open"]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    write(tmp_path / "model.npz", WEIGHTS)
    np.save(tmp_path / "rows.npy", ROWS)
    return Files(tmp_path / "model.npz", tmp_path / "rows.npy")


def write(path: Path, weights: NDArray[np.float64]) -> None:
    """Write a model to a file, in one step."""
    with path.with_suffix(".tmp").open("wb") as file:
        np.savez(file, coef=weights, intercept=np.zeros(len(weights)), classes=np.arange(len(weights)))
    path.with_suffix(".tmp").replace(path)


def differ(client: Client) -> float:
    """The share of held-out rows with another label than the plaintext model's."""
    return float(np.mean(client.predict(OTHERS) != MODEL.output.predict(MODEL.decision(OTHERS))))


@pytest.mark.parametrize("bits", [None, 40])
@pytest.mark.parametrize("layout", ["row", "column"])
@pytest.mark.parametrize(
    ("step", "verdict", "least", "most"),
    [(FINE, Verdict.OK, 0.0, 1e-3), (MEDIUM, Verdict.WARN, 5e-4, 1e-2), (COARSE, Verdict.REFUSE, 1e-2, 1.0)],
)
def test_the_verdict_is_what_held_out_rows_show(
    step: float, verdict: Verdict, least: float, most: float, layout: str, bits: int | None
) -> None:
    keys = registered_keys()
    registry = ModelRegistry([prepared(step, bits, keys)])
    with (
        running_server(registry, keys=keys) as address,
        Client(address, layout=layout, timeout_seconds=HANG_SECONDS) as client,
    ):
        offer = client.offer(len(OTHERS))
        assert offer.layout.name == layout
        assert offer.verdict is client.model.verdict is verdict
        assert least <= differ(client) <= most


def prepared(step: float, bits: int | None, keys: RegisteredKeys, **changes: Any) -> ServedModel:
    grid = InputGrid.of(FEATURES, -1.0, 1.0, step)
    private = None if bits is None else PrivateWeights(bits, keys.zero_encryptor)
    options: dict[str, Any] = {"calibration": ROWS, "accept_disagreement": True, "private": private} | changes
    return prepare_model("model", MODEL, grid, LIMITS, **options)


def two_digits(value: float) -> bool:
    """Whether a number has two binary digits at most."""
    fraction, _ = np.frexp(value)
    return bool(fraction in (0.0, 0.5, 0.75))


def test_an_offer_of_private_weights_tells_little_of_its_errors() -> None:
    keys = registered_keys()
    for offer in prepared(MEDIUM, 40, keys).model.offers:
        assert offer.private_weights
        assert two_digits(offer.score_error_bound)
        assert offer.score_error_bound > 0
        assert len(set(offer.score_radii)) == 1, "a radius a class is a norm of its weights"
        parts = offer.weight_rounding_error_bound, offer.input_rounding_error_bound, offer.expected_score_error
        assert parts == (0.0, 0.0, 0.0)
        observed = offer.observed_error
        assert observed is not None
        assert observed.row_count == len(ROWS)
        figures = observed.score_error, observed.rms_score_error, observed.expected_label_disagreement
        assert figures == (0.0, 0.0, 0.0)
        assert observed.label_disagreement == 3 / len(ROWS) or two_digits(observed.label_disagreement)
        assert observed.label_disagreement >= 3 / len(ROWS)


def test_the_radius_of_private_weights_holds_the_scores_of_every_class() -> None:
    keys = registered_keys()
    for closed, opened in zip(
        prepared(MEDIUM, 40, keys).model.offers, prepared(MEDIUM, None, keys).model.offers, strict=True
    ):
        t = closed.parameters.plain_modulus
        assert 2 * closed.score_radii[0] + 1 < t
        assert len(set(opened.score_radii)) == CLASSES


def test_an_offer_of_open_weights_tells_its_errors() -> None:
    offers: tuple[Offer, ...] = prepared(MEDIUM, None, registered_keys()).model.offers
    for offer in offers:
        observed = offer.observed_error
        assert observed is not None
        parts = offer.weight_rounding_error_bound, offer.input_rounding_error_bound
        assert max(parts) < offer.score_error_bound <= sum(parts)
        assert 0 < offer.expected_score_error == pytest.approx(observed.rms_score_error, rel=0.1)
        assert observed.rms_score_error < observed.score_error < offer.score_error_bound
        assert 0 < observed.label_disagreement < 1e-2
        assert observed.expected_label_disagreement == pytest.approx(observed.label_disagreement, rel=0.5)


def test_parameter_sets_are_climbed_until_labels_stay() -> None:
    """What is served without rows is not good enough with them."""
    features = 400
    weights, rows = RANDOM.normal(size=(6, features)), RANDOM.normal(size=(4000, features)).clip(-30, 30)
    model = LinearModel(weights, np.zeros(6), Output(Task.CLASSIFICATION, 6, tuple(range(6))))
    grid = InputGrid.of(features, -30.0, 30.0, 2.0**-12)
    blind = prepare_model("model", model, grid, LIMITS).model
    judged = prepare_model("model", model, grid, LIMITS, calibration=rows).model
    assert blind.verdict is Verdict.UNCHECKED
    assert judged.verdict is Verdict.OK
    bits = [offer.parameters.parameter_set.modulus.bit_length() for offer in (blind.offers[0], judged.offers[0])]
    assert bits[0] < bits[1]
    calibration = CalibrationScores.of(model, rows)
    (plan, *_) = (p for p in row_plans(weights, model.intercept, grid) if p.parameters == blind.offers[0].parameters)
    assert judge(plan, model, calibration).verdict is not Verdict.OK


def test_a_model_whose_labels_differ_is_refused_unless_that_is_accepted(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = fails(capsys, "serve", f"--model={files.model}", *files.options(WIDEST), "--address=127.0.0.1:0")
    assert "REFUSE: at most" in said
    assert "narrow --input-range" in said
    assert "--accept-disagreement" in said
    options = [f"--model={files.model}", *files.options(WIDEST), "--accept-disagreement"]
    with serve(*options, log=tmp_path / "log") as program:
        (line,) = (line for line in program.said if "verdict" in line)
        assert "WARNING" in line.upper()
        assert re.search(r"model model: \d+ columns, \d+ classes; offers row \(row-\S+\), .*; in layout", line)
        assert "the verdict is REFUSE: at most" in line
        with Client(program.address, timeout_seconds=HANG_SECONDS) as client:
            assert client.model.verdict is Verdict.REFUSE
        assert main(["models", "list", "--address", program.address]) == 0
        assert re.search(r"^model .* REFUSE +row-", capsys.readouterr().out, re.MULTILINE)


def test_the_log_has_the_verdict_on_each_model(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        prepared(FINE, None, registered_keys())
        prepared(MEDIUM, None, registered_keys())
        prepared(FINE, None, registered_keys(), calibration=None)
    said = [(record.levelname, record.getMessage()) for record in caplog.records if "verdict" in record.getMessage()]
    assert [level for level, _ in said] == ["INFO", "WARNING", "WARNING"]
    for (_, text), word in zip(said, ("OK", "WARN", "UNCHECKED"), strict=True):
        assert text.startswith(f"model model: {FEATURES} columns, {CLASSES} classes; offers row (row-")
        assert f"; in layout row the verdict is {word}: " in text
    assert "--calibration" in said[2][1]


def test_an_error_of_a_refused_model_says_why() -> None:
    with pytest.raises(PlanError, match=r"the verdict is REFUSE: at most .* of labels .*; narrow --input-range"):
        prepared(COARSE, None, registered_keys(), accept_disagreement=False)


def test_inspect_ends_with_verdict_reason_and_remedy(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(files.model), *files.options(NARROW)]) == 0
    *_, row, column = capsys.readouterr().out.strip().splitlines()
    assert row.startswith("row: verdict OK: at most")
    assert column.startswith("column: verdict OK: at most")
    assert main(["inspect", str(files.model), *files.options(WIDEST)]) == 1, "serve would refuse it"
    *_, row, row_remedy, column, remedy = capsys.readouterr().out.strip().splitlines()
    assert row.startswith("row: verdict REFUSE: at most")
    assert column.startswith("column: verdict REFUSE: at most")
    assert row_remedy == remedy
    assert "--accept-disagreement" in remedy
    assert main(["inspect", str(files.model), *files.options(WIDEST), "--accept-disagreement"]) == 0
    capsys.readouterr()


def test_inspect_has_the_figures_that_private_weights_do_not_publish(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [option for option in files.options(WIDE) if "weights" not in option]
    assert main(["inspect", str(files.model), *options, "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    for verdict, offer in zip(described["verdicts"], described["model"]["offers"], strict=True):
        assert offer["private_weights"]
        assert verdict["verdict"] == offer["verdict"] == "WARN"
        parts = verdict["weight_rounding_error_bound"], verdict["input_rounding_error_bound"]
        assert max(parts) < verdict["score_error_bound"] <= sum(parts)
        assert verdict["score_error_bound"] <= offer["score_error_bound"] <= 1.5 * verdict["score_error_bound"]
        assert 0 < verdict["rms_score_error"] < verdict["score_error"] < verdict["score_error_bound"]
        assert verdict["expected_label_disagreement"] > 0
        assert verdict["row_count"] == len(ROWS)


def test_a_reload_that_is_refused_is_a_failed_load_and_one_that_is_worse_warns(files: Files, tmp_path: Path) -> None:
    options = [f"--model={files.model}", *files.options(NARROW), "--log-level=info"]
    with serve(*options, log=tmp_path / "log") as program:

        def served() -> tuple[str, Verdict | None]:
            with Client(program.address, timeout_seconds=HANG_SECONDS) as client:
                assert len(client.predict(ROWS[:3])) == 3
                return client.model.version, client.model.verdict

        def reload_until_it_says(*texts: str) -> None:
            program.process.send_signal(signal.SIGHUP)
            wait_until(lambda: all(any(text in line for line in program.said) for text in texts))

        version, verdict = served()
        assert verdict is Verdict.OK
        np.save(files.rows, ROWS * NARROW / WIDE)  # scores so small that steps decide some labels
        reload_until_it_says("the verdict was OK and is WARN now")
        assert served() == (version, Verdict.WARN)
        write(files.model, 2 * WEIGHTS)
        np.save(files.rows, ROWS * NARROW / WIDEST)
        reload_until_it_says("stays at version", "the verdict is REFUSE: at most")
        assert served() == (version, Verdict.WARN)
