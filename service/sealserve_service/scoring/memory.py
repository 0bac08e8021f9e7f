"""The memory of a serving process, and the part of it that ciphertexts may take."""

from sealserve_service.container import PROCESS_BYTES

_MIN_WORK_BYTES, _MAX_WORK_BYTES = 32 << 20, 1 << 30


def work_bytes(limit: int | None, processes: int) -> int:
    """Return how many bytes of ciphertexts a process may hold.

    That is a quarter of its memory beyond its own needs, since up to four copies of a ciphertext
    exist: as received, as bytes, as SEAL's object, and as the reply made of it.
    """
    if limit is None:
        return _MAX_WORK_BYTES
    return min(max((limit // processes - PROCESS_BYTES) // 4, _MIN_WORK_BYTES), _MAX_WORK_BYTES)
