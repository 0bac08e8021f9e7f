"""Rounding stays within its bound, lifting is exact, and bits are where they belong.

All of it is compared with Python's integers.
"""

import math
import secrets
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.errors import ReplyError
from sealserve.he.bit_packing import DIGIT_BITS, MAX_BITS, MIN_BITS, packed_bytes, possible_bits
from sealserve.he.packed_polynomial import LOSS, MAX_PRIMES, PolynomialPacker, PolynomialUnpacker
from sealserve.he.parameters import RINGS

DATA_PRIMES = {name: primes[:-1] or primes for name, (_, primes) in RINGS.items()}
EVERY_BITS = [bits for bits in range(MIN_BITS, MAX_BITS + 1) if possible_bits(bits) == bits]


def is_prime(number: int) -> bool:
    return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5, 7, 11, 13))


def large_primes() -> Iterator[int]:
    """The greatest of 60 bits that are 1 modulo 16384."""
    candidates = range((1 << 60) - (1 << 60) % 16384 + 1 - 16384, 0, -16384)
    return (number for number in candidates if is_prime(number))


MANY = tuple(prime for prime, _ in zip(large_primes(), range(MAX_PRIMES), strict=False))
primes_of = st.sampled_from([*DATA_PRIMES.values(), MANY, MANY[:1], (12289, 40961)])
bits_of = st.sampled_from(EVERY_BITS)


def residues(values: list[int], primes: tuple[int, ...]) -> NDArray[np.uint64]:
    return np.array([[value % prime for value in values] for prime in primes], np.uint64)


def read(packed: bytes, bits: int, count: int) -> list[int]:
    """Unpack values as the comment of PackedPair says."""
    assert len(packed) == packed_bytes(count, bits) == -(-count * bits // 8)
    whole = int.from_bytes(packed, "little")
    assert whole >> count * bits == 0
    return [whole >> index * bits & (1 << bits) - 1 for index in range(count)]


def written(values: list[int], bits: int) -> bytes:
    whole = sum(value << index * bits for index, value in enumerate(values))
    return whole.to_bytes(packed_bytes(len(values), bits), "little")


def rounded(values: list[int], primes: tuple[int, ...], bits: int) -> list[int]:
    packed = PolynomialPacker(primes, bits, len(values)).pack(residues(values, primes))
    return read(packed, bits, len(values))


def lifted(values: list[int], primes: tuple[int, ...], bits: int) -> NDArray[np.uint64]:
    return PolynomialUnpacker(primes, bits, len(values)).unpack(written(values, bits), len(values))


def exactly_lifted(values: list[int], primes: tuple[int, ...], bits: int) -> NDArray[np.uint64]:
    q, modulus = math.prod(primes), 1 << bits
    return residues([(2 * q * value + modulus) // (2 * modulus) for value in values], primes)


# Bits


@settings(deadline=None, max_examples=200)
@given(data=st.data(), bits=bits_of, count=st.integers(1, 70), spare=st.integers(0, 70))
def test_value_i_takes_the_bits_from_i_b_on(data: st.DataObject, bits: int, count: int, spare: int) -> None:
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count))
    primes = MANY[:2]
    coefficients = exactly_lifted(values, primes, bits)
    assert PolynomialPacker(primes, bits, count + spare).pack(coefficients) == written(values, bits)
    unpacked = PolynomialUnpacker(primes, bits, count + spare).unpack(written(values, bits), count)
    assert unpacked.tolist() == coefficients.tolist()


@pytest.mark.parametrize("bits", EVERY_BITS)
def test_no_value_spoils_its_neighbours(bits: int) -> None:
    """All ones beside all zeros: a bit too many, or too few, shows."""
    primes = MANY[:2]
    packer, unpacker = PolynomialPacker(primes, bits, 512), PolynomialUnpacker(primes, bits, 512)
    for count in (1, 5, 8, 9, 64, 512):
        for first in (0, 1):
            values = [(2**bits - 1) * ((index + first) % 2) for index in range(count)]
            coefficients = exactly_lifted(values, primes, bits)
            assert packer.pack(coefficients) == written(values, bits)
            assert unpacker.unpack(written(values, bits), count).tolist() == coefficients.tolist()


@pytest.mark.parametrize("bits", [31, 42, 57 + 1])
def test_what_is_no_polynomial_is_refused(bits: int) -> None:
    unpacker = PolynomialUnpacker(MANY[:2], bits, 16)
    for count in (1, 5, 8):
        good = written([1] * count, bits)
        assert unpacker.unpack(good, count).shape == (2, count)
        bad = [b"", good[:-1], good + b"\0", good * 2]
        bad += [good[:-1] + bytes([good[-1] | 1 << bit]) for bit in range(count * bits % 8 or 8, 8)]
        for data in bad:
            with pytest.raises(ReplyError):
                unpacker.unpack(data, count)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), bits=bits_of, primes=primes_of, count=st.integers(1, 30), polynomials=st.integers(1, 5))
def test_many_polynomials_are_packed_and_unpacked_as_each_is(
    data: st.DataObject, bits: int, primes: tuple[int, ...], count: int, polynomials: int
) -> None:
    """Neighbours share no byte, whatever is left of the last one of each."""
    q, few = math.prod(primes), primes[:2]
    values = [[secrets.choice([0, q - 1, secrets.randbelow(q)]) for _ in range(count)] for _ in range(polynomials)]
    each = np.stack([residues(row, primes) for row in values])
    packer, unpacker = PolynomialPacker(primes, bits, count + 3), PolynomialUnpacker(few, bits, count + 3)
    packed = packer.pack_all(each)
    assert packed == [packer.pack(polynomial) for polynomial in each]
    unpacked = unpacker.unpack_all(packed, count)
    assert unpacked.tolist() == [unpacker.unpack(data, count).tolist() for data in packed]
    assert unpacked.tolist() == [exactly_lifted(read(data, bits, count), few, bits).tolist() for data in packed]
    spoilt = data.draw(st.integers(0, polynomials - 1))
    for bad in (packed[spoilt][:-1], packed[spoilt] + b"\0"):
        with pytest.raises(ReplyError):
            unpacker.unpack_all([*packed[:spoilt], bad, *packed[spoilt + 1 :]], count)
    if spare := count * bits % 8:
        bad = packed[spoilt][:-1] + bytes([packed[spoilt][-1] | 1 << spare])
        with pytest.raises(ReplyError):
            unpacker.unpack_all([*packed[:spoilt], bad, *packed[spoilt + 1 :]], count)


# Rounding


def errors(values: list[int], primes: tuple[int, ...], bits: int) -> list[Fraction]:
    """How far each rounded value is off, in its units and modulo 2^bits."""
    q, modulus = math.prod(primes), 1 << bits
    half = q * modulus // 2
    found = rounded(values, primes, bits)
    off = [(q * r - modulus * v + half) % (q * modulus) - half for r, v in zip(found, values, strict=True)]
    return [Fraction(each, q) for each in off]


def on_edges(q: int, bits: int, count: int) -> list[int]:
    """Values on either side of where rounding changes, and around 0."""
    edges = [((2 * secrets.randbelow(1 << bits) + 1) * q) >> bits + 1 for _ in range(count)]
    return [0, 1, q - 1, q // 2, q // 2 + 1, *((edge + step) % q for edge in edges for step in (-1, 0, 1, 2))]


def greatest(primes: tuple[int, ...]) -> list[int]:
    """Values with the greatest residues, where float64 loses most, or with the greatest pieces."""
    q = math.prod(primes)
    units = [q // prime * pow(q // prime, -1, prime) for prime in primes]
    wanted = [[prime - 1 - step for prime in primes] for step in range(20)]
    wanted += [
        [(prime - 1 | mask) - (0 if (prime - 1 | mask) < prime else mask + 1) for prime in primes]
        for mask in ((1 << 20) - 1, (1 << 30) - 1, (1 << 40) - 1)
    ]
    return [sum(r * unit for r, unit in zip(row, units, strict=True)) % q for row in wanted]


@settings(deadline=None, max_examples=120)
@given(primes=primes_of, bits=bits_of)
def test_rounding_is_within_its_bound(primes: tuple[int, ...], bits: int) -> None:
    q = math.prod(primes)
    values = [secrets.randbelow(q) for _ in range(40)] + on_edges(q, bits, 10) + greatest(primes)
    assert max(map(abs, errors(values, primes, bits))) <= Fraction(1, 2) + LOSS


@pytest.mark.parametrize("ring", DATA_PRIMES)
@pytest.mark.parametrize("bits", [31, 42, DIGIT_BITS, DIGIT_BITS + 2, 64, MAX_BITS])
def test_rounding_is_that_of_integers_except_on_the_edge(ring: str, bits: int) -> None:
    primes = DATA_PRIMES[ring]
    q, modulus = math.prod(primes), 1 << bits
    values = [secrets.randbelow(q) for _ in range(2000)]
    exact = [(2 * modulus * value + q) // (2 * q) % modulus for value in values]
    assert sum(r != e for r, e in zip(rounded(values, primes, bits), exact, strict=True)) <= 2 + len(values) // 256


# Lifting


@settings(deadline=None, max_examples=120)
@given(data=st.data(), primes=primes_of, bits=bits_of)
def test_lifting_is_exact(data: st.DataObject, primes: tuple[int, ...], bits: int) -> None:
    few, modulus = primes[: data.draw(st.integers(1, len(primes)))], 1 << bits
    values = [secrets.randbelow(modulus) for _ in range(50)] + [0, 1, modulus // 2 - 1, modulus // 2, modulus - 1]
    assert lifted(values, few, bits).tolist() == exactly_lifted(values, few, bits).tolist()


@pytest.mark.parametrize("bits", [MIN_BITS, 42, DIGIT_BITS - 1, DIGIT_BITS, DIGIT_BITS + 2, 64, MAX_BITS])
def test_lifting_at_the_greatest_digits(bits: int) -> None:
    """Where the float64 estimate of a carry is worst: large digits, primes of 60 bits.

    And where q' c' / 2^b is nearest to half an integer.
    """
    modulus = 1 << bits
    for primes in (MANY[:1], MANY[:3]):
        inverse = pow(math.prod(primes), -1, modulus)
        values = [inverse * (modulus // 2 - 1 + step) % modulus for step in range(-1000, 1000)]
        values += [max(0, modulus - 1 - step) for step in range(1000)]
        assert lifted(values, primes, bits).tolist() == exactly_lifted(values, primes, bits).tolist()


# Without primes


@settings(deadline=None, max_examples=40)
@given(bits=st.integers(MIN_BITS, DIGIT_BITS), data=st.data())
def test_without_primes_values_are_packed_as_they_are(bits: int, data: st.DataObject) -> None:
    most = (1 << bits) - 1
    values = data.draw(st.lists(st.sampled_from([0, 1, most]) | st.integers(0, most), min_size=1, max_size=40))
    count = len(values)
    packed = PolynomialPacker((), bits, count + 9).pack(np.array([values], np.uint64))
    assert packed == written(values, bits)
    assert PolynomialUnpacker((), bits, count + 9).unpack(packed, count).tolist() == [values]
    assert PolynomialUnpacker((), bits, count).unpack(packed, count).dtype == np.uint64
