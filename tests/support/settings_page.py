"""The page docs/settings.md, made of the options' declarations.

`python -m tests.support.settings_page` writes it.
"""

import itertools
import textwrap

from sealserve_service.settings.options import OPTIONS, Option
from tests.support.serving import ROOT

PAGE = ROOT / "docs" / "settings.md"
_COLUMNS = 100
_INTRODUCTION = """\
# Settings of the service

`sealserve serve` is configured by flags, by environment variables, or by both. A flag goes before
its variable, and a variable before the default. `sealserve inspect` reads the options under "how
models are served", too, and `sealserve pack` all of these but `--weights` and
`--accept-disagreement`.

- Space around a variable's value does not count, and an empty variable is not set.
- An option that may be repeated has several values in its variable, separated by semicolons or
  line breaks.
- A switch is `true` or `false`. `--no-` before its name switches it off where a variable has
  switched it on.
- A wrong value ends the program with one line, which names the flag or the variable.
"""


def page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    for group, options in itertools.groupby(OPTIONS, lambda option: option.group):
        parts += [f"\n## {group[0].upper()}{group[1:]}\n\n", *map(_entry, options)]
    return "".join(parts)


def _entry(option: Option) -> str:
    value = option.metavar or "|".join(option.choices)
    flag = f", `{option.flag}{f' {value}' if value else ''}`" if option.flag else ""
    repeatable = "" if not option.is_repeatable or "repeatable" in option.help else " May be repeated."
    default = f" Default: {option.default}." if option.default else ""
    help_text = option.help[0].upper() + option.help[1:]
    text = f"`{option.variable}`{flag}: {help_text}.{repeatable}{default}"
    return (
        textwrap.fill(
            text, _COLUMNS, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        + "\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page())
