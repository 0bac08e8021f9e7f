"""Files of identities, as an operator would write them."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from sealserve_service.commands.tokens import entry_of
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
        """Add to every token that it is revoked."""
        self._entries = [f"{entry}\nrevoked = true" for entry in self._entries]
        self.write()

    def write(self) -> None:
        """Write it, in place."""
        tables: Iterable[str] = (f"[tenants.{name}]\n{table}" for name, table in self._tenants.items())
        self.path.write_text("\n\n".join([*tables, *self._entries]))
