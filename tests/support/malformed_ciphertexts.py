"""Malformed ciphertexts: SEAL objects that a service must refuse."""

import struct
import zlib

import numpy as np

from sealserve.he.parameters import EncryptionParameters
from sealserve.he.secret.encryptor import Encryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN


def patched(data: bytes, at: int, new: bytes) -> bytes:
    """Replace the bytes at a place."""
    return data[:at] + new + data[at + len(new) :]


def of_parameters(parameters: EncryptionParameters) -> bytes:
    """A ciphertext of other parameters, under a key of its own."""
    key = SecretKey.generate(parameters.parameter_set).export(TOKEN)
    return Encryptor(parameters, key).encrypt(np.ones(parameters.parameter_set.poly_modulus_degree, np.uint64))


def compressed(data: bytes) -> bytes:
    """The same SEAL object with a zlib body."""
    body = zlib.compress(data[16:])
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 4, 1, 0, 16 + len(body)) + body
