"""The decryptor of replies: it decrypts polynomial pairs with the secret key.

No serving process loads this module.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import ParameterError, ReplyError
from sealserve.he import _seal, seal_format
from sealserve.he.packed_polynomial import PolynomialUnpacker
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.reply_bits import ReplyBits


class Decryptor:
    """Decryption under one secret key.

    Args:
        parameters: of the ciphertexts.
        secret_key: SEAL's bytes.
        reply_bits: how replies are packed; None if they are residues.

    Raises:
        ParameterError: SEAL has no level of the primes to which replies are lifted.
    """

    def __init__(
        self, parameters: EncryptionParameters, secret_key: bytes, reply_bits: ReplyBits | None = None
    ) -> None:
        parameter_set = parameters.parameter_set
        self._context = _seal.context(parameters)
        self._decryptor = _seal.Decryptor(
            self._context, _seal.load_key_of_ring(self._context, parameter_set, secret_key)
        )
        primes, N = parameter_set.data_primes, parameter_set.poly_modulus_degree
        self._read_c0: Callable[[Sequence[bytes], int], NDArray[np.uint64]]
        self._read_c1: Callable[[Sequence[bytes], int], NDArray[np.uint64]]
        if reply_bits is None:
            self._read_c0 = self._read_c1 = partial(_residues, primes)
        else:
            primes = primes[: reply_bits.prime_count]
            self._read_c0 = PolynomialUnpacker(primes, reply_bits.c0, N).unpack_all
            self._read_c1 = PolynomialUnpacker(primes, reply_bits.c1, N).unpack_all
        self._shape = (len(primes), N)
        # SEAL's levels have one prime less each, and decrypt with the key's residues for theirs.
        levels = _seal.data_parms_ids(self._context)
        below = len(parameter_set.data_primes) - len(primes)
        if below >= len(levels):
            raise ParameterError(
                f"{parameter_set.name}: SEAL has no level of {len(primes)} primes with this plain modulus"
            )
        self._ciphertext_prefix = seal_format.CiphertextFormat(parameter_set, levels[below], len(primes)).full_prefix

    def decrypt(self, c0: bytes, c1: bytes, places: NDArray[np.intp]) -> NDArray[np.uint64]:
        """Decrypt coefficients of one polynomial, (n,): see `decrypt_all`."""
        decrypted: NDArray[np.uint64] = self.decrypt_all([(c0, c1)], places)[0]
        return decrypted

    def decrypt_all(self, pairs: Iterable[tuple[bytes, bytes]], places: NDArray[np.intp]) -> NDArray[np.uint64]:
        """Decrypt the coefficients at the same indices of some polynomials.

        Args:
            pairs: of each polynomial c0, the coefficients at `places`, and c1, all N coefficients:
                packed, or for each data prime the residues, little-endian.
            places: the indices of the coefficients, (n,), ascending.

        Returns:
            uint64 (pairs, n), residues modulo t.

        Raises:
            ReplyError: a length is wrong, a residue is at or above its prime, or a bit behind the
                last coefficient is set, and nothing is decrypted; or SEAL refuses the ciphertext.
        """
        c0s, c1s = zip(*pairs, strict=True)
        N = self._shape[1]
        first = np.zeros((len(c0s), *self._shape), np.uint64)
        first[..., places] = self._read_c0(c0s, places.size)
        found = np.empty((len(c0s), places.size), np.uint64)
        for scores, c0, c1 in zip(found, first, self._read_c1(c1s, N), strict=True):
            ciphertext = b"".join((self._ciphertext_prefix, c0.data, c1.data))
            try:
                plaintext = _seal.decrypt(self._context, self._decryptor, ciphertext)
            except _seal.SealError:
                raise ReplyError from None
            scores[:] = seal_format.plaintext_coefficients(plaintext, N)[places]
        return found


def _residues(primes: tuple[int, ...], polynomials: Sequence[bytes], count: int) -> NDArray[np.uint64]:
    """Return so many coefficients of each polynomial that are not packed.

    The residues are (polynomials, primes, count), read-only.

    Raises:
        ReplyError: it is not their length, or a residue is at or above its prime.
    """
    if any(len(data) != 8 * len(primes) * count for data in polynomials):
        raise ReplyError
    residues = np.frombuffer(b"".join(polynomials), np.uint64).reshape(-1, len(primes), count)
    if (residues >= np.array(primes, np.uint64)[:, None]).any():
        raise ReplyError
    return residues
