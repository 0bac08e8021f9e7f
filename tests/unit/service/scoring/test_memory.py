"""The memory of a serving process: the share of ciphertexts."""

from sealserve_service.scoring.memory import work_bytes

GIB = 1 << 30


def test_a_quarter_of_what_a_process_has_beyond_its_own_needs() -> None:
    assert work_bytes(GIB, 1) == (GIB - (300 << 20)) // 4
    assert work_bytes(GIB, 8) == 32 << 20
    assert work_bytes(None, 1) == GIB
