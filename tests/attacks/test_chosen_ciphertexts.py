"""What a ciphertext of another form reads of the weights with a proper key: no more than scores.

The best attack that we know asks for two weights of each class in one reply. The bound is the noise
at each place: at most log2(q / (2B + 1)) bits, whatever the ciphertext is. There is a table in
docs/what_your_model_reveals.md.
"""

import math
from pathlib import Path

import numpy as np

from sealserve.he.quantization import InputGrid
from sealserve_service.planning import hiding
from sealserve_service.planning.column import ColumnPlan
from sealserve_service.planning.row import RowPlan
from tests.support.affine_models import Affine, Integers, affine
from tests.support.item_round_trip import RoundTrip, secret_key
from tests.support.noisy_encryptor import NoisyEncryptor
from tests.support.plans import plan_column, plan_row
from tests.support.reply_pairs import lifted
from tests.support.serving import ROOT

HIDING_BITS = 40


def told(plan: RowPlan | ColumnPlan, places: int) -> float:
    """The bits that so many places tell at most."""
    assert plan.noise_width is not None
    return hiding.told_bits(plan.parameters, plan.noise_width, places)


def model_of(features: int, scores: int) -> Affine:
    """Normal weights, and features of 0..1."""
    model = affine("normal", (scores, features))
    return Affine(model.weights, model.intercept, InputGrid.of(features, 0.0, 1.0))


class Attacker:
    """A client with a proper key, whose ciphertexts have a phase of its own choice."""

    def __init__(self, plan: RowPlan) -> None:
        self.plan, self.parameter_set = plan, plan.parameters.parameter_set
        self.round_trip = RoundTrip(plan)
        self.noisy = NoisyEncryptor(plan.parameters, secret_key(self.parameter_set))
        zeros = np.zeros((1, plan.packing.feature_count), np.int64)
        self.intercepts = self.round_trip.scores(zeros)[0]

    def weights_of(self, features: list[int]) -> Integers:
        """Ask for the weights of some features in one reply: (score_count, features).

        The phase of the ciphertext is sum_k round(q / base^(k + 1)) X^features[k]. Its product with
        the weights is q / base^len(features) times an integer, whose digits are weights.
        """
        plan, q, t = self.plan, self.parameter_set.modulus, self.plan.parameters.plain_modulus
        base, N = 2 * int(np.abs(plan.model.weights).max()) + 1, plan.packing.poly_modulus_degree
        phase = np.zeros(N, object)
        for digit, feature in enumerate(features, 1):
            phase[feature] += (2 * q + base**digit) // (2 * base**digit)
        ciphertext = self.noisy.encrypt(np.zeros(N, np.uint64), phase)
        found = []
        for polynomial, pair in enumerate(self.round_trip.reply([ciphertext], 1)):
            classes = plan.packing.classes_in(polynomial)
            pair = lifted(plan.parameters, plan.reply_bits, pair, len(classes))
            phases = self.noisy.phase(pair.c0, pair.c1, plan.packing.places(1, len(classes)).ravel())
            for score, value in zip(classes, phases.tolist(), strict=True):
                intercept = (q * int(self.intercepts[score] % t) + t // 2) // t
                numerator = ((value - intercept + q // 2) % q - q // 2) * base ** len(features)
                found.append(_digits((2 * numerator + q) // (2 * q), base, len(features)))
        return np.array(found, object)


def _digits(number: int, base: int, count: int) -> list[int]:
    """The digits of a number to an odd base, each of -(base - 1) / 2 .. (base - 1) / 2."""
    digits = []
    for _ in range(count):
        digit = (number + base // 2) % base - base // 2
        digits.append(digit)
        number = (number - digit) // base
    return digits[::-1]


def test_two_weights_of_each_class_in_a_reply_and_no_more() -> None:
    plan = plan_row(*model_of(784, 10).planned, hiding_bits=HIDING_BITS)
    base = 2 * int(np.abs(plan.model.weights).max()) + 1
    each = int(told(plan, 1) / math.log2(base))
    assert each == 2
    attacker = Attacker(plan)
    for features in ([0, 783], [17, 400]):
        np.testing.assert_array_equal(attacker.weights_of(features), plan.model.weights[:, features])
    # The noise leaves some thirty values of a third weight: by chance it is right for six classes
    # of ten once in 5e6 times.
    three = [5, 6, 7]
    assert plan.noise_width is not None
    assert 2 * plan.noise_width * base**3 // plan.parameters.parameter_set.modulus == 30
    found = attacker.weights_of(three)
    assert (found == plan.model.weights[:, three]).all(axis=1).sum() < 6
    assert (found[:, 2] != plan.model.weights[:, 7]).any()
    # As many bits as are told, but for what is left over of each place.
    assert 2 * 10 * math.log2(base) <= told(plan, 10) < 3 * 10 * math.log2(base)


SHAPES = [(784, 10, "row"), (64, 10, "row"), (30, 1, "row"), (4, 3, "row"), (64, 10, "column"), (784, 10, "column")]
"""Features and scores of the typical plans of the table."""


def table() -> str:
    """The published table: what a malicious ciphertext gets at most."""
    lines = [
        "| features, scores | parameter set | rows an item | bits a place | bits a reply | share of the weights |",
        "|---|---|---|---|---|---|",
    ]
    for features, scores, layout in SHAPES:
        arguments = model_of(features, scores).planned
        plan: RowPlan | ColumnPlan = (plan_row if layout == "row" else plan_column)(*arguments, hiding_bits=HIDING_BITS)
        bits = told(plan, plan.packing.rows * scores)
        share = bits / (features * scores * math.log2(2 * int(np.abs(plan.model.weights).max()) + 1))
        lines.append(
            f"| {features}, {scores} | {plan.parameters.parameter_set.name} | {plan.packing.rows:,} | "
            f"{told(plan, 1):.1f} | {bits:,.0f} | {_percent(share)} |"
        )
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 1 else "all"


def test_the_published_table_is_what_the_planner_says() -> None:
    page = Path(ROOT, "docs", "what_your_model_reveals.md").read_text()
    assert table() in page, f"the page should have:\n{table()}"
