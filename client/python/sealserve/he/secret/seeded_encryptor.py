"""The encryptors of seeded ciphertexts: c0, and instead of c1 a seed that SEAL expands into c1.

The seed has 64 bytes. A seeded ciphertext has half the bytes of a full one, and takes about twice
the time. seal-python reads seeded ciphertexts but does not write them. So this module moves SEAL's
fresh ciphertext (c0, c1) onto the expansion c1' of a new seed:

    c0' = c0 + (c1 - c1') s,  hence  c0' + c1' s = c0 + c1 s  (mod q)

The plaintext is the same, and so is the noise, to the coefficient. c1' is as uniform as c1 and
independent of the noise. So (c0', c1') has the distribution of SEAL's own seeded ciphertexts.

The right-hand side of the first equation is what CKKS calls decryption, which does not round. So
SEAL computes it in the *twin*, the CKKS context of the same N, primes and secret key.

(c0, c1) together with (c0', c1') gives the key: s = (c0' - c0) / (c1 - c1'). Two ciphertexts of one
seed give the difference of their plaintexts, and many give the key. Hence SEAL's pair exists only
within one call, which overwrites it with its difference from (0, c1'). A new seed is drawn for each
call and is kept nowhere.

A packed ciphertext is a seeded one in another form, made of c0 and the seed alone.
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
    """Symmetric encryption under one secret key, like `Encryptor`, but at half the size.

    Attributes:
        ciphertext_bytes: the length of a ciphertext.
    """

    def __init__(self, parameters: EncryptionParameters, secret_key: bytes) -> None:
        super().__init__(parameters, secret_key)
        parameter_set = parameters.parameter_set
        self._twin = _seal.context(EncryptionParameters(parameter_set, scheme=Scheme.CKKS))
        self._decryptor = _seal.Decryptor(self._twin, _seal.load_key_of_ring(self._twin, parameter_set, secret_key))
        self._evaluator = _seal.Evaluator(self._context)
        self._twin_evaluator = _seal.Evaluator(self._twin)
        self.ciphertext_bytes, self._written = self._format.seeded_bytes, self._format.pack_seeded
        self._twin_parms_id = _seal.fresh_parms_id(self._twin)
        self._zero = np.zeros((len(parameter_set.data_primes), parameter_set.poly_modulus_degree), np.uint64)
        # SEAL transforms only ciphertexts, and refuses one whose second polynomial is zero.
        one = np.ones_like(self._zero).tobytes()
        self._blank = self._to_twin(_seal.load_ciphertext(self._context, self._format.pack(self._zero, one)))

    def encrypt(self, coefficients: NDArray[np.uint64]) -> bytes:
        """Encrypt coefficients (N,), each below t, into a seeded ciphertext."""
        with _seal.errors():
            try:
                return self._encrypt(coefficients)
            except BaseException as error:
                # Error reports show local variables, and the pair is one of them.
                traceback.clear_frames(error.__traceback__)
                raise

    def _encrypt(self, coefficients: NDArray[np.uint64]) -> bytes:
        plaintext = _seal.load_plaintext(self._context, seal_format.pack_plaintext(coefficients))
        seed = os.urandom(seal_format.SEED_BYTES)
        expanded = _seal.load_ciphertext(self._context, self._format.pack_seeded(self._zero, seed))
        moved = self._twin_evaluator.add_plain(self._blank, self._phase(plaintext, expanded))
        self._twin_evaluator.transform_from_ntt_inplace(moved)
        c0, _ = self._format.residues(_seal.ciphertext_bytes(moved))
        return self._written(c0, seed)

    def _phase(self, plaintext: _seal.Plaintext, expanded: _seal.Ciphertext) -> Any:
        """Encrypt a plaintext into (c0, c1) and return c0 + (c1 - c1') s, in the twin.

        `expanded` is (0, c1').
        """
        pair = self._encryptor.encrypt_symmetric(plaintext)
        self._evaluator.sub_inplace(pair, expanded)
        return self._decryptor.decrypt(self._to_twin(pair))

    def _to_twin(self, pair: _seal.Ciphertext) -> _seal.Ciphertext:
        """Convert a pair to a ciphertext of the twin, in NTT form. The pair is overwritten."""
        self._evaluator.transform_to_ntt_inplace(pair)
        return _seal.load_ciphertext(self._twin, seal_format.restamp(_seal.ciphertext_bytes(pair), self._twin_parms_id))


class PackedEncryptor(SeededEncryptor):
    """Symmetric encryption under one secret key, like `SeededEncryptor`, but packed to the bit.

    Where packing saves less than a fifth, ciphertexts are those of a `SeededEncryptor`: a service
    takes no others.
    """

    def __init__(self, parameters: EncryptionParameters, secret_key: bytes) -> None:
        super().__init__(parameters, secret_key)
        if self._format.packs:
            self.ciphertext_bytes, self._written = self._format.packed_bytes, self._format.pack_bits
