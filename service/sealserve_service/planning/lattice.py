"""Lattice: the primal estimate of how many bits of security a Ring-LWE sample has.

A sample (a, a u + e) modulo q, with N coefficients, is taken for m <= N unstructured LWE samples of
dimension n: n is N, or less if the attacker knows coefficients of the secret u. The primal attack
(Kannan's embedding, weighted as Bai and Galbraith, ACISP 2014, do it) looks for (e, u, 1) in a
lattice of dimension d = m + n + 1. With the part of u scaled to the deviation of e, and lengths in
units of that deviation, each coefficient of the target is about 1 long, and

    log2(volume) = m (log2 q - log2 sigma_e) - n log2 sigma_u

BKZ with blocks of size beta finds the target (Alkim, Ducas, Poeppelmann and Schwabe, USENIX
Security 2016, section 6.3) when

    sqrt(beta) <= delta^(2 beta - d - 1) volume^(1 / d)
    delta = ((pi beta)^(1 / beta) beta / (2 pi e))^(1 / (2 (beta - 1)))

and takes 8 d calls of a sieve of 2^(0.292 beta + 16.4) operations (Becker, Ducas, Gama and
Laarhoven, SODA 2016). The attacker takes the best m. For SEAL's own rows of the table by which
parameters are chosen, 109 bits at 4096 and 218 bits at 8192, it gives 127.9 and 128.2 bits.
"""

import math
from functools import cache

SEAL_DEVIATION = math.sqrt(21 / 2)
"""Of the noise that SEAL draws: a difference of two sums of 21 bits."""

ROUNDING_DEVIATION = math.sqrt(1 / 12)
"""Of a rounding to integers."""

TERNARY_DEVIATION = math.sqrt(2 / 3)
"""Of a uniform coefficient -1, 0 or 1."""

_MIN_BLOCK = 60
_MAX_BLOCK = 3000
_SAMPLE_COUNTS = 40
"""How many values of m are tried, from 2/5 of the samples to all of them."""


@cache
def _log_delta(block: int) -> float:
    return math.log2((math.pi * block) ** (1 / block) * block / (2 * math.pi * math.e)) / (2 * (block - 1))


def primal_bits(
    dimension: int, samples: int, modulus_bits: float, noise_deviation: float, secret_deviation: float
) -> float:
    """Return log2 of the operations of the primal attack.

    Args:
        dimension: n, unknown coefficients of the secret.
        samples: at most as many are used.
        modulus_bits: log2 q.
        noise_deviation: the standard deviation of e.
        secret_deviation: that of u.
    """
    best = math.inf
    step = max(1, samples // _SAMPLE_COUNTS)
    for m in range(2 * samples // 5, samples + 1, step):
        d = dimension + m + 1
        log_root_volume = (
            m * (modulus_bits - math.log2(noise_deviation)) - dimension * math.log2(secret_deviation)
        ) / d
        block = _least_block(d, log_root_volume)
        best = min(best, 0.292 * block + 16.4 + math.log2(8 * d))
    return best


def _least_block(d: int, log_root_volume: float) -> int:
    """Return the least beta that finds the target, by bisection."""
    low, high = _MIN_BLOCK, min(d, _MAX_BLOCK)
    while low < high:
        block = (low + high) // 2
        if math.log2(block) / 2 <= (2 * block - d - 1) * _log_delta(block) + log_root_volume:
            high = block
        else:
            low = block + 1
    return low


def least_dimension(bits: float, samples: int, modulus_bits: float, noise_deviation: float) -> int:
    """Return the least dimension, of a ternary secret, that is worth so many bits; samples if none.

    Args:
        bits: of security.
        samples: N, the coefficients of the sample and of the whole secret.
        modulus_bits: log2 q.
        noise_deviation: the standard deviation of e.
    """
    low, high = 1, samples
    while low < high:
        dimension = (low + high) // 2
        if primal_bits(dimension, samples, modulus_bits, noise_deviation, TERNARY_DEVIATION) >= bits:
            high = dimension
        else:
            low = dimension + 1
    return low
