"""Evaluation keys as registered -> Galois keys that the EI slots engine rotates with."""

from sealserve.errors import KeyFault, MalformedKeyError
from sealserve.he import _seal, ei_format
from sealserve.he.layouts.ei_slots import EI_PARAMETER_SET, EI_PARAMETERS

GALOIS_KEYS_BYTES = (
    len(ei_format.ROTATIONS)
    * len(EI_PARAMETER_SET.data_primes)
    * 2
    * 8
    * len(EI_PARAMETER_SET.primes)
    * EI_PARAMETER_SET.poly_modulus_degree
)
"""Memory of loaded Galois keys: two polynomials for each rotation and data prime, 19 MB."""


def load_galois_keys(data: bytes) -> _seal.GaloisKeys:
    """Load the Galois keys of an upload of encrypted-inference 0.9.

    The relinearization keys are checked, and not loaded.

    Raises:
        MalformedKeyError: with the first check that fails.
    """
    try:
        return _seal.load_galois_keys(_seal.context(EI_PARAMETERS), ei_format.read_evaluation_keys(data).galois)
    except _seal.SealError as error:
        raise MalformedKeyError(KeyFault.FORMAT) from error
