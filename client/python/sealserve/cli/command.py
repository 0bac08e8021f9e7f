"""What a command is, and the options that several share."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


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
    """Add --address and --timeout."""
    parser.add_argument(
        "--address", default="127.0.0.1:50051", metavar="HOST:PORT", help="where the service listens (%(default)s)"
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="how long an answer may take (%(default)g)"
    )
