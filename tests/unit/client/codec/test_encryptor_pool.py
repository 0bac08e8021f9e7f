"""Encryption in worker processes: the same as here, in order, whatever happens to a worker."""

import ctypes
import os
import resource
import signal
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from sealserve._codec.encryptor_pool import EncryptorFactory, EncryptorPool, PooledEncryptor
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.seal_format import plaintext_coefficients, restamp
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import SeededEncryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN

PARAMETERS = EncryptionParameters(LAYOUTS["column"].open_parameter_sets[0], 1 << 20)
N = PARAMETERS.parameter_set.poly_modulus_degree
KEY = SecretKey.generate(PARAMETERS.parameter_set).export(TOKEN)
MAKE = EncryptorFactory(Encryptor, PARAMETERS, KEY)
PLAINTEXTS = np.random.default_rng(3).integers(0, PARAMETERS.plain_modulus, (100, N)).astype(np.uint64)


@pytest.fixture
def pool() -> Iterator[EncryptorPool]:
    pool = EncryptorPool(2)
    yield pool
    pool.close()


def workers() -> list[psutil.Process]:
    """The processes of a pool, without the one that multiprocessing keeps beside them."""
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def decrypted(ciphertexts: list[bytes]) -> NDArray[np.uint64]:
    context = _seal.context(PARAMETERS)
    key = _seal.load_secret_key(context, restamp(KEY, _seal.key_parms_id(context)))
    decryptor = _seal.Decryptor(context, key)
    plaintexts = [decryptor.decrypt(_seal.load_ciphertext(context, data)) for data in ciphertexts]
    return np.array([plaintext_coefficients(_seal.plaintext_bytes(plaintext), N) for plaintext in plaintexts])


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 100])
def test_plaintexts_are_encrypted_in_order(pool: EncryptorPool, count: int) -> None:
    ciphertexts = list(PooledEncryptor(pool, MAKE).encrypt_all(PLAINTEXTS[:count]))
    assert len(set(ciphertexts)) == count
    np.testing.assert_array_equal(decrypted(ciphertexts).reshape(-1, N), PLAINTEXTS[:count])


def test_half_size(pool: EncryptorPool) -> None:
    encryptor = PooledEncryptor(pool, EncryptorFactory(SeededEncryptor, PARAMETERS, KEY))
    ciphertexts = list(encryptor.encrypt_all(PLAINTEXTS[:20]))
    assert {len(ciphertext) for ciphertext in ciphertexts} == {encryptor.ciphertext_bytes}
    assert 2 * encryptor.ciphertext_bytes < 1.02 * MAKE().ciphertext_bytes
    np.testing.assert_array_equal(decrypted(ciphertexts), PLAINTEXTS[:20])


def test_no_process_for_what_is_little(pool: EncryptorPool) -> None:
    assert workers() == []
    encryptor = PooledEncryptor(pool, MAKE)
    assert encryptor.ciphertext_bytes == Encryptor(PARAMETERS, KEY).ciphertext_bytes
    list(encryptor.encrypt_all(PLAINTEXTS[:15]))
    assert workers() == []
    list(encryptor.encrypt_all(PLAINTEXTS[:16]))
    assert workers() != []


def test_no_more_is_taken_than_a_few_tasks_ahead(pool: EncryptorPool) -> None:
    taken = 0

    def source() -> Iterator[NDArray[np.uint64]]:
        nonlocal taken
        for plaintext in np.tile(PLAINTEXTS, (4, 1)):
            taken += 1
            yield plaintext

    ciphertexts = PooledEncryptor(pool, MAKE).encrypt_all(source())
    next(ciphertexts)
    assert taken <= 16 * (2 * 2 * 2 + 1)
    ciphertexts.close()  # type: ignore[attr-defined]  # a generator


def test_a_killed_worker_costs_no_ciphertext(pool: EncryptorPool) -> None:
    ciphertexts = PooledEncryptor(pool, MAKE).encrypt_all(PLAINTEXTS)
    found = [next(ciphertexts)]
    for worker in workers():
        os.kill(worker.pid, signal.SIGKILL)
    found += ciphertexts
    np.testing.assert_array_equal(decrypted(found), PLAINTEXTS)
    again = list(PooledEncryptor(pool, MAKE).encrypt_all(PLAINTEXTS[:40]))
    np.testing.assert_array_equal(decrypted(again), PLAINTEXTS[:40])


def test_the_key_is_on_no_command_line(pool: EncryptorPool) -> None:
    list(PooledEncryptor(pool, MAKE).encrypt_all(PLAINTEXTS[:32]))
    for worker in workers():
        assert len(" ".join(worker.cmdline())) < 1000
        assert not any(len(value) > 4000 for value in worker.environ().values())


class Probe(Encryptor):
    """In a worker, it tells what protects its memory, instead of encrypting."""

    def __init__(self, *_: object) -> None:
        pass

    def encrypt_all(self, plaintexts: object) -> Iterator[bytes]:
        yield bytes([ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[1] > 0])


def test_nobody_reads_the_key_in_a_workers_memory(pool: EncryptorPool) -> None:
    """A program that a protected process starts is not protected itself."""
    make = EncryptorFactory(Probe, PARAMETERS, b"")
    assert pool.submit(make, PLAINTEXTS[:1]).result() == [bytes([0, 0])], "PR_GET_DUMPABLE, and the limit of core dumps"
