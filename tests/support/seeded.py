"""Seeded ciphertexts, half the size, of what a codec has encrypted, and unseeded public keys."""

import numpy as np

from sealserve._codec.codec import RowCodec
from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.secret_key_access import TOKEN


def seeded(codec: RowCodec, ciphertext: bytes) -> bytes:
    """Encrypt the plaintext of a full ciphertext anew, seeded."""
    parameters, key = codec.offer.parameters, codec.secret_key.export(TOKEN)
    c0, c1 = CiphertextFormat(parameters.parameter_set, codec.offer.parms_id).residues(ciphertext)
    everywhere = np.arange(parameters.parameter_set.poly_modulus_degree)
    plaintext = Decryptor(parameters, key).decrypt(c0.tobytes(), c1.tobytes(), everywhere)
    return SeededEncryptor(parameters, key).encrypt(plaintext)


def unseeded_public_key(parameter_set: ParameterSet, secret_key: bytes) -> bytes:
    """Generate a public key (b, a) with a in full, as seal-python writes it."""
    context = _seal.context(key_parameters(parameter_set))
    data: bytes = (
        _seal.KeyGenerator(context, _seal.load_secret_key(context, secret_key)).create_public_key().to_string()
    )
    return data
