"""A command of the `sealserve` program, and the options that several commands share."""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealserve.credentials import Credentials

_MAX_TIMEOUT_SECONDS = 365 * 86_400
_TOKEN_VARIABLE = "SEALSERVE_TOKEN"  # noqa: S105  # the name of a variable
# Flag -> its value and its purpose. Its variable is SEALSERVE_ and the flag in capitals.
_CREDENTIALS = {
    "ca-certificate": ("FILE", "PEM of the authority to trust; by default the public ones"),
    "client-certificate": ("FILE", "PEM of the certificate that the service asks this client for, if it does"),
    "client-key": ("FILE", "PEM of its private key"),
    "server-name": ("NAME", "the name in the service's certificate, where its address has another"),
}


@dataclass(frozen=True)
class Command:
    """A command of the `sealserve` program.

    Attributes:
        name: its name on the command line.
        summary: one line for the list of commands.
        example: command lines for the end of its --help.
        configure: adds its options.
        run: executes it and returns the exit code. `main` reports SealserveError and OSError in one
            line.
        extra: of the package, without which the command cannot run; "" if it needs none.
    """

    name: str
    summary: str
    example: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    extra: str = ""


def add_service_options(parser: ArgumentParser, flag: str = "--address") -> None:
    """Add a flag for the address, --timeout and the options that `credentials` reads."""
    parser.add_argument(
        flag,
        dest="address",
        type=_address,
        default="127.0.0.1:50051",
        metavar="HOST:PORT",
        help="where the service listens (%(default)s)",
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="how long an answer may take (%(default)g)"
    )
    for flag, (metavar, purpose) in _CREDENTIALS.items():
        parser.add_argument(f"--{flag}", metavar=metavar, help=f"{purpose} ({_variable_of(flag)})")
    parser.add_argument(
        "--token-file",
        type=_path,
        metavar="FILE",
        help=f"a file that holds the token, and nothing else ({_TOKEN_VARIABLE}: the token)",
    )
    parser.add_argument("--insecure", action="store_true", help="plaintext, even to another machine")


def add_expect_option(parser: ArgumentParser) -> None:
    """Add --expect."""
    parser.add_argument(
        "--expect",
        metavar="FILE|DIGEST",
        help="refuse any other model than the one that `sealserve models show --save FILE` saved",
    )


def credentials(arguments: Namespace) -> "Credentials":
    """Read certificates and the token. A flag takes precedence over its variable.

    Raises:
        CredentialsError: they cannot be used, or not together; the text names the flags or
            variables that gave them.
    """
    from sealserve.credentials import Credentials
    from sealserve.errors import CredentialsError

    given, sources = dict[str, str](), list[str]()
    for flag in _CREDENTIALS:
        name = flag.replace("-", "_")
        value, source = getattr(arguments, name), f"--{flag}"
        if value is None:
            value, source = _variable(_variable_of(flag)), _variable_of(flag)
        elif not value.strip():
            raise CredentialsError(f"{source}: it is empty; leave it out, or give it a value")
        if value:
            given[name] = value
            sources.append(source)
    # No flag takes the token itself, because every user of a machine can read the flags.
    token, file = _variable(_TOKEN_VARIABLE), arguments.token_file
    if file is not None:
        token = file.read_text(errors="replace").strip()
        if not token:
            raise CredentialsError(f"{file}: it holds no token")
    if token:
        sources.append(_TOKEN_VARIABLE if file is None else str(file))
    if arguments.insecure:
        sources.append("--insecure")
    try:
        return Credentials(token=token, insecure=arguments.insecure, **given)
    except CredentialsError as error:
        raise CredentialsError(f"{error} (given: {', '.join(sources)})") from None


def _address(text: str) -> str:
    from sealserve.errors import InputError
    from sealserve.protocol.address import parse_address

    try:
        parse_address(text)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def _seconds(text: str) -> float:
    try:
        if 0 < (seconds := float(text)) <= _MAX_TIMEOUT_SECONDS:
            return seconds
    except ValueError:
        pass
    raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and at most {_MAX_TIMEOUT_SECONDS}")


def _path(text: str) -> Path:
    """Refuse an empty path, which would be the working directory."""
    if text.strip():
        return Path(text)
    raise ArgumentTypeError("it is empty; leave it out, or name a file")


def _variable_of(flag: str) -> str:
    return "SEALSERVE_" + flag.replace("-", "_").upper()


def _variable(name: str) -> str:
    """Return a variable without the space around it; "" if it is not set."""
    return os.environ.get(name, "").strip()
