"""The decryptor of replies: it decrypts polynomial pairs with the secret key.

No serving process loads this module.
"""

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import ReplyError
from sealserve.he import _seal, seal_format
from sealserve.he.parameters import EncryptionParameters


class Decryptor:
    """Decryption under one secret key."""

    def __init__(self, parameters: EncryptionParameters, secret_key: bytes) -> None:
        self._context = _seal.context(parameters)
        stamped = seal_format.restamp(secret_key, _seal.key_parms_id(self._context))
        self._decryptor = _seal.Decryptor(self._context, _seal.load_secret_key(self._context, stamped))
        self._primes = np.array(parameters.parameter_set.data_primes, np.uint64)[:, None]
        self._shape = (len(self._primes), parameters.parameter_set.poly_modulus_degree)
        parms_id = _seal.fresh_parms_id(self._context)
        self._ciphertext_prefix = seal_format.CiphertextFormat(parameters.parameter_set, parms_id).full_prefix

    def decrypt(self, c0: bytes, c1: bytes, places: NDArray[np.intp]) -> NDArray[np.uint64]:
        """Decrypt the coefficients at given indices of the polynomial.

        Args:
            c0: for each data prime the residues at `places`, little-endian.
            c1: for each data prime the residues of all N coefficients, little-endian.
            places: the indices of the coefficients, (n,), ascending.

        Returns:
            uint64 (n,), residues modulo t.

        Raises:
            ReplyError: a length is wrong, or a residue is at or above its prime, and nothing is
                decrypted; or SEAL refuses the ciphertext.
        """
        prime_count, N = self._shape
        if len(c0) != 8 * prime_count * places.size or len(c1) != 8 * prime_count * N:
            raise ReplyError
        kept = np.frombuffer(c0, np.uint64).reshape(prime_count, -1)
        whole = np.frombuffer(c1, np.uint64).reshape(prime_count, N)
        if (kept >= self._primes).any() or (whole >= self._primes).any():
            raise ReplyError
        first = np.zeros(self._shape, np.uint64)
        first[:, places] = kept
        ciphertext = b"".join((self._ciphertext_prefix, first.tobytes(), c1))
        try:
            plaintext = _seal.decrypt(self._context, self._decryptor, ciphertext)
        except _seal.SealError:
            raise ReplyError from None
        return seal_format.plaintext_coefficients(plaintext, N)[places]
