"""The bits of packed replies: the fewest that are exact, with the worst noise and rounding."""

import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.bit_packing import MAX_BITS, MIN_BITS, digit_count, possible_bits
from sealserve.he.layouts import LAYOUTS
from sealserve.he.packed_polynomial import LOSS, PolynomialPacker
from sealserve.he.parameters import EncryptionParameters, ParameterSet, key_parameters
from sealserve.he.reply_bits import ROOM, ReplyBits, lifting, rounding
from sealserve.he.seal_format import pack_plaintext, restamp
from sealserve.he.secret.decryptor import Decryptor
from sealserve_service.planning.hiding import private_reply_bits
from sealserve_service.planning.rounding import (
    largest_absolute_sum,
    open_noise,
    open_reply_bits,
    reply_bits,
)
from tests.support.ring import values_of

OPEN, PRIVATE = LAYOUTS["row"].open_parameter_sets, LAYOUTS["row"].private_parameter_sets
OF_44_BITS, OF_54_BITS, OF_60_BITS, OF_92_BITS = OPEN
sets = st.sampled_from([*OPEN, *PRIVATE[1:]])
t_bits = st.integers(1, 53)
noises = st.fractions(0, Fraction(1, 2), max_denominator=1 << 20)


# The fewest bits


def costs(parameters: EncryptionParameters, c0: int, c1: int, prime_count: int) -> Fraction:
    """The roundings as the docstring adds them up, term by term."""
    t, N = parameters.plain_modulus, parameters.parameter_set.poly_modulus_degree
    q = math.prod(parameters.parameter_set.data_primes[:prime_count])
    slack = 1 + Fraction(1, 128)
    return slack * (Fraction(t * N, 2 << c1) + Fraction(t, 2 << c0)) + Fraction(t * (N + 1), 2 * q)


def are_possible(bits: int) -> bool:
    return possible_bits(bits) == bits


@settings(deadline=None, max_examples=200)
@given(parameter_set=sets, t_bits=t_bits, places=st.integers(1, 4096), noise=noises)
def test_the_bits_are_the_fewest_that_are_exact(
    parameter_set: ParameterSet, t_bits: int, places: int, noise: Fraction
) -> None:
    assume(1 << t_bits < parameter_set.modulus)
    parameters, primes = EncryptionParameters(parameter_set, 1 << t_bits), len(parameter_set.data_primes)
    N, half = parameter_set.poly_modulus_degree, Fraction(1, 2) - Fraction(1, 1 << 57)
    found = reply_bits(parameters, places, noise)
    if found is None:
        assert noise + costs(parameters, MAX_BITS, MAX_BITS, primes) >= half
        return
    assert MIN_BITS <= found.c0 <= found.c1 <= MAX_BITS
    assert are_possible(found.c0)
    assert are_possible(found.c1)
    assert found.cost(parameters) == costs(parameters, found.c0, found.c1, found.prime_count)
    assert noise + costs(parameters, found.c0, found.c1, found.prime_count) < half
    if found.prime_count > 1:
        assert noise + costs(parameters, found.c0, found.c1, found.prime_count - 1) >= half
    # Nothing shorter is exact, not even lifted to all primes.
    taken = places * found.c0 + N * found.c1
    for c1 in filter(are_possible, range(max(MIN_BITS, found.c1 - 2), found.c1 + 14)):
        most = min((taken - 1 - N * c1) // places, c1)
        if most >= MIN_BITS:
            most -= not are_possible(most)
            assert noise + costs(parameters, most, c1, primes) >= half


@settings(deadline=None, max_examples=200)
@given(parameter_set=sets, t_bits=t_bits, places=st.integers(1, 4096), share=st.fractions(0, 1))
def test_every_open_plan_within_its_noise_is_exact(
    parameter_set: ParameterSet, t_bits: int, places: int, share: Fraction
) -> None:
    assume(1 << t_bits < parameter_set.modulus)
    parameters = EncryptionParameters(parameter_set, 1 << t_bits)
    most = open_noise(parameters, places)
    q, half = parameter_set.modulus, Fraction(parameter_set.modulus, 1 << t_bits)
    noise = int(share * most)
    bits = open_reply_bits(parameters, places, noise)
    if bits is None:
        assert Fraction(noise) < half * (1 - Fraction(1, 1 << 56))
    else:
        cost = costs(parameters, bits.c0, bits.c1, bits.prime_count)
        assert Fraction(noise << t_bits, 2 * q) + cost < Fraction(1, 2) - Fraction(1, 1 << 57)
        residues = 64 * len(parameter_set.data_primes)
        assert places * bits.c0 + parameter_set.poly_modulus_degree * bits.c1 <= Fraction(7, 8) * residues * (
            places + parameter_set.poly_modulus_degree
        )
    if open_reply_bits(parameters, places, most) is not None:
        # A quarter of the room is reserved, and no more.
        reserved = Fraction(3, 4) * half * (1 - Fraction(1, 1 << 56))
        assert most < reserved <= most + 1 or bits is not None
    assert (
        (43 * largest_absolute_sum(parameters, places) + 1)
        <= most
        < 43 * (largest_absolute_sum(parameters, places) + 1) + 1
    )


@pytest.mark.parametrize("bits", [44, 41])
def test_what_does_not_pay_reserves_nothing(bits: int) -> None:
    """With 44 bits of t, there is no prime to lift to; with 41, lifting takes all that is reserved.

    So all of the room is for the noise.
    """
    parameters = EncryptionParameters(OF_54_BITS, 1 << bits)
    most, half = open_noise(parameters, 1), Fraction(OF_54_BITS.modulus, 1 << bits)
    assert most < half * (1 - Fraction(1, 1 << 56)) <= most + 1
    assert open_reply_bits(parameters, 1, most) is None
    # With a bit less of t there is room for both.
    parameters = EncryptionParameters(OF_54_BITS, 1 << 40)
    assert open_noise(parameters, 1) < Fraction(3, 4) * Fraction(OF_54_BITS.modulus, 1 << 40)
    assert open_reply_bits(parameters, 1, open_noise(parameters, 1)) is not None


def test_a_private_row_of_the_guide_and_its_columns() -> None:
    row, column = PRIVATE[0], LAYOUTS["column"].private_parameter_sets[1]
    assert private_reply_bits(EncryptionParameters(row, 1 << 25), 5) == ReplyBits(c0=31, c1=42, prime_count=1)
    for t, c0, c1 in ((31, 36, 50), (32, 37, 51), (33, 38, 52), (34, 39, 53)):
        bits = private_reply_bits(EncryptionParameters(column, 1 << t), 8192)
        assert bits == ReplyBits(c0=c0, c1=c1, prime_count=1)


# At the edge


class Hostile(NamedTuple):
    """A pair for which all roundings add up at the last coefficient.

    Attributes:
        c0: residues of the last coefficient, (data primes, 1).
        c1: residues, (data primes, N).
        score: the integer modulo t that it encrypts.
    """

    c0: NDArray[np.uint64]
    c1: NDArray[np.uint64]
    score: int


@cache
def signs(N: int) -> list[int]:
    """A secret key without a zero: N times the rounding of c1 adds up, not two thirds of it."""
    return np.random.default_rng(N).choice([-1, 1], N).tolist()  # type: ignore[no-any-return]


@cache
def key_of_signs(parameter_set: ParameterSet) -> bytes:
    secret = np.array(signs(parameter_set.poly_modulus_degree), object)
    values = np.concatenate([values_of(secret % prime, prime) for prime in parameter_set.primes])
    parms_id = _seal.key_parms_id(_seal.context(key_parameters(parameter_set)))
    return restamp(pack_plaintext(values.astype(np.uint64)), parms_id)


def at_the_edge(q: int, bits: int, value: int, direction: int) -> int:
    """A coefficient that is rounded to a value by nearly 1/2: up if the direction is 1."""
    edge = q * (2 * value - direction) >> bits + 1
    # Within LOSS of the edge it may be rounded to either side.
    return (edge + direction * (int(LOSS * q) >> bits) + direction) % q


def hostile(parameters: EncryptionParameters, bits: ReplyBits, noise: int, sign: int) -> Hostile:
    """Encrypt any score with so much noise, or up to q / 2^c1 less, with the worst rounding."""
    q, t = parameters.parameter_set.modulus, parameters.plain_modulus
    N, primes = parameters.parameter_set.poly_modulus_degree, parameters.parameter_set.data_primes
    secret, generator = signs(N), np.random.default_rng(7)
    # Of the product's last coefficient: c1[i] meets secret[N - 1 - i], and nothing wraps.
    meets = secret[::-1]
    rounded = [int.from_bytes(generator.bytes(12), "little") % (1 << bits.c1) for _ in range(N)]
    c0 = at_the_edge(q, bits.c0, 12345, sign)

    def made() -> tuple[list[int], int]:
        c1 = [at_the_edge(q, bits.c1, value, sign * s) for value, s in zip(rounded, meets, strict=True)]
        return c1, (c0 + sum(c * s for c, s in zip(c1, meets, strict=True))) % q

    _, phase = made()
    missing = sign * (sign * noise * t - t * phase) % q  # times 1 / t
    rounded[0] += sign * meets[0] * (missing * (1 << bits.c1) // (t * q))
    c1, phase = made()
    score = (2 * t * (phase - sign * noise) + q) // (2 * q)
    short = sign * (q * score + t * sign * noise - t * phase)
    assert 0 <= short <= t * (q >> bits.c1) + 4 * t
    residues = [np.array([[c % prime for c in polynomial] for prime in primes], np.uint64) for polynomial in ([c0], c1)]
    return Hostile(residues[0], residues[1], score % t)


EDGES = {
    "an open row of 44 bits": (OF_44_BITS, 24, Fraction(1, 4)),
    "an open row": (OF_54_BITS, 28, Fraction(1, 4)),
    "an open row of 60 bits": (OF_60_BITS, 30, Fraction(7, 16)),
    "a private row": (PRIVATE[0], 25, Fraction(241, 512)),
    "two digits, two primes": (OF_92_BITS, 46, Fraction(7, 16)),
    "two digits, two of three primes": (PRIVATE[2], 56, Fraction(241, 512)),
    "the smallest t": (PRIVATE[1], 1, Fraction(241, 512)),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_are_exact_at_the_worst_noise_and_rounding_and_not_far_beyond(edge: str, sign: int) -> None:
    parameter_set, t_bits, share = EDGES[edge]
    parameters = EncryptionParameters(parameter_set, 1 << t_bits)
    bits = reply_bits(parameters, 1, share)
    assert bits is not None
    N, primes, q = parameter_set.poly_modulus_degree, parameter_set.data_primes, parameter_set.modulus
    decryptor = Decryptor(parameters, key_of_signs(parameters.parameter_set), bits)

    def decrypted(noise: Fraction) -> int:
        """Of noise t V / q: how far the decrypted score is from the encrypted one."""
        pair = hostile(parameters, bits, int(noise * q / parameters.plain_modulus), sign)
        c0 = PolynomialPacker(primes, bits.c0, 1).pack(pair.c0)
        c1 = PolynomialPacker(primes, bits.c1, N).pack(pair.c1)
        (found,) = decryptor.decrypt(c0, c1, np.array([N - 1])).tolist()
        half = parameters.plain_modulus // 2
        return int(found - pair.score + half) % parameters.plain_modulus - half

    most = ROOM - bits.cost(parameters)
    assert share < most
    assert decrypted(share) == 0
    assert decrypted(most) == 0
    # Rounding takes 2^-7 less than planned, and lifting may help as much as it may harm.
    of_rounding = rounding(parameters, bits.c1, N) + rounding(parameters, bits.c0, 1)
    beyond = most + of_rounding / 32 + 2 * lifting(parameters, bits.prime_count) + Fraction(1, 1 << 50)
    wrong = decrypted(beyond)
    assert wrong == sign or (t_bits == 1 and wrong), "one score further"


@pytest.mark.parametrize("edge", EDGES)
def test_a_bit_less_is_not_exact(edge: str) -> None:
    parameter_set, t_bits, share = EDGES[edge]
    parameters = EncryptionParameters(parameter_set, 1 << t_bits)
    bits = reply_bits(parameters, 1, share)
    assert bits is not None
    for fewer in (
        replace(bits, c1=bits.c1 - digit_count(bits.c1)),
        replace(bits, c0=bits.c0 - digit_count(bits.c0)),
    ):
        assert share + fewer.cost(parameters) >= ROOM or min(fewer.c0, fewer.c1) < MIN_BITS
