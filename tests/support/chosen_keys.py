"""Public keys of a client's choice, in full and seeded, and a service that takes them unchecked."""

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.public_key_format import pack_public_key
from sealserve.he.seal_format import RESIDUES_AT
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from sealserve_service.engines.linear.zero_encryptor import ReadyZero, ZeroEncryptor, ZeroEncryptorOf
from tests.support.seeded import unseeded_public_key


def _least_root(degree: int, prime: int) -> int:
    """The least primitive 2N-th root of unity modulo a prime."""
    candidates = (pow(base, (prime - 1) // (2 * degree), prime) for base in range(2, prime))
    root = next(candidate for candidate in candidates if pow(candidate, degree, prime) == prime - 1)
    square, powers = root * root % prime, [root]
    while len(powers) < degree:
        powers.append(powers[-1] * square % prime)
    return min(powers)


def monomial(parameter_set: ParameterSet, factor: int = 1) -> NDArray[np.uint64]:
    """The values of factor X in the order of keys.proto, (primes, N).

    Value i is that at psi^(2 r + 1), where r is i with its bits in reverse order.
    """
    N = parameter_set.poly_modulus_degree
    bits = N.bit_length() - 1
    exponents = [2 * int(f"{i:0{bits}b}"[::-1], 2) + 1 for i in range(N)]
    values = []
    for prime in parameter_set.primes:
        root, powers = _least_root(N, prime), [1]
        while len(powers) < 2 * N:
            powers.append(powers[-1] * root % prime)
        values.append([factor * powers[exponent] % prime for exponent in exponents])
    return np.array(values, np.uint64)


def unseeded_key(parameter_set: ParameterSet, b: NDArray[np.uint64], a: NDArray[np.uint64]) -> bytes:
    """A key with b and a in full: their values, (primes, N) each."""
    prefix = unseeded_public_key(parameter_set, SecretKey.generate(parameter_set).export(TOKEN))[:RESIDUES_AT]
    return b"".join((prefix, b.tobytes(), a.tobytes()))


def seeded_key(parameter_set: ParameterSet, b: NDArray[np.uint64], seed: bytes = bytes(64)) -> bytes:
    """A key with b of the client's choice, and a seed of its choice for a."""
    return pack_public_key(parameter_set, b, seed)


class UncheckedZeroEncryptor(ZeroEncryptor):
    """The service's encryptor as it was: whatever SEAL loads is a key."""

    def __init__(self, parameter_set: ParameterSet, public_key: bytes) -> None:
        context = _seal.context(key_parameters(parameter_set))
        self._encryptor = _seal.Encryptor(context, _seal.load_public_key(context, public_key))
        self.parameter_set = parameter_set
        self.byte_count = len(public_key)
        self.ready = deque[ReadyZero]()
        self._shape = 2, len(parameter_set.data_primes), parameter_set.poly_modulus_degree


def encryptors_of(encryptor: type[ZeroEncryptor], make_key: Callable[[ParameterSet], bytes]) -> ZeroEncryptorOf:
    """What finds a client's key for an engine: always the one that is made."""
    return lambda tenant, key_id, parameter_set: encryptor(parameter_set, make_key(parameter_set))
