"""Options as flags and variables: listed from their declarations, and read into settings.

A flag goes before a variable, and a variable before the default. Nothing else reads the
environment.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from sealserve_service.settings import Settings
from sealserve_service.settings.declarations import SERVED, Declarations
from sealserve_service.settings.errors import OptionError

_BETWEEN_VALUES = re.compile(r"[;\r\n]")


@dataclass(frozen=True)
class Option:
    """An option as flags, variables and tables show it.

    Attributes:
        name: of the field of Declarations.
        flag: "" for a secret: every user of a machine can read the flags.
        variable: its environment variable.
        group: the heading that it belongs under.
        metavar: the form of its value; "" for a choice or a switch.
        help: what it is for.
        default: what holds if it is not given, in words; "" if that is nothing.
        choices: its values, if only a few are possible.
        is_switch: whether it is true or false.
        is_repeatable: whether it may have several values.
    """

    name: str
    flag: str
    variable: str
    group: str
    metavar: str
    help: str
    default: str
    choices: tuple[str, ...]
    is_switch: bool
    is_repeatable: bool

    @classmethod
    def of(cls, name: str, field: FieldInfo) -> "Option":
        """Read an option's declaration."""
        extra: Any = field.json_schema_extra
        is_secret = field.annotation is SecretStr
        has_plain_default = not is_secret and field.default not in (None, (), False)
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        return cls(
            name=name,
            flag="" if is_secret else f"--{name.replace('_', '-')}",
            variable=extra["variable"] or f"SEALSERVE_{name.upper()}",
            group=extra["group"],
            metavar=extra["metavar"],
            help=field.description or "",
            default=extra["unset"] or (default if has_plain_default else ""),
            choices=() if extra["metavar"] else _choices(field.annotation),
            is_switch=field.annotation is bool,
            is_repeatable=get_origin(field.annotation) is tuple,
        )


def _choices(annotation: Any) -> tuple[str, ...]:
    """Return the values of a Literal, also of one that has a validator or stands beside None."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) is tuple:
        return ()
    return next((found for part in get_args(annotation) if (found := _choices(part))), ())


OPTIONS: tuple[Option, ...] = tuple(Option.of(name, field) for name, field in Declarations.model_fields.items())
"""All, in the order of their groups."""
MODEL_OPTIONS = tuple(option for option in OPTIONS if option.group == SERVED)
"""Those that say how models are served; `sealserve inspect` has them too."""


def read_settings(
    flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ, options: Sequence[Option] = OPTIONS
) -> Settings:
    """Make settings from flags and variables.

    Args:
        flags: by the option's name: texts, lists of texts, truth values; None for what is not
            given.
        environment: variables. Space around a value does not count, and an empty one is not set.
            Several values are separated by semicolons or line breaks.
        options: those to read; the others have their defaults.

    Raises:
        OptionError: a value is malformed, or a flag's is empty.
        InputError, AddressError, KeyStoreSettingsError: see Settings.
    """
    values, given_by = dict[str, Any](), dict[str, str]()
    for option in options:
        value, giver = flags.get(option.name), option.flag
        if value is None:
            value, giver = _value_of_variable(option, environment.get(option.variable, "")), option.variable
        elif not isinstance(value, bool) and not all(text.strip() for text in _texts(value)):
            raise OptionError(f"{option.flag}: it is empty; leave it out, or give it a value")
        if value is not None:
            values[option.name], given_by[option.name] = value, giver
    return Settings(**values, given_by=given_by)


def _texts(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _value_of_variable(option: Option, text: str) -> str | list[str] | None:
    """Return the value or values of a variable; None if it is not set."""
    if not option.is_repeatable:
        return text.strip() or None
    return [value.strip() for value in _BETWEEN_VALUES.split(text) if value.strip()] or None
