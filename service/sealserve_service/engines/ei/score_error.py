"""The error of scores of the EI slots engine: an estimate from the variance of its noise.

The terms, as energies E|noise|^2 of one slot, with sigma the standard deviation of SEAL's noise and
s uniform ternary:

- a fresh ciphertext: N sigma^2, and N / 12 for the client's rounding;
- a key switch (a rotation): the digits of c1, uniform below q0, times the key's noise, over the
  special prime P. The deviations of the digits from q0 / 2 and the rounding by P spread over all
  slots: `broad`. The mean of the digits does not: it is q0 / 2 times 1 + X + ... + X^(N-1), which
  at the k-th odd power of the first slot's root is about 2 N / (pi k) in size. The first slot, the
  one that a client reads, gets most of it: `peak`; all slots together get pi^2 / 8 peaks. It is the
  same for every ciphertext under a key;
- a rescaling: the rounding of c0 and c1, N (1 + 2 N / 3) / 12;
- a rounded plaintext: N / 12, times the features squared.

Half of an energy is in the real part. Energies of independent noise add up; a fold adds the noise
of the slots that it adds up. Sources: Gentry, Halevi and Smart, CRYPTO 2012, appendix A.5, for the
heuristic; SEAL evaluator.cpp (switch_key_inplace) for the digits, which SEAL does not center.
"""

import math

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET, EI_PARAMETERS
from sealserve.he.quantization import InputGrid
from sealserve_service.engines.ei.packing import SlotPacking

_DEVIATIONS = 6
_N = EI_PARAMETER_SET.poly_modulus_degree
_SIGMA = 3.2
_SECRET_VARIANCE = 2 / 3

_ROUNDED = _N / 12
_FRESH = _N * _SIGMA**2 + _ROUNDED
_RESCALED = _ROUNDED * (1 + _N * _SECRET_VARIANCE)
_DIGIT = EI_PARAMETER_SET.primes[0] / EI_PARAMETER_SET.primes[-1]
_BROAD = _DIGIT**2 * _N * _SIGMA**2 * _ROUNDED + _RESCALED
_PEAK = (_DIGIT / 2 * 2 * _N / math.pi) ** 2 * _N * _SIGMA**2
_ALL_PEAKS = _PEAK * math.pi**2 / 8


def score_error_estimate(
    packing: SlotPacking, weights: NDArray[np.float64], grid: InputGrid, plaintext_scale: float, reply_scale: float
) -> float:
    """Return six standard deviations of the worst class's error, in units of the score.

    It is an estimate: proven bounds on CKKS noise multiply the worst case of every term, and exceed
    the scores.

    Args:
        packing: the number of rotations.
        weights: (score_count, feature_count).
        grid: the declared range of the features.
        plaintext_scale: what the weights are multiplied with.
        reply_scale: the scale of the reply.
    """
    farthest = np.maximum(np.abs(grid.minimum), np.abs(grid.maximum))
    squared = weights**2
    pairs = np.add.reduceat(squared, np.arange(0, len(squared), 2), axis=0)  # both classes of a slot multiply its noise
    hops = packing.baby_steps.bit_length() - 1
    inputs = (pairs.sum(axis=1) * (_FRESH + hops * _BROAD)).max() + hops * pairs.max() * _ALL_PEAKS
    rounding = (farthest**2).sum() * _ROUNDED
    giants, folds, outputs = packing.giant_steps - 1, len(packing.folds), (packing.pairs - 1).bit_length()
    folded = 1 << folds
    products = packing.giant_steps * folded * _RESCALED + (giants + folds) * (_ALL_PEAKS + folded * _BROAD)
    energy = (
        inputs / EI_PARAMETERS.scale**2
        + rounding / plaintext_scale**2
        + (products + outputs * (_PEAK + _BROAD)) / reply_scale**2
    )
    # Weights that are too small to be encoded all round to zero, and a model of zeros needs a
    # weight that is not zero.
    vanished = 2 * farthest.sum() / plaintext_scale
    return float(_DEVIATIONS * math.sqrt(energy / 2) + vanished)
