"""Docstrings as Markdown, for mkdocstrings: sessions and drawings become blocks of code."""

import re
from typing import Any

import griffe

_SESSION = re.compile(r"^(?:(?:>>>|\.\.\.)(?: .*)?(?:\n|$))+", re.MULTILINE)
_DRAWING = re.compile(r"^.*\n(?: *[├│└].*(?:\n|$))+", re.MULTILINE)


class Blocks(griffe.Extension):  # type: ignore[misc]  # griffe is not installed where types are checked
    """Puts fences around what is no prose."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring:
            text = _SESSION.sub(r"```pycon\n\g<0>\n```\n", obj.docstring.value)
            obj.docstring.value = _DRAWING.sub(r"```text\n\g<0>\n```\n", text)
