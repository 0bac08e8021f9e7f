"""The settings' options as flags of a command: added to its parser, and read from its arguments."""

import argparse
import sys
import textwrap
from collections.abc import Sequence

from sealserve_service.settings import Settings
from sealserve_service.settings.errors import OptionError
from sealserve_service.settings.options import OPTIONS, Option, read_settings

_COLUMNS = 78


def add_options(parser: argparse.ArgumentParser, options: Sequence[Option] = OPTIONS) -> None:
    """Add the flags of options, group by group. They collect texts: the settings check them."""
    groups = dict[str, argparse._ArgumentGroup]()
    for option in options:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        group = groups[option.group]
        if not option.flag:
            group.description = textwrap.fill(f"{option.variable}: {option.help}", _COLUMNS, break_on_hyphens=False)
            continue
        text = help_of(option).replace("%", "%%")
        if option.is_switch:
            group.add_argument(option.flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            metavar = option.metavar or f"{{{','.join(option.choices)}}}"
            action = "append" if option.is_repeatable else "store"
            group.add_argument(option.flag, action=action, metavar=metavar, help=text)


def help_of(option: Option) -> str:
    """Return what an option is for, its variable and its default."""
    return f"{option.help} ({'; '.join(filter(None, (option.variable, option.default)))})"


def settings_of(arguments: argparse.Namespace, options: Sequence[Option] = OPTIONS) -> Settings:
    """Read the settings from flags and the environment. A malformed value ends the program.

    Raises:
        InputError, AddressError, KeyStoreSettingsError: see Settings.
    """
    try:
        return read_settings(vars(arguments), options=options)
    except OptionError as error:
        print(f"sealserve: error: {error}", file=sys.stderr)
        sys.exit(2)  # as argparse does for what it refuses
