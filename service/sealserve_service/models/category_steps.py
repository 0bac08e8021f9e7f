"""Steps of categories: OneHotEncoder and OrdinalEncoder."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from sealserve.protocol.text import counted
from sealserve.steps.categories import Categories, Lookup, LookupColumn, OneHot, OneHotColumn
from sealserve_service.models.pipeline_steps import Node, OpenStep


def one_hot(encoder: OneHotEncoder, name: str) -> Iterator[Node]:
    """Yield the step of a OneHotEncoder."""
    columns = [_one_hot_column(encoder, position) for position in range(len(encoder.categories_))]
    kept = np.array([position for position, column in enumerate(columns) if column is not None], np.intp)
    found = [column for column in columns if column is not None]
    width = sum(column.width for column in found)
    if not found:
        raise ValueError("it has no output: leave it out")
    yield OpenStep(name, width, lambda add, inputs: add(OneHot(inputs[kept], found)), _tells(encoder))


def ordinal(encoder: OrdinalEncoder, name: str) -> Iterator[Node]:
    """Yield the step of an OrdinalEncoder."""
    columns = [_lookup_column(encoder, position) for position in range(len(encoder.categories_))]
    yield OpenStep(name, len(columns), lambda add, inputs: add(Lookup(inputs, columns)), _tells(encoder))


def _tells(encoder: Any) -> str:
    count = sum(len(categories) for categories in encoder.categories_)
    return f"the {count} categories of {counted(len(encoder.categories_), 'columns')}"


def _grouped(encoder: Any, position: int) -> NDArray[np.intp]:
    """Return the index of each category after infrequent ones have been grouped."""
    mappings = getattr(encoder, "_default_to_infrequent_mappings", None)
    mapping = None if mappings is None else mappings[position]
    count = len(encoder.categories_[position])
    return np.arange(count) if mapping is None else np.asarray(mapping, np.intp)


def _infrequent(encoder: Any, position: int) -> int | None:
    """Return the index of the group of infrequent categories, the last; None if there is none."""
    indices = getattr(encoder, "_infrequent_indices", None)
    if indices is None or indices[position] is None:
        return None
    return int(_grouped(encoder, position).max())


def _one_hot_column(encoder: OneHotEncoder, position: int) -> OneHotColumn | None:
    """Return the outputs of a column; None if it has none."""
    grouped, infrequent = _grouped(encoder, position), _infrequent(encoder, position)
    dropped = None if encoder._drop_idx_after_grouping is None else encoder._drop_idx_after_grouping[position]
    width = int(grouped.max()) + 1 - (dropped is not None)
    if not width:
        return None

    def place(index: int | None) -> int:
        if index is None or index == dropped:
            return 0
        return index + 1 - (dropped is not None and index > dropped)

    unknown = infrequent if encoder.handle_unknown in ("infrequent_if_exist", "warn") else None
    values, order, missing = _categories(encoder.categories_[position])
    refuses = encoder.handle_unknown == "error"
    places = [place(int(grouped[index])) for index in order]
    places += [place(unknown) if missing is None else place(int(grouped[missing])), place(unknown)]
    categories = _checked(values, refuses_missing=refuses and missing is None, refuses_unknown=refuses)
    return OneHotColumn(categories, np.array(places, np.intp), width)


def _lookup_column(encoder: OrdinalEncoder, position: int) -> LookupColumn:
    grouped = _grouped(encoder, position)
    values, order, missing = _categories(encoder.categories_[position])
    refuses = encoder.handle_unknown == "error"
    unknown = np.nan if refuses else float(encoder.unknown_value)
    if missing is None:
        of_missing = unknown
    elif encoder.categories_[position][missing] is None:  # to scikit-learn a category like others, unlike NaN
        of_missing = float(grouped[missing])
    else:
        of_missing = float(encoder.encoded_missing_value)
    numbers = [*(float(grouped[index]) for index in order), of_missing, unknown]
    categories = _checked(values, refuses_missing=refuses and missing is None, refuses_unknown=refuses)
    return LookupColumn(categories, np.array(numbers))


def _categories(found: NDArray[Any]) -> tuple[list[Any], list[int], int | None]:
    """Return the categories, numbers in order, with their indices, and the index of missing."""
    listed = found.tolist()
    missing = [index for index, value in enumerate(listed) if value is None or value != value]
    if len(missing) > 1:
        raise ValueError("it has two categories for what is missing: use None or NaN, not both")
    order = [index for index in range(len(listed)) if index not in missing]
    if all(isinstance(listed[index], bool | int | float) for index in order):
        order.sort(key=lambda index: listed[index])
        return [float(listed[index]) for index in order], order, missing[0] if missing else None
    if not all(isinstance(listed[index], str) for index in order):
        kinds = sorted({type(listed[index]).__name__ for index in order})
        are = f"are {kinds[0]}s" if len(kinds) == 1 else f"are of mixed types ({', '.join(kinds)})"
        raise ValueError(f"the categories of a column {are}: make them all texts, or all numbers")
    return [listed[index] for index in order], order, missing[0] if missing else None


def _checked(values: list[Any], *, refuses_missing: bool, refuses_unknown: bool) -> Categories:
    if values and isinstance(values[0], str):
        return Categories(texts=values, refuses_missing=refuses_missing, refuses_unknown=refuses_unknown)
    numbers = np.array(values, np.float64)
    return Categories(numbers=numbers, refuses_missing=refuses_missing, refuses_unknown=refuses_unknown)
