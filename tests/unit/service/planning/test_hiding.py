"""What hides the weights: the least width that does, and scores that stay exact at their worst."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.secret.decryptor import Decryptor
from sealserve_service.planning.hiding import (
    DEFAULT_HIDING_BITS,
    fits,
    largest_shift,
    noise_width,
)
from sealserve_service.planning.noise import zero_noise
from tests.support.affine_models import Integers
from tests.support.item_round_trip import secret_key
from tests.support.noisy_encryptor import NoisyEncryptor

SMALL = LAYOUTS["row"].private_parameter_sets[0]
every_set = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].private_parameter_sets, ids=lambda s: s.name)
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
