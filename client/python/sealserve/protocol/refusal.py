"""Refusal: the error that says which rows an input grid refuses, and why.

It is composed after the answer to a call has come. Nothing that is sent waits for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, NotFiniteError, OffGridError, OutOfRangeError
from sealserve.he.quantization import InputGrid
from sealserve.protocol.text import feature_in_words, rows_in_words

_Kind = tuple[NDArray[np.bool_], Callable[[int], str]]

_SHOWN = 5  # features or groups that a text names, rows of each, and features of a group
_CLIPPING = "pass clip=True (--clip) for the prediction at the nearest end of the range, which may be another"


@dataclass(frozen=True, eq=False)
class RefusedFeatures:
    """What a grid refuses of rows, and why.

    Attributes:
        grid: the input grid.
        rows: float64 (rows, feature_count).
        not_finite, outside, off: bool (rows, feature_count): a feature is missing or infinite,
            outside its range, or between two values of a grid that it should be on.
        broken: bool (rows, checked groups): a group is broken whose features are all right.
    """

    grid: InputGrid
    rows: NDArray[np.float64]
    not_finite: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    off: NDArray[np.bool_]
    broken: NDArray[np.bool_]

    @classmethod
    def of(cls, grid: InputGrid, rows: NDArray[np.float64], *, clip: bool = False) -> "RefusedFeatures":
        """Find the faults of rows (rows, feature_count)."""
        not_finite = ~np.isfinite(rows)
        outside = ((rows < grid.least) | (rows > grid.greatest)) & ~not_finite & (not clip)
        judged = np.clip(np.where(not_finite, grid.minimum, rows), grid.least, grid.greatest)
        off = grid.is_off(np.clip(judged, grid.minimum, grid.maximum) if clip else judged) & ~not_finite & ~outside
        broken = np.zeros((len(rows), 0), np.bool_)
        if grid.has_groups:
            broken = grid.broken_groups(judged) & ~_groups_of(grid, not_finite | outside | off)
        return cls(grid, rows, not_finite, outside, off, broken)

    @property
    def is_refused(self) -> NDArray[np.bool_]:
        """Which features are refused, bool (rows, feature_count)."""
        return self.not_finite | self.outside | self.off

    def in_words(self, names: Sequence[str], words: Callable[[int], str] | None = None) -> str:
        """Name the first refused features, each with its fault and its rows, but never a value.

        Then name the first groups that are broken. A single row has no number: it may come from a
        stream, where its number is another.

        Args:
            names: of the features' columns; empty if they have none.
            words: returns a feature in words, if its number and name are not enough.
        """
        grid, is_missing = self.grid, np.isnan(self.rows)
        kinds: list[_Kind] = [
            (is_missing, lambda _: "is missing (NaN)"),
            (self.not_finite & ~is_missing, lambda _: "is infinite"),
            (self.outside, lambda k: f"is outside the model's range {grid.minimum[k]:g}..{grid.maximum[k]:g}"),
            (
                self.off,
                lambda k: (
                    f"is not on the model's grid, {grid.minimum[k]:g} and multiples of {grid.kept_step[k]:g} above it"
                ),
            ),
        ]
        return _joined(_features_in_words(kinds, names, words), _groups_in_words(grid, self.broken, names))


def refusal(
    grid: InputGrid,
    rows: NDArray[np.float64],
    names: Sequence[str] = (),
    *,
    clip: bool = False,
    words: Callable[[int], str] | None = None,
) -> InputError:
    """Compose the error of rows (rows, feature_count), at least one of which the grid refuses.

    Args:
        grid: the input grid.
        rows: float64 (rows, feature_count).
        names: of the features' columns; empty if they have none.
        clip: whether features outside the range are moved to its nearest end.
        words: returns a feature in words, if its number and name are not enough.

    Returns:
        NotFiniteError if any feature is not finite, otherwise OutOfRangeError if any is outside its
        range or a row breaks a group, otherwise OffGridError. A text that names features of several
        kinds says of each what it is.
    """
    faults = RefusedFeatures.of(grid, rows, clip=clip)
    refused_count = np.count_nonzero(faults.is_refused)
    has_not_finite, has_outside, has_off, has_broken = (
        bool(kind.any()) for kind in (faults.not_finite, faults.outside, faults.off, faults.broken)
    )
    if not refused_count and not has_broken:
        return InputError("the rows changed while they were predicted: hand in rows that stay as they are")
    features, them = ("feature", "it") if refused_count == 1 else ("features", "them")
    is_mixed = has_not_finite + has_outside + has_off + has_broken > 1
    advice = []
    if has_not_finite:
        advice.append("replace what is not finite" if is_mixed else f"replace {them}")
    if has_outside:
        advice.append(
            f"outside the range scores have no guarantee, so scale the features, or {_CLIPPING}"
            if is_mixed
            else f"scores have no guarantee there; scale the {features}, or {_CLIPPING}"
        )
    if has_off:
        advice.append(
            "round what is off the grid" if is_mixed else f"the model takes no value between; round the {features}"
        )
    if has_broken:
        advice.append("of the features of a group, set as many to their maximum as the model expects")
    kind = NotFiniteError if has_not_finite else OutOfRangeError if has_outside or has_broken else OffGridError
    return kind(f"{faults.in_words(names, words)}: {'; '.join(advice)}")


def refusal_of_integers(grid: InputGrid, rows: NDArray[np.integer[Any]], names: Sequence[str] = ()) -> InputError:
    """Compose the error of rows of integers (rows, feature_count), at least one of them refused."""
    outside = (rows < 0) | (rows > grid.levels)
    between, broken = np.zeros_like(outside), np.zeros((len(rows), 0), np.bool_)
    if grid.has_groups:
        checked = grid.constraints.checked
        between[:, checked.members] = ((rows > 0) & (rows < grid.levels))[:, checked.members]
        broken = checked.broken(rows > 0) & ~_groups_of(grid, outside | between)
    kinds: list[_Kind] = [
        (outside, lambda k: f"is not within 0..{grid.levels[k]}"),
        (between, lambda k: f"is neither 0 nor {grid.levels[k]}"),
    ]
    places = _joined(_features_in_words(kinds, names), _groups_in_words(grid, broken, names))
    groups = ", and keep to its groups" if grid.has_groups else ""
    return InputError(f"{places}: quantized rows must be within 0..levels of the model's grid{groups}")


def _groups_of(grid: InputGrid, is_refused: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which checked groups (rows, groups) have one of these features (rows, feature_count)."""
    checked = grid.constraints.checked
    has_one: NDArray[np.bool_] = np.logical_or.reduceat(is_refused[:, checked.members], checked.starts, axis=1)
    return has_one


def _features_in_words(kinds: Sequence[_Kind], names: Sequence[str], words: Callable[[int], str] | None = None) -> str:
    """Name the first features at fault, in the order of their first rows.

    Args:
        kinds: which features (rows, feature_count) have a kind of fault, and what it is of each.
        names: of the features' columns; empty if they have none.
        words: returns a feature in words, if its number and name are not enough.
    """
    return _in_words(kinds, words or (lambda k: feature_in_words(k, names[k] if names else None)), "feature")


def _groups_in_words(grid: InputGrid, broken: NDArray[np.bool_], names: Sequence[str]) -> str:
    """Name the first groups (rows, checked groups) that are broken, by their features."""
    checked = grid.constraints.checked

    def group_in_words(group: int) -> str:
        start, size = checked.starts[group], checked.sizes[group]
        members = checked.members[start : start + size][:_SHOWN].tolist()
        features = ", ".join(feature_in_words(k, names[k]) if names else str(k) for k in members)
        more = f" and {size - _SHOWN:,} more" if size > _SHOWN else ""
        count = "exactly one" if checked.exactly_one[group] else "at most one"
        return f"{count} of {'' if names else 'features '}{features}{more}"

    return _in_words([(broken, lambda _: "has to be at its maximum")], group_in_words, "group")


def _in_words(kinds: Sequence[_Kind], in_words: Callable[[int], str], noun: str) -> str:
    """Name the first things at fault, in the order of their first rows.

    Args:
        kinds: which things (rows, things) have a kind of fault, and what it is of each.
        in_words: what a thing is called.
        noun: of the things.
    """
    found = list[tuple[int, int, int]]()
    for kind, (is_at_fault, _) in enumerate(kinds):
        things = np.flatnonzero(is_at_fault.any(axis=0))
        first_rows = is_at_fault[:, things].argmax(axis=0)
        found += zip(first_rows.tolist(), things.tolist(), [kind] * len(things), strict=True)
    found.sort()
    named = list[str]()
    for _, thing, kind in found[:_SHOWN]:
        is_at_fault, fault = kinds[kind]
        rows = np.flatnonzero(is_at_fault[:, thing])
        where = "" if len(is_at_fault) == 1 else f"{rows_in_words(rows[:_SHOWN].tolist(), len(rows))}, "
        named.append(f"{where}{in_words(thing)} {fault(thing)}")
    if hidden := len({thing for _, thing, _ in found} - {thing for _, thing, _ in found[:_SHOWN]}):
        named.append(f"and {hidden:,} more {noun if hidden == 1 else noun + 's'}")
    return "; ".join(named)


def _joined(*texts: str) -> str:
    return "; ".join(filter(None, texts))
