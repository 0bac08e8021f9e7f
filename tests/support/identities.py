"""Identities: their file, as an operator would write it, and the tenant that a call has by it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sealserve.errors import UnauthenticatedError
from sealserve_service.commands.tokens import entry_of
from sealserve_service.tenants.authenticator import Authenticator
from sealserve_service.tenants.identities import new_token

ALL = 'models = ["*"]\nlist_models = true\nregister_keys = true'


class IdentitiesFile:
    """A file of identities that grows and changes."""

    def __init__(self, path: Path, **tenants: str) -> None:
        self.path = path
        self._tenants = tenants
        self._entries = list[str]()
        self.write()

    def token(self, tenant: str, expires: datetime | None = None, *extra: str) -> str:
        """Make a token, add it with some lines of its own and return it."""
        token = new_token()
        self._entries.append("\n".join([entry_of(tenant, token, expires), *extra]))
        self.write()
        return token

    def revoke_all(self) -> None:
        """Revoke every token."""
        self._entries = [f"{entry}\nrevoked = true" for entry in self._entries]
        self.write()

    def write(self) -> None:
        """Write it, in place."""
        tables: Iterable[str] = (f"[tenants.{name}]\n{table}" for name, table in self._tenants.items())
        self.path.write_text("\n\n".join([*tables, *self._entries]))


class Call:
    """A call's context, as far as authentication asks for it."""

    def __init__(self, headers: Sequence[str], certificate: dict[str, list[bytes]], peer: str) -> None:
        self._headers, self._certificate, self._peer = headers, certificate, peer

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return [("user-agent", "a test"), *(("authorization", header) for header in self._headers)]

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._certificate

    def peer(self) -> str:
        return self._peer


def authenticated(authenticator: Authenticator, *headers: str, **certificate: list[bytes]) -> str:
    """The name of the tenant of a call, empty if it has none."""
    context: Any = Call(headers, certificate, "ipv4:192.0.2.1:4000")
    try:
        return authenticator.authenticate(context).name
    except UnauthenticatedError:
        return ""
