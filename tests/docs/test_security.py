"""SECURITY.md says of every kind of published step what publishing it tells."""

import re

from sealserve.v1 import steps_pb2
from tests.support.serving import ROOT

NAMES = {"one_hot": "one-hot"}


def test_every_kind_of_step_is_in_the_table() -> None:
    table = (ROOT / "SECURITY.md").read_text().partition("| kind of step |")[2].partition("\n\n")[0]
    named = {kind for row in table.splitlines()[2:] for kind in re.split(r", ", row.split("|")[1].strip())}
    kinds = steps_pb2.Step.DESCRIPTOR.oneofs_by_name["kind"].fields
    assert named == {NAMES.get(kind.name, kind.name) for kind in kinds}
