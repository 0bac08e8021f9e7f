"""The benchmark of replies: both forms of one item, and on which links packing pays."""

import numpy as np
import pytest

from benchmarks import replies
from tests.support.serving import linear, served


@pytest.mark.parametrize("layout", ["row", "column"])
def test_both_forms_of_a_reply_are_timed(layout: str) -> None:
    model = served("m", linear(np.linspace(-1.0, 1.0, 40).reshape(2, 20)))
    (engine,) = (engine for engine in model.engines if engine.offer.layout and engine.offer.layout.name == layout)
    found = replies.measure(model.model, engine, np.linspace(0.0, 1.0, 60).reshape(3, 20), 0.01)
    assert found["packed_bytes"] < found["residues_bytes"]
    assert min(found[f"{step}_{form}_ms"] for step in ("write", "read") for form in ("packed", "residues")) > 0


def test_the_table_says_below_which_link_packing_pays() -> None:
    found = {"offer": "row, 1 rows", "residues_bytes": 82_000, "packed_bytes": 52_000}
    times = {"write_residues_ms": 0.2, "write_packed_ms": 0.3, "read_residues_ms": 0.4, "read_packed_ms": 0.45}
    shown = replies.table([replies.with_links(found | times)])
    assert "| packing takes, ns for each byte that it saves | 5.0         |" in shown
    assert "| packed is sooner below, Mbit/s                | 1600        |" in shown
