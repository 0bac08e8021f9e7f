"""Plan: a model made ready for a layout; and the rules by which the planner makes plans for one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, TypeVar

from sealserve.he.layouts import Layout, Packing
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.quantization import InputGrid, QuantizedModel
from sealserve.he.reply_bits import ReplyBits

PackingT = TypeVar("PackingT", bound=Packing)
PackingT_co = TypeVar("PackingT_co", bound=Packing, covariant=True)


@dataclass(frozen=True, kw_only=True)
class IntegerModel:
    """A model with weights of some number of bits, and what is proven of its scores.

    Attributes:
        grid: of the features; its steps were chosen for the model, or were given.
        model: the integer model.
        weight_bits: bits of the largest |W_int|.
        score_centers: one a score; a residue modulo t stands for the integer nearest to it.
        score_radii: one a score; every integer score of a row within the range is at most this far
            from its centre.
        score_error_bound: proven, for every row on the grid within the range, in units of the
            score.
        input_rounding_error_bound: what rounding onto the grid adds at most. Features that keep
            their grid have no part in it: a value that is off it by its tolerance, as a float32
            is, stands for the value on the grid.
        total_error_bound: proven, for every row that the grid does not refuse. It is the greatest
            sum of the two that a score has, and at most the sum of the greatest ones.
    """

    grid: InputGrid
    model: QuantizedModel
    weight_bits: int
    score_centers: tuple[int, ...]
    score_radii: tuple[int, ...]
    score_error_bound: float
    input_rounding_error_bound: float
    total_error_bound: float


@dataclass(frozen=True, kw_only=True)
class Plan(IntegerModel, Generic[PackingT_co]):
    """An integer model with the parameters and the packing that encrypt for it.

    Attributes:
        parameters: parameter set and t, a power of two.
        packing: the places of features, weights and scores.
        noise_width: B, of the uniform noise that hides the weights; None in mode open.
        reply_bits: how replies are packed; None if they are residues, which in mode private the
            planner never lets them be.
    """

    parameters: EncryptionParameters
    packing: PackingT_co
    noise_width: int | None = None
    reply_bits: ReplyBits | None = None

    @property
    def request_bytes(self) -> int:
        """Residues of one item's ciphertexts, full size."""
        return 2 * self.packing.ciphertexts * self.parameters.parameter_set.polynomial_bytes

    @cached_property
    def reply_bytes(self) -> int:
        """Polynomials of a full item's reply."""
        packing, parameter_set, bits = self.packing, self.parameters.parameter_set, self.reply_bits
        if bits is None:
            kept = packing.rows * packing.score_count * 8 * len(parameter_set.data_primes)
            return packing.polynomials * parameter_set.polynomial_bytes + kept
        N, rows = parameter_set.poly_modulus_degree, packing.rows
        last = len(packing.classes_in(packing.polynomials - 1))
        others = (packing.polynomials - 1) * bits.pair_bytes(rows * packing.classes, N)
        return others + bits.pair_bytes(rows * last, N)


@dataclass(frozen=True, eq=False, kw_only=True)
class PlanningRules(Generic[PackingT]):
    """What the planner has to know about a layout.

    Attributes:
        layout: the layout; its parameter sets are the ones that are tried by default.
        max_weight_bits: the most bits of a weight.
        packings: (N, feature_count, score_count) -> the packings worth trying.
        cost: what plans are sorted by, the cheapest first.
        capped: (packing, places) -> the packing with so few rows that a polynomial pair of the
            reply keeps at most so many coefficients of c0, or has no need to; None if one row is
            too much. For mode private, see `hiding`.
        gains_from_fewer_bits: tells whether a plan of fewer bits for the same parameter set and
            packing can be better in any respect. The planner tries fewer bits as long as it can.
    """

    layout: Layout
    max_weight_bits: int
    packings: Callable[[int, int, int], Iterable[PackingT]]
    cost: Callable[[Plan[PackingT]], tuple[float, ...]]
    capped: Callable[[PackingT, int], PackingT | None]
    gains_from_fewer_bits: Callable[[Plan[PackingT]], bool]
