"""The noise of a thousand replies, compared with the noise of the client's own ciphertexts.

In mode open the noise of a reply that is not packed is W times the client's, to the last digit.
With the encryption of zero but without uniform noise it nearly is. In mode private the two are
unrelated, packed or not.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from sealserve.he.layouts import LAYOUTS
from sealserve.he.quantization import InputGrid
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Affine, affine, random_rows
from tests.support.item_round_trip import RoundTrip
from tests.support.key_owner import KeyOwner
from tests.support.plans import column_plans, row_plans
from tests.support.reply_pairs import unpacked

REPLIES, QUESTIONS, ROWS = 1000, 50, 2
STANDARD_ERRORS, ATTEMPTS = 4.0, 3
"""More than 4 standard errors have a probability of 6e-5.

Three times in a row, with replies of their own, they have one of 3e-13.
"""


class Seen(NamedTuple):
    """What a client has of its replies.

    Attributes:
        noise: of the replies, at the places of the scores, (n,).
        predicted: what it would be in mode open, (n,).
        terms: what it would be a combination of, (n, weights): of the first class.
        noise_of_first_class: (n,).
    """

    noise: NDArray[np.float64]
    predicted: NDArray[np.float64]
    terms: NDArray[np.float64]
    noise_of_first_class: NDArray[np.float64]

    @property
    def correlation(self) -> float:
        """The correlation of the reply's noise with the noise that mode open would have.

        No client that knows the weights can do better.
        """
        return float(np.corrcoef(self.noise, self.predicted)[0, 1])

    @property
    def standard_error(self) -> float:
        """Of the correlation, where there is none."""
        return float(len(self.noise) ** -0.5)

    @property
    def fitted_weights(self) -> NDArray[np.float64]:
        """The weights that explain the noise best, as a client computes them that knows none."""
        weights, *_ = np.linalg.lstsq(self.terms, self.noise_of_first_class)
        return weights.astype(np.float64)


def seen(plan: RowPlan | ColumnPlan, model: Affine) -> Seen:
    """Ask some questions, each several times, which helps the client rather than the service."""
    owner, round_trip = KeyOwner(plan), RoundTrip(plan)
    questions = [owner.question(random_rows(model.grid, ROWS, seed)) for seed in range(QUESTIONS)]
    noise, predicted, terms = [], [], []
    for number in range(REPLIES):
        question = questions[number % QUESTIONS]
        noise.append(owner.reply_noise(question, round_trip.reply(question.ciphertexts, ROWS)))
        predicted.append(owner.predicted(question))
        terms.append(owner.noise_terms(question)[:, 0])
    found = np.array(noise)
    return Seen(found.ravel(), np.array(predicted).ravel(), np.concatenate(terms), found[..., 0].ravel())


def row_plan(model: Affine, hiding_bits: int | None) -> RowPlan:
    return row_plans(*model.planned, hiding_bits=hiding_bits, parameter_sets=LAYOUTS["row"].private_parameter_sets[:1])[
        0
    ]


def column_plan(model: Affine, hiding_bits: int | None) -> ColumnPlan:
    return column_plans(
        *model.planned, hiding_bits=hiding_bits, parameter_sets=LAYOUTS["column"].private_parameter_sets[:1]
    )[0]


def rounded(plan: RowPlan | ColumnPlan) -> float:
    """Return what packing adds to the noise at most: a twentieth of B at 40 bits of hiding."""
    q, t = plan.parameters.parameter_set.modulus, plan.parameters.plain_modulus
    return 0.0 if plan.reply_bits is None else float(plan.reply_bits.cost(plan.parameters) * q / t)


Planned = Callable[[Affine, int | None], RowPlan | ColumnPlan]
both = pytest.mark.parametrize(
    ("planned", "classes"), [(row_plan, 3), pytest.param(column_plan, 1, marks=pytest.mark.slow)], ids=["row", "column"]
)


def small_model(classes: int) -> Affine:
    model = affine("normal", (classes, 8))
    return Affine(model.weights, model.intercept, InputGrid.of(8, 0.0, 1.0))


@both
def test_in_mode_open_the_noise_gives_every_weight(planned: Planned, classes: int) -> None:
    model = small_model(classes)
    # Of as many bits as the private plan has, so that the two differ in nothing else.
    plan = dataclasses.replace(unpacked(planned(model, 40)), noise_width=None)
    found = seen(plan, model)
    assert found.correlation > 0.999
    np.testing.assert_array_equal(np.rint(found.fitted_weights), KeyOwner(plan).packed_weights(0))


@both
def test_without_uniform_noise_it_still_does(planned: Planned, classes: int) -> None:
    model = small_model(classes)
    plan = dataclasses.replace(unpacked(planned(model, 40)), noise_width=0)
    found = seen(plan, model)
    assert found.correlation > 0.99
    weights = KeyOwner(plan).packed_weights(0)
    assert np.abs(found.fitted_weights - weights).max() < 0.02 * np.abs(weights).max()


@both
@pytest.mark.parametrize("is_packed", [True, False], ids=["packed", "not packed"])
def test_in_mode_private_it_gives_nothing(planned: Planned, classes: int, is_packed: bool) -> None:
    model = small_model(classes)
    plan = planned(model, 40)
    assert plan.reply_bits is not None
    plan = plan if is_packed else unpacked(plan)
    assert plan.noise_width is not None
    for _ in range(ATTEMPTS):
        found = seen(plan, model)
        # The noise is there, and as wide as planned: of all these values some are near its ends.
        assert 0.99 * plan.noise_width < np.abs(found.noise).max() < 1.01 * plan.noise_width + rounded(plan)
        assert not (np.rint(found.fitted_weights) == KeyOwner(plan).packed_weights(0)).any()
        if abs(found.correlation) < STANDARD_ERRORS * found.standard_error:
            return
    pytest.fail(f"the noise of the replies correlates with the client's: {found.correlation:.3f}")
