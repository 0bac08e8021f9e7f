"""What hides the weights: noise as wide as fits, a cap on what places tell, and exact scores."""

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.secret.decryptor import Decryptor
from sealserve_service.planning import lattice
from sealserve_service.planning.hiding import (
    DEFAULT_HIDING_BITS,
    TERNARY_BITS,
    cap_bits,
    fits,
    hides,
    largest_shift,
    least_unknown,
    most_places,
    noise_width,
    private_reply_bits,
    told_bits,
)
from sealserve_service.planning.noise import zero_noise
from tests.support.affine_models import Integers
from tests.support.item_round_trip import secret_key
from tests.support.noisy_encryptor import NoisyEncryptor
from tests.support.reply_pairs import pair_of

SMALL = LAYOUTS["row"].private_parameter_sets[0]
every_set = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].private_parameter_sets, ids=lambda s: s.name)
sums = st.integers(0, 1 << 60)
counts = st.integers(1, 1 << 20)
bits = st.integers(0, 128)
sets = st.sampled_from(LAYOUTS["row"].private_parameter_sets)
t_bits = st.integers(1, 59)


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
@given(parameter_set=sets, absolute_sum=sums, count=counts, width=st.integers(0, 1 << 180), hiding_bits=bits)
def test_a_width_hides_when_the_distances_of_a_reply_add_up_to_little_enough(
    parameter_set: ParameterSet, absolute_sum: int, count: int, width: int, hiding_bits: int
) -> None:
    shift, wanted = largest_shift(parameter_set, absolute_sum), Fraction(1, 1 << hiding_bits)
    hidden = count * Fraction(shift, 2 * width + 1) <= wanted
    assert hides(parameter_set, absolute_sum, count, width, hiding_bits) is hidden
    least = (count * shift << hiding_bits) // 2
    assert hides(parameter_set, absolute_sum, count, least, hiding_bits)
    assert not hides(parameter_set, absolute_sum, count, least - 1, hiding_bits)


@settings(deadline=None)
@given(parameter_set=sets, t_bits=t_bits)
def test_the_width_is_as_wide_as_fits_but_for_a_sixteenth(parameter_set: ParameterSet, t_bits: int) -> None:
    q, t = parameter_set.modulus, 1 << t_bits
    parameters = EncryptionParameters(parameter_set, t)
    width = noise_width(parameters)
    room = Fraction(15, 16) * Fraction(q, 2 * t)
    assert width + largest_shift(parameter_set, 0) <= room < width + largest_shift(parameter_set, 0) + 1
    # V leaves A' a sixteenth of the last sixteenth, and no more than that.
    most = math.floor((Fraction(q, 256 * t) + 1) / 43)
    assert fits(parameters, most - 1, width)
    assert not fits(parameters, most + 2, width)


@given(parameter_set=sets, absolute_sum=sums)
def test_the_largest_shift_is_all_roundings_and_noises_together(parameter_set: ParameterSet, absolute_sum: int) -> None:
    worst = Fraction(43, 2) * absolute_sum + Fraction(1, 2) + Fraction(1, 2) + zero_noise(parameter_set)
    assert largest_shift(parameter_set, absolute_sum) == math.floor(worst)


def test_forty_bits_are_the_default() -> None:
    assert DEFAULT_HIDING_BITS == 40
    least = 10 * (21_500 + 1 + 2049) << 39
    assert hides(SMALL, 1000, 10, least)
    assert not hides(SMALL, 1000, 10, least - 1)
    assert hides(SMALL, 1000, 10, least, 40)
    assert not hides(SMALL, 1000, 10, least, 41)


# Exactness


@settings(deadline=None)
@given(
    parameter_set=sets,
    t_bits=t_bits,
    absolute_sum=sums,
    width=st.integers(0, 1 << 180),
)
def test_what_fits_is_what_the_inequality_says(
    parameter_set: ParameterSet, t_bits: int, absolute_sum: int, width: int
) -> None:
    q, t = parameter_set.modulus, 1 << t_bits
    noise = Fraction(43 * absolute_sum + 1, 2) + zero_noise(parameter_set) + width
    most = (Fraction(15, 32) + Fraction(1, 512)) * q / t
    assert fits(EncryptionParameters(parameter_set, t), absolute_sum, width) is (noise <= most)


def serves(parameters: EncryptionParameters, absolute_sum: int, count: int, hiding_bits: int) -> bool:
    """Whether a plan with this A' is exact and hides."""
    width = noise_width(parameters)
    return fits(parameters, absolute_sum, width) and hides(
        parameters.parameter_set, absolute_sum, count, width, hiding_bits
    )


def largest(is_allowed: Callable[[int], bool], parameter_set: ParameterSet) -> int:
    """The largest A' that is allowed."""
    low, high = 0, parameter_set.modulus
    while high - low > 1:
        middle = (low + high) // 2
        if is_allowed(middle):
            low = middle
        else:
            high = middle
    return low


@every_set
@pytest.mark.parametrize(("t_bits", "count", "hiding_bits"), [(20, 10, 40), (26, 1, 40), (28, 40_960, 30)])
def test_one_more_bit_breaks_it(parameter_set: ParameterSet, t_bits: int, count: int, hiding_bits: int) -> None:
    parameters = EncryptionParameters(parameter_set, 1 << t_bits)
    most = largest(lambda tried: serves(parameters, tried, count, hiding_bits), parameter_set)
    assert most > 0
    assert serves(parameters, most, count, hiding_bits)
    assert not serves(parameters, most + 1, count, hiding_bits)
    assert not serves(parameters, most, count, hiding_bits + 1)
    assert not serves(parameters, most, 2 * count, hiding_bits)
    assert not serves(EncryptionParameters(parameter_set, 2 << t_bits), most, count, hiding_bits)
    # The price in bits, as the docstring states it.
    room = math.log2(parameter_set.modulus) - t_bits - math.log2(most) - math.log2(count) - hiding_bits
    assert room == pytest.approx(4.52, abs=0.02)


@every_set
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_are_exact_at_the_worst_noise_that_fits_and_not_far_beyond(
    parameter_set: ParameterSet, sign: int
) -> None:
    t = 1 << 20
    parameters, key = EncryptionParameters(parameter_set, t), secret_key(parameter_set)
    width = noise_width(parameters)
    most = largest(lambda tried: fits(parameters, tried, width), parameter_set)
    worst = (43 * most + 1) // 2 + zero_noise(parameter_set) + width
    bits = private_reply_bits(parameters, parameter_set.poly_modulus_degree)
    noisy, decryptor = NoisyEncryptor(parameters, key), Decryptor(parameters, key)
    packed_decryptor = Decryptor(parameters, key, bits)
    N = parameter_set.poly_modulus_degree
    # Residues that take q m / t to every rounding: those of small m, and of m about t / 2 and t.
    plaintext = np.resize(np.concatenate([np.arange(50), t // 2 + np.arange(-25, 25), t - 1 - np.arange(50)]), N)
    plaintext = plaintext.astype(np.uint64)

    def decrypted(noise: int) -> tuple[Integers, Integers]:
        """Decrypt residues, and the packed reply that they are rounded to."""
        data = noisy.encrypt(plaintext, np.full(N, sign * noise, object))
        shape, everywhere = (2, len(parameter_set.data_primes), N), np.arange(N, dtype=np.intp)
        c0, c1 = np.frombuffer(data[-2 * parameter_set.polynomial_bytes :], np.uint64).reshape(shape)
        found: Integers = decryptor.decrypt(c0.tobytes(), c1.tobytes(), everywhere).astype(object)
        pair = pair_of(parameter_set, bits, c0, c1)
        packed: Integers = packed_decryptor.decrypt(pair.c0, pair.c1, everywhere).astype(object)
        return found, packed

    for found in decrypted(worst):
        assert (found == plaintext).all()
    half = parameter_set.modulus // (2 * t)
    # Tight, but for what is left to the rounding: a step of A' more would not fit.
    assert 0 <= half * Fraction(241, 256) - worst < 43
    of_residues, packed = decrypted(half + (half >> 50))  # SEAL's division loses less than that
    assert (of_residues != plaintext).all()
    assert (packed != plaintext).mean() > 0.4, "rounding goes either way"


def test_the_open_sets_have_no_room() -> None:
    for parameter_set in LAYOUTS["row"].open_parameter_sets[:3]:
        assert not serves(EncryptionParameters(parameter_set, 1 << 16), 1000, 10, 40)


# What kept coefficients tell


@settings(deadline=None)
@given(parameter_set=sets, t_bits=t_bits)
def test_a_place_tells_little_more_than_a_score_has(parameter_set: ParameterSet, t_bits: int) -> None:
    parameters = EncryptionParameters(parameter_set, 1 << t_bits)
    width = noise_width(parameters)
    bits = told_bits(parameters, width, 1)
    assert t_bits < bits < t_bits + 0.1
    assert 2 ** (bits - t_bits) == pytest.approx(parameter_set.modulus / (2 * width + 1) / 2**t_bits)
    assert told_bits(parameters, width, 30) == pytest.approx(30 * bits)


def mutual_information(q: int, width: int, messages: list[int]) -> float:
    """What a coefficient tells, in bits, of a uniform choice among messages, by adding up."""
    noise, count = 2 * width + 1, len(messages)
    seen = Counter((message + r) % q for message in messages for r in range(-width, width + 1))
    return sum(n / (noise * count) * math.log2(noise * count / n) for n in seen.values()) - math.log2(noise)


@given(data=st.data(), q=st.integers(5, 97))
def test_no_choice_of_messages_tells_more_than_that(data: st.DataObject, q: int) -> None:
    width = data.draw(st.integers(0, (q - 1) // 2))
    messages = data.draw(st.lists(st.integers(0, q - 1), min_size=1, max_size=20))
    assert mutual_information(q, width, messages) <= math.log2(q / (2 * width + 1)) + 1e-9


def test_equal_steps_tell_as_much_as_that() -> None:
    assert mutual_information(91, 6, list(range(0, 91, 13))) == pytest.approx(math.log2(91 / 13))


@pytest.mark.parametrize(
    ("parameter_set", "unknown", "share"),
    list(zip(LAYOUTS["row"].private_parameter_sets, [3591, 4638, 6888], [0.20, 0.69, 0.25], strict=True)),
    ids=str,
)
def test_the_cap_leaves_what_is_worth_128_bits(parameter_set: ParameterSet, unknown: int, share: float) -> None:
    N = parameter_set.poly_modulus_degree
    assert least_unknown(parameter_set) == unknown
    assert cap_bits(parameter_set) == math.log2(3) * (N - unknown)
    assert cap_bits(parameter_set) / N == pytest.approx(share, abs=0.005)

    def worth(dimension: int) -> float:
        return lattice.primal_bits(
            dimension,
            N,
            math.log2(parameter_set.modulus),
            lattice.ROUNDING_DEVIATION,
            lattice.TERNARY_DEVIATION,
        )

    assert worth(unknown) >= 128 > worth(unknown - 1)


@settings(deadline=None)
@given(parameter_set=sets, t_bits=t_bits)
def test_places_stay_below_the_cap_and_one_more_would_not(parameter_set: ParameterSet, t_bits: int) -> None:
    parameters = EncryptionParameters(parameter_set, 1 << t_bits)
    width = noise_width(parameters)
    places = most_places(parameters, width)
    assert told_bits(parameters, width, places) < cap_bits(parameter_set) <= told_bits(parameters, width, places + 1)
    known = math.ceil(told_bits(parameters, width, places) / TERNARY_BITS)
    assert parameter_set.poly_modulus_degree - known >= least_unknown(parameter_set)
