"""Token: what a caller of the agent has to know, and the file that holds it."""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from sealserve.errors import CredentialsError

_BYTES = 32
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SCHEME = "Bearer "


class Token:
    """A token. It is kept as a digest, and compared in the same time whatever a caller sends."""

    def __init__(self, text: str) -> None:
        self._digest = _digest(_SCHEME + text)

    def accepts(self, authorization: str | bytes) -> bool:
        """Tell whether the value of an authorization header holds the token."""
        return hmac.compare_digest(_digest(authorization), self._digest)


def read_or_make(path: Path) -> Token:
    """Return the token in a file, which is made if it is missing: for this user only.

    Raises:
        CredentialsError: others may read the file, or it holds no token.
        OSError: it cannot be read or made.
    """
    with contextlib.suppress(FileExistsError), open(path, "x", opener=_open_for_owner) as file:
        file.write(secrets.token_urlsafe(_BYTES) + "\n")
    if os.name == "posix" and path.stat().st_mode & _FOR_OTHERS:  # Windows has no modes
        raise CredentialsError(f"{path}: other users may use this file: chmod 600")
    text = path.read_text(errors="replace").strip()
    if not text.isascii() or not text.isprintable() or not text or " " in text:
        raise CredentialsError(f"{path}: it holds no token: remove it, and the agent makes a new one")
    return Token(text)


def _open_for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _digest(text: str | bytes) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape") if isinstance(text, str) else text).digest()
