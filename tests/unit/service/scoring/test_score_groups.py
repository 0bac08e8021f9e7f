"""Groups of scores: pieces of a reply in messages of about a megabyte."""

from sealserve.protocol.item import Residues
from sealserve_service.scoring.score_groups import GROUP_BYTES, grouped


def test_groups_are_about_a_megabyte_long_and_keep_the_order() -> None:
    pairs = [Residues(bytes([number]), bytes(400_000)) for number in range(6)]
    groups = list(grouped(pairs))
    assert [group.first_index for group in groups] == [0, 2, 4]
    assert all(group.ByteSize() <= GROUP_BYTES for group in groups)
    assert [scores.residues.c0[0] for group in groups for scores in group.scores] == list(range(6))
    (alone,) = grouped([Residues(b"", bytes(GROUP_BYTES + 1))])
    assert len(alone.scores) == 1
