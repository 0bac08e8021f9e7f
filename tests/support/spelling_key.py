"""A public key whose b is chosen so that c0 of an encryption of zero spells out its u.

Its second polynomial, a, is SEAL's: uniform, as the expansion of a seed is.
"""

import math
from collections import deque
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve_service.engines.linear.zero_encryptor import ReadyZero, ZeroEncryptor
from tests.support.affine_models import Integers
from tests.support.item_round_trip import secret_key
from tests.support.ring import coefficients_of, values_of
from tests.support.seeded import unseeded_public_key


class SpellingKey(ZeroEncryptor):
    """The service's encryptor under the key b = sum_k round(P q / 3^(k + 1)) X^(k stride).

    A coefficient of b u, divided by P, is q / 3^digits times an integer whose digits, in balanced
    ternary, are as many coefficients of u.

    Args:
        parameter_set: of the key.
        digits: coefficients of u in a coefficient of c0.
        stride: their distance.
    """

    def __init__(self, parameter_set: ParameterSet, digits: int, stride: int) -> None:
        self.parameter_set, self.digits, self.stride = parameter_set, digits, stride
        N, primes = parameter_set.poly_modulus_degree, parameter_set.primes
        context = _seal.context(key_parameters(parameter_set))
        proper = unseeded_public_key(parameter_set, secret_key(parameter_set))
        polynomial_bytes = 8 * len(primes) * N
        self._a = np.frombuffer(proper[-polynomial_bytes:], np.uint64).reshape(len(primes), N).astype(object)
        b = np.zeros(N, object)
        for digit in range(digits):
            b[digit * stride] = (2 * math.prod(primes) + 3 ** (digit + 1)) // (2 * 3 ** (digit + 1))
        chosen = np.array([values_of(b % prime, prime) for prime in primes]).astype(np.uint64)
        data = proper[: -2 * polynomial_bytes] + chosen.tobytes() + proper[-polynomial_bytes:]
        self._encryptor = _seal.Encryptor(context, _seal.load_public_key(context, data))
        self.ready = deque[ReadyZero]()
        self._shape = 2, len(parameter_set.data_primes), N

    def spelled(self, kept: Integers, places: NDArray[np.intp]) -> dict[int, int]:
        """Read coefficients of u, by index, off coefficients of c0 modulo q without intercepts."""
        q, N, found = self.parameter_set.modulus, self.parameter_set.poly_modulus_degree, dict[int, int]()
        for place, value in zip(places.tolist(), kept.tolist(), strict=True):
            number = round_half_up(value * 3**self.digits, q)
            for digit in reversed(range(self.digits)):
                trit = (number + 1) % 3 - 1
                number = (number - trit) // 3
                wraps, index = divmod(place - digit * self.stride, N)
                found[index] = trit if wraps == 0 else -trit
        return found

    @cached_property
    def _inverse(self) -> NDArray[np.object_]:
        special = self.parameter_set.primes[-1]
        return np.array([[pow(special, -1, prime)] for prime in self.parameter_set.data_primes], object)

    def mask(self, u: Integers) -> Integers:
        """round(a u / P), which masks c1 but for an error of at most 1: (data primes, N)."""
        primes = self.parameter_set.primes
        product = [
            coefficients_of(a * values_of(u % prime, prime) % prime, prime)
            for a, prime in zip(self._a, primes, strict=True)
        ]
        special = primes[-1]
        remainder = (product[-1] + special // 2) % special - special // 2
        divided = (np.array(product[:-1]) - remainder) * self._inverse
        mask: Integers = divided % np.array(primes[:-1], object)[:, None]
        return mask


def round_half_up(numerator: int, denominator: int) -> int:
    """The nearest integer to a quotient."""
    return (2 * numerator + denominator) // (2 * denominator)
