"""`sealserve keys register|show|list|delete`: the keys that are registered with a service."""

import json
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sealserve.cli.command import Command, add_service_options, credentials

if TYPE_CHECKING:
    from sealserve.key_registry import KeyRegistry
    from sealserve.protocol.key_record import KeyRecord

_KINDS = ("evaluation-keys", "public-encryption-key")


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    registering = actions.add_parser("register", help="send a key and print its record")
    registering.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="the key: what `get_public_keys` returns, or SecretKey.public_encryption_key",
    )
    registering.add_argument("--kind", choices=_KINDS, default=_KINDS[0], help="what it is for (%(default)s)")
    registering.add_argument(
        "--parameter-set", default="ei-8192", metavar="NAME", help="what it is made for (%(default)s)"
    )
    registering.add_argument("--ttl", type=float, metavar="SECONDS", help="how long to keep it (as long as possible)")
    showing = actions.add_parser("show", help="print a key's record")
    listing = actions.add_parser("list", help="a line for each key")
    deleting = actions.add_parser("delete", help="delete a key")
    for action in (showing, deleting):
        action.add_argument(
            "key_id", type=_key_id, metavar="ID", help="64 hexadecimal digits, as `register` prints them"
        )
    for action, act in ((registering, _register), (showing, _show), (listing, _list), (deleting, _delete)):
        add_service_options(action)
        if action is not deleting:
            action.add_argument("--json", action="store_true", help="for programs")
        action.set_defaults(action=act)


def _key_id(text: str) -> str:
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return text.lower()
    raise ArgumentTypeError(f"{text!r} is not the id of a key, 64 hexadecimal digits: `sealserve keys list` shows them")


def run(arguments: Namespace) -> int:
    """Run the chosen action."""
    from sealserve.key_registry import KeyRegistry

    with KeyRegistry(
        arguments.address, credentials=credentials(arguments), timeout_seconds=arguments.timeout
    ) as registry:
        arguments.action(registry, arguments)
    return 0


def _register(registry: "KeyRegistry", arguments: Namespace) -> None:
    from sealserve.protocol.key_record import KeyKind

    record = registry.register(
        arguments.file.read_bytes(),
        kind=KeyKind(arguments.kind),
        parameter_set=arguments.parameter_set,
        ttl_seconds=arguments.ttl,
    )
    _print(record, as_json=arguments.json)


def _show(registry: "KeyRegistry", arguments: Namespace) -> None:
    _print(registry.get(arguments.key_id), as_json=arguments.json)


def _list(registry: "KeyRegistry", arguments: Namespace) -> None:
    records = list(registry.list())
    if arguments.json:
        print(json.dumps([as_dict(record) for record in records], indent=2))
        return
    if not records:
        print("no key is registered: `sealserve keys register` sends one", file=sys.stderr)
        return
    print(f"{'ID':<64} {'KIND':<22} {'PARAMETER SET':<14} {'BYTES':>10}  EXPIRES")
    for record in records:
        print(
            f"{record.key_id} {record.kind.value:<22} {record.parameter_set:<14} {record.byte_count:>10,}  "
            f"{record.expire_time:%Y-%m-%d %H:%M}"
        )


def _delete(registry: "KeyRegistry", arguments: Namespace) -> None:
    registry.delete(arguments.key_id)


def _print(record: "KeyRecord", *, as_json: bool) -> None:
    fields = as_dict(record)
    print(json.dumps(fields, indent=2) if as_json else "\n".join(f"{name:<14} {fields[name]}" for name in fields))


def as_dict(record: "KeyRecord") -> dict[str, str | int]:
    """Convert a record for JSON; times are ISO 8601."""
    return {
        "key_id": record.key_id,
        "kind": record.kind.value,
        "parameter_set": record.parameter_set,
        "byte_count": record.byte_count,
        "owner": record.tenant,
        "create_time": record.create_time.isoformat(timespec="seconds"),
        "expire_time": record.expire_time.isoformat(timespec="seconds"),
    }


COMMAND = Command(
    "keys",
    "register, show, list and delete keys",
    "  sealserve keys register evaluation_keys.bin\n  sealserve keys list --address 127.0.0.1:50051",
    configure,
    run,
)
