"""Rows: tensors become what a client reads, and columns keep their names on the way."""

from typing import Any

import numpy as np
import pytest

from sealserve.agent.rows import NamedRows, joined, key, rows_of
from sealserve.agent.tensors import Tensor
from sealserve.errors import FeatureNameError, InputError
from sealserve.protocol.schema import Schema
from tests.support.step_models import COLUMNS

NAMED = Schema(2, ("a", "b"))
TABLE = Schema.of(COLUMNS)


def tensor(name: str, *values: Any) -> Tensor:
    return Tensor(name, "FP64", np.array(values))


def test_one_tensor_has_all_columns_whatever_its_name() -> None:
    for schema in (NAMED, Schema(2)):
        for name in ("rows", "a", ""):
            rows, count = rows_of([tensor(name, [1.0, 2.0])], schema)
            assert (np.asarray(rows).tolist(), count) == ([[1.0, 2.0]], 1)


def test_columns_come_in_any_order() -> None:
    rows, count = rows_of([tensor("b", 2.0, 4.0), tensor("a", [1.0], [3.0])], NAMED)
    assert count == 2
    assert NAMED.rows(rows).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_columns_are_not_taken_for_those_of_another_model() -> None:
    """The model may be replaced by one with another order while a row waits."""
    rows, _ = rows_of([tensor("a", 1.0), tensor("b", 2.0)], NAMED)
    with pytest.raises(FeatureNameError):
        Schema(2, ("b", "a")).rows(rows)
    (table, _), other = rows_of(of_table(), TABLE), Schema.of(COLUMNS[::-1])
    assert other.rows(table)[0].tolist() == TABLE.rows(table)[0].tolist()[::-1]


def of_table() -> list[Tensor]:
    """A row of the table, in another order."""
    texts = [Tensor(name, "BYTES", np.array([value], object)) for name, value in (("note", "good"), ("city", "Rome"))]
    return [*texts, tensor("owner", True), tensor("age", 60.0), tensor("children", 1)]


def test_a_single_column_may_be_flat() -> None:
    rows, count = rows_of([tensor("rows", 1.0, 2.0)], Schema(1))
    assert (np.asarray(rows).tolist(), count) == ([[1.0], [2.0]], 2)


@pytest.mark.parametrize(
    ("tensors", "schema"),
    [
        ([], NAMED),
        ([], Schema(2)),
        ([tensor("rows", 1.0, 2.0)], NAMED),
        ([tensor("rows", [1.0])], NAMED),
        ([tensor("a", 1.0)], NAMED),
        ([tensor("a", 1.0), tensor("a", 1.0)], NAMED),
        ([tensor("a", 1.0), tensor("c", 1.0)], NAMED),
        ([tensor("a", 1.0), tensor("b", 1.0, 2.0)], NAMED),
        ([tensor("a", [1.0, 2.0]), tensor("b", 1.0)], NAMED),
        ([tensor("a", 1.0), tensor("b", 1.0)], Schema(2)),
    ],
)
def test_what_means_no_rows_is_refused(tensors: list[Tensor], schema: Schema) -> None:
    with pytest.raises(InputError):
        rows_of(tensors, schema)


def test_rows_are_joined_with_what_they_mean() -> None:
    one, other = (rows_of([tensor("b", value), tensor("a", value + 1)], NAMED)[0] for value in (1.0, 3.0))
    assert key(one) == key(other)
    whole = joined([one, other])
    assert isinstance(whole, NamedRows)
    assert NAMED.rows(whole).tolist() == [[2.0, 1.0], [4.0, 3.0]]
    table, _ = rows_of(of_table(), TABLE)
    assert TABLE.rows(joined([table, table])).tolist() == 2 * TABLE.rows(table).tolist()
    arrays = [np.ones((1, 2), dtype) for dtype in ("f4", "u1", "f8")]
    assert joined(arrays).dtype == np.float64  # type: ignore[union-attr]


def test_rows_that_mean_something_else_have_another_key() -> None:
    table, _ = rows_of(of_table(), TABLE)
    named, _ = rows_of([tensor("a", 1.0), tensor("b", 1.0)], NAMED)
    texts = np.array([["x", "y"]], object)
    keys = [key(table), key(named), key(np.ones((1, 2))), key(np.ones((1, 3))), key(texts)]
    assert len(set(keys)) == len(keys)
