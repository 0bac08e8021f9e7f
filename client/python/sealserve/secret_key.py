"""SecretKey: a handle of a secret key, which keeps the key out of logs, pickles and copies.

It has no public constructor, shows no key material in its repr, cannot be pickled or copied, and
exports only to a caller that holds the token of `sealserve.secret_key_access`.

Someone who learns many scores decrypted from a malicious server's replies can learn the key (see
SECURITY.md). Make a new key from time to time (`age`), and never send scores, errors or decisions
to retry back to the service's operator.
"""

import base64
import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from sealserve.errors import MalformedKeyError, ParameterError, SecretKeyError
from sealserve.he import _seal
from sealserve.he.parameters import ParameterSet, key_parameters
from sealserve.he.public_key_format import check_public_key, unseeded_public_key_bytes
from sealserve.he.secret.public_key import generate_public_key
from sealserve.secret_key_access import TOKEN, SecretKeyAccess

__all__ = ["SecretKey"]

_FORMAT = "sealserve secret key 1"
_HAS_MODES = os.name == "posix"  # Windows reports 0666 for every file


class SecretKey:
    """A SEAL secret key for one ring: a degree N and primes. Make one with `generate` or `load`."""

    __slots__ = ("_created", "_data", "_lock", "_parameter_set", "_public_encryption_key")

    _parameter_set: ParameterSet
    _data: bytes
    _created: datetime
    _public_encryption_key: bytes
    _lock: threading.Lock

    def __init__(self, *_: object, **__: object) -> None:
        raise TypeError("make a secret key with SecretKey.generate(...) or SecretKey.load(...)")

    @classmethod
    def _make(
        cls, parameter_set: ParameterSet, data: bytes, created: datetime, public_encryption_key: bytes = b""
    ) -> "SecretKey":
        key = object.__new__(cls)
        key._parameter_set, key._data, key._created = parameter_set, data, created
        key._public_encryption_key, key._lock = public_encryption_key, threading.Lock()
        return key

    @classmethod
    def generate(cls, parameter_set: ParameterSet) -> "SecretKey":
        """Make a new key with SEAL's generator.

        Args:
            parameter_set: a set of the ring that the key is for.
        """
        context = _seal.context(key_parameters(parameter_set))
        return cls._make(parameter_set, _seal.generate_secret_key(context), datetime.now(UTC))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SecretKey":
        """Read a key that `save` wrote.

        Raises:
            SecretKeyError: the file is missing, others than its owner can read it (which Windows
                does not tell: see `save`), or it holds no key.
        """
        file = Path(path)
        try:
            mode = file.stat().st_mode & 0o777
            if _HAS_MODES and mode & 0o077:
                raise SecretKeyError(f"{file}: others can read it (mode {mode:04o}); run chmod 600 and rotate the key")
            fields = json.loads(file.read_bytes())
            created, name, degree = (
                datetime.fromisoformat(fields["created"]),
                fields["name"],
                fields["poly_modulus_degree"],
            )
            if fields["format"] != _FORMAT or created.tzinfo is None:
                raise ValueError
            if not isinstance(name, str) or not isinstance(degree, int):  # 2048.0 is equal to 2048
                raise ValueError
            parameter_set = ParameterSet(name, degree, tuple(fields["primes"]))
            data = base64.b64decode(fields["secret_key"], validate=True)
            context = _seal.context(key_parameters(parameter_set))
            _seal.load_secret_key(context, data)
            # Older files have no public key, or an unseeded one, in whose place another is made.
            # Moving the unseeded one onto a seed would give away the secret key.
            public_key = base64.b64decode(fields.get("public_encryption_key", ""), validate=True)
            if len(public_key) == unseeded_public_key_bytes(parameter_set):
                public_key = b""
            elif public_key:
                check_public_key(parameter_set, public_key)
            return cls._make(parameter_set, data, created, public_key)
        except OSError as error:
            raise SecretKeyError(f"{file}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, ParameterError, MalformedKeyError, _seal.SealError):
            # The cause may quote the file: do not chain it.
            raise SecretKeyError(f"{file}: not a sealserve secret key") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a new file that only its owner can read (mode 0600).

        Windows has no modes: there the file has the access rights of its folder. Save it in a
        folder of your user profile, which other users cannot read. `load` checks nothing there.

        Raises:
            SecretKeyError: the file exists (a key is never overwritten) or cannot be written.
        """
        fields = {
            "format": _FORMAT,
            "name": self._parameter_set.name,
            "poly_modulus_degree": self._parameter_set.poly_modulus_degree,
            "primes": self._parameter_set.primes,
            "created": self._created.isoformat(),
            "secret_key": base64.b64encode(self.export(TOKEN)).decode(),
            "public_encryption_key": base64.b64encode(self.public_encryption_key).decode(),
        }
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(fields, file)
        except FileExistsError:
            raise SecretKeyError(f"{os.fspath(path)}: exists; a secret key is never overwritten") from None
        except OSError as error:
            raise SecretKeyError(f"{os.fspath(path)}: {error.strerror}") from error

    def export(self, access: SecretKeyAccess) -> bytes:
        """Return the key as an uncompressed SEAL object.

        Args:
            access: `sealserve.secret_key_access.TOKEN`.

        Raises:
            SecretKeyError: `access` is not the token.
        """
        if access is not TOKEN:
            raise SecretKeyError("exporting a secret key needs sealserve.secret_key_access.TOKEN")
        return self._data

    @property
    def public_encryption_key(self) -> bytes:
        """The public encryption key, an uncompressed, seeded SEAL object. It is not secret.

        Services hide weights with it. It is made on the first use, and `save` writes it with the
        secret key. Every program that loads the file has the same key, with the same id, so that
        one registration serves them all.
        """
        with self._lock:
            if not self._public_encryption_key:
                self._public_encryption_key = generate_public_key(self._parameter_set, self._data)
            return self._public_encryption_key

    def fits(self, parameter_set: ParameterSet) -> bool:
        """Tell whether the key is of this set's ring, whatever the set's name."""
        return self._parameter_set.shares_ring(parameter_set)

    @property
    def age(self) -> timedelta:
        """Time since the key was made."""
        return datetime.now(UTC) - self._created

    def __repr__(self) -> str:
        return f"<SecretKey for {self._parameter_set.name}, made {self._created:%Y-%m-%d}>"

    def __reduce_ex__(self, _: Any) -> NoReturn:
        raise TypeError("a secret key cannot be pickled or copied; use save and load")
