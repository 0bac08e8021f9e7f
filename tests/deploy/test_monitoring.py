"""What watches a service: alerts that are raised when they should be, and a dashboard.

promtool, which is Prometheus's own, checks both: see .ci/install_promtool.
"""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.dashboard import DASHBOARD, DIGEST, PICTURE, digest, filled, panels
from sealserve.client import Client
from sealserve.errors import ModelNotFoundError
from tests.support.metrics import Metrics, everything, free_address, scraped_until
from tests.support.programs import serve
from tests.support.promtool import promtool
from tests.support.serving import ROOT

RULES = ROOT / "deploy/kubernetes/components/monitoring/rules.yaml"
CASES = ROOT / "tests/deploy/alerts.yaml"
BOARD: Any = json.loads(DASHBOARD.read_text())
EXPRESSIONS = [query.expression for panel in panels(BOARD) for query in panel.queries]
OF_PROMETHEUS = {"namespace", "pod", "instance", "job"}
# Metrics of what has not happened to the service that is scraped here.
ONLY_WITH = {
    "sealserve_certificate_expiry_time_seconds": "TLS",
    "sealserve_model_load_failures_total": "a model that cannot be loaded",
    "sealserve_key_store_failures_total": "a key store that does not answer",
}


def rules() -> Any:
    return yaml.safe_load(RULES.read_text())["spec"]


# Alerts


def test_each_alert_has_a_case_in_which_it_is_raised() -> None:
    alerts = {rule["alert"] for group in rules()["groups"] for rule in group["rules"] if "alert" in rule}
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts


@pytest.mark.slow
def test_alerts_are_raised_when_they_should_be(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    checked = promtool("check", "rules", tmp_path / "rules.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    (tmp_path / "alerts.yaml").write_text(CASES.read_text())
    tested = promtool("test", "rules", tmp_path / "alerts.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.slow
def test_a_rule_that_asks_for_too_much_is_found(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()).replace("ratio5m > 0.01", "ratio5m > 0.5"))
    (tmp_path / "alerts.yaml").write_text(CASES.read_text())
    tested = promtool("test", "rules", tmp_path / "alerts.yaml")
    assert tested.returncode != 0
    assert "SealserveErrors" in tested.stdout + tested.stderr


# The dashboard


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Metrics:
    """What a real service publishes after a row, a batch, a stream and a refusal."""
    directory = tmp_path_factory.mktemp("service")
    np.savez(directory / "model.npz", coef=np.ones((2, 3)), intercept=np.zeros(2))
    address = free_address()
    keys = "--weights=private", "--key-store", str(directory / "keys")
    options = f"--model={directory / 'model.npz'}", "--input-range=0,1", f"--metrics-address={address}"
    with serve(*options, *keys, log=directory / "log") as program, Client(program.address) as client:
        client.predict(np.zeros((1, 3)))
        list(client.stream(np.zeros((2, 3))))
        with pytest.raises(ModelNotFoundError), Client(program.address, model="nothing") as lost:
            lost.predict(np.zeros((1, 3)))
        url = f"http://{address}/metrics"
        return scraped_until(url, lambda metrics: bool(metrics.labelled("refusals_total")))


def names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:sealserve|process)_\w+", expression))


def labels_asked_for(expression: str) -> set[str]:
    matched = [
        label for selector in re.findall(r"{(.*?)}", expression) for label in re.findall(r"(\w+)\s*[=!]", selector)
    ]
    grouped = [label.strip() for group in re.findall(r"by \((.*?)\)", expression) for label in group.split(",")]
    return {*matched, *grouped}


def test_the_dashboard_asks_for_what_a_service_publishes(scrape: Metrics) -> None:
    published: dict[str, set[str]] = {}
    for name, labels in scrape.samples:
        published.setdefault(name, set()).update(label for label, _ in labels)
    assert EXPRESSIONS
    for expression in EXPRESSIONS:
        assert names(expression), expression
        missing = names(expression) - published.keys()
        assert missing <= ONLY_WITH.keys(), f"{missing} of {expression}"
        if not missing:
            known = set.union(*(published[name] for name in names(expression)))
            assert labels_asked_for(expression) <= known | OF_PROMETHEUS, expression


def test_what_is_not_in_this_scrape_is_published_by_others() -> None:
    for name in ONLY_WITH:
        assert any(name in expression for expression in EXPRESSIONS), f"{name} needs no exception"
        assert f"# TYPE {name} " in everything(), name


def test_the_dashboard_shows_all_that_operators_are_told_to_watch() -> None:
    """Rate, errors and duration of methods and models; use of time, memory and the key cache."""
    shown = set.union(*map(names, EXPRESSIONS))
    assert shown >= {
        *("sealserve_calls_total", "sealserve_call_seconds_bucket", "sealserve_refusals_total"),
        *("sealserve_rows_total", "sealserve_item_duration_seconds_bucket", "sealserve_wait_seconds_bucket"),
        *("sealserve_item_seconds_total", "sealserve_held_bytes", "sealserve_items_waiting"),
        *("sealserve_key_cache_hits_total", "sealserve_key_cache_misses_total", "sealserve_key_cache_bytes"),
    }


def test_the_dashboard_has_the_form_that_grafana_takes() -> None:
    assert BOARD["schemaVersion"] >= 39
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(BOARD))) - {"__rate_interval", "__all"}
    assert used == variables
    everything_on_it = BOARD["panels"]
    ids = [panel["id"] for panel in everything_on_it]
    assert len(set(ids)) == len(ids)
    for panel, other in itertools.combinations([panel["gridPos"] for panel in everything_on_it], 2):
        beside = panel["x"] + panel["w"] <= other["x"] or other["x"] + other["w"] <= panel["x"]
        above = panel["y"] + panel["h"] <= other["y"] or other["y"] + other["h"] <= panel["y"]
        assert beside or above, f"{panel} lies on {other}"
    for panel in everything_on_it:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        assert panel["type"] == "row" or panel["description"], panel["title"]


@pytest.mark.slow
def test_the_queries_of_the_dashboard_parse(tmp_path: Path) -> None:
    recorded = [{"record": f"a:b{number}", "expr": filled(each)} for number, each in enumerate(EXPRESSIONS)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    found = promtool("check", "rules", file)
    assert found.returncode == 0, found.stdout + found.stderr
    file.write_text(file.read_text().replace("sum by", "sum bye", 1))
    assert promtool("check", "rules", file).returncode != 0


def test_the_picture_is_of_this_dashboard() -> None:
    """`python -m benchmarks.dashboard` draws it again."""
    with Image.open(PICTURE) as picture:
        assert picture.info[DIGEST] == digest(BOARD)
