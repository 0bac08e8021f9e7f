"""Encrypts zero under a client's public encryption key: what re-randomizes a reply in mode private."""

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import KeyFault, MalformedKeyError
from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.public_key_format import check_public_key, public_key_bytes
from sealserve.he.seal_format import CiphertextFormat


class ZeroEncryptor:
    """Encryptions of zero for every model of a ring, whatever its t: zero lifts to zero. Threads may share it.

    Attributes:
        parameter_set: the ring.
        byte_count: the memory that it takes, within a kilobyte or so.

    Raises:
        MalformedKeyError: the bytes are no public key of the ring.
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
        self.byte_count = public_key_bytes(parameter_set)
        self._format = CiphertextFormat(parameter_set, _seal.fresh_parms_id(context))

    def encrypt(self) -> NDArray[np.uint64]:
        """Return a new encryption of zero: uint64 (2, data primes, N), coefficient form; noise at most `zero_noise`."""
        with _seal.errors():
            return self._format.residues(_seal.ciphertext_bytes(self._encryptor.encrypt_zero()))
