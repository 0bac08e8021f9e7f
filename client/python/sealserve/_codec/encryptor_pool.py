"""EncryptorPool: encryption in worker processes.

SEAL's Python binding holds the GIL, so that threads would not make encryption faster.

A worker is a child process with a pipe of its own. When a worker dies, the pool notices, and loses
nothing but time. (The workers of a `ProcessPoolExecutor` share one pipe. If one of them is killed
while it writes, the executor waits for ever.) A secret key goes to the workers through their pipes,
and nowhere else.
"""

import multiprocessing
import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.private_memory import keep_private
from sealserve._rpc.forks import call_in_child
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.secret.encryptor import Encryptor

_PLAINTEXTS_A_BLOCK = 16
_BLOCKS_AHEAD = 2  # for each process: one that it encrypts, and one that waits
_MAX_DEATHS = 3  # of workers: after so many, no other is started
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy the locks of gRPC's threads


@dataclass(frozen=True)
class EncryptorFactory:
    """The arguments of an encryptor, which can be sent to a worker."""

    kind: type[Encryptor]
    parameters: EncryptionParameters
    secret_key: bytes = field(repr=False)

    def __call__(self) -> Encryptor:
        """Make the encryptor."""
        return self.kind(self.parameters, self.secret_key)


class EncryptorPool:
    """Worker processes, started when there is work for them.

    They are spawned: a program that uses them has to be importable, with its entry under
    `if __name__ == "__main__"`.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._begin()
        call_in_child(self._begin)

    def _begin(self) -> None:
        """Begin without workers. In a forked child those of the parent are not its own."""
        self._threads = ThreadPoolExecutor(self.processes, "sealserve-encrypt")
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        for _ in range(self.processes):
            self._idle.put(None)
        self._deaths = 0

    def submit(self, make: EncryptorFactory, block: NDArray[np.uint64]) -> "EncryptedBlock":
        """Have a worker encrypt plaintexts (n, N)."""
        return self._threads.submit(self._encrypt, make, block)

    def _encrypt(self, make: EncryptorFactory, block: NDArray[np.uint64]) -> list[bytes] | None:
        worker = self._idle.get()
        try:
            if worker is None:
                # A daemon, such as a worker of multiprocessing.Pool, may have no children.
                if self._deaths >= _MAX_DEATHS or multiprocessing.current_process().daemon:
                    return None
                worker = _Worker()
            return worker.encrypt(make, block)
        except (EOFError, OSError):
            self._deaths += 1
            if worker is not None:
                worker.close()
                worker = None
            return None
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(cancel_futures=True)
        for _ in range(self.processes):
            if worker := self._idle.get():
                worker.close()


EncryptedBlock = Future[list[bytes] | None]
"""Ciphertexts that a worker makes; None if it could not."""


class PooledEncryptor:
    """Encrypts many plaintexts in a pool and in this process at once, a few in this process only.

    Args:
        pool: the worker processes. Encryptors may share a pool.
        make: makes the encryptor, in this process and in the workers.
    """

    def __init__(self, pool: EncryptorPool, make: EncryptorFactory) -> None:
        self._pool = pool
        self._make = make
        self._here = make()
        self.ciphertext_bytes = self._here.ciphertext_bytes

    def encrypt_all(self, plaintexts: Iterable[NDArray[np.uint64]]) -> Iterator[bytes]:
        """Encrypt plaintexts, each (N,), in order.

        Blocks of them go to the pool and, while that is busy, are encrypted in this process.
        """
        source = iter(plaintexts)
        blocks = deque[tuple[NDArray[np.uint64], EncryptedBlock]]()
        busy = _BLOCKS_AHEAD * self._pool.processes
        try:
            while (block := list(islice(source, _PLAINTEXTS_A_BLOCK))) and len(block) == _PLAINTEXTS_A_BLOCK:
                is_busy = sum(not encrypted.done() for _, encrypted in blocks) >= busy
                blocks.append(self._encrypt_here(block) if is_busy else self._submit(block))
                while blocks and (blocks[0][1].done() or len(blocks) > 2 * busy):
                    yield from self._wait_for(*blocks.popleft())
            while blocks:
                yield from self._wait_for(*blocks.popleft())
            yield from self._here.encrypt_all(block)
        finally:
            for _, encrypted in blocks:
                encrypted.cancel()

    def _submit(self, block: list[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], EncryptedBlock]:
        stacked = np.stack(block)
        return stacked, self._pool.submit(self._make, stacked)

    def _encrypt_here(self, block: list[NDArray[np.uint64]]) -> tuple[NDArray[np.uint64], EncryptedBlock]:
        done: EncryptedBlock = Future()
        done.set_result(list(self._here.encrypt_all(block)))
        return np.empty((0, 0), np.uint64), done

    def _wait_for(self, block: NDArray[np.uint64], encrypted: EncryptedBlock) -> Iterable[bytes]:
        ciphertexts = encrypted.result()
        # Without a worker, encryption is slower, but nothing is lost.
        return self._here.encrypt_all(block) if ciphertexts is None else ciphertexts


class _Worker:
    """A process that encrypts.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self) -> None:
        self._pipe, its_end = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(its_end,), name="sealserve-encrypt", daemon=True)
        self._process.start()
        its_end.close()

    def encrypt(self, make: EncryptorFactory, plaintexts: NDArray[np.uint64]) -> list[bytes]:
        """Encrypt plaintexts (n, N).

        Raises:
            EOFError, OSError: the process has ended.
        """
        self._pipe.send((make, plaintexts))
        joined = self._pipe.recv_bytes()
        length = len(joined) // len(plaintexts)
        return [joined[start : start + length] for start in range(0, len(joined), length)]

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join()


def _work(pipe: Connection) -> None:
    """Encrypt the plaintexts that come through the pipe, until its other end is closed."""
    keep_private()
    made = lru_cache(maxsize=4)(EncryptorFactory.__call__)
    try:
        while True:
            make, plaintexts = pipe.recv()
            pipe.send_bytes(b"".join(made(make).encrypt_all(plaintexts)))
    except (EOFError, OSError, KeyboardInterrupt):
        return
