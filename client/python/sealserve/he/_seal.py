"""SEAL itself: the only module that imports `seal` (seal-python).

SEAL throws C++ exceptions, which pybind11 turns into the exceptions of `ERRORS` and, where memory
runs out, into MemoryError. Every function here maps `ERRORS` to SealError, so that a caller decides
what a failure means without knowing what SEAL throws. A MemoryError stays one: it says nothing of
the bytes that SEAL was given. For the same reason there is a RandomnessError.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import count

import numpy as np
import seal
from numpy.typing import NDArray
from seal import (
    Ciphertext,
    CKKSEncoder,
    Decryptor,
    Encryptor,
    Evaluator,
    GaloisKeys,
    KeyGenerator,
    Plaintext,
    PublicKey,
    SecretKey,
)
from seal import SEALContext as Context

from sealserve.errors import ParameterError, SealserveError
from sealserve.he.parameters import EncryptionParameters, ParameterSet, Scheme, key_parameters
from sealserve.he.seal_format import RESIDUES_AT, restamp

__all__ = [
    "CKKSEncoder",
    "Ciphertext",
    "Context",
    "Decryptor",
    "Encryptor",
    "Evaluator",
    "GaloisKeys",
    "KeyGenerator",
    "Plaintext",
    "PublicKey",
    "SecretKey",
]

_SCHEMES = {Scheme.BFV: seal.scheme_type.bfv, Scheme.CKKS: seal.scheme_type.ckks}
_UNCOMPRESSED = seal.compr_mode_type.none


class SealError(SealserveError):
    """SEAL refused an operation. The text is SEAL's own: it may go into a log, never to a peer."""


class RandomnessError(SealserveError):
    """SEAL could not draw randomness: to do so it opens a file of the system."""


ERRORS = (ValueError, RuntimeError, IndexError, OverflowError)
"""The exceptions that pybind11 makes of what SEAL throws, but for MemoryError."""


_RANDOM_DEVICE = "random_device"  # begins libstdc++'s text
_NO_RANDOMNESS = "SEAL cannot open the system's source of randomness: the process has no free file descriptor"


def translated(error: Exception) -> SealserveError:
    """Return the SealError or RandomnessError of one of `ERRORS`."""
    text = str(error)
    return RandomnessError(_NO_RANDOMNESS) if text.startswith(_RANDOM_DEVICE) else SealError(text)


@contextmanager
def errors() -> Iterator[None]:
    """Map what SEAL throws in the block, as `translated` does.

    This is too slow for code that runs often.
    """
    try:
        yield
    except ERRORS as error:
        raise translated(error) from error


# A context costs milliseconds. The bound keeps a client of many models from accumulating contexts.
@lru_cache(maxsize=32)
def context(parameters: EncryptionParameters) -> Context:
    """Build the context of the parameters.

    Raises:
        ParameterError: SEAL refuses the parameters.
    """
    primes = [seal.Modulus(prime) for prime in parameters.parameter_set.primes]
    return _build(parameters, primes, seal.sec_level_type.tc128)


@lru_cache(maxsize=32)
def key_level_context(parameter_set: ParameterSet) -> Context:
    """Build a context of CKKS in which all primes of the set are data primes.

    SEAL decrypts and subtracts at the data level only. One more prime, the least that fits, takes
    the place of the special prime. Nothing may be encrypted in this context: with that prime the
    modulus may exceed the tc128 table. It is for arithmetic on what was encrypted without it.

    Raises:
        ParameterError: SEAL refuses the parameters.
    """
    step = 2 * parameter_set.poly_modulus_degree
    candidates = (seal.Modulus(value) for value in count(step + 1, step) if value not in parameter_set.primes)
    primes = [seal.Modulus(prime) for prime in parameter_set.primes]
    primes.append(next(candidate for candidate in candidates if candidate.is_prime()))
    parameters = EncryptionParameters(parameter_set, scheme=Scheme.CKKS)
    return _build(parameters, primes, seal.sec_level_type.none)


def _build(parameters: EncryptionParameters, primes: list[seal.Modulus], security: seal.sec_level_type) -> Context:
    with errors():
        parms = seal.EncryptionParameters(_SCHEMES[parameters.scheme])
        parms.set_poly_modulus_degree(parameters.parameter_set.poly_modulus_degree)
        parms.set_coeff_modulus(primes)
        parms.set_plain_modulus(parameters.plain_modulus)
        built = Context(parms, sec_level=security)
    if not built.parameters_set():
        raise ParameterError(f"{parameters.parameter_set.name}: SEAL refuses it: {built.parameter_error_message()}")
    return built


def fresh_parms_id(built: Context) -> bytes:
    """Return the parms_id of a fresh ciphertext, 32 bytes."""
    return _parms_id_bytes(built.first_parms_id())


def key_parms_id(built: Context) -> bytes:
    """Return the parms_id of a key, 32 bytes."""
    return _parms_id_bytes(built.key_context_data().parms_id())


def data_parms_ids(built: Context) -> list[bytes]:
    """Return the parms_id, 32 bytes, of each level that a ciphertext can have.

    The first level has all data primes, the last has one.
    """
    ids = []
    level = built.first_context_data()
    while level is not None:
        ids.append(_parms_id_bytes(level.parms_id()))
        level = level.next_context_data()
    return ids


def _parms_id_bytes(words: Sequence[int]) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)


def load_ciphertext(built: Context, data: bytes) -> Ciphertext:
    """Load a ciphertext. SEAL checks it against the context and expands a seed.

    Raises:
        SealError: SEAL refuses the ciphertext.
    """
    ciphertext = Ciphertext()
    try:
        ciphertext.load_bytes(built, data)
    except ERRORS as error:
        raise translated(error) from error
    return ciphertext


def ciphertext_bytes(ciphertext: Ciphertext) -> bytes:
    """Serialize a ciphertext, uncompressed."""
    data: bytes = ciphertext.to_string(_UNCOMPRESSED)
    return data


def ciphertext_residues(ciphertext: Ciphertext, shape: tuple[int, int, int]) -> NDArray[np.uint64]:
    """Return a ciphertext's residues, uint64 (polynomials, data primes, N), read-only."""
    # In place they are not aligned, and each use of them would take several times as long as a
    # copy.
    return np.frombuffer(ciphertext.to_string(_UNCOMPRESSED)[RESIDUES_AT:], np.uint64).reshape(shape)


def load_plaintext(built: Context, data: bytes) -> Plaintext:
    """Load a plaintext.

    Raises:
        SealError: a coefficient is at or above t, or there are more than N.
    """
    plaintext = Plaintext()
    try:
        plaintext.load_bytes(built, data)
    except ERRORS as error:
        raise translated(error) from error
    return plaintext


def plaintext_bytes(plaintext: Plaintext) -> bytes:
    """Serialize a plaintext, uncompressed."""
    data: bytes = plaintext.to_bytes(_UNCOMPRESSED)
    return data


def encrypt(built: Context, encryptor: Encryptor, plaintext: bytes) -> bytes:
    """Encrypt a serialized plaintext with the encryptor's secret key: an uncompressed ciphertext.

    Raises:
        SealError: a coefficient is at or above t, or there are more than N.
        RandomnessError: the process has no free file descriptor.
    """
    loaded = Plaintext()
    try:
        loaded.load_bytes(built, plaintext)
        data: bytes = encryptor.encrypt_symmetric(loaded).to_string(_UNCOMPRESSED)
    except ERRORS as error:
        raise translated(error) from error
    return data


def encrypted_zero(encryptor: Encryptor, shape: tuple[int, int, int]) -> NDArray[np.uint64]:
    """Encrypt zero with the encryptor's public key.

    Returns:
        The residues, uint64 (2, data primes, N), read-only.

    Raises:
        SealError: only a fault of this process can raise one.
        RandomnessError: the process has no free file descriptor.
    """
    try:
        data = encryptor.encrypt_zero().to_string(_UNCOMPRESSED)
    except ERRORS as error:
        raise translated(error) from error
    return np.frombuffer(data[RESIDUES_AT:], np.uint64).reshape(shape)  # a copy, as above


def decrypt(built: Context, decryptor: Decryptor, ciphertext: bytes) -> bytes:
    """Decrypt a serialized ciphertext: an uncompressed plaintext.

    Raises:
        SealError: SEAL refuses the ciphertext.
    """
    loaded = Ciphertext()
    try:
        loaded.load_bytes(built, ciphertext)
        data: bytes = decryptor.decrypt(loaded).to_bytes(_UNCOMPRESSED)
    except ERRORS as error:
        raise translated(error) from error
    return data


def load_galois_keys(built: Context, data: bytes) -> GaloisKeys:
    """Load Galois keys. SEAL expands their seeds.

    Raises:
        SealError: SEAL refuses the keys.
    """
    with errors():
        return built.from_galois_str(data)


def load_secret_key(built: Context, data: bytes) -> SecretKey:
    """Load a secret key that has the key_parms_id of this context.

    Raises:
        SealError: SEAL refuses the key.
    """
    with errors():
        return built.from_secret_str(data)


def load_key_of_ring(built: Context, parameter_set: ParameterSet, data: bytes) -> SecretKey:
    """Load a secret key into a context of its ring, whatever scheme and t the context has.

    SEAL alone would take the key of another ring of as many coefficients and primes, if its
    residues are below the primes of this one: what is stamped on it tells.

    Args:
        built: a context of the set.
        parameter_set: a set of the ring.
        data: the key, with the key_parms_id of `key_parameters`.

    Raises:
        SealError: the key is of another ring, or SEAL refuses it.
    """
    if restamp(data, key_parms_id(context(key_parameters(parameter_set)))) != data:
        raise SealError("the secret key is of another ring")
    return load_secret_key(built, restamp(data, key_parms_id(built)))


def generate_secret_key(built: Context) -> bytes:
    """Generate a secret key with SEAL and serialize it.

    Raises:
        RandomnessError: the process has no free file descriptor.
    """
    with errors():
        data: bytes = KeyGenerator(built).secret_key().to_string()
    return data


def load_public_key(built: Context, data: bytes) -> PublicKey:
    """Load a public encryption key that has the key_parms_id of this context.

    SEAL expands its seed.

    Raises:
        SealError: SEAL refuses the key.
    """
    with errors():
        return built.from_public_str(data)
