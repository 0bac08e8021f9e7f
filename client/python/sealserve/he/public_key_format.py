"""Seeded public encryption keys, with the checks that SEAL's own load does not make.

A public key (b, a) is a ciphertext of the key level, with residues for all primes, in NTT form. In
NTT form a polynomial is represented by its values at the roots of X^N + 1 modulo each prime. A
seeded key has b, and instead of a the 64-byte seed that SEAL expands with BLAKE2Xb into the values
of a. SEAL writes seeded keys (`Serializable<PublicKey>`) and expands them while it loads them.

Only seeded keys are accepted, because whoever chooses a reads the weights of a private model. The
mask of a reply's second polynomial is a u + e1, divided by the special prime and rounded. If a is
X, the mask is as small as u and e1, and rounds to zero. No check of the values of a would show such
a choice: X is zero at no root, and any other polynomial with small coefficients does the same. But
nobody can choose what BLAKE2Xb makes of a seed. Whoever tries 2^k seeds decides k bits of a, which
has N log2(q P) of them.

Sources: SEAL native/src/seal/publickey.h (save_members is that of its ciphertext), ciphertext.cpp.
"""

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import KeyFault, MalformedKeyError
from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.seal_format import (
    BLAKE2XB,
    COUNT,
    HEADER,
    MEMBERS,
    PARMS_ID_BYTES,
    SEED_INFO_BYTES,
    header,
    is_header,
    seed_info,
)

_FORM = HEADER.size + PARMS_ID_BYTES
_INNER_HEADER = _FORM + MEMBERS.size
_COUNT = _INNER_HEADER + HEADER.size
_RESIDUES = _COUNT + COUNT.size


def public_key_bytes(parameter_set: ParameterSet) -> int:
    """Return the length of a public key of the set, in bytes."""
    return _RESIDUES + 8 * _word_count(parameter_set) + SEED_INFO_BYTES


def unseeded_public_key_bytes(parameter_set: ParameterSet) -> int:
    """Return the length of a public key that has a in full. No such key is accepted."""
    return _RESIDUES + 16 * _word_count(parameter_set)


def pack_public_key(parameter_set: ParameterSet, values: NDArray[np.uint64], seed: bytes) -> bytes:
    """Build the bytes of a key.

    Args:
        parameter_set: the set to which the key belongs.
        values: of b at the roots, (primes, N), each below its prime.
        seed: of a, SEED_BYTES.
    """
    return b"".join((_prefix(parameter_set), values.tobytes(), seed_info(seed)))


def check_public_key(parameter_set: ParameterSet, data: bytes) -> None:
    """Check untrusted bytes, so that SEAL loads only a seeded public key with this set's parms_id.

    The values of a, which SEAL expands later, need no check. Each is below its prime, and a is zero
    or constant modulo a prime for a share prime^(1 - N) of the seeds: nobody finds one. b is the
    client's choice whatever is checked. A b that is zero or constant modulo a prime is refused,
    since it is a fault of a client and decrypts to nothing. `planning.hiding` does not rely on it.

    Raises:
        MalformedKeyError: a check fails. The error has the first one that does.
    """
    if len(data) == unseeded_public_key_bytes(parameter_set):
        raise MalformedKeyError(KeyFault.UNSEEDED)
    if len(data) != public_key_bytes(parameter_set):
        raise MalformedKeyError(KeyFault.FORMAT)
    expected = _prefix(parameter_set)
    inner_bytes = len(data) - _INNER_HEADER - SEED_INFO_BYTES
    if not is_header(data[: HEADER.size], len(data)) or not is_header(data[_INNER_HEADER:_COUNT], inner_bytes):
        raise MalformedKeyError(KeyFault.FORMAT)
    if data[_FORM:_INNER_HEADER] != expected[_FORM:_INNER_HEADER] or data[_COUNT:_RESIDUES] != expected[_COUNT:]:
        raise MalformedKeyError(KeyFault.FORMAT)
    info = data[-SEED_INFO_BYTES:]
    if not is_header(info, SEED_INFO_BYTES) or info[HEADER.size] != BLAKE2XB:
        raise MalformedKeyError(KeyFault.FORMAT)
    if data[HEADER.size : _FORM] != expected[HEADER.size : _FORM]:
        raise MalformedKeyError(KeyFault.PARAMETERS)
    primes = np.array(parameter_set.primes, np.uint64)[:, None]
    values = np.frombuffer(data, np.uint64, _word_count(parameter_set), _RESIDUES).reshape(len(primes), -1)
    if (values >= primes).any():
        raise MalformedKeyError(KeyFault.COEFFICIENT)
    if (values == values[:, :1]).all(axis=-1).any():
        raise MalformedKeyError(KeyFault.DEGENERATE)


def _word_count(parameter_set: ParameterSet) -> int:
    """Return the number of values of one polynomial."""
    return len(parameter_set.primes) * parameter_set.poly_modulus_degree


def _prefix(parameter_set: ParameterSet) -> bytes:
    """Return every byte before the residues."""
    parms_id = _seal.key_parms_id(_seal.context(key_parameters(parameter_set)))
    form = MEMBERS.pack(True, 2, parameter_set.poly_modulus_degree, len(parameter_set.primes), 1.0, 1)
    words = _word_count(parameter_set)
    inner = header(HEADER.size + COUNT.size + 8 * words) + COUNT.pack(words)
    return header(public_key_bytes(parameter_set)) + parms_id + form + inner
