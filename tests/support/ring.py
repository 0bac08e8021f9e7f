"""Arithmetic modulo X^N + 1 and a prime in Python integers, for clients that make their own keys.

Values of a polynomial are in SEAL's order: value i is that at psi^(2 r + 1), where psi is the least
primitive 2N-th root of unity and r is i with its bits in reverse order.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tests.support.affine_models import Integers


@cache
def _root(degree: int, prime: int) -> int:
    """The least primitive 2N-th root of unity."""
    candidates = (pow(base, (prime - 1) // (2 * degree), prime) for base in range(2, prime))
    root = next(candidate for candidate in candidates if pow(candidate, degree, prime) == prime - 1)
    least: int = min(_powers(root, 2 * degree, prime)[1::2].tolist())
    return least


@cache
def _powers(root: int, count: int, prime: int) -> Integers:
    powers = [1]
    while len(powers) < count:
        powers.append(powers[-1] * root % prime)
    return np.array(powers, object)


@cache
def _bit_reversed(count: int) -> NDArray[np.intp]:
    bits = count.bit_length() - 1
    return np.array([int(f"{i:0{bits}b}"[::-1], 2) for i in range(count)], np.intp)


def _transformed(coefficients: Integers, root: int, prime: int) -> Integers:
    """The values at 1, root, root^2, ...: as many as there are coefficients."""
    count = len(coefficients)
    values, half = coefficients[_bit_reversed(count)], 1
    while half < count:
        even, odd = values.reshape(-1, 2, half).swapaxes(0, 1)
        turned = odd * _powers(pow(root, count // (2 * half), prime), half, prime)
        values = np.stack([even + turned, even - turned], axis=1).ravel() % prime
        half *= 2
    return values


def values_of(coefficients: Integers, prime: int) -> Integers:
    """The values (N,) of a polynomial (N,) at the roots of X^N + 1."""
    count, root = len(coefficients), _root(len(coefficients), prime)
    in_order = _transformed(coefficients * _powers(root, count, prime) % prime, root * root % prime, prime)
    return in_order[_bit_reversed(count)]


def coefficients_of(values: Integers, prime: int) -> Integers:
    """The polynomial (N,) that has these values (N,)."""
    count, root = len(values), _root(len(values), prime)
    inverse = pow(root, -1, prime)
    scaled = _transformed(values[_bit_reversed(count)], inverse * inverse % prime, prime)
    coefficients: Integers = scaled * pow(count, -1, prime) % prime * _powers(inverse, count, prime) % prime
    return coefficients
