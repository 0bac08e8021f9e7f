"""ZeroEncryptor: encryptions of zero under a client's public key, which re-randomize replies."""

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import KeyFault, KeyNotFoundError, MalformedKeyError
from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.public_key_format import check_public_key, pack_public_key
from sealserve.he.seal_format import SEED_BYTES


class ZeroEncryptor:
    """Encryptions of zero for every model of a ring, whatever its t: zero lifts to zero.

    Threads may share it.

    Attributes:
        parameter_set: the ring.
        byte_count: the memory that it takes, to within a kilobyte or so. The second polynomial is
            expanded from its seed once, and kept.

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

    @classmethod
    def under_a_random_key(cls, parameter_set: ParameterSet) -> "ZeroEncryptor":
        """Make one to measure its cost. The key is random residues: nobody can decrypt."""
        shape = len(parameter_set.primes), parameter_set.poly_modulus_degree
        words = np.frombuffer(os.urandom(8 * shape[0] * shape[1]), np.uint64).reshape(shape)
        values = words % np.array(parameter_set.primes, np.uint64)[:, None]
        return cls(parameter_set, pack_public_key(parameter_set, values, os.urandom(SEED_BYTES)))

    def encrypt(self) -> NDArray[np.uint64]:
        """Return a new encryption of zero, uint64 (2, data primes, N), in coefficient form.

        Its noise is at most `planning.noise.zero_noise`.

        Raises:
            SealError, RandomnessError: only a fault of this process can raise one.
        """
        try:
            zero = self._encryptor.encrypt_zero()
        except _seal.ERRORS as error:
            raise _seal.translated(error) from error
        return _seal.ciphertext_residues(zero, self._shape)


ZeroEncryptorOf = Callable[[str, str, ParameterSet], ZeroEncryptor]
"""(the owner's name, key id, parameter set) -> zero encryptor; raises KeyNotFoundError."""


def find_no_key(owner: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
    """Find no key: for an engine that was given none.

    Raises:
        KeyNotFoundError: always.
    """
    raise KeyNotFoundError(key_id)
