"""HTML tables: how notebooks show models and offers. Text is escaped: much of it is a peer's."""

from collections.abc import Iterable
from html import escape

from sealserve.protocol.text import printable


def html_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a table of names and values under a title."""
    cells = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows)
    return f"<table><caption>{_text(title)}</caption><tbody>{cells}</tbody></table>"


def _text(value: object) -> str:
    return escape(printable(str(value)))
