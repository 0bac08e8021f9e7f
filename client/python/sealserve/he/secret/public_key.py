"""The public encryption key of a secret key, seeded: b, and instead of a a seed that SEAL expands.

seal-python reads seeded keys but does not write them. So this module moves SEAL's fresh key (b, a)
onto the expansion a' of a new seed, as `seeded_encryptor` moves ciphertexts:

    b' = b + (a - a') s,  hence  b' + a' s = b + a s  (mod q P)

The noise is the same, to the coefficient. a' is as uniform as a and independent of the noise. So
(b', a') has the distribution of SEAL's own seeded keys.

The right-hand side of the first equation is what CKKS calls decryption. SEAL computes it in the
*twin*, the CKKS context in which all primes of the key are data primes, because SEAL decrypts
nothing at the key level. Keys are in NTT form, as CKKS is, so that nothing has to be transformed.

(b, a) together with (b', a') gives the secret key: s = (b' - b) / (a - a'). Hence SEAL's key exists
only within one call, which overwrites it with its difference from (0, a'). It is never written, and
a key that was written is never moved.
"""

import os
import traceback

import numpy as np

from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.public_key_format import pack_public_key
from sealserve.he.seal_format import SEED_BYTES, pack_plaintext, plaintext_coefficients, restamp


def generate_public_key(parameter_set: ParameterSet, secret_key: bytes) -> bytes:
    """Generate a seeded public key for a secret key of the set.

    Raises:
        SealError: SEAL refuses the secret key, or fails.
    """
    with _seal.errors():
        try:
            return _generate(parameter_set, secret_key)
        except BaseException as error:
            # Error reports show local variables, and SEAL's key is one of them.
            traceback.clear_frames(error.__traceback__)
            raise


def _generate(parameter_set: ParameterSet, secret_key: bytes) -> bytes:
    context, twin = _seal.context(key_parameters(parameter_set)), _seal.key_level_context(parameter_set)
    generator = _seal.KeyGenerator(context, _seal.load_secret_key(context, secret_key))
    decryptor = _seal.Decryptor(twin, _seal.load_secret_key(twin, _twin_key(twin, parameter_set, secret_key)))
    nothing = np.zeros((len(parameter_set.primes), parameter_set.poly_modulus_degree), np.uint64)
    seed = os.urandom(SEED_BYTES)
    expanded = _to_twin(twin, pack_public_key(parameter_set, nothing, seed))
    pair = _to_twin(twin, generator.create_public_key().to_string())
    _seal.Evaluator(twin).sub_inplace(pair, expanded)
    moved = _seal.plaintext_bytes(decryptor.decrypt(pair))
    return pack_public_key(parameter_set, plaintext_coefficients(moved, nothing.size), seed)


def _twin_key(twin: _seal.Context, parameter_set: ParameterSet, secret_key: bytes) -> bytes:
    """Return the secret key in the twin.

    SEAL reads the residues of the data primes only. Those of the one prime more are zeros here.
    """
    count = (len(parameter_set.primes) + 1) * parameter_set.poly_modulus_degree
    return restamp(pack_plaintext(plaintext_coefficients(secret_key, count)), _seal.key_parms_id(twin))


def _to_twin(twin: _seal.Context, public_key: bytes) -> _seal.Ciphertext:
    """Convert a public key, which is a ciphertext, to a ciphertext of the twin."""
    return _seal.load_ciphertext(twin, restamp(public_key, _seal.fresh_parms_id(twin)))
