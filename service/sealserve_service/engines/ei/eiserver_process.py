"""Program that runs EIServer on one request and ends: `python -m` this module PARENT MEMORY REPLY.

EIServer's native code (SEAL 3.5) is given hostile bytes: it may abort, overrun its memory or worse.
So a process serves one request only, and nothing of it is left for another client's. The process
loads NumPy and encrypted-inference, no other part of this service; its environment and files hold
nothing but the request.

The request is on standard input and the reply goes to standard output. Both are files in memory: a
pipe would have to be read and written at the same time, and capped. PARENT is the process that this
one must not outlive, MEMORY the most address space and REPLY the most bytes in one file, both in
bytes.
"""

import base64
import ctypes
import os
import resource
import signal
import struct
import sys

import numpy as np
from numpy.typing import NDArray

REFUSED, OUT_OF_MEMORY = os.EX_DATAERR, os.EX_OSERR
"""Exit codes: EIServer raised an exception; this program had too little memory."""

SLOTS = 4096
"""Features in a ciphertext. Not imported: this process does not load `sealserve.he`."""

CIPHERTEXT_BUFFER_BYTES = 500_000
"""The most that EIServer reads of a ciphertext.

Source: GetCiphertextBufferSize of encrypted-inference 0.9.
"""

_REQUEST = struct.Struct("<3Q")  # classes, features, bytes of all ciphertexts
_LENGTH = struct.Struct("<Q")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # linux/prctl.h


def pack_request(
    weights: NDArray[np.float64], intercept: NDArray[np.float64], ciphertexts: bytes, public_keys: bytes
) -> bytes:
    """Build a request: weights (classes, features), intercept (classes,), joined ciphertexts."""
    return b"".join(
        (
            _REQUEST.pack(*weights.shape, len(ciphertexts)),
            weights.tobytes(),
            intercept.tobytes(),
            ciphertexts,
            public_keys,
        )
    )


def unpack_reply(data: bytes, classes: int) -> list[bytes]:
    """Read a reply: a ciphertext a class.

    Raises:
        ValueError: it is no reply with so many classes.
    """
    pieces, at = list[bytes](), 0
    while at < len(data):
        begin = at + _LENGTH.size
        at = begin + int.from_bytes(data[at:begin], "little")
        pieces.append(data[begin:at])
    if len(pieces) != classes or at != len(data):
        raise ValueError("not a ciphertext a class")
    return pieces


def main() -> int:
    """Answer the request and return the exit code."""
    parent, memory_bytes, reply_bytes = map(int, sys.argv[1:])
    _die_with(parent)
    from encrypted.inference.eiserver import EIServer  # writes its native library beside itself unless it is there

    _limit(memory_bytes, reply_bytes)
    try:
        request = sys.stdin.buffer.read()
        classes, features, ciphertext_bytes = _REQUEST.unpack_from(request)
        numbers = np.frombuffer(request, np.float64, classes * (features + 1), _REQUEST.size)
        at = _REQUEST.size + numbers.nbytes
        # EIServer tells its native code the largest possible length, and the code reads as many
        # bytes.
        capacity = CIPHERTEXT_BUFFER_BYTES * -(-features // SLOTS)
        ciphertexts = request[at : at + ciphertext_bytes].ljust(capacity, b"\0")
        public_keys = request[at + ciphertext_bytes :]
        weights = numbers[: classes * features].reshape(classes, features)
        scores = EIServer(weights, numbers[classes * features :]).predict(
            [base64.b64encode(ciphertexts).decode()], public_keys
        )
        for score in map(base64.b64decode, scores):
            sys.stdout.buffer.write(_LENGTH.pack(len(score)) + score)
        sys.stdout.buffer.flush()
    except MemoryError:
        return OUT_OF_MEMORY
    except Exception:  # without its text, which may repeat the request
        return REFUSED
    return os.EX_OK


def _die_with(parent: int) -> None:
    """Have this process end when the thread ends that started it and waits for it."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(_PR_SET_DUMPABLE, 0)  # no core dump, not even to a handler of the kernel; no debugger
    if os.getppid() != parent:  # the parent died before the call
        sys.exit(os.EX_UNAVAILABLE)


def _limit(memory_bytes: int, reply_bytes: int) -> None:
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, reply_bytes),
        (resource.RLIMIT_AS, memory_bytes),
    ):
        resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    sys.exit(main())
