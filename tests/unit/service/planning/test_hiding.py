"""Hiding the weights: the least sufficient width, exact scores at their worst, uniform noise."""

import math
import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.secret.decryptor import Decryptor
from sealserve_service.planning import hiding
from sealserve_service.planning.hiding import (
    DEFAULT_HIDING_BITS,
    fits,
    largest_shift,
    noise_width,
    uniform_noise,
)
from sealserve_service.planning.noise import zero_noise
from tests.support.affine_models import Integers
from tests.support.item_round_trip import secret_key
from tests.support.noisy_encryptor import NoisyEncryptor

SMALL = LAYOUTS["row"].private_parameter_sets[0]
every_set = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].private_parameter_sets, ids=lambda s: s.name)
PRIMES = (0x3FFFFFF70001, 0xFFFFFFFFFFFC001, 0x3FFFFFFFFED001, 0x1C001)
sums = st.integers(0, 1 << 60)
counts = st.integers(1, 1 << 20)
bits = st.integers(0, 128)


# The width


def distance(width: int, shift: int) -> Fraction:
    """The statistical distance of uniform noise to itself shifted, by adding up."""
    noise = set(range(-width, width + 1))
    shifted = {value + shift for value in noise}
    return Fraction(len(noise - shifted) + len(shifted - noise), 2 * (2 * width + 1))


@pytest.mark.parametrize("width", [0, 1, 2, 7, 50])
def test_the_distance_of_shifted_noise(width: int) -> None:
    for shift in range(-2 * width - 1, 2 * width + 2):
        assert distance(width, shift) == Fraction(abs(shift), 2 * width + 1)


@settings(deadline=None)
@given(
    parameter_set=st.sampled_from(LAYOUTS["row"].private_parameter_sets),
    absolute_sum=sums,
    count=counts,
    hiding_bits=bits,
)
def test_the_width_is_the_least_that_hides(
    parameter_set: ParameterSet, absolute_sum: int, count: int, hiding_bits: int
) -> None:
    width = noise_width(parameter_set, absolute_sum, count, hiding_bits)
    shift, wanted = largest_shift(parameter_set, absolute_sum), Fraction(1, 1 << hiding_bits)
    assert count * Fraction(shift, 2 * width + 1) <= wanted
    assert count * Fraction(shift, 2 * (width - 1) + 1) > wanted


@given(parameter_set=st.sampled_from(LAYOUTS["row"].private_parameter_sets), absolute_sum=sums)
def test_the_largest_shift_is_all_roundings_and_noises_together(parameter_set: ParameterSet, absolute_sum: int) -> None:
    worst = Fraction(43, 2) * absolute_sum + Fraction(1, 2) + Fraction(1, 2) + zero_noise(parameter_set)
    assert largest_shift(parameter_set, absolute_sum) == math.floor(worst)


def test_forty_bits_are_the_default() -> None:
    assert DEFAULT_HIDING_BITS == 40
    assert noise_width(SMALL, 1000, 10) == noise_width(SMALL, 1000, 10, 40) == 10 * (21_500 + 1 + 2049) << 39


# Exactness


@settings(deadline=None)
@given(
    parameter_set=st.sampled_from(LAYOUTS["row"].private_parameter_sets),
    t_bits=st.integers(1, 59),
    absolute_sum=sums,
    width=st.integers(0, 1 << 180),
)
def test_what_fits_is_what_the_inequality_says(
    parameter_set: ParameterSet, t_bits: int, absolute_sum: int, width: int
) -> None:
    q, t = parameter_set.modulus, 1 << t_bits
    usable = q - Fraction(q, 1 << 56)
    needed = t * (43 * absolute_sum + 1 + 2 * zero_noise(parameter_set) + 2 * width)
    if abs(usable - needed) > 1:  # a fraction of an integer is rounded to the strict side
        assert fits(EncryptionParameters(parameter_set, t), absolute_sum, width) is (usable > needed)


def tightest(parameter_set: ParameterSet, t: int, count: int, hiding_bits: int) -> int:
    """The largest A' that fits."""
    parameters = EncryptionParameters(parameter_set, t)
    low, high = 0, parameter_set.modulus
    while high - low > 1:
        middle = (low + high) // 2
        if fits(parameters, middle, noise_width(parameter_set, middle, count, hiding_bits)):
            low = middle
        else:
            high = middle
    return low


@every_set
@pytest.mark.parametrize(("t_bits", "count", "hiding_bits"), [(20, 10, 40), (26, 1, 40), (28, 40_960, 30)])
def test_one_more_bit_breaks_it(parameter_set: ParameterSet, t_bits: int, count: int, hiding_bits: int) -> None:
    t = 1 << t_bits
    largest = tightest(parameter_set, t, count, hiding_bits)
    parameters = EncryptionParameters(parameter_set, t)
    width = noise_width(parameter_set, largest, count, hiding_bits)
    assert largest > 0
    assert fits(parameters, largest, width)
    assert not fits(parameters, largest + 1, noise_width(parameter_set, largest + 1, count, hiding_bits))
    assert not fits(parameters, largest, noise_width(parameter_set, largest, count, hiding_bits + 1))
    assert not fits(parameters, largest, noise_width(parameter_set, largest, 2 * count, hiding_bits))
    assert not fits(EncryptionParameters(parameter_set, 2 * t), largest, width)
    # The price in bits, as the docstring states it.
    room = math.log2(parameter_set.modulus) - t_bits - math.log2(largest) - math.log2(count) - hiding_bits
    assert room == pytest.approx(math.log2(21.5), abs=0.02)


@every_set
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_are_exact_at_the_worst_noise_that_fits_and_not_far_beyond(
    parameter_set: ParameterSet, sign: int
) -> None:
    t, count, hiding_bits = 1 << 20, 10, 40
    largest = tightest(parameter_set, t, count, hiding_bits)
    width = noise_width(parameter_set, largest, count, hiding_bits)
    worst = (43 * largest + 1) // 2 + zero_noise(parameter_set) + width
    parameters, key = EncryptionParameters(parameter_set, t), secret_key(parameter_set)
    noisy, decryptor = NoisyEncryptor(parameters, key), Decryptor(parameters, key)
    N = parameter_set.poly_modulus_degree
    # Residues that take q m / t to every rounding: those of small m, and of m about t / 2 and t.
    plaintext = np.resize(np.concatenate([np.arange(50), t // 2 + np.arange(-25, 25), t - 1 - np.arange(50)]), N)
    plaintext = plaintext.astype(np.uint64)

    def decrypted(noise: int) -> Integers:
        data = noisy.encrypt(plaintext, np.full(N, sign * noise, object))
        c0, c1 = np.frombuffer(data[-2 * parameter_set.polynomial_bytes :], np.uint8).reshape(2, -1)
        found: Integers = decryptor.decrypt(c0.tobytes(), c1.tobytes(), np.arange(N, dtype=np.intp)).astype(object)
        return found

    assert (decrypted(worst) == plaintext).all()
    half = parameter_set.modulus // (2 * t)
    assert half - worst < 2 * half // largest + (half >> 55)  # tight: a step of A', and what division may lose
    assert (decrypted(half + (half >> 50)) != plaintext).all()  # SEAL's division loses less than that


def test_the_open_sets_have_no_room() -> None:
    for parameter_set in LAYOUTS["row"].open_parameter_sets[:2]:
        width = noise_width(parameter_set, 1000, 10)
        assert not fits(EncryptionParameters(parameter_set, 1 << 16), 1000, width)


# The noise


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
        """Top words come first, with as many bytes each as the bound's top word needs.

        The other words of those that are kept follow.
        """
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
        residues = uniform_noise(40, width, PRIMES)
    found = [number - width for number in source.below(2 * width + 1)][:40]
    assert len(found) == 40
    assert all(-width <= value <= width for value in found)
    np.testing.assert_array_equal(residues, np.array([[v % prime for v in found] for prime in PRIMES], np.uint64))


class Ties(Recorded):
    """A source whose words are those of a bound of 96 bits, or one more or less.

    Comparisons go down to the last word.
    """

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
    values = integers(uniform_noise(200, width, PRIMES[:2]), PRIMES[:2])
    assert values == [number - width for number in source.below(bound)][:200]
    assert max(values) == width


@pytest.mark.parametrize("prime", [2**60 - 93, 0xFFFFFFFFFFFC001, 3, 2**31 - 1, 2**32 + 15, 0x1C001])
@pytest.mark.parametrize("words", [1, 2, 5, 6, 11])
def test_residues_are_exact_at_the_ends(prime: int, words: int) -> None:
    ends = [0, 1, 2, prime - 1, prime, prime + 1, (1 << 32 * words) - 1, (1 << 32 * words) - 2]
    ends += [multiple * prime + near for multiple in (2**31, 2**32 - 1, 2**40) for near in (-1, 0, 1)]
    values = [value for value in ends if 0 <= value < 1 << 32 * words]
    table = np.array([[value >> 32 * place & 0xFFFFFFFF for value in values] for place in range(words)], np.uint32)
    for addend in (0, prime - 1):
        np.testing.assert_array_equal(
            hiding._residues(table, addend, prime), [(value + addend) % prime for value in values]
        )


@pytest.mark.parametrize("width", [0, 1, 2, 3, 10, 127, 128])
def test_small_noise_is_uniform_over_its_range(width: int) -> None:
    draws = 2000 * (2 * width + 1)
    values = np.array(integers(uniform_noise(draws, width, PRIMES[:2]), PRIMES[:2]))
    found, counted = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(found, np.arange(-width, width + 1))
    if width:
        assert stats.chisquare(counted).pvalue > 1e-6


@pytest.mark.parametrize("width", [(1 << 66) + 12_345, (1 << 67) - 1, 1 << 64, (1 << 31) - 1, 1 << 31, 10**25])
def test_wide_noise_is_uniform_over_its_range(width: int) -> None:
    primes = PRIMES[:3]
    values = integers(uniform_noise(20_000, width, primes), primes)
    assert all(-width <= value <= width for value in values)
    assert stats.kstest([(value + width) / (2 * width + 1) for value in values], "uniform").pvalue > 1e-6
    for modulus in (2, 7, 256):  # the low digits too
        assert stats.chisquare(np.bincount([value % modulus for value in values])).pvalue > 1e-6
    assert len(set(values)) > 19_990 or width < 1 << 40


def test_noise_of_several_primes_is_one_integers() -> None:
    residues = uniform_noise(1000, 1 << 40, PRIMES[:3])
    assert integers(residues[:2], PRIMES[:2]) == integers(residues, PRIMES[:3])


def test_numpys_generator_has_no_part_in_it() -> None:
    np.random.seed(1)
    first = uniform_noise(100, 1 << 50, PRIMES)
    np.random.seed(1)
    assert (uniform_noise(100, 1 << 50, PRIMES) != first).all()


def test_every_draw_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def zeros(size: int) -> bytes:
        sizes.append(size)
        return bytes(size)

    monkeypatch.setattr(os, "urandom", zeros)
    residues = uniform_noise(100, 1 << 50, PRIMES)
    np.testing.assert_array_equal(residues, [[-(1 << 50) % prime] * 100 for prime in PRIMES])  # zeros, less the width
    assert sum(sizes) >= 100 * 52 / 8


def test_no_noise_at_all() -> None:
    assert uniform_noise(0, 1 << 50, PRIMES).shape == (4, 0)
    np.testing.assert_array_equal(uniform_noise(5, 0, PRIMES), np.zeros((4, 5), np.uint64))
