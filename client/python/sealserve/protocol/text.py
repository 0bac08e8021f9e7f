"""Texts of the other side, made safe to show: in errors, in logs and on a terminal.

A hostile peer chooses the names, versions and error texts that it sends. Shown as they are, they
could move a terminal's cursor, forge a line of a log, or reverse the order of what follows.
"""

from collections import Counter
from collections.abc import Sequence

MAX_NAME_CHARACTERS = 256
"""The most characters of a name that are shown."""

MAX_COLUMN_CHARACTERS = 64
"""The most characters of a column's name that an error shows: it may name many columns."""

MAX_MESSAGE_CHARACTERS = 1000
"""The most characters of a text that are shown, such as the details of a gRPC status."""

_CUT = "..."
_SHOWN_NAMES = 10
_SHOWN_ROWS = 5


def printable(text: str, max_characters: int = MAX_NAME_CHARACTERS) -> str:
    """Return a text in which everything that is not printable is escaped, as Python writes it.

    Escaped are control characters, line breaks of every kind, marks that change the direction of
    writing, characters without a shape, spaces other than the common one, and surrogates. A text
    that is then longer than `max_characters` is cut and ends in "...".
    """
    head = text[: max_characters + 1]  # no more is looked at: the rest may be megabytes
    if not head.isprintable():
        head = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in head)
    return head if len(head) <= max_characters else head[: max_characters - len(_CUT)] + _CUT


def quoted(text: str, max_characters: int = MAX_COLUMN_CHARACTERS) -> str:
    """Return a text between quotes, with quotes and what is not printable in it escaped.

    It cannot end its own quotation and forge the words after it. A text that is longer than
    `max_characters`, without its quotes, is cut and ends in "...".
    """
    literal = repr(text[: max_characters + 1])
    quote, shown = literal[0], literal[1:-1]
    if len(shown) > max_characters:
        shown = shown[: max_characters - len(_CUT)] + _CUT
    return f"{quote}{shown}{quote}"


def feature_in_words(number: int, column: str | int | None = None) -> str:
    """Return a feature as every error names it, such as "column 'mean radius' (feature 3)".

    Args:
        number: of the feature, from 0.
        column: the name of its column; or its number in a file that has no names; None if there is
            nothing but the number of the feature.
    """
    if column is None:
        return f"feature {number}"
    return f"column {quoted(column) if isinstance(column, str) else column} (feature {number})"


def rows_in_words(numbers: Sequence[int], count: int, noun: str = "rows") -> str:
    """Return rows as errors name them, such as "row 3" or "rows 3, 4, 7 and 20 more".

    Args:
        numbers: of the first rows.
        count: of all rows.
        noun: what rows are called, such as "lines".
    """
    shown = ", ".join(map(str, numbers[:_SHOWN_ROWS]))
    more = f" and {count - _SHOWN_ROWS:,} more" if count > _SHOWN_ROWS else ""
    return f"{noun.removesuffix('s') if count == 1 else noun} {shown}{more}"


def printable_list(texts: tuple[object, ...], max_count: int) -> str:
    """Return the first texts with commas between them, each printable, and "..." if there are more.

    A text that has a comma itself, or that could not be seen, is quoted.

    Args:
        texts: such as the labels of a model, or the names of its columns.
        max_count: how many of them to show.
    """
    shown = [_unmistakable(printable(str(text))) for text in texts[:max_count]]
    return ", ".join([*shown, _CUT] if len(texts) > max_count else shown)


def _unmistakable(text: str) -> str:
    return repr(text) if "," in text or text != text.strip() or not text else text


def counted(count: int, plural: str) -> str:
    """Return a number with its noun, such as "1,000 rows" or, of the same plural, "1 row"."""
    singular = plural.removesuffix("es" if plural.endswith("sses") else "s")
    return f"{count:,} {singular if count == 1 else plural}"


def difference(expected: Sequence[object], found: Sequence[object]) -> str:
    """Say how the found names differ from those expected, and of each kind show a few.

    Args:
        expected: names, or labels, in order.
        found: others.

    Returns:
        such as "missing: age, income; unexpected: name"; "" if they are equal.
    """
    kinds = (("missing", expected, found), ("unexpected", found, expected))
    parts = list[str]()
    for kind, names, others in kinds:
        left = tuple((Counter(names) - Counter(others)).elements())
        if left:
            parts.append(f"{kind}: {printable_list(left, _SHOWN_NAMES)}")
    if parts:
        return "; ".join(parts)
    for index, (name, other) in enumerate(zip(expected, found, strict=True)):
        if name != other:
            return f"in another order: number {index} is {printable(str(other))!r}, not {printable(str(name))!r}"
    return ""
