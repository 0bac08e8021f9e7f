"""The container: its limits of memory, threads and cores, as cgroups v1 and v2 write them."""

import os
from pathlib import Path

import pytest

from sealserve_service.container import core_count, memory_limit_bytes, thread_limit


def test_memory_limits(tmp_path: Path) -> None:
    limited, unlimited, old = tmp_path / "limited", tmp_path / "unlimited", tmp_path / "old"
    limited.write_text("1073741824\n")
    unlimited.write_text("max\n")
    old.write_text("9223372036854771712\n")
    assert memory_limit_bytes((tmp_path / "missing", limited)) == 1 << 30
    assert memory_limit_bytes((unlimited, old, tmp_path / "missing")) is None


@pytest.mark.parametrize(("text", "limit"), [("2048\n", 2048), ("max\n", None)])
def test_thread_limits(tmp_path: Path, text: str, limit: int | None) -> None:
    path = tmp_path / "pids.max"
    path.write_text(text)
    assert thread_limit((tmp_path / "missing", path)) == limit


class Quota:
    """The files of a CPU quota; those without a text are missing."""

    def __init__(self, directory: Path, **texts: str) -> None:
        self.files = {name: directory / name for name in ("cpu_max", "quota", "period")}
        for name, text in texts.items():
            self.files[name].write_text(text)

    @property
    def cores(self) -> int:
        return core_count(**self.files)


@pytest.fixture
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.usefixtures("_eight_cores")
@pytest.mark.parametrize(
    ("texts", "cores"),
    [
        ({}, 8),
        ({"cpu_max": "max 100000\n"}, 8),
        ({"cpu_max": "400000 100000\n"}, 4),
        ({"cpu_max": "150000 100000\n"}, 1),
        ({"cpu_max": "50000 100000\n"}, 1),
        ({"cpu_max": "3200000 100000\n"}, 8),
        ({"quota": "300000\n", "period": "100000\n"}, 3),
        ({"quota": "-1\n", "period": "100000\n"}, 8),
        ({"quota": "300000\n"}, 8),
        ({"cpu_max": "broken"}, 8),
    ],
)
def test_cores_of_a_quota(texts: dict[str, str], cores: int, tmp_path: Path) -> None:
    assert Quota(tmp_path, **texts).cores == cores


def test_cores_of_an_affinity(tmp_path: Path) -> None:
    """As `taskset` and a cpuset of a container give it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert Quota(tmp_path).cores == 1
    finally:
        os.sched_setaffinity(0, before)
    assert Quota(tmp_path).cores == len(before)
