"""Encrypts with the secret key into seeded ciphertexts: c0, and for c1 the 64 bytes that SEAL expands into it.

Half the bytes of a full ciphertext, for about twice the time. seal-python reads them and writes none, so SEAL's fresh
ciphertext (c0, c1) is moved onto the expansion c1' of a new seed:

    c0' = c0 + (c1 - c1') s,  hence  c0' + c1' s = c0 + c1 s  (mod q):

the same plaintext with the same noise, to the coefficient; and as c1' is as uniform as c1 and independent of the noise,
(c0', c1') is distributed as SEAL's own seeded ciphertexts are. The right-hand side is what CKKS calls decryption: it
does not round. So SEAL computes it in a *twin*, the CKKS context of the same N, primes and secret key.

(c0, c1) beside (c0', c1') gives the key, s = (c0' - c0) / (c1 - c1'); two ciphertexts of one seed give the difference
of their plaintexts, and many the key. Hence SEAL's pair is a local of one call, overwritten by its difference with
(0, c1'), and a seed is drawn for each call and kept nowhere.
"""

import os
import traceback
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.he import _seal, seal_format
from sealserve.he.parameters import EncryptionParameters, Scheme
from sealserve.he.secret.encryptor import Encryptor


class SeededEncryptor(Encryptor):
    """Symmetric encryption under one secret key, as `Encryptor`'s, into ciphertexts of half the size.

    Attributes:
        ciphertext_bytes: the length of a ciphertext.
    """

    def __init__(self, parameters: EncryptionParameters, secret_key: bytes) -> None:
        super().__init__(parameters, secret_key)
        parameter_set = parameters.parameter_set
        self._twin = _seal.context(EncryptionParameters(parameter_set, scheme=Scheme.CKKS))
        stamped = seal_format.restamp(secret_key, _seal.key_parms_id(self._twin))
        self._decryptor = _seal.Decryptor(self._twin, _seal.load_secret_key(self._twin, stamped))
        self._evaluator, self._twin_evaluator = _seal.Evaluator(self._context), _seal.Evaluator(self._twin)
        self.ciphertext_bytes = self._format.seeded_bytes
        self._twin_parms_id = _seal.fresh_parms_id(self._twin)
        self._zero = np.zeros((len(parameter_set.data_primes), parameter_set.poly_modulus_degree), np.uint64)
        # SEAL transforms nothing but ciphertexts, and refuses those without a second polynomial.
        one = np.ones_like(self._zero).tobytes()
        self._blank = self._to_twin(_seal.load_ciphertext(self._context, self._format.pack(self._zero, one)))

    def encrypt(self, coefficients: NDArray[np.uint64]) -> bytes:
        """Encrypt coefficients (N,), each below t, into an uncompressed seeded SEAL ciphertext."""
        with _seal.errors():
            try:
                return self._encrypt(coefficients)
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)  # reports of errors show locals, and the pair is one
                raise

    def _encrypt(self, coefficients: NDArray[np.uint64]) -> bytes:
        plaintext = _seal.load_plaintext(self._context, seal_format.pack_plaintext(coefficients))
        seed = os.urandom(seal_format.SEED_BYTES)
        expanded = _seal.load_ciphertext(self._context, self._format.pack_seeded(self._zero, seed))
        moved = self._twin_evaluator.add_plain(self._blank, self._phase(plaintext, expanded))
        self._twin_evaluator.transform_from_ntt_inplace(moved)
        c0, _ = self._format.residues(_seal.ciphertext_bytes(moved))
        return self._format.pack_seeded(c0, seed)

    def _phase(self, plaintext: _seal.Plaintext, expanded: _seal.Ciphertext) -> Any:
        """Encrypt a plaintext into (c0, c1) and return c0 + (c1 - c1') s of expanded = (0, c1'), in the twin."""
        pair = self._encryptor.encrypt_symmetric(plaintext)
        self._evaluator.sub_inplace(pair, expanded)
        return self._decryptor.decrypt(self._to_twin(pair))

    def _to_twin(self, pair: _seal.Ciphertext) -> _seal.Ciphertext:
        """Take a pair over into the twin, whose ciphertexts are in NTT form. The pair is overwritten."""
        self._evaluator.transform_to_ntt_inplace(pair)
        return _seal.load_ciphertext(self._twin, seal_format.restamp(_seal.ciphertext_bytes(pair), self._twin_parms_id))
