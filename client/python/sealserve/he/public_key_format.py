"""Public encryption keys as SEAL writes them, with the checks that SEAL's own load does not make.

A public key (b, a) is a ciphertext of the key level, with residues for all primes, in NTT form. In
NTT form a polynomial is represented by its values at the roots of X^N + 1 modulo each prime. A
polynomial that is zero or a constant modulo a prime has the same value at all roots. A random
polynomial has the same value at all roots only with probability prime^(1 - N).

Sources: SEAL native/src/seal/publickey.h (save_members is that of its ciphertext), ciphertext.cpp.
"""

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import KeyFault, MalformedKeyError
from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.seal_format import COUNT, HEADER, MEMBERS, PARMS_ID_BYTES, header, is_header

_FORM = HEADER.size + PARMS_ID_BYTES
_INNER_HEADER = _FORM + MEMBERS.size
_COUNT = _INNER_HEADER + HEADER.size
_RESIDUES = _COUNT + COUNT.size


def public_key_bytes(parameter_set: ParameterSet) -> int:
    """Return the length of a public key of the set, in bytes."""
    return _RESIDUES + 8 * _word_count(parameter_set)


def pack_public_key(parameter_set: ParameterSet, values: NDArray[np.uint64]) -> bytes:
    """Build the bytes of a key from the values of b and a at the roots.

    Args:
        parameter_set: the set to which the key belongs.
        values: (2, primes, N), each below its prime.
    """
    return _prefix(parameter_set) + values.tobytes()


def check_public_key(parameter_set: ParameterSet, data: bytes) -> None:
    """Check untrusted bytes, so that SEAL loads only a public key with this set's parms_id.

    The check shows that no polynomial is zero or constant modulo any prime. It does not show that
    the polynomials are random: a client can make a key that hides little. Such a key harms only the
    model that the client asks.

    Raises:
        MalformedKeyError: a check fails. The error has the first one that does.
    """
    expected = _prefix(parameter_set)
    if len(data) != public_key_bytes(parameter_set):
        raise MalformedKeyError(KeyFault.FORMAT)
    inner_bytes = len(data) - _INNER_HEADER
    if not is_header(data[: HEADER.size], len(data)) or not is_header(data[_INNER_HEADER:_COUNT], inner_bytes):
        raise MalformedKeyError(KeyFault.FORMAT)
    if data[_FORM:_INNER_HEADER] != expected[_FORM:_INNER_HEADER] or data[_COUNT:_RESIDUES] != expected[_COUNT:]:
        raise MalformedKeyError(KeyFault.FORMAT)
    if data[HEADER.size : _FORM] != expected[HEADER.size : _FORM]:
        raise MalformedKeyError(KeyFault.PARAMETERS)
    primes = np.array(parameter_set.primes, np.uint64)[:, None]
    values = np.frombuffer(data, np.uint64, offset=_RESIDUES).reshape(2, len(primes), -1)
    if (values >= primes).any():
        raise MalformedKeyError(KeyFault.COEFFICIENT)
    if (values == values[..., :1]).all(axis=-1).any():
        raise MalformedKeyError(KeyFault.DEGENERATE)


def _word_count(parameter_set: ParameterSet) -> int:
    return 2 * len(parameter_set.primes) * parameter_set.poly_modulus_degree


def _prefix(parameter_set: ParameterSet) -> bytes:
    """Return every byte before the residues."""
    parms_id = _seal.key_parms_id(_seal.context(key_parameters(parameter_set)))
    form = MEMBERS.pack(True, 2, parameter_set.poly_modulus_degree, len(parameter_set.primes), 1.0, 1)
    words = _word_count(parameter_set)
    inner = header(HEADER.size + COUNT.size + 8 * words) + COUNT.pack(words)
    return header(public_key_bytes(parameter_set)) + parms_id + form + inner
