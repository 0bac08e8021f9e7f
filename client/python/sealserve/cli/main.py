"""The entry point: finds the commands, parses the command line, turns errors into one line and an exit code.

0: done. 1: failed, with one line on stderr. 2: the command line makes no sense. 130: interrupted.
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import entry_points

from sealserve import __version__
from sealserve.cli import health, models, predict
from sealserve.cli.command import Command
from sealserve.errors import SealserveError

ENTRY_POINTS = "sealserve.commands"
# The modules that only an extra installs -> the extra.
_EXTRAS = {"matplotlib": "demo", "grpc_reflection": "service", "joblib": "service", "skops": "service"}
_EXTRAS["sklearn"] = "service"


def commands() -> list[Command]:
    """Return the SDK's own commands and those that installed packages register."""
    registered = [entry_point.load() for entry_point in entry_points(group=ENTRY_POINTS)]
    return sorted([predict.COMMAND, models.COMMAND, health.COMMAND, *registered], key=lambda command: command.name)


def build_parser() -> ArgumentParser:
    """Build the parser of all commands."""
    parser = ArgumentParser(prog="sealserve", description="Machine-learning inference on encrypted data.")
    parser.add_argument("--version", action="version", version=f"sealserve {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in commands():
        subparser = subparsers.add_parser(
            command.name,
            help=command.summary,
            description=command.summary,
            epilog=f"example:\n{command.example}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        command.configure(subparser)
        subparser.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    if "run" not in parsed:
        parser.print_help()
        return 0
    try:
        exit_code: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has stopped: nothing is left to say, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _failed(f"this command needs more packages: pip install 'sealserve[{extra}]'")
    except (SealserveError, OSError) as error:
        return _failed(str(error))
    return exit_code


def _failed(text: str) -> int:
    print(f"sealserve: error: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
