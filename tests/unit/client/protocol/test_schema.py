"""Schema: numbers of all columns at once are refused as each column refuses them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealserve.protocol.column import Column, ColumnKind
from sealserve.protocol.schema import Schema

KINDS = [kind for kind in ColumnKind if not kind.is_text]
VALUES = [math.nan, math.inf, -math.inf, -1.0, -0.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 1e300]


@st.composite
def columns(draw: st.DrawFn) -> Column:
    kind = draw(st.sampled_from(KINDS))
    low, high = sorted(draw(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, 2.0])] * 2)))
    ends = {} if kind is ColumnKind.UNUSED else {"minimum": low, "maximum": high}
    chosen = {name: end for name, end in ends.items() if draw(st.booleans())}
    if kind is ColumnKind.BOOLEAN:
        chosen = {}
    return Column("", kind, draw(st.booleans()), **chosen)


@pytest.mark.parametrize("clip", [False, True])
@settings(deadline=None, max_examples=60)
@given(some=st.lists(columns(), min_size=1, max_size=6), data=st.data())
def test_a_row_is_refused_if_a_column_refuses_its_value(clip: bool, some: list[Column], data: st.DataObject) -> None:
    row = st.lists(st.sampled_from(VALUES), min_size=len(some), max_size=len(some))
    rows = np.array(data.draw(st.lists(row, max_size=5)), np.float64).reshape(-1, len(some))
    faults = [np.zeros(len(rows), np.bool_)]
    faults += [f for at, column in enumerate(some) for f in column.faults(rows[:, at], clip=clip).values()]
    found = Schema.of(some).is_refused(rows, clip=clip)
    assert found.dtype == np.bool_
    assert found.tolist() == np.any(faults, axis=0).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_number_is_refused_for_what_it_does_not_take(kind: ColumnKind) -> None:
    schema = Schema.of([Column("", kind)])
    found = schema.is_refused(np.array([[math.nan], [0.5], [2.0], [1.0]]), clip=False).tolist()
    expected = {
        ColumnKind.NUMBER: [True, False, False, False],
        ColumnKind.INTEGER: [True, True, False, False],
        ColumnKind.BOOLEAN: [True, True, True, False],
        ColumnKind.UNUSED: [False] * 4,
    }
    assert found == expected[kind]
