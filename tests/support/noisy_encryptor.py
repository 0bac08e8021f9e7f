"""An encryptor with noise of the test's choice, where SEAL would draw it.

It uses the secret key.
"""

import numpy as np
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.seal_format import CiphertextFormat, pack_plaintext
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from tests.support.affine_models import Integers


class NoisyEncryptor:
    """Makes ciphertexts with c0 + c1 s = round(q m / t) + v (mod q), for any v."""

    def __init__(self, parameters: EncryptionParameters, secret_key: bytes) -> None:
        parameter_set = parameters.parameter_set
        self._q, self._t = parameter_set.modulus, parameters.plain_modulus
        self._primes = np.array(parameter_set.data_primes, object)[:, None]
        self._shape = (len(self._primes), parameter_set.poly_modulus_degree)
        self._context = _seal.context(parameters)
        self._evaluator = _seal.Evaluator(self._context)
        self._format = CiphertextFormat(parameter_set, _seal.fresh_parms_id(self._context))
        self._encryptor = Encryptor(parameters, secret_key)
        self._secret = self._read_secret(Decryptor(parameters, secret_key))

    def encrypt(self, coefficients: NDArray[np.uint64], noise: Integers) -> bytes:
        """Encrypt coefficients (N,) with noise (N,) and a c1 as SEAL draws it."""
        c1 = self._format.residues(self._encryptor.encrypt(coefficients))[1]
        wanted = self.scaled(coefficients) + noise
        c0 = (wanted % self._primes - self._times_secret(c1)) % self._primes
        return self._format.pack(c0.astype(np.uint64), c1.tobytes())

    def noise(self, ciphertext: bytes, coefficients: NDArray[np.uint64]) -> Integers:
        """Return v of a ciphertext of coefficients (N,), as far as its first prime tells: (N,)."""
        c0, c1 = self._format.residues(ciphertext)
        prime = int(self._primes[0, 0])
        first: Integers = (c0.astype(object) + self._times_secret(c1) - self.scaled(coefficients))[0]
        centred: Integers = (first + prime // 2) % prime - prime // 2
        return centred

    def fresh(self, coefficients: NDArray[np.uint64]) -> bytes:
        """Encrypt coefficients (N,) as SEAL does."""
        return self._encryptor.encrypt(coefficients)

    def phase(self, c0: bytes, c1: bytes, places: NDArray[np.intp]) -> Integers:
        """Return c0 + c1 s (mod q) of a pair of a reply, at the places whose c0 it has: (n,)."""
        kept = np.frombuffer(c0, np.uint64).reshape(len(self._primes), -1).astype(object)
        whole = np.frombuffer(c1, np.uint64).reshape(self._shape)
        residues = (kept + self._times_secret(whole)[:, places]) % self._primes
        units = [self._q // p * pow(self._q // p, -1, p) for p in self._primes.ravel().tolist()]
        phase: Integers = (residues * np.array(units, object)[:, None]).sum(axis=0) % self._q
        return phase

    def scaled(self, coefficients: NDArray[np.uint64]) -> Integers:
        """round(q m / t), as SEAL rounds (scalingvariant.cpp): (N,)."""
        rounded: Integers = (self._q * coefficients.astype(object) + (self._t + 1) // 2) // self._t
        return rounded

    def _read_secret(self, decryptor: Decryptor) -> _seal.Plaintext:
        """Read s by decrypting (0, round(q / t)), which is an encryption of s itself.

        -1 is read as t - 1, and is lifted to -1 again.
        """
        unit = np.zeros(self._shape, object)
        unit[:, :1] = (self._q + self._t // 2) // self._t % self._primes
        zero = np.zeros(self._shape, np.uint64)
        everywhere = np.arange(self._shape[1], dtype=np.intp)
        secret = decryptor.decrypt(zero.tobytes(), unit.astype(np.uint64).tobytes(), everywhere)
        return _seal.load_plaintext(self._context, pack_plaintext(secret))

    def _times_secret(self, polynomial: NDArray[np.uint64]) -> Integers:
        """Multiply a polynomial (data primes, N) with s.

        SEAL multiplies no polynomials but those of a ciphertext with a plaintext.
        """
        pair = _seal.load_ciphertext(self._context, self._format.pack(polynomial, polynomial.tobytes()))
        product = self._evaluator.multiply_plain(pair, self._secret)
        residues: Integers = self._format.residues(_seal.ciphertext_bytes(product))[0].astype(object)
        return residues
