"""`sealserve serve`: the service."""

from argparse import ArgumentParser, Namespace

from sealserve.cli.command import Command

_ABOUT_OPTIONS = """\
Each option has an environment variable, in parentheses with the default. A flag
goes before its variable. Several values in a variable are separated by
semicolons or line breaks."""


def configure(parser: ArgumentParser) -> None:
    """Add the options."""
    from sealserve_service.rpc.threads import check_address_space

    check_address_space()  # before the next import, which loads NumPy
    # Imported here: a list of commands needs no extra.
    from sealserve_service.commands.options import add_options

    add_options(parser)
    parser.description = f"{parser.description}\n\n{_ABOUT_OPTIONS}"


def run(arguments: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; load what has changed on SIGHUP."""
    from sealserve_service.commands.options import settings_of
    from sealserve_service.process import supervisor

    return supervisor.run(settings_of(arguments))


COMMAND = Command(
    "serve",
    "serve models until stopped",
    "  sealserve serve --model mnist=mnist.pkl --trust-pickle --input-range 0,1\n"
    "  sealserve serve --model a=a.npz --model b=b.skops --input-range a=0,1 --calibration b=rows.npy",
    configure,
    run,
    extra="service",
)
