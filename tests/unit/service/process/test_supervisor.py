"""The supervisor's number of processes: chosen once, and said."""

import logging

import pytest

from sealserve_service.process import supervisor
from sealserve_service.settings import Settings


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sealserve_service.settings", "sealserve_service.process.supervisor"):
        monkeypatch.setattr(f"{module}.core_count", lambda: 4)
    monkeypatch.setattr("sealserve_service.settings.memory_limit_bytes", lambda: None)


@pytest.mark.parametrize(
    ("settings", "count", "said"),
    [
        (Settings(key_store="./keys"), 4, "4 serving processes (--processes auto), for 4 cores"),
        (Settings(weights="open", ei_engine="none"), 4, "4 serving processes"),
        (Settings(), 1, "1 serving process (--processes auto): keys in memory cannot be shared"),
        (Settings(address="unix:/run/x.sock", key_store="./keys"), 1, "cannot share a Unix socket"),
    ],
)
def test_the_service_says_how_many_processes_it_chose(
    settings: Settings, count: int, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, supervisor.__name__)
    chosen = supervisor._with_processes(settings)
    assert chosen.processes == chosen.process_count == count, "workers look at no cores of their own"
    assert said in caplog.text


def test_of_a_number_that_was_given_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, supervisor.__name__)
    settings = Settings(processes=3, key_store="./keys")
    assert supervisor._with_processes(settings) is settings
    assert not caplog.text
