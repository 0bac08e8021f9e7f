"""What the row and column engines add to a reply in mode private to hide the weights; `he.hiding` says why."""

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import KeyNotFoundError
from sealserve.he.parameters import ParameterSet
from sealserve.he.public_key_format import pack_public_key
from sealserve.protocol.item import ItemHeader, Residues
from sealserve_service.engines.linear.zero_encryptor import ZeroEncryptor
from sealserve_service.planning.hiding import uniform_noise
from sealserve_service.planning.planner import ColumnPlan, RowPlan
from sealserve_service.tenants.tenant import Tenant

ZeroEncryptorOf = Callable[[str, str, ParameterSet], ZeroEncryptor]
"""(the tenant's name, key id, parameter set) -> what encrypts zero under that key; raises KeyNotFoundError."""


def no_keys(tenant: str, key_id: str, parameter_set: ParameterSet) -> ZeroEncryptor:
    """Find no key: of an engine that was given none."""
    raise KeyNotFoundError(key_id)


class Rerandomizer:
    """Adds a new encryption of zero, and uniform noise, to each polynomial pair of an item's reply.

    Args:
        zero_encryptor: under the key of the client whose item it is, and of nobody else.
        noise_width: B of the plan.
    """

    def __init__(self, zero_encryptor: ZeroEncryptor, noise_width: int) -> None:
        self._zero_encryptor = zero_encryptor
        self._noise_width = noise_width
        self._data_primes = zero_encryptor.parameter_set.data_primes
        self._primes = np.array(self._data_primes, np.uint64)[:, None]

    @classmethod
    def under_a_random_key(cls, parameter_set: ParameterSet, noise_width: int) -> "Rerandomizer":
        """Make one whose replies nobody can read, to measure what it costs: a key is no more than random residues."""
        shape = 2, len(parameter_set.primes), parameter_set.poly_modulus_degree
        words = np.frombuffer(os.urandom(8 * shape[0] * shape[1] * shape[2]), np.uint64).reshape(shape)
        values = words % np.array(parameter_set.primes, np.uint64)[:, None]
        return cls(ZeroEncryptor(parameter_set, pack_public_key(parameter_set, values)), noise_width)

    def hidden(self, kept: NDArray[np.uint64], c1: NDArray[np.uint64], places: NDArray[np.intp] | slice) -> Residues:
        """Return a pair that tells its scores and nothing else.

        Args:
            kept: residues of the coefficients of c0 that hold scores, (data primes, n).
            c1: residues, (data primes, N).
            places: where in c0 they were, (n,).
        """
        z0, z1 = self._zero_encryptor.encrypt()
        noise = uniform_noise(kept.shape[1], self._noise_width, self._data_primes)
        kept = self._sum(self._sum(kept, z0[:, places]), noise)
        return Residues(kept.tobytes(), self._sum(c1, z1).tobytes())

    def _sum(self, one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Add residues (data primes, n) modulo their primes: a difference below 0 wraps around, and is the greater."""
        total = one + other
        reduced: NDArray[np.uint64] = np.minimum(total, total - self._primes)
        return reduced


def hiding_of(
    noise_width: int | None, parameter_set: ParameterSet, keys: ZeroEncryptorOf, header: ItemHeader, tenant: Tenant
) -> Rerandomizer | None:
    """Return what hides the weights in an item's reply; None where they are open, of a plan without a noise width.

    Raises:
        KeyNotFoundError: the weights are private, and the tenant has no public key of header.key_id and the ring.
    """
    if noise_width is None:
        return None
    return Rerandomizer(keys(tenant.name, header.key_id, parameter_set), noise_width)


def hiding_to_measure(plan: RowPlan | ColumnPlan) -> Rerandomizer | None:
    """Return what costs what hiding costs; None where the weights are open."""
    if plan.noise_width is None:
        return None
    return Rerandomizer.under_a_random_key(plan.parameters.parameter_set, plan.noise_width)
