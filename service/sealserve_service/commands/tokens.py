"""`sealserve tokens new|check`: the tokens by which a service knows its tenants."""

import fcntl
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sealserve.cli.command import Command
from sealserve.errors import InputError
from sealserve_service.tenants.identities import (
    Identities,
    digest_of,
    is_tenant_name,
    new_token,
    read_identities,
)

_MAX_DAYS = 36_500


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    making = actions.add_parser("new", help="make a token: it is printed once, the service keeps its digest only")
    making.add_argument("--tenant", required=True, metavar="NAME", help="the tenant that it is for")
    making.add_argument("--days", type=_days, metavar="N", help="how long it is valid (until it is revoked)")
    making.add_argument(
        "--file",
        type=Path,
        metavar="FILE",
        help="add it to this file of identities, which is made if it is missing; without it the entry goes to stderr",
    )
    making.set_defaults(action=_new)
    checking = actions.add_parser("check", help="say who may do what, or what is wrong with the file")
    checking.add_argument("file", type=Path, metavar="FILE", help="a file of identities")
    checking.set_defaults(action=_check)


def run(arguments: Namespace) -> int:
    """Run the action."""
    arguments.action(arguments)
    return 0


def _days(text: str) -> float:
    try:
        if 0 < (days := float(text)) <= _MAX_DAYS:
            return days
    except ValueError:
        pass
    raise ArgumentTypeError(f"{text!r} is not a number above 0 and at most {_MAX_DAYS}")


def _new(arguments: Namespace) -> None:
    if not is_tenant_name(arguments.tenant):
        raise InputError(
            f"{arguments.tenant!r} is no name of a tenant: use up to 63 lower-case letters, digits, - and _"
        )
    token = new_token()
    expires = None if arguments.days is None else datetime.now(UTC) + timedelta(days=arguments.days)
    entry = entry_of(arguments.tenant, token, expires)
    if arguments.file is None:
        print(entry, file=sys.stderr)
    else:
        add(arguments.file, arguments.tenant, entry)
    print(token)


def _check(arguments: Namespace) -> None:
    identities, now = read_identities(arguments.file, arguments.file.read_bytes()), datetime.now(UTC)
    print(f"{'TENANT':<20} {'LISTS':<5} {'KEYS':<5} {'PRIVATE COLUMNS':<15} {'TOKENS':>6} {'CERTIFICATES':>12}  MODELS")
    for name, tenant in identities.tenants.items():
        good = sum(token.tenant is tenant and not token.fault(now) for token in identities.tokens.values())
        certificates = sum(holder is tenant for holder in identities.subjects.values())
        models = "all" if tenant.models is None else ", ".join(sorted(tenant.models)) or "none"
        lists, keys, columns = (
            "yes" if may else "no"
            for may in (tenant.may_list_models, tenant.may_register_keys, tenant.may_use_private_columns)
        )
        print(f"{name:<20} {lists:<5} {keys:<5} {columns:<15} {good:>6} {certificates:>12}  {models}")
    for token in identities.tokens.values():
        until = "for ever" if token.expires is None else f"until {token.expires:%Y-%m-%d %H:%M %Z}"
        print(f"token {token.digest[:8]} of {token.tenant.name}: {token.fault(now) or f'good {until}'}")


def entry_of(tenant: str, token: str, expires: datetime | None) -> str:
    """Return the token's entry in the file of identities."""
    lines = ["[[tokens]]", f'tenant = "{tenant}"', f'sha256 = "{digest_of(token)}"']
    if expires is not None:
        lines.append(f"expires = {expires:%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines)


def add(path: Path, tenant: str, entry: str) -> None:
    """Append a token's entry, and an entry for its tenant if there is none yet.

    A new tenant may use every model, list the models and register keys.

    Raises:
        UnusableFileError: the file is there and malformed; nothing was written.
    """
    with path.open("a+b") as file:
        # If two programs add to the file at once, the second sees what the first has added.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        data = file.read()
        known = read_identities(path, data) if data.strip() else Identities(tenants={}, tokens={}, subjects={})
        if tenant not in known.tenants:
            permissions = 'models = ["*"]\nlist_models = true\nregister_keys = true'
            entry = f"[tenants.{tenant}]\n{permissions}\n\n{entry}"
        start = "\n" if not data or data.endswith(b"\n") else "\n\n"
        # One write: a service may be reading the file at this moment.
        file.write(f"{start if data else ''}{entry}\n".encode())


COMMAND = Command(
    "tokens",
    "make tokens for the tenants of a service, check the file of identities",
    "  sealserve tokens new --tenant clinic --days 365 --file identities.toml\n"
    "  sealserve tokens check identities.toml",
    configure,
    run,
    extra="service",
)
