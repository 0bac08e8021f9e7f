"""SeededEncryptor: half the bytes, the same plaintext, and SEAL's own noise to the coefficient."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import MAX_PLAIN_MODULUS_BITS, EncryptionParameters, ParameterSet
from sealserve.he.seal_format import SEED_BYTES, CiphertextFormat
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.he.secret.seeded_encryptor import PackedEncryptor, SeededEncryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN
from tests.support import blake2xb
from tests.support.affine_models import Integers
from tests.support.noisy_encryptor import NoisyEncryptor
from tests.support.seal_spy import SealSpy, seal_spy

RANDOM = np.random.default_rng(8)
KEYS = {s: SecretKey.generate(s).export(TOKEN) for s in LAYOUTS["row"].open_parameter_sets}
SETS = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda s: s.name)
LEAST_NOISE_ROOM = 43  # q > 43 t, or not even what is fresh can be decrypted: 43 = 2 (21 + 1/2)

spy = pytest.fixture(seal_spy)


def format_of(parameters: EncryptionParameters) -> CiphertextFormat:
    return CiphertextFormat(parameters.parameter_set, _seal.fresh_parms_id(_seal.context(parameters)))


def expanded(parameters: EncryptionParameters, ciphertext: bytes) -> bytes:
    """The full ciphertext that SEAL makes of any."""
    return _seal.ciphertext_bytes(_seal.load_ciphertext(_seal.context(parameters), ciphertext))


def decrypted(parameters: EncryptionParameters, ciphertext: bytes) -> NDArray[np.uint64]:
    c0, c1 = format_of(parameters).residues(expanded(parameters, ciphertext))
    everywhere = np.arange(parameters.parameter_set.poly_modulus_degree)
    return Decryptor(parameters, KEYS[parameters.parameter_set]).decrypt(c0.tobytes(), c1.tobytes(), everywhere)


def seeded_encryptor(parameters: EncryptionParameters) -> SeededEncryptor:
    return SeededEncryptor(parameters, KEYS[parameters.parameter_set])


def random_coefficients(parameters: EncryptionParameters) -> NDArray[np.uint64]:
    degree = parameters.parameter_set.poly_modulus_degree
    return RANDOM.integers(parameters.plain_modulus, size=degree).astype(np.uint64)


def plain_moduli(parameter_set: ParameterSet) -> list[int]:
    """Powers of two, as models have, and primes; the least and the greatest among them."""
    room = parameter_set.modulus // LEAST_NOISE_ROOM
    most_bits = min(MAX_PLAIN_MODULUS_BITS - 1, room.bit_length() - 1)
    return [t for t in (2, 3, 1 << 20, 1 << most_bits, 65537, 786433, 0x1FFFFFFFFE001) if t < room]


# Plaintexts


@SETS
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_what_is_encrypted_is_decrypted(parameter_set: ParameterSet, data: st.DataObject) -> None:
    t = data.draw(st.sampled_from(plain_moduli(parameter_set)), "t")
    parameters = EncryptionParameters(parameter_set, t)
    below_t = st.integers(0, t - 1) | st.sampled_from([0, 1, t // 2, t - 1])
    coefficients = data.draw(
        hnp.arrays(np.uint64, parameter_set.poly_modulus_degree, elements=below_t, fill=below_t), "coefficients"
    )
    ciphertext = seeded_encryptor(parameters).encrypt(coefficients)
    np.testing.assert_array_equal(decrypted(parameters, ciphertext), coefficients)


@SETS
def test_random_plaintexts_of_every_plain_modulus(parameter_set: ParameterSet) -> None:
    for t in plain_moduli(parameter_set):
        parameters = EncryptionParameters(parameter_set, t)
        coefficients = random_coefficients(parameters)
        ciphertext = seeded_encryptor(parameters).encrypt(coefficients)
        np.testing.assert_array_equal(decrypted(parameters, ciphertext), coefficients)


@SETS
def test_it_is_half_as_long_and_what_the_service_takes(parameter_set: ParameterSet) -> None:
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    coefficients = random_coefficients(parameters)
    encryptor, form = seeded_encryptor(parameters), format_of(parameters)
    ciphertext = encryptor.encrypt(coefficients)
    form.checked(ciphertext)
    form.checked(expanded(parameters, ciphertext))
    full = Encryptor(parameters, KEYS[parameter_set]).encrypt(coefficients)
    assert len(ciphertext) == encryptor.ciphertext_bytes == form.seeded_bytes
    assert len(ciphertext) == len(full) - parameter_set.polynomial_bytes + 81


# Packed


@SETS
def test_it_is_packed_where_that_saves_a_fifth(parameter_set: ParameterSet) -> None:
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    coefficients, form = random_coefficients(parameters), format_of(parameters)
    encryptor = PackedEncryptor(parameters, KEYS[parameter_set])
    ciphertext = encryptor.encrypt(coefficients)
    expected = form.packed_bytes if parameter_set.name in ("row-2048-44", "row-4096-92") else form.seeded_bytes
    assert len(ciphertext) == encryptor.ciphertext_bytes == expected
    np.testing.assert_array_equal(decrypted(parameters, form.checked(ciphertext)), coefficients)


def test_a_packed_one_has_the_drawn_seed_and_the_noise_of_the_pair_it_was_moved_from(spy: SealSpy) -> None:
    """Each has a seed of its own, and nothing of the pair in it."""
    parameter_set = LAYOUTS["row"].open_parameter_sets[-1]
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    noisy, form = NoisyEncryptor(parameters, KEYS[parameter_set]), format_of(parameters)
    encryptor, seeds = PackedEncryptor(parameters, KEYS[parameter_set]), set()
    for _ in range(3):
        coefficients = random_coefficients(parameters)
        spy.forget()
        ciphertext = encryptor.encrypt(coefficients)
        (pair,), (seed,) = spy.pairs, spy.seeds
        assert ciphertext[32 : 32 + SEED_BYTES] == seed
        noise = noisy.noise(expanded(parameters, form.checked(ciphertext)), coefficients)
        np.testing.assert_array_equal(noise, noisy.noise(pair, coefficients))
        seeds.add(seed)
    assert len(seeds) == 3


VIEWS: dict[str, Callable[[NDArray[np.uint64]], NDArray[np.uint64]]] = {
    "a column": lambda table: table[:, 1],
    "a column backwards": lambda table: table[::-1, 0],
    "read-only": lambda table: np.broadcast_to(table[7, 2], (len(table),)),
}


@pytest.mark.parametrize("view", VIEWS)
@SETS
def test_strided_arrays_are_encrypted_as_they_read(parameter_set: ParameterSet, view: str) -> None:
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    table = np.stack([random_coefficients(parameters) for _ in range(3)], axis=1)
    coefficients = VIEWS[view](table)
    assert not coefficients.flags.c_contiguous
    ciphertext = seeded_encryptor(parameters).encrypt(coefficients)
    assert decrypted(parameters, ciphertext).tolist() == coefficients.tolist()


def test_a_coefficient_at_the_plaintext_modulus_is_refused() -> None:
    parameters = EncryptionParameters(LAYOUTS["row"].open_parameter_sets[0], 1 << 20)
    coefficients = np.full(LAYOUTS["row"].open_parameter_sets[0].poly_modulus_degree, 1 << 20, np.uint64)
    with pytest.raises(_seal.SealError):
        seeded_encryptor(parameters).encrypt(coefficients)


def test_a_key_of_another_ring_is_refused() -> None:
    for parameter_set in LAYOUTS["row"].open_parameter_sets:
        for other, key in KEYS.items():
            if other is not parameter_set:
                with pytest.raises(_seal.SealError):
                    SeededEncryptor(EncryptionParameters(parameter_set, 1 << 20), key)


# Seeds


@SETS
def test_no_two_ciphertexts_have_a_seed_or_a_second_polynomial_in_common(parameter_set: ParameterSet) -> None:
    """Two ciphertexts of one seed would give the difference of their plaintexts.

    That is so whichever encryptor made them.
    """
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    form, zeros = format_of(parameters), np.zeros(parameter_set.poly_modulus_degree, np.uint64)
    encryptors = [seeded_encryptor(parameters) for _ in range(2)]
    ciphertexts = [encryptor.encrypt(zeros) for _ in range(50) for encryptor in encryptors]
    assert len({ciphertext[-SEED_BYTES:] for ciphertext in ciphertexts}) == len(ciphertexts)
    seconds = [form.residues(expanded(parameters, ciphertext))[1] for ciphertext in ciphertexts]
    assert len({second.tobytes() for second in seconds}) == len(ciphertexts)
    assert (seconds[0] != seconds[1]).mean() > 0.99


@SETS
def test_the_seed_is_what_the_system_drew_and_nothing_else_decides_the_second_polynomial(
    parameter_set: ParameterSet, spy: SealSpy
) -> None:
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    form = format_of(parameters)
    ciphertext = spy.encryptor(parameters, KEYS[parameter_set]).encrypt(random_coefficients(parameters))
    (seed,) = spy.seeds
    assert len(seed) == SEED_BYTES
    assert ciphertext[-SEED_BYTES:] == seed
    nothing = np.zeros((len(parameter_set.data_primes), parameter_set.poly_modulus_degree), np.uint64)
    c1 = form.residues(expanded(parameters, form.pack_seeded(nothing, seed)))[1]
    np.testing.assert_array_equal(form.residues(expanded(parameters, ciphertext))[1], c1)
    for index, prime in enumerate(parameter_set.data_primes):
        assert prime * 0.99 < c1[index].max() < prime
        assert c1[index].min() < prime * 0.01


@SETS
def test_the_second_polynomial_is_the_expansion_that_the_protos_describe(parameter_set: ParameterSet) -> None:
    parameters = EncryptionParameters(parameter_set, 1 << 20)
    ciphertext = seeded_encryptor(parameters).encrypt(random_coefficients(parameters))
    c1 = format_of(parameters).residues(expanded(parameters, ciphertext))[1]
    degree = parameter_set.poly_modulus_degree
    np.testing.assert_array_equal(c1, blake2xb.expanded(ciphertext[-SEED_BYTES:], parameter_set.data_primes, degree))


# Noise


@SETS
@pytest.mark.parametrize("bits", [2, 20, 40])
def test_the_noise_is_that_of_the_ciphertext_it_was_moved_from(
    parameter_set: ParameterSet, bits: int, spy: SealSpy
) -> None:
    """It is the same in every coefficient, so that its distribution and bound are SEAL's."""
    parameters = EncryptionParameters(parameter_set, 1 << bits)
    noisy = NoisyEncryptor(parameters, KEYS[parameter_set])
    encryptor = spy.encryptor(parameters, KEYS[parameter_set])
    for _ in range(5):
        coefficients = random_coefficients(parameters)
        spy.forget()
        ciphertext = encryptor.encrypt(coefficients)
        (pair,) = spy.pairs
        noise = noisy.noise(expanded(parameters, ciphertext), coefficients)
        assert noise.any()
        np.testing.assert_array_equal(noise, noisy.noise(pair, coefficients))


def noise_of(maker: type[Encryptor] | type[SeededEncryptor], parameters: EncryptionParameters) -> Integers:
    """The noise of 2^17 coefficients of random plaintexts."""
    encryptor = maker(parameters, KEYS[parameters.parameter_set])
    noisy = NoisyEncryptor(parameters, KEYS[parameters.parameter_set])
    pieces = []
    for _ in range((1 << 17) // parameters.parameter_set.poly_modulus_degree):
        coefficients = random_coefficients(parameters)
        pieces.append(noisy.noise(expanded(parameters, encryptor.encrypt(coefficients)), coefficients))
    return np.concatenate(pieces)


@SETS
@pytest.mark.parametrize("maker", [Encryptor, SeededEncryptor])
def test_the_noise_is_distributed_as_the_planner_relies_on(
    parameter_set: ParameterSet, maker: type[Encryptor] | type[SeededEncryptor]
) -> None:
    """The centred binomial distribution of 42 coins: mean 0, variance 21/2, at most 21.

    The source is SEAL's util/rlwe.cpp. Seven standard errors, and a chi-square beyond d + 2 sqrt(d
    x) + 2 x for x = 30 (Laurent and Massart 2000, lemma 1), have probabilities below 1e-11: this
    does not fail by chance.
    """
    noise = noise_of(maker, EncryptionParameters(parameter_set, 1 << 20)).astype(np.int64)
    count, variance = noise.size, 21 / 2
    assert abs(noise).max() <= 21
    assert abs(noise.mean()) < 7 * (variance / count) ** 0.5
    fourth_moment = (3 - 2 / 42) * variance**2
    assert abs((noise**2).mean() - variance) < 7 * ((fourth_moment - variance**2) / count) ** 0.5

    expected = count * CENTRED_BINOMIAL
    observed = np.bincount(noise + 21, minlength=43)
    common = expected > 100  # the others, together, on either side
    bins = np.concatenate([[21 - common.sum() // 2], [1] * common.sum(), [21 - common.sum() // 2]])
    places = np.concatenate([[0], np.cumsum(bins)[:-1]])
    expected, observed = np.add.reduceat(expected, places), np.add.reduceat(observed, places)
    chi_square, degrees = float(((observed - expected) ** 2 / expected).sum()), len(expected) - 1
    assert chi_square < degrees + 2 * (degrees * 30) ** 0.5 + 2 * 30


def centred_binomial() -> NDArray[np.float64]:
    """The probabilities of -21..21."""
    probabilities = np.ones(1)
    for _ in range(42):
        probabilities = np.convolve(probabilities, [0.5, 0.5])
    return probabilities


CENTRED_BINOMIAL = centred_binomial()
