"""A secret key stays where it is: it has no constructor, no copy and no text.

Only a token, or a file of its owner, exports it.
"""

import base64
import copy
import json
import logging
import os
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sealserve import secret_key_access
from sealserve.errors import SecretKeyError
from sealserve.he import _seal
from sealserve.he.layouts import LAYOUTS
from sealserve.he.parameters import EncryptionParameters, ParameterSet
from sealserve.he.public_key_format import check_public_key
from sealserve.he.seal_format import CiphertextFormat
from sealserve.he.secret.decryptor import Decryptor
from sealserve.he.secret.encryptor import Encryptor
from sealserve.secret_key import SecretKey
from sealserve.secret_key_access import TOKEN, SecretKeyAccess
from tests.support.seeded import unseeded_public_key

SMALLEST = LAYOUTS["row"].open_parameter_sets[0]
KEY = SecretKey.generate(SMALLEST)
SETS = pytest.mark.parametrize("parameter_set", LAYOUTS["row"].open_parameter_sets, ids=lambda s: s.name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client.key"


@pytest.fixture
def saved(path: Path) -> Path:
    KEY.save(path)
    return path


# Nothing gets it out


@pytest.mark.parametrize("arguments", [(), (SMALLEST,), (SMALLEST, KEY.export(TOKEN), datetime.now(UTC))], ids=len)
def test_it_has_no_constructor(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match=r"SecretKey\.generate"):
        SecretKey(*arguments)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled(protocol: int) -> None:
    for holder in (KEY, [KEY], {"key": KEY}):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            pickle.dumps(holder, protocol)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_it_cannot_be_copied(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        duplicate(KEY)
    with pytest.raises(TypeError, match="cannot be pickled or copied"):
        copy.deepcopy([KEY])


def test_no_text_of_it_shows_key_material(caplog: pytest.LogCaptureFixture) -> None:
    data = KEY.export(TOKEN)
    logging.getLogger("test").warning("%s %r", KEY, KEY)
    for text in (repr(KEY), str(KEY), f"{KEY}", f"{[KEY]}", caplog.text):
        assert re.search(r"<SecretKey for row-2048-44, made \d{4}-\d\d-\d\d>", text)
        for at in range(113, len(data), 8):
            piece = data[at : at + 8]
            for shown in (repr(piece), piece.hex(), str(int.from_bytes(piece, "little")), base64.b64encode(piece)[:8]):
                assert str(shown) not in text
    assert not hasattr(KEY, "__dict__")  # vars(key) would show it


def test_exporting_needs_the_token() -> None:
    class Impostor(SecretKeyAccess):  # type: ignore[misc]  # a final class
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    for access in (None, True, SecretKeyAccess, SecretKeyAccess(), Impostor(), "TOKEN"):
        with pytest.raises(SecretKeyError, match=r"sealserve\.secret_key_access\.TOKEN"):
            KEY.export(access)  # type: ignore[arg-type]
    assert len(KEY.export(secret_key_access.TOKEN)) > 8 * SMALLEST.poly_modulus_degree


# Files


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_only_its_owner_can_read_the_file(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        KEY.save(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_is_never_overwritten(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(SecretKeyError, match="exists; a secret key is never overwritten"):
        SecretKey.generate(SMALLEST).save(saved)
    assert saved.read_bytes() == before


def test_a_link_to_nowhere_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretKeyError, match="never overwritten"):
        KEY.save(path)
    assert not (tmp_path / "elsewhere").exists()


def test_where_no_file_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(SecretKeyError, match="No such file or directory"):
        KEY.save(tmp_path / "missing" / "client.key")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o601, 0o777], ids=oct)
def test_a_file_that_others_can_read_is_refused(saved: Path, mode: int) -> None:
    saved.chmod(mode)
    with pytest.raises(SecretKeyError, match=rf"others can read it \(mode {mode:04o}\); run chmod 600"):
        SecretKey.load(saved)


def test_a_file_that_only_its_owner_can_read_is_loaded(saved: Path) -> None:
    saved.chmod(0o400)
    assert SecretKey.load(saved).export(TOKEN) == KEY.export(TOKEN)


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(SecretKeyError, match="No such file or directory"):
        SecretKey.load(path)


def test_a_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(SecretKeyError, match="Is a directory"):
        SecretKey.load(tmp_path)


def private_file(path: Path, data: bytes) -> Path:
    path.touch(0o600)
    path.write_bytes(data)
    return path


GARBAGE = {
    "empty": b"",
    "zeros": bytes(1000),
    "no UTF-8": b"\xff\xfe{}",
    "no object": b"[1, 2]",
    "null": b"null",
    "text": b'"sealserve secret key 1"',
    "an empty object": b"{}",
    "the key itself": KEY.export(TOKEN),
    "a PEM key": b"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_refused(path: Path, what: str) -> None:
    with pytest.raises(SecretKeyError, match=r"not a sealserve secret key$"):
        SecretKey.load(private_file(path, GARBAGE[what]))


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


DATA = KEY.export(TOKEN)
OTHERS = SecretKey.generate(LAYOUTS["row"].open_parameter_sets[1])
WRONG_FIELDS: dict[str, tuple[str, Any]] = {
    "of another format": ("format", "sealserve secret key 2"),
    "without a format": ("format", None),
    "a name that is no text": ("name", 7),
    "of another ring": ("poly_modulus_degree", 4096),
    "of no ring": ("poly_modulus_degree", 0),
    "a degree that is text": ("poly_modulus_degree", "2048"),
    "a degree that is a fraction": ("poly_modulus_degree", 2048.0),
    "a degree that is a list": ("poly_modulus_degree", [2048]),
    "no primes": ("primes", []),
    "primes that are one number": ("primes", SMALLEST.primes[0]),
    "primes that are text": ("primes", [str(SMALLEST.primes[0])]),
    "primes that are fractions": ("primes", [float(SMALLEST.primes[0])]),
    "primes that are null": ("primes", [None]),
    "another prime": ("primes", [0x3FFFFFFFFC9001]),
    "a composite": ("primes", [(1 << 40) * 4096 + 1]),
    "insecure": ("primes", LAYOUTS["row"].open_parameter_sets[2].primes),
    "made at no time": ("created", "yesterday"),
    "made in no zone": ("created", "2026-01-01T00:00:00"),
    "made at a number": ("created", 1767225600),
    "no base64": ("secret_key", "-" * 100),
    "base64 with a line break": ("secret_key", encoded(DATA) + "\n"),
    "no text": ("secret_key", 0),
    "nothing": ("secret_key", ""),
    "truncated": ("secret_key", encoded(DATA[:-8])),
    "a header alone": ("secret_key", encoded(DATA[:16])),
    "noise": ("secret_key", encoded(np.random.default_rng(9).bytes(len(DATA)))),
    "stamped for other parameters": ("secret_key", encoded(DATA[:16] + bytes(32) + DATA[48:])),
    "a key of another ring": ("secret_key", encoded(OTHERS.export(TOKEN))),
    "a residue at its prime": ("secret_key", encoded(DATA[:-8] + SMALLEST.primes[0].to_bytes(8, "little"))),
    "public key no base64": ("public_encryption_key", "-" * 100),
    "public key no text": ("public_encryption_key", 0),
    "public key truncated": ("public_encryption_key", encoded(KEY.public_encryption_key[:-8])),
    "public key of zeros": ("public_encryption_key", encoded(bytes(len(KEY.public_encryption_key)))),
    "public key that is the secret key": ("public_encryption_key", encoded(DATA)),
    "public key of another ring": ("public_encryption_key", encoded(OTHERS.public_encryption_key)),
}


@pytest.mark.parametrize("what", WRONG_FIELDS)
def test_wrong_fields_are_refused_and_nothing_of_them_is_shown(saved: Path, what: str) -> None:
    field, value = WRONG_FIELDS[what]
    fields = json.loads(saved.read_bytes())
    assert json.dumps(fields[field]) != json.dumps(value)
    saved.write_text(json.dumps(fields | {field: value}))
    with pytest.raises(SecretKeyError) as caught:
        SecretKey.load(saved)
    assert str(caught.value) == f"{saved}: not a sealserve secret key"
    assert caught.value.__suppress_context__


def test_every_field_is_needed_but_the_public_key(saved: Path) -> None:
    fields = json.loads(saved.read_bytes())
    needed = {"format", "name", "poly_modulus_degree", "primes", "created", "secret_key"}
    assert set(fields) == needed | {"public_encryption_key"}
    for field in needed:
        saved.write_text(json.dumps({name: value for name, value in fields.items() if name != field}))
        with pytest.raises(SecretKeyError, match="not a sealserve secret key"):
            SecretKey.load(saved)


@SETS
def test_a_loaded_key_decrypts_what_the_original_encrypted(path: Path, parameter_set: ParameterSet) -> None:
    original = SecretKey.generate(parameter_set)
    original.save(path)
    loaded = SecretKey.load(path)
    loaded.save(path.with_suffix(".copy"))
    assert path.with_suffix(".copy").read_bytes() == path.read_bytes()

    parameters = EncryptionParameters(parameter_set, 1 << 20)
    coefficients = np.arange(parameter_set.poly_modulus_degree, dtype=np.uint64)
    ciphertext = Encryptor(parameters, original.export(TOKEN)).encrypt(coefficients)
    parms_id = _seal.fresh_parms_id(_seal.context(parameters))
    c0, c1 = CiphertextFormat(parameter_set, parms_id).residues(ciphertext)
    places = np.arange(coefficients.size)
    decryptor = Decryptor(parameters, loaded.export(TOKEN))
    assert np.array_equal(decryptor.decrypt(c0.tobytes(), c1.tobytes(), places), coefficients)


# Its public encryption key


@SETS
def test_the_public_key_is_a_seal_object_and_always_the_same(parameter_set: ParameterSet) -> None:
    key = SecretKey.generate(parameter_set)
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: key.public_encryption_key, range(8)))
    check_public_key(parameter_set, made[0])
    assert set(made) == {made[0]}
    assert SecretKey.generate(parameter_set).public_encryption_key != made[0]


def test_the_public_key_holds_nothing_of_the_secret_key() -> None:
    values = {DATA[at : at + 8] for at in range(len(DATA) % 8, len(DATA), 8)} - {bytes(8)}
    public = KEY.public_encryption_key
    places = *range(113, len(public) - 81, 8), *range(len(public) - 64, len(public), 8)  # all but headers
    assert not {public[at : at + 8] for at in places} & values


def test_a_saved_key_keeps_its_public_key(path: Path) -> None:
    key = SecretKey.generate(SMALLEST)
    key.save(path)
    assert SecretKey.load(path).public_encryption_key == key.public_encryption_key


def test_an_older_file_gets_a_public_key_when_it_is_asked_for(saved: Path) -> None:
    fields = json.loads(saved.read_bytes())
    del fields["public_encryption_key"]
    saved.write_text(json.dumps(fields))
    loaded = SecretKey.load(saved)
    assert loaded.public_encryption_key == loaded.public_encryption_key != KEY.public_encryption_key
    check_public_key(SMALLEST, loaded.public_encryption_key)


def test_an_older_files_unseeded_public_key_is_replaced(saved: Path) -> None:
    """No service takes it."""
    fields = json.loads(saved.read_bytes())
    fields["public_encryption_key"] = encoded(unseeded_public_key(SMALLEST, DATA))
    saved.write_text(json.dumps(fields))
    loaded = SecretKey.load(saved)
    assert loaded.export(TOKEN) == DATA
    assert loaded.public_encryption_key == loaded.public_encryption_key != KEY.public_encryption_key
    check_public_key(SMALLEST, loaded.public_encryption_key)


# Rings


def test_it_fits_its_own_ring_whatever_the_name() -> None:
    for index, parameter_set in enumerate(LAYOUTS["row"].open_parameter_sets):
        key = SecretKey.generate(parameter_set)
        assert [key.fits(other) for other in LAYOUTS["row"].open_parameter_sets] == [
            index == other for other in range(4)
        ]
    assert KEY.fits(ParameterSet("column-2048-44", 2048, SMALLEST.primes))
    assert not KEY.fits(ParameterSet("row-2048-44", 4096, LAYOUTS["row"].open_parameter_sets[2].primes))
    first, second, special = LAYOUTS["row"].open_parameter_sets[-1].primes
    reordered = ParameterSet("row-4096-92", 4096, (second, first, special))
    assert not SecretKey.generate(LAYOUTS["row"].open_parameter_sets[-1]).fits(reordered)


def test_no_two_keys_are_alike() -> None:
    assert SecretKey.generate(SMALLEST).export(TOKEN) != KEY.export(TOKEN)


def test_it_has_an_age(path: Path) -> None:
    assert timedelta(0) <= SecretKey.generate(SMALLEST).age < timedelta(minutes=1)
    KEY.save(path)
    fields = json.loads(path.read_bytes())
    fields["created"] = (datetime.now(UTC) - timedelta(days=90)).isoformat()
    path.write_text(json.dumps(fields))
    assert timedelta(days=90) <= SecretKey.load(path).age < timedelta(days=90, minutes=1)
