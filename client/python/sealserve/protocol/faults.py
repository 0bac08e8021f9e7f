"""Faults: the values of rows that are no numbers, by column, with their rows."""

from dataclasses import dataclass, field

from sealserve.protocol.text import rows_in_words

_SHOWN = 5  # columns that a text names, and rows of each


@dataclass
class _Rows:
    """The rows of one fault: how many there are, and the numbers of the first."""

    count: int = 0
    first: list[int] = field(default_factory=list)


class Faults:
    """The faults that were found in rows. All are counted, and the first are named.

    Args:
        noun: what rows are called, such as "lines"; "" for a single row, which has no number.
    """

    def __init__(self, noun: str = "rows") -> None:
        self._noun = noun
        self._found: dict[tuple[str, str], _Rows] = {}

    def add(self, row: int, column: str, fault: str) -> None:
        """Add a value.

        Args:
            row: the number of its row, or of its line.
            column: its column, in words.
            fault: what is wrong with it, but never what it is.
        """
        rows = self._found.setdefault((column, fault), _Rows())
        rows.count += 1
        if len(rows.first) < _SHOWN:
            rows.first.append(row)

    def in_words(self) -> str:
        """Name the first columns at fault, each with its first rows; "" if there are none."""
        named = [
            (f"{rows_in_words(rows.first, rows.count, self._noun)}, " if self._noun else "") + f"{column} {fault}"
            for (column, fault), rows in list(self._found.items())[:_SHOWN]
        ]
        shown = {column for column, _ in list(self._found)[:_SHOWN]}
        if hidden := len({column for column, _ in self._found} - shown):
            named.append(f"and {hidden:,} more columns".removesuffix("s" if hidden == 1 else ""))
        return "; ".join(named)
