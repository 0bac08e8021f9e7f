"""Uniform noise: all integers of its range are equally likely, and the operating system draws."""

import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sealserve_service.engines.linear.uniform_noise import UniformNoise

PRIMES = (0x3FFFFFF70001, 0xFFFFFFFFFFFC001, 0x3FFFFFFFFED001, 0x1C001)


def integers(residues: np.ndarray, primes: tuple[int, ...]) -> list[int]:
    """The integers of least absolute value that have these residues."""
    modulus = math.prod(primes)
    units = [modulus // prime * pow(modulus // prime, -1, prime) for prime in primes]
    columns = [[int(value) for value in column] for column in residues.T]
    values = [sum(r * unit for r, unit in zip(column, units, strict=True)) % modulus for column in columns]
    return [value - modulus if value > modulus // 2 else value for value in values]


class Recorded:
    """A source of random bytes that can be asked afterwards which integers they make."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)
        self._blocks: list[bytes] = []

    def __call__(self, size: int) -> bytes:
        self._blocks.append(self._generator.bytes(size))
        return self._blocks[-1]

    def below(self, bound: int) -> list[int]:
        """The integers below a bound. Top words come first, then the other words of those kept."""
        words = -(-bound.bit_length() // 32)
        top_limit = bound >> 32 * (words - 1)
        size = next(size for size in (1, 2, 4) if top_limit < 1 << 8 * size)
        numbers = list[int]()
        for tops, lower in zip(self._blocks[::2], self._blocks[1::2], strict=True):
            top = [value & (1 << top_limit.bit_length()) - 1 for value in np.frombuffer(tops, f"<u{size}").tolist()]
            kept = [value for value in top if value <= top_limit]
            table = np.frombuffer(lower, "<u4").reshape(words - 1, len(kept)).tolist()
            for draw, value in enumerate(kept):
                digits = [*(row[draw] for row in table), value]
                numbers.append(sum(digit << 32 * place for place, digit in enumerate(digits)))
        return [number for number in numbers if number < bound]


@settings(deadline=None, max_examples=200)
@given(width=st.integers(0, 200).flatmap(lambda size: st.integers(0, (1 << size) - 1)), seed=st.integers(0, 1 << 32))
def test_every_residue_is_that_of_an_integer_within_the_width(width: int, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "urandom", source := Recorded(seed))
        residues = UniformNoise(width, PRIMES).draw(40)
    found = [number - width for number in source.below(2 * width + 1)][:40]
    assert len(found) == 40
    assert all(-width <= value <= width for value in found)
    np.testing.assert_array_equal(residues, np.array([[v % prime for v in found] for prime in PRIMES], np.uint64))


class Ties(Recorded):
    """A source of words at most 1 off a bound of 96 bits: comparisons go to the last word."""

    def __init__(self, bound: int) -> None:
        super().__init__(3)
        self._limit = [bound >> 32 * place & 0xFFFFFFFF for place in range(3)]

    def __call__(self, size: int) -> bytes:
        is_top = len(self._blocks) % 2 == 0
        words = [self._limit[2:]] if is_top else [[word] for word in self._limit[:2]]
        near = self._generator.integers(-1, 2, (len(words), size // 4 // len(words)))
        self._blocks.append((near + words).astype("<u4").tobytes())
        return self._blocks[-1]


@pytest.mark.parametrize("bound", [(5 << 92) + (7 << 32) + 9, (1 << 96) - (1 << 33) - 3])
def test_numbers_about_the_bound_are_told_apart(monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    width = bound // 2
    monkeypatch.setattr(os, "urandom", source := Ties(bound))
    values = integers(UniformNoise(width, PRIMES[:2]).draw(200), PRIMES[:2])
    assert values == [number - width for number in source.below(bound)][:200]
    assert max(values) == width


@pytest.mark.parametrize("prime", [2**60 - 93, 0xFFFFFFFFFFFC001, 3, 2**31 - 1, 2**32 + 15, 0x1C001])
@pytest.mark.parametrize("words", [1, 2, 5, 6, 11])
def test_residues_are_exact_at_the_ends(prime: int, words: int) -> None:
    ends = [0, 1, 2, prime - 1, prime, prime + 1, (1 << 32 * words) - 1, (1 << 32 * words) - 2]
    ends += [multiple * prime + near for multiple in (2**31, 2**32 - 1, 2**40) for near in (-1, 0, 1)]
    values = [value for value in ends if 0 <= value < 1 << 32 * words]
    table = np.array([[value >> 32 * place & 0xFFFFFFFF for value in values] for place in range(words)], np.uint32)
    multiple = (1 << 32 * words - 2) // prime * prime
    for width, addend in ((multiple, 0), (multiple + 1, prime - 1)):
        noise = UniformNoise(width, (prime,))
        assert -(-(2 * width + 1).bit_length() // 32) == words
        np.testing.assert_array_equal(noise._residues(table)[0], [(value + addend) % prime for value in values])


@pytest.mark.parametrize("width", [0, 1, 2, 3, 10, 127, 128])
def test_small_noise_is_uniform_over_its_range(width: int) -> None:
    draws = 2000 * (2 * width + 1)
    values = np.array(integers(UniformNoise(width, PRIMES[:2]).draw(draws), PRIMES[:2]))
    found, counted = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(found, np.arange(-width, width + 1))
    if width:
        assert stats.chisquare(counted).pvalue > 1e-6


@pytest.mark.parametrize("width", [(1 << 66) + 12_345, (1 << 67) - 1, 1 << 64, (1 << 31) - 1, 1 << 31, 10**25])
def test_wide_noise_is_uniform_over_its_range(width: int) -> None:
    primes = PRIMES[:3]
    values = integers(UniformNoise(width, primes).draw(20_000), primes)
    assert all(-width <= value <= width for value in values)
    assert stats.kstest([(value + width) / (2 * width + 1) for value in values], "uniform").pvalue > 1e-6
    for modulus in (2, 7, 256):  # the low digits too
        assert stats.chisquare(np.bincount([value % modulus for value in values])).pvalue > 1e-6
    assert len(set(values)) > 19_990 or width < 1 << 40


def test_noise_of_several_primes_is_one_integers() -> None:
    residues = UniformNoise(1 << 40, PRIMES[:3]).draw(1000)
    assert integers(residues[:2], PRIMES[:2]) == integers(residues, PRIMES[:3])


def test_numpys_generator_has_no_part_in_it() -> None:
    np.random.seed(1)
    first = UniformNoise(1 << 50, PRIMES).draw(100)
    np.random.seed(1)
    assert (UniformNoise(1 << 50, PRIMES).draw(100) != first).all()


def test_every_draw_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def zeros(size: int) -> bytes:
        sizes.append(size)
        return bytes(size)

    monkeypatch.setattr(os, "urandom", zeros)
    residues = UniformNoise(1 << 50, PRIMES).draw(100)
    np.testing.assert_array_equal(residues, [[-(1 << 50) % prime] * 100 for prime in PRIMES])  # zeros, less the width
    assert sum(sizes) >= 100 * 52 / 8


def test_no_noise_at_all() -> None:
    assert UniformNoise(1 << 50, PRIMES).draw(0).shape == (4, 0)
    np.testing.assert_array_equal(UniformNoise(0, PRIMES).draw(5), np.zeros((4, 5), np.uint64))
