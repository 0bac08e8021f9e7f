"""The encryptor of plaintext polynomials: it encrypts them with the secret key."""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from sealserve.he import _seal, seal_format
from sealserve.he.parameters import EncryptionParameters


class Encryptor:
    """Symmetric encryption under one secret key. Its noise is at most 21, as the planner assumes.

    Attributes:
        ciphertext_bytes: the length of a ciphertext.
    """

    def __init__(self, parameters: EncryptionParameters, secret_key: bytes) -> None:
        parameter_set = parameters.parameter_set
        self._context = _seal.context(parameters)
        self._encryptor = _seal.Encryptor(
            self._context, _seal.load_key_of_ring(self._context, parameter_set, secret_key)
        )
        self._format = seal_format.CiphertextFormat(parameter_set, _seal.fresh_parms_id(self._context))
        self._plaintext_prefix = seal_format.plaintext_prefix(parameter_set.poly_modulus_degree)
        self.ciphertext_bytes = self._format.full_bytes

    def encrypt(self, coefficients: NDArray[np.uint64]) -> bytes:
        """Encrypt coefficients (N,), each below t, into an uncompressed SEAL ciphertext."""
        return _seal.encrypt(self._context, self._encryptor, self._plaintext_prefix + coefficients.tobytes())

    def encrypt_all(self, plaintexts: Iterable[NDArray[np.uint64]]) -> Iterator[bytes]:
        """Encrypt plaintexts, each (N,), one at a time as the caller iterates."""
        return map(self.encrypt, plaintexts)
