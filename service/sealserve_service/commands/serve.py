"""`sealserve serve`: the service."""

from argparse import ArgumentParser, Namespace

from sealserve.cli.command import Command
from sealserve_service.commands.options import add_options, settings_of

_ABOUT_OPTIONS = (
    "SEALSERVE_KEY_STORE_CONNECTION_STRING has no flag: every user of a machine can read the flags. "
    "A flag goes before its variable. In a variable, several values are separated by semicolons or line breaks."
)


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    add_options(parser)
    parser.description = f"{parser.description}. {_ABOUT_OPTIONS}"


def run(arguments: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; load what has changed on SIGHUP."""
    from sealserve_service.process import supervisor

    return supervisor.run(settings_of(arguments))


COMMAND = Command(
    "serve",
    "serve models until stopped",
    "  sealserve serve --model mnist=mnist.pkl --trust-pickle --input-range 0,1\n"
    "  sealserve serve --model a=a.npz --model b=b.skops --input-range a=0,1 --calibration b=rows.npy",
    configure,
    run,
)
