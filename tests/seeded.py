"""Seeded ciphertexts: half the size, as SEAL's other bindings write them; seal-python reads them but writes none.

A seeded ciphertext holds c0 and the seed from which SEAL expands c1. Here a fresh ciphertext is moved onto a c1 that is
expanded from a new seed: c0 + (c1 - expanded) s. With the secret key in hand, for tests only.
"""

import os
import struct

import numpy as np
from numpy.typing import NDArray

from sealserve._exchange import Exchange
from sealserve.he import _seal
from sealserve.he.seal_format import restamp
from sealserve.secret_key_access import TOKEN

_HEADER = struct.Struct("<HBBBBHQ")
BLAKE2XB = 1


def framed(body: bytes) -> bytes:
    """An uncompressed SEAL 4.4 object."""
    return _HEADER.pack(0xA15E, _HEADER.size, 4, 4, 0, 0, _HEADER.size + len(body)) + body


def seeded(exchange: Exchange, ciphertext: bytes, generator: int = BLAKE2XB) -> bytes:
    """The seeded form of a ciphertext of one prime that the exchange's key has encrypted."""
    parameters = exchange.offer.parameters
    (prime,), N = parameters.parameter_set.data_primes, parameters.parameter_set.poly_modulus_degree
    context = _seal.context(parameters)
    evaluator = _seal.Evaluator(context)
    key = restamp(exchange.secret_key.export(TOKEN), _seal.key_parms_id(context))
    secret = np.frombuffer(key, np.uint64, offset=len(key) - 8 * N).astype(object)  # in NTT form

    def transformed(pair: NDArray[np.uint64], *, back: bool = False) -> NDArray[np.uint64]:
        loaded = _seal.load_ciphertext(context, _ciphertext(exchange, pair.tobytes(), is_ntt=back))
        (evaluator.transform_from_ntt_inplace if back else evaluator.transform_to_ntt_inplace)(loaded)
        return _residues(_seal.ciphertext_bytes(loaded), N)

    seed_info = framed(bytes([generator]) + os.urandom(64))
    of_zero = _seeded_ciphertext(exchange, bytes(8 * N), seed_info)
    expanded = _residues(_seal.ciphertext_bytes(_seal.load_ciphertext(context, of_zero)), N)[1]
    c0, c1 = _residues(ciphertext, N).astype(object)
    moved = np.array([c0, (c1 - expanded) % prime]).astype(np.uint64)
    c0_ntt, difference_ntt = transformed(moved).astype(object)
    phase = ((c0_ntt + difference_ntt * secret) % prime).astype(np.uint64)
    new_c0 = transformed(np.array([phase, phase]), back=True)[0]
    return _seeded_ciphertext(exchange, new_c0.tobytes(), seed_info)


def _members(exchange: Exchange, is_ntt: bool) -> bytes:
    N = exchange.offer.parameters.parameter_set.poly_modulus_degree
    return exchange.offer.parms_id + struct.pack("<?QQQdQ", is_ntt, 2, N, 1, 1.0, 1)


def _array(data: bytes) -> bytes:
    return framed(struct.pack("<Q", len(data) // 8) + data)


def _ciphertext(exchange: Exchange, data: bytes, *, is_ntt: bool) -> bytes:
    return framed(_members(exchange, is_ntt) + _array(data))


def _seeded_ciphertext(exchange: Exchange, c0: bytes, seed_info: bytes) -> bytes:
    return framed(_members(exchange, is_ntt=False) + _array(c0) + seed_info)


def _residues(ciphertext: bytes, N: int) -> NDArray[np.uint64]:
    return np.frombuffer(ciphertext, np.uint64, offset=len(ciphertext) - 16 * N).reshape(2, N)
