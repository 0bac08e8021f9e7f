"""The primal estimate gives the values of the table that parameters are chosen by."""

import math

import pytest
import seal

from sealserve.he.parameters import MAX_MODULUS_BITS, RINGS
from sealserve_service.planning import lattice
from sealserve_service.planning.lattice import SEAL_DEVIATION, TERNARY_DEVIATION, least_dimension, primal_bits


@pytest.mark.parametrize(("degree", "bits"), [(2048, 129.8), (4096, 127.9), (8192, 128.2)])
def test_seals_own_rows_of_the_table(degree: int, bits: float) -> None:
    modulus_bits = MAX_MODULUS_BITS[degree]
    assert primal_bits(degree, degree, modulus_bits, SEAL_DEVIATION, TERNARY_DEVIATION) == pytest.approx(bits, abs=0.05)


def test_the_smaller_of_two_moduli_at_one_degree_is_harder_to_attack() -> None:
    """2048-44 lies between what the standard allows for 128 bits of security and for 192."""
    degree, (prime,) = RINGS["2048-44"]
    levels = seal.sec_level_type.tc128, seal.sec_level_type.tc192, seal.sec_level_type.tc256
    allowed = [seal.CoeffModulus.MaxBitCount(degree, level) for level in levels]
    assert allowed == [54, 37, 29]
    sizes = sorted([prime.bit_length(), *allowed], reverse=True)
    found = [primal_bits(degree, degree, size, SEAL_DEVIATION, TERNARY_DEVIATION) for size in sizes]
    assert dict(zip(sizes, found, strict=True)) == pytest.approx({54: 129.8, 44: 162.8, 37: 197.8, 29: 259.1}, abs=0.05)


def test_seals_noise() -> None:
    """The variance of one bit is 1/4: that of 42 bits is 21/2."""
    variance, expected = lattice.SEAL_DEVIATION**2, pytest.approx(42 / 4)
    assert variance == expected


def test_more_unknowns_more_noise_and_a_smaller_modulus_are_worth_more() -> None:
    bits = primal_bits(4096, 4096, 109, SEAL_DEVIATION, TERNARY_DEVIATION)
    assert primal_bits(4000, 4096, 109, SEAL_DEVIATION, TERNARY_DEVIATION) < bits
    assert primal_bits(4096, 4096, 109, 2 * SEAL_DEVIATION, TERNARY_DEVIATION) > bits
    assert primal_bits(4096, 4096, 100, SEAL_DEVIATION, TERNARY_DEVIATION) > bits
    assert primal_bits(4096, 4096, 109, SEAL_DEVIATION, 10 * TERNARY_DEVIATION) > bits
    # Modulus and noise count by their quotient.
    scaled = primal_bits(4096, 4096, 119, 2**10 * SEAL_DEVIATION, TERNARY_DEVIATION)
    assert scaled == pytest.approx(bits)


def test_the_root_hermite_factor() -> None:
    """Values of Chen's thesis: 1.0093 for blocks of 100, 1.0049 for blocks of 300, about."""
    assert 2 ** lattice._log_delta(100) == pytest.approx(1.0093, abs=1e-4)
    assert 2 ** lattice._log_delta(300) == pytest.approx(1.0049, abs=1e-4)


@pytest.mark.parametrize("bits", [80.0, 100.0, 128.0])
def test_the_least_dimension_is_the_least(bits: float) -> None:
    dimension = least_dimension(bits, 4096, 92.0, math.sqrt(1 / 12))
    assert primal_bits(dimension, 4096, 92.0, math.sqrt(1 / 12), TERNARY_DEVIATION) >= bits
    assert primal_bits(dimension - 1, 4096, 92.0, math.sqrt(1 / 12), TERNARY_DEVIATION) < bits


def test_a_modulus_that_is_too_large_leaves_no_dimension_to_know() -> None:
    assert least_dimension(128.0, 4096, 200.0, SEAL_DEVIATION) == 4096
