"""Noise bounds: how much noise encryptions have at most, and how much of it decryption takes.

A fresh symmetric encryption of m satisfies c0 + c1 s = q m / t + v (mod q) with |v| <= 21 + 1/2 in
every coefficient: 21 is the bound of SEAL's centred binomial noise (sample_poly_cbd: a difference
of two sums of 21 bits), 1/2 the rounding of q m / t.

An encryption of zero under a public key (b, a), b + a s = e: SEAL draws u, ternary, and e0, e1 and
returns (b u + e0, a u + e1), so that c0 + c1 s = e u + e0 + e1 s. There are N terms of e u and N of
e1 s, with u and s of -1, 0 and 1:

    |v| <= 21 (2 N + 1)

Where there is a special prime P, SEAL does so modulo P q, divides both polynomials by P and rounds
(encryptor.cpp, encrypt_zero_internal; divide_and_round_q_last_inplace). With the remainders r0, r1,
at most (P - 1) / 2 as P is odd, the noise becomes (v - r0 - r1 s) / P, an integer:

    |v| <= (21 (2 N + 1) + (P - 1) / 2 (N + 1)) / P, rounded down

which is about N / 2: the encryption's noise all but vanishes, the rounding's stays.

Decryption rounds t / q times c0 + c1 s, which is right when t / q |v| < 1/2. SEAL divides by way of
residues modulo a prime of 61 bits (rns.cpp, decrypt_scale_and_round): with k data primes the
quotient comes out up to k - 1 of its units too low, which costs less than (2 k - 1) / 2^60 of q.
With eight data primes at most:

    q (1 - 2^-56) > 2 t |v|

Packed replies bring roundings of their own: see `rounding`.
"""

from sealserve.he.parameters import ParameterSet

NOISE = 21
"""The largest coefficient of the noise that SEAL draws."""

FRESH_NOISE_TIMES_TWO = 2 * NOISE + 1
"""Twice the largest |v| of a fresh symmetric encryption, so that it is an integer."""


def zero_noise(parameter_set: ParameterSet) -> int:
    """Return the largest |v| of an encryption of zero under a public key, at the fresh level."""
    N = parameter_set.poly_modulus_degree
    noise = NOISE * (2 * N + 1)
    if len(parameter_set.primes) == 1:
        return noise
    special = parameter_set.primes[-1]
    return (noise + (special - 1) // 2 * (N + 1)) // special
