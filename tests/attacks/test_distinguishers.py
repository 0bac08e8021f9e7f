"""Two models with equal scores on a query cannot be told apart by a reply in mode private.

That holds even for a client that has the key and knows both models.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he.layouts import LAYOUTS
from sealserve.he.layouts.row import RowPacking
from sealserve.he.quantization import InputGrid
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Affine, affine, random_rows
from tests.support.item_round_trip import RoundTrip
from tests.support.key_owner import KeyOwner
from tests.support.plans import column_plans, row_plans
from tests.support.reply_pairs import Pair, lifted, unpacked

Plan = RowPlan | ColumnPlan
REPLIES, QUESTIONS = 2000, 40
CHANCE = 140
"""The allowed difference of right guesses from half of 2000: 6.26 standard deviations.

It is exceeded by chance once in 2.6e9 times.
"""


def models(classes: int) -> tuple[Affine, Affine]:
    """Two models with the weights of the first two features exchanged.

    All that an offer publishes is equal.
    """
    model = affine("normal", (classes, 8))
    grid = InputGrid.of(8, 0.0, 1.0)
    other = model.weights.copy()
    other[:, [0, 1]] = other[:, [1, 0]]
    return Affine(model.weights, model.intercept, grid), Affine(other, model.intercept, grid)


class Suspicion:
    """A client's knowledge of one query: what either model would answer in mode open.

    It compares replies with that.
    """

    def __init__(self, plans: tuple[Plan, Plan], rows: NDArray[np.int64]) -> None:
        self.owners = [KeyOwner(plan) for plan in plans]
        self.question = self.owners[0].question(rows)
        self._noise = [owner.predicted(self.question) for owner in self.owners]
        self._plan = plans[0]
        rounds = [RoundTrip(dataclasses.replace(plan, noise_width=None)) for plan in plans]
        self._replies = [round_trip.reply(self.question.ciphertexts, len(rows)) for round_trip in rounds]

    def by_noise(self, reply: list[Pair]) -> int:
        """Guess the model by the noise at the places of the scores: nearer to whose?"""
        found = self.owners[0].reply_noise(self.question, reply)
        return int(np.argmin([np.linalg.norm(found - noise) for noise in self._noise]))

    def by_second_polynomial(self, reply: list[Pair]) -> int:
        """Guess the model by c1, modulo the first prime: nearer to whose?"""
        prime = self.owners[0].plan.parameters.parameter_set.data_primes[0]

        def distance(others: list[Pair]) -> float:
            return sum(
                float(np.abs((self._first(mine) - self._first(other) + prime // 2) % prime - prime // 2).mean())
                for mine, other in zip(reply, others, strict=True)
            )

        return int(np.argmin([distance(others) for others in self._replies]))

    def _first(self, pair: Pair) -> NDArray[np.int64]:
        """The residues of c1 modulo the first of two primes."""
        count, bits = len(self.question.rows) * self._plan.packing.classes, self._plan.reply_bits
        first, _ = np.frombuffer(lifted(self._plan.parameters, bits, pair, count).c1, np.int64).reshape(2, -1)
        return first


def row_count(plan: Plan) -> int:
    """How many rows to ask with, so that every query tells the models apart.

    In columns, a row's noise differs by the difference of the noises of its first two ciphertexts,
    times that of the weights. The former difference is an integer, because both noises have the
    same rounding, and it is 0 once in eleven times. For eight rows at once it is 0 once in 3e8.
    """
    return 2 if isinstance(plan.packing, RowPacking) else 8


def right_guesses(plans: tuple[Plan, Plan], count: int) -> tuple[int, int]:
    """Let one of two models, drawn by lot, answer; count the right guesses of each method."""
    grid, generator = InputGrid.of(8, 0.0, 1.0), np.random.default_rng(6)
    asked, queries = row_count(plans[0]), []
    for seed in range(QUESTIONS):
        rows = random_rows(grid, asked, seed)
        rows[:, 1] = rows[:, 0]  # so that both models give it the same scores
        queries.append(Suspicion(plans, rows))
    services, right = [RoundTrip(plan) for plan in plans], [0, 0]
    for number in range(count):
        query, which = queries[number % QUESTIONS], int(generator.integers(2))
        reply = services[which].reply(query.question.ciphertexts, asked)
        right[0] += query.by_noise(reply) == which
        right[1] += query.by_second_polynomial(reply) == which
    return right[0], right[1]


def row_plan(model: Affine) -> Plan:
    return row_plans(*model.planned, hiding_bits=40, parameter_sets=LAYOUTS["row"].private_parameter_sets[:1])[0]


def column_plan(model: Affine) -> Plan:
    """The plan of the most bits: the larger the weights, the more the noise tells."""
    return column_plans(*model.planned, hiding_bits=40, parameter_sets=LAYOUTS["column"].private_parameter_sets[:1])[-1]


both = pytest.mark.parametrize(
    ("planned", "classes"), [(row_plan, 3), pytest.param(column_plan, 1, marks=pytest.mark.slow)], ids=["row", "column"]
)


def planned_pair(planned: Callable[[Affine], Plan], classes: int) -> tuple[Plan, Plan]:
    one, other = map(planned, models(classes))
    assert one.parameters == other.parameters
    assert (one.score_centers, one.score_radii) == (other.score_centers, other.score_radii)
    assert one.noise_width == other.noise_width
    assert one.reply_bits == other.reply_bits
    return one, other


@both
def test_in_mode_open_either_way_is_always_right(planned: Callable[[Affine], Plan], classes: int) -> None:
    one, other = planned_pair(planned, classes)
    plans = (
        dataclasses.replace(unpacked(one), noise_width=None),
        dataclasses.replace(unpacked(other), noise_width=None),
    )
    assert right_guesses(plans, 100) == (100, 100)


@both
def test_without_uniform_noise_the_noise_tells(planned: Callable[[Affine], Plan], classes: int) -> None:
    one, other = planned_pair(planned, classes)
    plans = dataclasses.replace(unpacked(one), noise_width=0), dataclasses.replace(unpacked(other), noise_width=0)
    by_noise, by_second_polynomial = right_guesses(plans, 200)
    assert by_noise == 200
    assert 30 < by_second_polynomial < 170  # nearly ten standard deviations


@both
def test_in_mode_private_neither_is_better_than_chance(planned: Callable[[Affine], Plan], classes: int) -> None:
    for right in right_guesses(planned_pair(planned, classes), REPLIES):
        assert abs(right - REPLIES // 2) < CHANCE
