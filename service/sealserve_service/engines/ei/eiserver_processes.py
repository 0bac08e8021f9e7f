"""EIServer's processes: one for each request, few at a time, with limited memory and time."""

import logging
import os
import signal
import subprocess
import sys
import threading
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import CiphertextFault, ItemTimeoutError, MalformedCiphertextError, QuotaExceededError
from sealserve_service.engines.ei import eiserver_process

_ABORTED = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE}
_MAX_OTHER_BYTES = 1 << 16
_MAX_LOGGED_BYTES = 2000

_logger = logging.getLogger(__name__)


class EIServerProcesses:
    """Runs EIServer in processes. Threads and models may share it: each request carries its model.

    A process is used once. Starting one takes 0.2 s, where scoring a class takes 1.5 s; and the
    bytes of a client may have taken over the process that worked on them.

    Args:
        process_count: how many requests are worked on at a time.
        memory_bytes: address space of a process; EIServer needs 250 MiB for 784 features and 10
            classes.
        timeout_seconds: how long a request may take, and how long it may wait before that.

    Raises:
        RuntimeError: EIServer cannot be started, as a first process shows.
    """

    def __init__(self, process_count: int = 1, memory_bytes: int = 512 << 20, timeout_seconds: float = 60.0) -> None:
        self._memory_bytes = memory_bytes
        self._timeout_seconds = timeout_seconds
        self._turns = threading.Semaphore(process_count)
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False
        self.predict(np.empty((0, 1)), np.empty(0), b"", b"")

    def predict(
        self, weights: NDArray[np.float64], intercept: NDArray[np.float64], ciphertexts: bytes, public_keys: bytes
    ) -> list[bytes]:
        """Score a row.

        Args:
            weights: (classes, features).
            intercept: (classes,).
            ciphertexts: of the row, joined.
            public_keys: the client's evaluation keys.

        Returns:
            A SEAL 3.5 ciphertext a class.

        Raises:
            MalformedCiphertextError: EIServer refused the ciphertexts, or the keys, without saying
                why.
            ItemTimeoutError: the request took too long.
            QuotaExceededError: the requests before it took too long.
            RuntimeError: the process could not work: no memory, no EIServer, or this object is
                closed.
        """
        if not self._turns.acquire(timeout=self._timeout_seconds):
            raise QuotaExceededError("eiserver_processes", self._timeout_seconds)
        try:
            with _memory_file() as request, _memory_file() as reply, _memory_file() as log:
                request.write(eiserver_process.pack_request(weights, intercept, ciphertexts, public_keys))
                request.seek(0)
                max_bytes = len(weights) * eiserver_process.CIPHERTEXT_BUFFER_BYTES + _MAX_OTHER_BYTES
                code = self._run(max_bytes, request, reply, log)
                log.seek(0)
                _logger.debug("EIServer's exit code: %s, standard error: %r", code, log.read(_MAX_LOGGED_BYTES))
                self._check(code)
                reply.seek(0)
                return eiserver_process.unpack_reply(reply.read(), len(weights))
        except (OSError, ValueError) as error:
            raise RuntimeError("EIServer's process could not be started or has not answered") from error
        finally:
            self._turns.release()

    def close(self) -> None:
        """End all processes and their requests; refuse further requests."""
        with self._lock:
            self._is_closed = True
            running = list(self._running)
        for process in running:
            process.kill()
        for process in running:
            process.wait()

    def _run(self, max_bytes: int, request: BinaryIO, reply: BinaryIO, log: BinaryIO) -> int:
        """Start a process, wait until it has ended and return its exit code.

        The thread must wait: the process dies with the thread that started it.
        """
        arguments = (os.getpid(), self._memory_bytes, max_bytes)
        command = [sys.executable, "-P", "-m", eiserver_process.__name__, *map(str, arguments)]
        with self._lock:
            if self._is_closed:
                raise RuntimeError("EIServer's processes are closed")
            process = subprocess.Popen(  # noqa: S603  # nothing of a request is in the command
                command, stdin=request, stdout=reply, stderr=log, env=_environment(), start_new_session=True
            )
            self._running.add(process)
        try:
            return process.wait(self._timeout_seconds)
        except subprocess.TimeoutExpired:
            raise ItemTimeoutError(self._timeout_seconds) from None
        finally:
            process.kill()
            process.wait()
            with self._lock:
                self._running.remove(process)

    def _check(self, code: int) -> None:
        if code == eiserver_process.REFUSED or code in _ABORTED:
            raise MalformedCiphertextError(CiphertextFault.HEADER)
        if code == eiserver_process.OUT_OF_MEMORY:
            raise RuntimeError(f"EIServer needs more memory than its limit of {self._memory_bytes} bytes")
        if code != os.EX_OK:
            hint = ": is encrypted-inference installed? The extra `ei` brings it" if code > 0 else ""
            raise RuntimeError(f"EIServer's process ended with exit code {code}{hint}")


def _memory_file() -> BinaryIO:
    return os.fdopen(os.memfd_create("eiserver"), "w+b")


def _environment() -> dict[str, str]:
    """Return where modules are, and nothing else: the server's environment may hold credentials."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
