"""What a reply in mode private adds so that it tells the scores and, beyond them, nothing of the weights.

The reply to (c0, c1) is W (c0, c1), with the intercept, plus an encryption of zero under the client's public key, plus
uniform noise on the coefficients of c0 that hold scores; of c0 the reply has no others. Modulo q, with the phase
c0 + c1 s, the key's owner reads c1' = W c1 + a u + e1 whole and, at each place of a score,

    phase = q y / t + W v + beta + z + r

y the score modulo t; v the noise of the client's ciphertext; beta the rounding of the intercept; z = e u + e0 + e1 s
the noise of the encryption of zero; r the uniform noise, an integer of -B .. B. (W takes q m / t to q (W m) / t, and of
W m only the residue modulo t counts.)

Width. Let the *ideal* phase be round(q y / t) + r: a function of the score and of nothing else. The phase is the ideal
one shifted by f, an integer. With A' the sum of |w| over all plaintext coefficients that enter one result, and the
bounds of `noise`,

    |f| <= 21.5 A' + 1/2 (beta) + 1/2 (the ideal's rounding) + |z|,   F = floor(21.5 A') + 1 + zero_noise

r is drawn independently of all that f depends on: model, features, key, v, u, e0, e1. Given these, the statistical
distance of a phase to the ideal one is that of uniform noise to itself shifted by f: |f| / (2 B + 1). Distances of
independent coefficients add up (at most): over the n scores of a reply n F / (2 B + 1). For 2^-lambda a reply

    2 B + 1 >= 2^lambda n F,   B = floor(2^lambda n F / 2)

That holds for every v within its bound, not just on average; residues modulo q take distributions no further apart.
Over replies distances add up, also of equal questions: after k replies k 2^-lambda. Replies of two models with equal
scores are twice as far from each other.

c1'. With the ideal phase, c0' at the kept places is the phase minus (c1' s) there: a function of the score, r and c1'.
What is left of W, u, e0 and e1 is c1' = W c1 + (a u + e1): a u + e1 is a Ring-LWE sample whose secret u is drawn anew
for each polynomial pair and kept by nobody. To know s and e does not help: they are independent of u. Its modulus is
the key's, P q, its noise SEAL's, u is ternary as s is: whoever tells it from a uniform polynomial solves Ring-LWE at
the parameters that protect the features, 128 bits by the tc128 table. (Division by P takes uniform polynomials to
uniform ones.) So the hiding is statistical in c0, and computational in c1.

Why each part is there: without the encryption of zero, c1' / c1 is W. Without the noise, phases give W v, with v known
to the key's owner: an equation on W a score. As the noise drowns z too, phases are no equations on u. What is dropped
of c0 would need noise of its own, and no one needs it.

Premises: the key's a is uniform and its e is SEAL's, c0 and c1 are SEAL's symmetric encryption. A client that does not
keep to them (a degenerate a or c1, a large v or e) is not held off by any width. Nor is hidden what an offer publishes:
t, the centres and radii of the scores, error bounds and, by the size of the noise, A' are sums over the weights.

Exactness. The error of the phase is at most 21.5 A' + 1/2 + zero_noise + B (`noise.is_decrypted`):

    q (1 - 2^-56) > t (43 A' + 1 + 2 zero_noise + 2 B)

With B about 2^(lambda - 1) n F that is log2 q > log2 t + log2 A' + log2 n + lambda + 4.43: the price of hiding is
lambda - 1 + log2 n bits.
"""

import os

import numpy as np
from numpy.typing import NDArray

from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve_service.planning import noise

DEFAULT_HIDING_BITS = 40

_WORD_BITS = 32


def largest_shift(parameter_set: ParameterSet, absolute_sum: int) -> int:
    """Return F: how far from the ideal one a phase is at most, without the uniform noise.

    Args:
        parameter_set: of the ciphertexts.
        absolute_sum: A'.
    """
    return noise.FRESH_NOISE_TIMES_TWO * absolute_sum // 2 + 1 + noise.zero_noise(parameter_set)


def noise_width(
    parameter_set: ParameterSet, absolute_sum: int, score_count: int, hiding_bits: int = DEFAULT_HIDING_BITS
) -> int:
    """Return B, the least width of the uniform noise that hides the weights.

    Args:
        parameter_set: of the ciphertexts.
        absolute_sum: A', the largest of the reply's results.
        score_count: n, the coefficients of c0 that a full reply keeps, over all its polynomial pairs.
        hiding_bits: lambda; the statistical distance of a reply's phases to ideal ones is at most 2^-lambda.
    """
    return (score_count * largest_shift(parameter_set, absolute_sum) << hiding_bits) // 2


def fits(parameters: EncryptionParameters, absolute_sum: int, width: int) -> bool:
    """Tell whether every reply with uniform noise of this width decrypts to the exact scores.

    Args:
        parameters: of the ciphertexts.
        absolute_sum: A', the largest of the reply's results.
        width: B.
    """
    zeros = noise.zero_noise(parameters.parameter_set)
    return noise.is_decrypted(parameters, noise.FRESH_NOISE_TIMES_TWO * absolute_sum + 1 + 2 * zeros + 2 * width)


def uniform_noise(count: int, width: int, primes: tuple[int, ...]) -> NDArray[np.uint64]:
    """Draw integers from the operating system's generator, each exactly uniform over -width .. width.

    Args:
        count: how many.
        width: B, at least 0.
        primes: of at most 60 bits.

    Returns:
        Their residues modulo each prime, uint64 (primes, count).
    """
    words = _below(2 * width + 1, count)
    return np.stack([_residues(words, -width % prime, prime) for prime in primes])


def _below(bound: int, count: int) -> NDArray[np.uint32]:
    """Draw integers uniform over 0 .. bound - 1: 32-bit words (words, count), the least significant first.

    Integers of as many bits as `bound` has are drawn, and those that are not below it dropped: half of them at most.
    Most are known by their most significant word, in as few bytes as it takes: only the others' words are drawn too.
    """
    lower_words, limit = (bound.bit_length() - 1) // _WORD_BITS, _words(bound)
    top_type = np.min_scalar_type(limit[-1])
    top_mask = top_type.type((1 << limit[-1].bit_length()) - 1)
    accepted = np.empty((len(limit), 0), np.uint32)
    while (missing := count - accepted.shape[1]) > 0:
        draws = (missing * (int(top_mask) + 1) << _WORD_BITS * lower_words) // bound + 16  # about as many as it takes
        top = np.frombuffer(os.urandom(top_type.itemsize * draws), top_type) & top_mask
        top = top[top <= limit[-1]]
        lower = np.frombuffer(os.urandom(4 * lower_words * len(top)), np.uint32).reshape(lower_words, len(top))
        below = top < limit[-1]
        ties = np.flatnonzero(~below)
        below[ties] = _is_less(lower[:, ties], limit[:-1])
        drawn = np.concatenate([lower, top[None].astype(np.uint32)])
        if not below.all():  # of wide noise nearly all are
            drawn = drawn[:, below]
        accepted = np.concatenate([accepted, drawn], axis=1)
    return accepted[:, :count]


def _words(value: int) -> list[int]:
    """Cut a positive integer into 32-bit words, the least significant first, no leading zeros."""
    return [value >> at & (1 << _WORD_BITS) - 1 for at in range(0, value.bit_length(), _WORD_BITS)]


def _is_less(words: NDArray[np.uint32], limit: list[int]) -> NDArray[np.bool_]:
    """Compare integers (words, count) with one: the most significant word that differs decides."""
    less = np.zeros(words.shape[1], np.bool_)
    for word, of_limit in zip(words, limit, strict=True):
        less = (word < of_limit) | ((word == of_limit) & less)
    return less


def _residues(words: NDArray[np.uint32], addend: int, prime: int) -> NDArray[np.uint64]:
    """Reduce integers (words, count) plus an addend below the prime: (count,).

    A word w below 2^32 contributes w c with c = 2^(32 place) mod prime. The quotient of w c by the prime, computed in
    float64, is at most 2^-19 off, so that its floor is at most 1 off: w c - quotient prime, all modulo 2^64, is within
    -prime .. 2 prime - 1. One prime more makes it non-negative; beside a residue, 2^64 has room for five such words.
    """
    total = np.full(words.shape[1], addend, np.uint64)
    for place, word in enumerate(words):
        factor = pow(2, _WORD_BITS * place, prime)
        quotient = (word * (factor / prime)).astype(np.uint64)
        total += word * np.uint64(factor) - quotient * np.uint64(prime) + np.uint64(prime)
        if place % 5 == 4:
            total %= np.uint64(prime)
    return total % np.uint64(prime)
