"""What a command is, and the options that several share."""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealserve.credentials import Credentials

# Flag -> what its value is and what it is for; the environment has it as SEALSERVE_ and the flag in capitals.
_CREDENTIALS = {
    "ca-certificate": ("FILE", "PEM of the authority to trust; by default the public ones"),
    "client-certificate": ("FILE", "PEM that the service knows this client by, if it asks for one"),
    "client-key": ("FILE", "PEM of its private key"),
    "server-name": ("NAME", "the name in the service's certificate, where --address has another"),
}


@dataclass(frozen=True)
class Command:
    """A command of the `sealserve` program.

    Attributes:
        name: its word on the command line.
        summary: one line for the list of commands.
        example: command lines for the end of its --help.
        configure: adds its options.
        run: does it and returns the exit code. `main` reports SealserveError and OSError in one line.
    """

    name: str
    summary: str
    example: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]


def add_service_options(parser: ArgumentParser) -> None:
    """Add --address, --timeout and what `credentials` reads."""
    parser.add_argument(
        "--address", default="127.0.0.1:50051", metavar="HOST:PORT", help="where the service listens (%(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long an answer may take (%(default)g)"
    )
    for flag, (metavar, purpose) in _CREDENTIALS.items():
        variable = "SEALSERVE_" + flag.replace("-", "_").upper()
        default = os.environ.get(variable)
        parser.add_argument(f"--{flag}", default=default, metavar=metavar, help=f"{purpose} ({variable})")
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="what holds the token, and nothing else (SEALSERVE_TOKEN: the token)",
    )
    parser.add_argument("--insecure", action="store_true", help="plaintext, even to another machine")


def credentials(arguments: Namespace) -> "Credentials":
    """Gather what the options and the environment say of certificates and the token.

    Raises:
        CredentialsError: it makes no sense.
    """
    from sealserve.credentials import Credentials
    from sealserve.errors import CredentialsError

    # No flag has the token itself, as every user of a machine can read the flags.
    file, token = arguments.token_file, os.environ.get("SEALSERVE_TOKEN", "")
    if file is not None:
        token = file.read_text(errors="replace").strip()
        if not token:
            raise CredentialsError(f"{file}: it holds no token")
    return Credentials(
        ca_certificate=arguments.ca_certificate,
        client_certificate=arguments.client_certificate,
        client_key=arguments.client_key,
        server_name=arguments.server_name or "",
        token=token,
        insecure=arguments.insecure,
    )
