"""The file of identities: tenants, the digests of their tokens, the subjects of their certificates.

    [tenants.clinic]
    models = ["mnist"]                       # or ["*"]
    list_models = true
    register_keys = true
    certificates = ["CN=clinic-gateway", "URI=spiffe://example.org/clinic"]
    private_columns = false                  # optional, see below
    # optional, see `quota`; by default the quota that the options give to every tenant
    quota = { rows_per_minute = 6000, key_bytes = 50000000 }

    [[tokens]]
    tenant = "clinic"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    expires = 2026-12-31T00:00:00Z           # optional
    revoked = true                           # optional

A tenant may do only what its table grants. One thing is granted unless the table withdraws it:
private weights in the column layout, which are promised against clients that keep to the protocol
only. Set private_columns = false for a tenant that you do not trust so far. Its offers then do not
list the column layout in mode private.
"""

import dataclasses
import hashlib
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sealserve_service.tenants.quota import Quota
from sealserve_service.tenants.tenant import ANONYMOUS, Tenant
from sealserve_service.watched_files import UnusableFileError

T = TypeVar("T")

TOKEN_PREFIX = "sealserve_"  # noqa: S105  # scanners for leaked secrets, and people, recognize it
_TOKEN_BYTES = 32

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MISPLACED_TOKEN = re.compile(f"{TOKEN_PREFIX}[A-Za-z0-9_-]*", re.ASCII)
_SUBJECT = re.compile(r"(CN|URI)=.+")
_TYPE_NAMES: dict[type, str] = {
    dict: "a table",
    list: "an array",
    str: "a string",
    bool: "true or false",
    datetime: "a date with a time",
}


@dataclass(frozen=True, kw_only=True)
class Token:
    """The record of a token: its tenant, its digest, and how long it is valid."""

    tenant: Tenant
    digest: str
    expires: datetime | None = None
    revoked: bool = False

    def fault(self, now: datetime) -> str:
        """Return why the token is not valid at a time; "" if it is valid."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else ""


@dataclass(frozen=True, kw_only=True)
class Identities:
    """The tenants by name, the tokens by digest, the tenants by subjects of certificates."""

    tenants: Mapping[str, Tenant]
    tokens: Mapping[str, Token]
    subjects: Mapping[str, Tenant]


def new_token() -> str:
    """Make a token of 256 random bits."""
    return TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Return a token's SHA-256.

    A password needs a slow, salted hash because it can be guessed. 256 random bits cannot be
    guessed, however fast the hash is. An attacker who times a look-up by digest learns about
    digests, and a digest does not lead back to a token.
    """
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def is_tenant_name(text: str) -> bool:
    """Whether a text may name a tenant: up to 63 lower-case letters, digits, - and _."""
    return _TENANT.fullmatch(text) is not None and text != ANONYMOUS.name


def read_identities(path: Path, data: bytes) -> Identities:
    """Read the contents of the file.

    Raises:
        UnusableFileError: they do not have the form above, contradict themselves, or name no
            tenant.
    """
    try:
        return _parse(tomllib.loads(data.decode()))
    except (ValueError, TypeError) as error:  # tomllib and UTF-8 raise ValueError too
        text = _MISPLACED_TOKEN.sub("a token, which has no place in this file", str(error))
        raise UnusableFileError(f"{path}: {text}") from None


def _parse(document: dict[str, Any]) -> Identities:
    tables = _take(document, "tenants", dict, {}, "the file")
    entries = _take(document, "tokens", list, [], "the file")
    _refuse_rest(document, "the file")
    tenants, subjects = dict[str, Tenant](), dict[str, Tenant]()
    for name, table in tables.items():
        tenants[name], own = _parse_tenant(name, table)
        for subject in own:
            if subjects.setdefault(subject, tenants[name]) is not tenants[name]:
                raise ValueError(f"two tenants have the certificate {subject!r}")
    if not tenants:  # for example while somebody rewrites the file in place
        raise ValueError("it names no tenant")
    tokens = dict[str, Token]()
    for number, entry in enumerate(entries, 1):
        token = _parse_token(f"token {number}", entry, tenants)
        if token.digest in tokens:
            raise ValueError(f"token {number} appears twice")
        tokens[token.digest] = token
    return Identities(tenants=tenants, tokens=tokens, subjects=subjects)


def _parse_tenant(name: str, table: Any) -> tuple[Tenant, list[str]]:
    where = f"tenant {name!r}"
    if not is_tenant_name(name):
        raise ValueError(
            f"{where}: a name has up to 63 lower-case letters, digits, - and _, and {ANONYMOUS.name!r} is taken"
        )
    _check_type(table, dict, where)
    models = _take_strings(table, "models", where)
    subjects = _take_strings(table, "certificates", where)
    for subject in subjects:
        if not _SUBJECT.fullmatch(subject):
            raise ValueError(f"{where}: {subject!r} is neither CN=... nor URI=...")
    tenant = Tenant(
        name,
        models=None if "*" in models else frozenset(models),
        may_list_models=_take(table, "list_models", bool, False, where),
        may_register_keys=_take(table, "register_keys", bool, False, where),
        may_use_private_columns=_take(table, "private_columns", bool, True, where),
        quota=_parse_quota(table, where),
    )
    _refuse_rest(table, where)
    return tenant, subjects


def _parse_quota(table: dict[str, Any], where: str) -> Quota | None:
    bounds = _take(table, "quota", dict, None, where)
    if bounds is None:
        return None
    names = [field.name for field in dataclasses.fields(Quota)]
    for name, bound in bounds.items():
        if name not in names:
            raise ValueError(f"{where}: a quota has {', '.join(names)}, not {name!r}")
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0:
            raise ValueError(f"{where}: {name} is not a number above 0")
    return Quota(**bounds)


def _parse_token(where: str, entry: Any, tenants: Mapping[str, Tenant]) -> Token:
    _check_type(entry, dict, where)
    name, digest = _take(entry, "tenant", str, "", where), _take(entry, "sha256", str, "", where)
    if name not in tenants:
        raise ValueError(f"{where}: there is no tenant {name!r}")
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{where}: its sha256 is not 64 lower-case hexadecimal digits")
    expires = _take(entry, "expires", datetime, None, where)
    if expires is not None and expires.tzinfo is None:
        raise ValueError(f"{where}: its expiry lacks a time zone, such as Z")
    revoked = _take(entry, "revoked", bool, False, where)
    _refuse_rest(entry, where)
    return Token(tenant=tenants[name], digest=digest, expires=expires, revoked=revoked)


def _take(table: dict[str, Any], key: str, kind: type[T], default: Any, where: str) -> Any:
    """Remove a value from a table and return it, or the default; `where` names the table."""
    value = table.pop(key, default)
    if value is not default:
        _check_type(value, kind, f"{where}: {key}")
    return value


def _take_strings(table: dict[str, Any], key: str, where: str) -> list[str]:
    values = _take(table, key, list, [], where)
    for value in values:
        _check_type(value, str, f"{where}: one of its {key}")
    return list(values)


def _check_type(value: object, kind: type[T], what: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{what} is not {_TYPE_NAMES[kind]}")


def _refuse_rest(table: dict[str, Any], where: str) -> None:
    if table:
        raise ValueError(f"{where} has no {', '.join(map(repr, table))}")
