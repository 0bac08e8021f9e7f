"""Uniform noise: integers of the operating system's generator, each exactly uniform over -B .. B.

A private reply adds them to hide the weights; `planning.hiding` derives their width B.
"""

import os

import numpy as np
from numpy.typing import NDArray

_WORD_BITS = 32
_WORDS_A_REDUCTION = 5


class UniformNoise:
    """Uniform noise of one width, as residues modulo some primes. Threads may share it.

    Args:
        width: B, at least 0.
        primes: of at most 60 bits.
    """

    def __init__(self, width: int, primes: tuple[int, ...]) -> None:
        self._bound = bound = 2 * width + 1
        self._limit = [bound >> at & (1 << _WORD_BITS) - 1 for at in range(0, bound.bit_length(), _WORD_BITS)]
        self._lower_words = len(self._limit) - 1
        self._top_type = np.min_scalar_type(self._limit[-1])
        self._top_mask = self._top_type.type((1 << self._limit[-1].bit_length()) - 1)
        # As columns: (primes, 1).
        self._primes = np.array(primes, np.uint64)[:, None]
        self._offsets = np.array([-width % prime for prime in primes], np.uint64)[:, None]
        factors = [[pow(2, _WORD_BITS * index, prime) for prime in primes] for index in range(len(self._limit))]
        self._factors = [np.array(at_index, np.uint64)[:, None] for at_index in factors]
        ratios = [[factor / prime for factor, prime in zip(row, primes, strict=True)] for row in factors]
        self._ratios = [np.array(at_index, np.float64)[:, None] for at_index in ratios]

    def draw(self, count: int) -> NDArray[np.uint64]:
        """Draw so many integers and return their residues modulo each prime, (primes, count).

        Integers are drawn uniform over 0 .. 2 B, then B is subtracted. Integers of as many bits as
        2 B + 1 has are drawn, and those that are not below it are dropped: half of them at most.
        The most significant 32-bit word, in as few bytes as it takes, shows for most of the dropped
        integers that they are too large. The remaining words are drawn only for the others.
        """
        limit, lower_words = self._limit, self._lower_words
        accepted = np.empty((len(limit), 0), np.uint32)  # words, the least significant first
        while (missing := count - accepted.shape[1]) > 0:
            # About as many as it takes.
            draws = (missing * (int(self._top_mask) + 1) << _WORD_BITS * lower_words) // self._bound + 16
            tops = np.frombuffer(os.urandom(self._top_type.itemsize * draws), self._top_type) & self._top_mask
            tops = tops[tops <= limit[-1]]
            lower = np.frombuffer(os.urandom(4 * lower_words * len(tops)), np.uint32).reshape(lower_words, len(tops))
            is_below = tops < limit[-1]
            ties = np.flatnonzero(~is_below)
            if ties.size:  # the most significant word that differs decides
                less = np.zeros(ties.size, np.bool_)
                for words, of_limit in zip(lower[:, ties], limit[:-1], strict=True):
                    less = (words < of_limit) | ((words == of_limit) & less)
                is_below[ties] = less
            drawn = np.concatenate([lower, tops[None].astype(np.uint32)])
            if not is_below.all():  # of wide noise nearly all are
                drawn = drawn[:, is_below]
            accepted = np.concatenate([accepted, drawn], axis=1)
        return self._residues(accepted[:, :count])

    def _residues(self, words: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Reduce integers (words, count) minus B: (primes, count).

        A word w below 2^32 contributes w c with c = 2^(32 index) mod prime. The quotient of w c by
        the prime, computed in float64, is at most 2^-19 off, so that its floor is at most 1 off:
        w c - quotient prime, all modulo 2^64, is within -prime .. 2 prime - 1. One prime more makes
        it non-negative. Beside a residue, 2^64 has room for five such words.
        """
        primes = self._primes
        total = np.repeat(self._offsets, words.shape[1], axis=1)
        for index, word in enumerate(words):
            quotient = (word * self._ratios[index]).astype(np.uint64)
            total += word * self._factors[index] - quotient * primes + primes
            if index % _WORDS_A_REDUCTION == _WORDS_A_REDUCTION - 1:
                total %= primes
        total %= primes
        return total
