"""Rerandomizer: what linear engines add to a reply in mode private to hide the weights.

`planning.hiding` says why.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sealserve.he.parameters import ParameterSet
from sealserve_service.engines.linear.uniform_noise import UniformNoise
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor

Rerandomize = Callable[
    [NDArray[np.uint64], NDArray[np.uint64], NDArray[np.intp] | slice], tuple[NDArray[np.uint64], NDArray[np.uint64]]
]
"""`Rerandomizer.rerandomize` with the zero encryptor of an item."""


class Rerandomizer:
    """Adds new encryptions of zero, and uniform noise, to polynomial pairs. Threads may share it.

    Args:
        parameter_set: of the ciphertexts.
        noise_width: B of the plan.
    """

    def __init__(self, parameter_set: ParameterSet, noise_width: int) -> None:
        self._primes = np.array(parameter_set.data_primes, np.uint64)[:, None]
        self._noise = UniformNoise(noise_width, parameter_set.data_primes)

    def rerandomize(
        self,
        zero_encryptor: ZeroEncryptor,
        kept: NDArray[np.uint64],
        c1: NDArray[np.uint64],
        places: NDArray[np.intp] | slice,
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return `kept` and `c1` of pairs that tell their scores and nothing else.

        Args:
            zero_encryptor: under the key of the client whose item it is, and of nobody else.
            kept: residues of the coefficients of c0 that hold scores, (pairs, data primes, n).
            c1: residues, (pairs, data primes, N).
            places: the indices of these coefficients in c0, (n,).
        """
        pair_count, _, n = kept.shape
        first = kept + self._noise.draw(pair_count * n).reshape(-1, pair_count, n).swapaxes(0, 1)
        second = np.empty_like(c1)
        for index in range(pair_count):  # a zero for each pair: two pairs with one zero tell weights
            z0, z1 = zero_encryptor.encrypt()
            first[index] += z0[:, places]
            np.add(c1[index], z1, out=second[index])
        # Sums are reduced by taking the lesser of x and x - prime: where x is below its prime, the
        # difference wraps around and is the greater. A sum of three residues is reduced twice.
        first = np.minimum(first, first - self._primes)
        first = np.minimum(first, first - self._primes)
        second = np.minimum(second, second - self._primes)
        return first, second
