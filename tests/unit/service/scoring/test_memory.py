"""The memory of a serving process: the container's limit, and the share of ciphertexts."""

from pathlib import Path

from sealserve_service.scoring.memory import memory_limit_bytes, work_bytes

GIB = 1 << 30


def test_memory_limits(tmp_path: Path) -> None:
    limited, unlimited, old = tmp_path / "limited", tmp_path / "unlimited", tmp_path / "old"
    limited.write_text("1073741824\n")
    unlimited.write_text("max\n")
    old.write_text("9223372036854771712\n")
    assert memory_limit_bytes((tmp_path / "missing", limited)) == GIB
    assert memory_limit_bytes((unlimited, old, tmp_path / "missing")) is None
    assert work_bytes(GIB, 1) == (GIB - (300 << 20)) // 4
    assert work_bytes(GIB, 8) == 32 << 20
    assert work_bytes(None, 1) == GIB
