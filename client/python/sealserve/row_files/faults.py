"""Faults of a file: the fields that are no numbers or strings, and the error that names them."""

from sealserve.errors import InputError, NotFiniteError
from sealserve.protocol.faults import Faults

_MISSING_ADVICE = "fill in what is missing, or leave its row out"
_TEXT_ADVICE = "write strings in quotes, and null for what is missing"
_NUMBER_ADVICE = "write numbers such as 1.5 or -2e3, and 1 and 0 for true and false"


class FileFaults(Faults):
    """The faults that were found while a file is read."""

    def __init__(self, noun: str) -> None:
        super().__init__(noun)
        self._has_missing = self._has_other = self._has_no_text = False

    def add_missing(self, row: int, column: str, fault: str) -> None:
        """Add a field that says that it has no value: see `add`."""
        self._has_missing = True
        super().add(row, column, fault)

    def add(self, row: int, column: str, fault: str) -> None:
        """Add a field that has another value than a number."""
        self._has_other = True
        super().add(row, column, fault)

    def add_text(self, row: int, column: str, fault: str) -> None:
        """Add a field that has another value than a string: see `add`."""
        self._has_no_text = True
        super().add(row, column, fault)

    def raise_if_any(self) -> None:
        """Raise the error that names the faults, if there are any.

        Raises:
            NotFiniteError: values are missing.
            InputError: all faults are others.
        """
        if named := self.in_words():
            advice = [_MISSING_ADVICE] * self._has_missing + [_NUMBER_ADVICE] * self._has_other
            advice += [_TEXT_ADVICE] * self._has_no_text
            raise (NotFiniteError if self._has_missing else InputError)(f"{named}: {'; '.join(advice)}")
