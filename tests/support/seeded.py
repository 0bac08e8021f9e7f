"""Seeded ciphertexts, half the size, of what an exchange has encrypted."""

import numpy as np

from sealserve._codec.codec import Exchange
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.secret_key_access import TOKEN


def seeded(exchange: Exchange, ciphertext: bytes) -> bytes:
    """Encrypt the plaintext of a full ciphertext again, seeded, under the same key."""
    parameters, key = exchange.offer.parameters, exchange.secret_key.export(TOKEN)
    c0, c1 = CiphertextFormat(parameters.parameter_set, exchange.offer.parms_id).residues(ciphertext)
    everywhere = np.arange(parameters.parameter_set.poly_modulus_degree)
    plaintext = Decryptor(parameters, key).decrypt(c0.tobytes(), c1.tobytes(), everywhere)
    return SeededEncryptor(parameters, key).encrypt(plaintext)
