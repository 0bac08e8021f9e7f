"""What operators are told beside traffic: who was refused by what, waits, keys, models, state."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

import sealserve
from sealserve.credentials import Credentials
from sealserve.errors import KeyNotFoundError, KeyStoreUnavailableError, ModelNotFoundError, QuotaExceededError
from sealserve.protocol.model import Verdict
from sealserve_service.catalog.library import ModelLibrary
from sealserve_service.catalog.registry import ModelRegistry
from sealserve_service.keys.stores.base import unavailable_error
from sealserve_service.keys.stores.memory import MemoryKeyStore
from sealserve_service.rpc.certificates import server_credentials
from sealserve_service.scoring.caller_slots import CONCURRENT_UPLOADS, OPEN_STREAMS, WAITING_CALLS, CallerSlots
from sealserve_service.settings.model_source import ModelSource
from sealserve_service.telemetry import metrics as declared
from sealserve_service.telemetry.call_record import CAPACITIES, CallRecord
from sealserve_service.telemetry.endpoint import ProcessMetrics, Published
from sealserve_service.telemetry.metrics import OTHER_TENANTS, Telemetry
from sealserve_service.tenants.caller import Caller
from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant
from tests.support.certificates import DAY, Authority
from tests.support.digits import Digits
from tests.support.identities import ALL, IdentitiesFile
from tests.support.metrics import Metrics, everything
from tests.support.promtool import promtool
from tests.support.raw import Message, RawClient
from tests.support.serving import (
    HANG_SECONDS,
    SETTINGS,
    digits_registry,
    linear,
    registered_keys,
    running,
    running_server,
    served,
)
from tests.support.waiting import wait_until

DIGITS = {"model": "digits", "layout": "row"}
PREDICT = "/sealserve.v1.PredictionService/Predict"


def shown(telemetry: Telemetry) -> Metrics:
    """The metrics as Prometheus reads them."""
    return Metrics(generate_latest(Published(telemetry.registry)).decode())


# Refusals


def test_a_refusal_names_the_quota_and_the_tenant_whose_it_is(digits_model: Digits, tmp_path: Path) -> None:
    file = IdentitiesFile(tmp_path / "identities.toml", clinic=f"{ALL}\nquota = {{ rows_per_minute = 1 }}", lab=ALL)
    clinic, lab = (Credentials(token=file.token(name)) for name in ("clinic", "lab"))
    settings, telemetry = SETTINGS.with_changes(identities=file.path, max_open_items=1), Telemetry()
    with (
        running_server(digits_registry(digits_model.estimator, settings), settings, telemetry=telemetry) as address,
        RawClient(address, credentials=clinic) as greedy,
        RawClient(address, credentials=lab) as other,
    ):
        request = greedy.request(digits_model.X[0])
        greedy.predict(request)
        for _ in range(2):
            with pytest.raises(QuotaExceededError):
                greedy.predict(request)
        header = other.item(1, digits_model.X[0]).header
        other.stream([Message(item_id=1, header=header), Message(item_id=2, header=header)])
        with pytest.raises(ModelNotFoundError):
            other.predict(type(request)(header=type(header)(model="nothing")))
    found = shown(telemetry)
    assert found("refusals_total", reason="QuotaExceededError", limit="rows_per_minute", tenant="clinic") == 2
    assert found("refusals_total", reason="LimitExceededError", limit="max_open_items", tenant="") == 1
    assert found("refusals_total", reason="ModelNotFoundError", limit="", tenant="") == 1
    assert "lab" not in found.text, "a tenant whose own quota refused nothing"
    assert "nothing" not in found.text


def test_the_services_capacity_is_no_tenants() -> None:
    """Autoscaling goes by what no tenant could have avoided."""
    telemetry = Telemetry()
    for quota in (*CAPACITIES, *(field for field in Quota.__dataclass_fields__)):
        record = CallRecord(PREDICT, telemetry)
        record.tenant = "clinic"
        record.refuse(QuotaExceededError(quota, 1.0))
    labels = [dict(each) for each in shown(telemetry).labelled("refusals_total")]
    assert {each["limit"] for each in labels if not each["tenant"]} == CAPACITIES
    assert {each["limit"] for each in labels if each["tenant"] == "clinic"} == set(Quota.__dataclass_fields__)


@pytest.mark.parametrize("kind", [WAITING_CALLS, OPEN_STREAMS, CONCURRENT_UPLOADS])
def test_slots_that_callers_have_together_are_capacity(kind: str) -> None:
    slots = CallerSlots(kind, 8, Quota())
    callers = [Caller(Tenant(str(number)), str(number)) for number in range(5)]
    with pytest.raises(QuotaExceededError) as full, _held(slots, callers[:4]), slots.hold(callers[4]):
        pass
    with pytest.raises(QuotaExceededError) as own, _held(slots, callers[:1]), slots.hold(callers[0]):
        pass
    assert full.value.quota in CAPACITIES
    assert own.value.quota == kind


@contextmanager
def _held(slots: CallerSlots, callers: list[Caller]) -> Iterator[None]:
    """Two slots of each caller, which is all that it may have of eight."""
    with ExitStack() as stack:
        for caller in callers * 2:
            stack.enter_context(slots.hold(caller))
        yield


def test_however_many_tenants_there_are_their_labels_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared, "MAX_TENANTS", 3)
    telemetry = Telemetry()
    for number in range(10):
        for _ in range(2):
            telemetry.refuse("QuotaExceededError", "key_bytes", f"tenant {number}")
    found = shown(telemetry).labelled("refusals_total")
    assert {dict(labels)["tenant"]: count for labels, count in found.items()} == {
        "tenant 0": 2,
        "tenant 1": 2,
        "tenant 2": 2,
        OTHER_TENANTS: 14,
    }


# Items


def test_items_of_calls_and_of_streams_have_their_times_by_model_and_layout(digits_model: Digits) -> None:
    telemetry = Telemetry()
    with (
        running_server(digits_registry(digits_model.estimator), telemetry=telemetry) as address,
        RawClient(address) as raw,
        raw.conversation() as stream,
    ):
        raw.predict(raw.request(digits_model.X[0]))
        found = shown(telemetry)
        assert found("item_duration_seconds_count", **DIGITS) == found("wait_seconds_count", **DIGITS) == 1
        assert found("wait_seconds_bucket", **DIGITS, le="0.0") == 1, "what need not wait"
        scored = sum(found("item_seconds_total", **DIGITS, stage=stage) for stage in ("load", "arithmetic"))
        assert found("item_duration_seconds_sum", **DIGITS) >= scored > 0

        whole = raw.item(1, digits_model.X[0])
        stream.send(Message(item_id=1, header=whole.header))
        wait_until(lambda: shown(telemetry)("items_in_flight") == 1)
        time.sleep(0.1)  # on its way: that is a part of what its client waits for
        stream.send(Message(item_id=1, chunk=whole.chunk))
        next(stream.answers)
        wait_until(lambda: shown(telemetry)("item_duration_seconds_count", **DIGITS) == 2)
        later = shown(telemetry)
        took = later("item_duration_seconds_sum", **DIGITS) - found("item_duration_seconds_sum", **DIGITS)
        assert took >= 0.1
        assert later("wait_seconds_count", **DIGITS) >= 2


# Keys, models, certificates


class FailingStore(MemoryKeyStore):
    """A store that does not answer."""

    def get(self, tenant: str, key_id: str) -> Any:
        raise unavailable_error()


def test_a_key_store_is_measured_and_what_it_does_not_answer_is_counted() -> None:
    telemetry = Telemetry()
    keys = registered_keys(telemetry=telemetry)
    for _ in range(2):
        with pytest.raises(KeyNotFoundError):
            keys.get(ANONYMOUS, "0" * 64)
    keys.sweep()
    found = shown(telemetry)
    assert found("key_store_seconds_count", operation="get") == 2
    assert found("key_store_seconds_count", operation="sweep") == 1
    assert found("key_store_failures_total", operation="get") == 0, "it has answered that there is none"
    failing = registered_keys(FailingStore(1 << 20), telemetry=telemetry)
    for ask in (lambda: failing.get(ANONYMOUS, "0" * 64), lambda: failing.galois_keys("anonymous", "0" * 64)):
        with pytest.raises(KeyStoreUnavailableError):
            ask()
    found = shown(telemetry)
    assert found("key_store_failures_total", operation="get") == 2
    assert found("key_store_seconds_count", operation="get") == 4


def test_verdicts_and_failed_loads_of_models(tmp_path: Path) -> None:
    telemetry, sources = Telemetry(), [ModelSource("line", tmp_path / "line.npz")]
    (tmp_path / "line.npz").write_bytes(b"1")
    model, is_good = served("line", linear([[1.0, -2.0]])), True

    def load(source: ModelSource) -> Any:
        if not is_good:
            raise ModelNotFoundError(source.name)
        return model

    library = ModelLibrary(lambda: sources, load, telemetry)
    found = shown(telemetry)
    verdict = model.model.verdict
    assert isinstance(verdict, Verdict)
    assert found.labelled("model_verdict") == {frozenset({("model", "line"), ("verdict", verdict.value)}): 1.0}
    assert found.labelled("model_load_failures_total") == {}
    is_good = False
    (tmp_path / "line.npz").write_bytes(b"22")
    library.reload()
    found = shown(telemetry)
    assert found("model_load_failures_total", model="line") == 1
    assert len(found.labelled("model_verdict")) == len(found.labelled("model_info")) == 1, "the old one stays"
    sources.clear()
    library.reload()
    assert shown(telemetry).labelled("model_verdict") == {}


def test_the_expiry_of_the_certificate_is_known_and_follows_it(tmp_path: Path) -> None:
    authority, telemetry = Authority("ours", expires=30 * DAY), Telemetry()
    assert shown(telemetry).labelled("certificate_expiry_time_seconds") == {}, "there is none to expire"
    files = authority.issue("service", expires=2 * DAY).write(tmp_path)
    server_credentials(*files, None, telemetry.publish_certificate_expiry)
    expires = shown(telemetry)("certificate_expiry_time_seconds")
    assert expires == pytest.approx((datetime.now(UTC) + timedelta(days=2)).timestamp(), abs=120)
    pair = authority.issue("service", expires=90 * DAY)
    files[0].write_bytes(pair.certificate + authority.certificate)
    files[1].write_bytes(pair.key)
    server_credentials(*files, None, telemetry.publish_certificate_expiry)
    expires = shown(telemetry)("certificate_expiry_time_seconds")
    assert expires == pytest.approx((datetime.now(UTC) + timedelta(days=30)).timestamp(), abs=120), "the chain's first"


# The process


def test_a_process_tells_its_version_and_whether_it_is_ready() -> None:
    telemetry = Telemetry(3)
    assert shown(telemetry)("ready", process="3") == shown(telemetry)("stopping", process="3") == 0
    with running(ModelRegistry([]), telemetry=telemetry) as server:
        assert shown(telemetry)("ready", process="3") == 1
        server.begin_stop().result(HANG_SECONDS)
        assert (shown(telemetry)("ready", process="3"), shown(telemetry)("stopping", process="3")) == (0, 1)
    (labels,) = shown(telemetry).labelled("build_info")
    assert dict(labels)["version"] == sealserve.__version__


def test_the_system_tells_of_each_process_and_not_of_dead_ones() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        ids = {"0": os.getpid(), "1": other.pid}
        found = Metrics(generate_latest(Published(ProcessMetrics(lambda: ids))).decode()).samples
        other.kill()
        other.wait()
        later = Metrics(generate_latest(Published(ProcessMetrics(lambda: ids))).decode()).samples
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"):
        of_name = {labels for each, labels in found if each == f"process_{name}"}
        assert of_name == {frozenset({("process", "0")}), frozenset({("process", "1")})}, name
    assert {labels for _, labels in later} == {frozenset({("process", "0")})}


# Form


def test_metrics_have_the_form_that_prometheus_recommends() -> None:
    """The checks of `promtool check metrics`, without it."""
    text = everything()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (\S.*)$", text, re.MULTILINE))
    assert kinds.keys() == helps.keys()
    assert len(kinds) >= 38
    for name, kind in kinds.items():
        assert re.fullmatch(r"(sealserve|process)_[a-z]+(_[a-z]+)*", name), name
        assert name.endswith("_total") is (kind == "counter"), name
        assert not re.search(r"_(milliseconds|ms|minutes|hours|days|kb|mb|bits|percent|count|sum|bucket)\b", name), name
        assert not re.search(r"_(counter|gauge|histogram|summary)(_|$)", name), name
        assert kind in ("counter", "gauge", "histogram")
    labels = set(re.findall(r'[{,]([a-zA-Z_]+)="', text))
    assert labels <= {
        *("method", "status", "le", "reason", "limit", "tenant", "model", "layout", "stage", "operation", "process"),
        *("version", "verdict", "python", "grpc"),
    }


@pytest.mark.slow
def test_promtool_finds_nothing_to_say() -> None:
    found = promtool("check", "metrics", text=everything())
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
    assert promtool("check", "metrics", text="# TYPE a_count counter\na_count 1\n").returncode != 0
