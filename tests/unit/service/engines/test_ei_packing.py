"""The arithmetic of the EI slots engine on plain numbers: rotations are np.roll, and the scores come out."""

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.errors import PlanError
from sealserve_service.engines.ei.packing import SLOTS, SlotPacking


def score(packing: SlotPacking, weights: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.complex128]:
    """What the engine does, without encryption: the scores of the pairs."""
    blocks = np.zeros(packing.blocks * SLOTS)
    blocks[: len(x)] = x
    total = np.zeros(SLOTS, complex)
    for giant in reversed(range(packing.giant_steps)):
        total = np.roll(total, -packing.baby_steps)
        for block, values in enumerate(blocks.reshape(-1, SLOTS)):
            for baby in range(packing.baby_steps):
                total += np.roll(values, -baby) * packing.diagonal(weights, block, giant, baby)
    for steps in packing.folds:
        total += np.roll(total, -steps)
    return total[: packing.pairs]


@pytest.mark.parametrize(
    ("score_count", "feature_count"),
    [(1, 1), (1, 64), (1, 4095), (2, 4097), (3, 5), (4, 4096), (7, 100), (10, 784), (17, 5000), (40, 8192)],
)
def test_every_split_gives_the_scores(score_count: int, feature_count: int) -> None:
    random = np.random.default_rng(score_count)
    weights, x = random.normal(size=(score_count, feature_count)), random.normal(size=feature_count)
    expected = weights @ x
    baby_steps = 1
    while baby_steps <= SlotPacking(feature_count, score_count).period:
        pairs = score(SlotPacking(feature_count, score_count, baby_steps), weights, x)
        np.testing.assert_allclose(pairs.real, expected[0::2])
        np.testing.assert_allclose(pairs.imag[: score_count // 2], expected[1::2])
        assert score_count % 2 == 0 or pairs.imag[-1] == 0
        baby_steps *= 2


def test_every_slot_of_a_pair_holds_its_numbers() -> None:
    values = SlotPacking(10, 5).paired(np.array([1.0, 2, 3, 4, 5]))
    np.testing.assert_array_equal(values[:8], [1 + 2j, 3 + 4j, 5, 0] * 2)
    assert values.shape == (SLOTS,)


def test_the_cheapest_split_is_the_cheapest() -> None:
    packing = SlotPacking.cheapest(784, 10)
    assert packing.baby_steps == 2
    assert all(packing.cost <= SlotPacking(784, 10, 1 << power).cost for power in range(4))
    # Baby steps are taken for every block, giant steps once.
    assert SlotPacking.cheapest(100, 1000).baby_steps > SlotPacking.cheapest(50_000, 1000).baby_steps


def test_a_single_pair_is_folded_over_its_features_only() -> None:
    assert SlotPacking(1, 2).folds == ()
    assert SlotPacking(784, 2).folds == tuple(1 << power for power in reversed(range(10)))
    assert len(SlotPacking(4096, 2).folds) == len(SlotPacking(9000, 1).folds) == 12
    assert SlotPacking(784, 3).folds == tuple(1 << power for power in reversed(range(1, 12)))


def test_more_classes_than_slots() -> None:
    assert SlotPacking(1, 2 * SLOTS).folds == ()
    with pytest.raises(PlanError, match="8193"):
        SlotPacking(1, 2 * SLOTS + 1)
