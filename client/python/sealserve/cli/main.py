"""The entry point of `sealserve`: finds commands, parses the command line and reports errors.

The exit code is 0 after success; 1 after a failure, with one line on stderr; 2 if the command line
is wrong; 130 after an interrupt.
"""

import os
import re
import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import entry_points

from sealserve import __version__
from sealserve.cli.command import Command
from sealserve.errors import SealserveError

ENTRY_POINTS = "sealserve.commands"
# Modules that only an extra installs, and the extra.
_EXTRAS = {
    "azure": "service",
    "cryptography": "service",
    "encrypted": "ei",
    "matplotlib": "demo",
    "grpc_reflection": "service",
    "joblib": "service",
    "prometheus_client": "service",
    "pydantic": "service",
    "rich": "top",
    "skops": "service",
    "sklearn": "service",
    "threadpoolctl": "service",
    "waitress": "agent",
}


def commands(name: str = "") -> list[Command]:
    """Return the command of that name, or all installed commands if there is none."""
    found = entry_points(group=ENTRY_POINTS)
    # Import only the command that was asked for: a container's health probe must start quickly.
    chosen = [entry_point for entry_point in found if entry_point.name == name] or found
    return sorted((entry_point.load() for entry_point in chosen), key=lambda command: str(command.name))


def build_parser(name: str = "") -> ArgumentParser:
    """Build the parser of the command of that name, or one that lists all commands.

    Only the named command gets its options, as they may need an extra.
    """
    parser = ArgumentParser(prog="sealserve", description="Machine-learning inference on encrypted data.")
    parser.add_argument("--version", action="version", version=f"sealserve {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in commands(name):
        subparser = subparsers.add_parser(
            command.name,
            help=f"{command.summary} (sealserve[{command.extra}])" if command.extra else command.summary,
            description=command.summary,
            epilog=f"example:\n{command.example}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        if command.name == name:
            command.configure(subparser)
            subparser.set_defaults(run=command.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    words = _with_negative_values(sys.argv[1:] if arguments is None else arguments)
    _open_standard_streams()
    if os.getpid() == 1:
        # The system drops signals that the first process of a container has no handler for. This
        # one is there before large modules are imported; a command may have its own later.
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
    try:
        parser = build_parser(words[0] if words else "")
        parsed = parser.parse_args(words)
        if "run" not in parsed:
            parser.print_help()
            return 0
        exit_code: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads the output: write no more, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = _EXTRAS.get(module)
        if extra is None:
            raise
        return _report_failure(
            f"`sealserve {words[0]}` needs packages that are not installed, such as {module}: "
            f"pip install 'sealserve[{extra}]'"
        )
    except SealserveError as error:
        return _report_failure(str(error))
    except OSError as error:
        return _report_failure(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return exit_code


def _open_standard_streams() -> None:
    """Open /dev/null in place of standard streams that are closed.

    Otherwise a socket would get such a number, and texts would be written to it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the least number that is free
            os.set_inheritable(number, True)
    # Python has None in place of a stream that was closed at its start.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  # as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _with_negative_values(words: Sequence[str]) -> list[str]:
    """Join flags with values that begin with a minus, such as `--input-range -5,5`.

    argparse would take -5,5 for a flag.
    """
    joined = list[str]()
    for word in words:
        if joined and re.match(r"-\.?\d", word) and re.fullmatch(r"--[a-z][a-z-]*", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _report_failure(text: str) -> int:
    print(f"sealserve: error: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
