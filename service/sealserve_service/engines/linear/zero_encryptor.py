"""ZeroEncryptor: encryptions of zero under a client's public key, which re-randomize replies.

Two replies with one encryption of zero tell the weights: their difference has none. So each is for
one polynomial pair of one reply, whatever becomes of that reply. Some may be made before they are
needed (`ready_zeros`). A *ready* zero is removed from the encryptor in one step, by the thread that
then has it, and nothing puts it back. It belongs to the process that has made it, since a forked
child has a copy, and is used within a minute or not at all.
"""

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import KeyFault, KeyNotFoundError, MalformedKeyError
from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.public_key_format import check_public_key, pack_public_key
from sealserve.he.seal_format import SEED_BYTES

MAX_AGE_SECONDS = 60.0
"""How long a ready zero may be used, and how long a key that is not used has ready zeros."""


class ReadyZero(NamedTuple):
    """An encryption of zero that was made for later use.

    Attributes:
        value: as `ZeroEncryptor.encrypt` returns it.
        made: when, by time.monotonic().
        process_id: of the process that has made it.
    """

    value: NDArray[np.uint64]
    made: float
    process_id: int


class ZeroEncryptor:
    """Encryptions of zero for every model of a ring, whatever its t: zero lifts to zero.

    It is that of one key of one tenant, and so are its ready zeros. Threads may share it.

    Attributes:
        parameter_set: the ring.
        byte_count: the memory that it takes, to within a kilobyte or so, without ready zeros. The
            second polynomial is expanded from its seed once, and kept.
        zero_bytes: the memory of a ready zero.
        ready: the zeros that nobody has had yet, the oldest first, in a deque: popleft is atomic.
        last_use: when an item last began to use it, by time.monotonic(); -infinity for never.
        is_supplied: whether `ReadyZeros` makes zeros for it.

    Raises:
        MalformedKeyError: the bytes are no seeded public key of the ring.
    """

    def __init__(self, parameter_set: ParameterSet, public_key: bytes) -> None:
        check_public_key(parameter_set, public_key)
        context = _seal.context(key_parameters(parameter_set))
        try:
            with _seal.errors():
                self._encryptor = _seal.Encryptor(context, _seal.load_public_key(context, public_key))
        except _seal.SealError as error:
            raise MalformedKeyError(KeyFault.FORMAT) from error
        self.parameter_set = parameter_set
        self.byte_count = 16 * len(parameter_set.primes) * parameter_set.poly_modulus_degree
        self._shape = 2, len(parameter_set.data_primes), parameter_set.poly_modulus_degree
        self.zero_bytes = 8 * math.prod(self._shape)
        self.ready = deque[ReadyZero]()
        self.last_use = -math.inf
        self.is_supplied = False

    @classmethod
    def under_a_random_key(cls, parameter_set: ParameterSet) -> "ZeroEncryptor":
        """Make one to measure its cost. The key is random residues: nobody can decrypt."""
        shape = len(parameter_set.primes), parameter_set.poly_modulus_degree
        words = np.frombuffer(os.urandom(8 * shape[0] * shape[1]), np.uint64).reshape(shape)
        values = words % np.array(parameter_set.primes, np.uint64)[:, None]
        return cls(parameter_set, pack_public_key(parameter_set, values, os.urandom(SEED_BYTES)))

    def encrypt(self) -> NDArray[np.uint64]:
        """Return an encryption of zero that nobody else gets: a ready one, or else a new one.

        It is uint64 (2, data primes, N), in coefficient form. Its noise is at most
        `planning.noise.zero_noise`.

        Raises:
            SealError, RandomnessError: only a fault of this process can raise one.
        """
        while self.ready:
            try:
                value, made, process_id = self.ready.popleft()
            except IndexError:  # another thread has had the last one
                break
            if process_id == os.getpid() and time.monotonic() - made < MAX_AGE_SECONDS:
                return value
        return _seal.encrypted_zero(self._encryptor, self._shape)

    def make_ready(self) -> None:
        """Make one more zero ready.

        Raises:
            SealError, RandomnessError: as `encrypt`.
        """
        self.ready.append(ReadyZero(_seal.encrypted_zero(self._encryptor, self._shape), time.monotonic(), os.getpid()))

    def drop_old(self, now: float) -> None:
        """Drop the ready zeros that are too old at a time, by time.monotonic()."""
        # Another thread may have the first one meanwhile: then a younger one is dropped.
        with contextlib.suppress(IndexError):
            while now - self.ready[0].made >= MAX_AGE_SECONDS:
                self.ready.popleft()


ZeroEncryptorOf = Callable[[str, str, ParameterSet], ZeroEncryptor]
"""(the owner's name, key id, parameter set) -> zero encryptor; raises KeyNotFoundError."""


def find_no_key(owner: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
    """Find no key: for an engine that was given none.

    Raises:
        KeyNotFoundError: always.
    """
    raise KeyNotFoundError(key_id)
