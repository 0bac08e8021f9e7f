"""Faults of a file: the fields that are no numbers, each by its row and its column."""

from sealserve.errors import InputError, NotFiniteError

_SHOWN = 5  # fields that a text names
_MISSING_ADVICE = "fill in what is missing, or leave its row out"
_NUMBER_ADVICE = "write numbers such as 1.5 or -2e3"


class Faults:
    """The faults that were found while a file is read. All are counted, and the first are named."""

    def __init__(self) -> None:
        self._named: list[str] = []
        self._count = 0
        self._has_missing = self._has_other = False

    def add(self, place: str, fault: str, *, is_missing: bool = False) -> None:
        """Add a field.

        Args:
            place: its row and its column, in words.
            fault: what is wrong with it, but never its value.
            is_missing: whether it says that it has no value.
        """
        self._count += 1
        self._has_missing |= is_missing
        self._has_other |= not is_missing
        if len(self._named) < _SHOWN:
            self._named.append(f"{place} {fault}")

    def raise_if_any(self) -> None:
        """Raise the error that names the faults, if there are any.

        Raises:
            NotFiniteError: values are missing.
            InputError: all faults are others.
        """
        if not self._count:
            return
        named = "; ".join(self._named)
        if (more := self._count - len(self._named)) > 0:
            named += f"; and {more:,} more {'value' if more == 1 else 'values'}"
        advice = [_MISSING_ADVICE] * self._has_missing + [_NUMBER_ADVICE] * self._has_other
        raise (NotFiniteError if self._has_missing else InputError)(f"{named}: {'; '.join(advice)}")
