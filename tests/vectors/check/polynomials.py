"""Polynomials modulo X^N + 1, as lists of integers."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

Integers = Sequence[int]


def rounded(numerator: int, denominator: int) -> int:
    """A quotient, rounded to the nearest integer, a half upwards."""
    return (2 * numerator + denominator) // (2 * denominator)


def centred(value: int, modulus: int) -> int:
    """The residue that is nearest to 0."""
    return (value + modulus // 2) % modulus - modulus // 2


def composed(residues: Sequence[Integers], primes: Integers) -> list[int]:
    """The coefficients modulo the product of the primes that have these residues for each prime."""
    q = prod(primes)
    units = [q // p * pow(q // p, -1, p) for p in primes]
    return [sum(map(prod, zip(values, units, strict=True))) % q for values in zip(*residues, strict=True)]


def product(polynomial: Integers, small: Integers, q: int) -> list[int]:
    """The product of a polynomial, residues of q, with one of small integers.

    Both become one long integer, whose digits are the coefficients: Python multiplies those fast.
    """
    N = len(polynomial)
    width = (q.bit_length() + max(map(abs, small)).bit_length() + N.bit_length()) // 8 + 1

    def joined(coefficients: Integers) -> int:
        return int.from_bytes(b"".join(c.to_bytes(width, "little") for c in coefficients), "little")

    def digits(number: int) -> list[int]:
        data = number.to_bytes(2 * N * width, "little")
        found = [int.from_bytes(data[at : at + width], "little") for at in range(0, len(data), width)]
        return [low - high for low, high in zip(found[:N], found[N:], strict=True)]  # X^N is -1

    whole = joined(polynomial)
    plus, minus = (digits(whole * joined([max(sign * c, 0) for c in small])) for sign in (1, -1))
    return [(p - m) % q for p, m in zip(plus, minus, strict=True)]


# Values at the roots of X^N + 1: the NTT form of the comment of KEY_KIND_PUBLIC_ENCRYPTION_KEY.


@lru_cache
def least_root(N: int, prime: int) -> int:
    """The least primitive 2N-th root of unity."""
    candidates = (pow(base, (prime - 1) // (2 * N), prime) for base in range(2, prime))
    root = next(candidate for candidate in candidates if pow(candidate, N, prime) == prime - 1)
    square, power, least = root * root % prime, root, root
    for _ in range(N - 1):
        power = power * square % prime
        least = min(least, power)
    return least


def values_of(coefficients: Integers, prime: int) -> list[int]:
    """The values of a polynomial: value i at psi^(2 r + 1), r being i with its bits reversed."""
    N = len(coefficients)
    psi = least_root(N, prime)
    turned = [c * power % prime for c, power in zip(coefficients, _powers(psi, N, prime), strict=True)]
    in_order = _transformed(turned, psi * psi % prime, prime)
    return [in_order[r] for r in _reversed_indices(N)]


def coefficients_of(values: Integers, prime: int) -> list[int]:
    """The polynomial that has these values."""
    N = len(values)
    inverse = pow(least_root(N, prime), -1, prime)
    in_order = [values[r] for r in _reversed_indices(N)]
    turned = _transformed(in_order, inverse * inverse % prime, prime)
    scale = pow(N, -1, prime)
    return [c * power % prime * scale % prime for c, power in zip(turned, _powers(inverse, N, prime), strict=True)]


def _transformed(coefficients: list[int], root: int, prime: int) -> list[int]:
    """The values of a polynomial at 1, root, root^2, ...: as many as it has coefficients."""
    count = len(coefficients)
    if count == 1:
        return coefficients
    square = root * root % prime
    even, odd = (_transformed(coefficients[first::2], square, prime) for first in (0, 1))
    turned = [c * power % prime for c, power in zip(odd, _powers(root, count // 2, prime), strict=True)]
    sums = [(a + b) % prime for a, b in zip(even, turned, strict=True)]
    return sums + [(a - b) % prime for a, b in zip(even, turned, strict=True)]


@lru_cache
def _powers(root: int, count: int, prime: int) -> list[int]:
    powers = [1]
    while len(powers) < count:
        powers.append(powers[-1] * root % prime)
    return powers


@lru_cache
def _reversed_indices(count: int) -> list[int]:
    bits = count.bit_length() - 1
    return [int(f"{i:0{bits}b}"[::-1], 2) for i in range(count)]
