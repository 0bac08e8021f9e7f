"""The row layout: which coefficient holds which feature, weight and score. Pure NumPy.

A dot product is one coefficient of a product of polynomials (Cheetah, USENIX Security 2022, section
3.2): put x into coefficients 0 .. f - 1, and w, reversed, into the same ones of another polynomial;
coefficient f - 1 of the product is sum x[i] w[i].

R rows and C classes share one product: row r starts at r C f, class j at j f, and the score of row
r and class j is coefficient r C f + j f + f - 1. No other pair of row and class reaches that
coefficient: the exponent of x_r'[i'] w_j'[i] is (r' C + j') f + f - 1 + (i' - i) with |i' - i| < f,
equal to it only for r' = r, j' = j, i' = i. Nor does the negacyclic wrap: R C f <= N bounds the
degree of the product by N + f - 2, which wraps to f - 2 at most, below the first score.

A row of more than N features is cut into blocks of N, one ciphertext each; the products are summed.

An item may hold fewer rows than fit. Places do not depend on how many it holds.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts.base import Layout, parameter_sets
from sealserve.he.parameters import Scheme


@dataclass(frozen=True)
class RowPacking:
    """The coefficients that hold features, weights and scores.

    Attributes:
        poly_modulus_degree: N.
        feature_count, score_count: the model's shape.
        classes: C, classes that share a polynomial of the reply.
        max_rows: the most rows in an item, where fewer are allowed than fit; None for no bound.
    """

    poly_modulus_degree: int
    feature_count: int
    score_count: int
    classes: int
    max_rows: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.classes <= self.poly_modulus_degree // self.window:
            raise ValueError(f"{self.classes} windows of {self.window} do not fit into {self.poly_modulus_degree}")
        if self.max_rows is not None and self.max_rows < 1:
            raise ValueError(f"an item holds at least 1 row, not {self.max_rows}")

    @cached_property
    def window(self) -> int:
        """f, the coefficients that one row's features take in one ciphertext."""
        return min(self.feature_count, self.poly_modulus_degree)

    @cached_property
    def rows(self) -> int:
        """R, rows in a full item."""
        fitting = self.poly_modulus_degree // (self.classes * self.window)
        return fitting if self.max_rows is None else min(fitting, self.max_rows)

    @cached_property
    def ciphertexts(self) -> int:
        """Ciphertexts of an item, whatever its number of rows."""
        return -(-self.feature_count // self.poly_modulus_degree)

    @cached_property
    def polynomials(self) -> int:
        """Polynomial pairs of a reply."""
        return -(-self.score_count // self.classes)

    def pack_rows(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Lay rows (1..R, feature_count), integers from 0 on, into plaintexts (ciphertexts, N)."""
        blocks, window = self.ciphertexts, self.window
        padded = np.zeros((len(rows), blocks * window), np.uint64)
        padded[:, : self.feature_count] = rows
        packed = np.zeros((blocks, self.rows, self.classes, window), np.uint64)
        packed[:, : len(rows), 0] = padded.reshape(len(rows), blocks, window).swapaxes(0, 1)
        plaintexts = np.zeros((blocks, self.poly_modulus_degree), np.uint64)
        plaintexts[:, : self.rows * self.classes * window] = packed.reshape(blocks, -1)
        return plaintexts

    def pack_weights(self, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """Lay weights (score_count, feature_count), signed, into (polynomials, ciphertexts, N)."""
        polynomials, blocks, window = self.polynomials, self.ciphertexts, self.window
        padded = np.zeros((polynomials * self.classes, blocks * window), np.int64)
        padded[: self.score_count, : self.feature_count] = weights
        windows = padded.reshape(polynomials, self.classes, blocks, window)[..., ::-1].swapaxes(1, 2)
        packed = np.zeros((polynomials, blocks, self.poly_modulus_degree), np.int64)
        packed[..., : self.classes * window] = windows.reshape(polynomials, blocks, -1)
        return packed

    def classes_in(self, polynomial: int) -> range:
        """Return the classes that share a polynomial pair: `classes` of them, fewer in the last."""
        first = polynomial * self.classes
        return range(first, min(first + self.classes, self.score_count))

    def places(self, row_count: int, class_count: int) -> NDArray[np.intp]:
        """Return the coefficients that hold scores, (row_count, class_count), ascending."""
        stride = self.classes * self.window
        rows = np.arange(row_count, dtype=np.intp)[:, None] * stride
        return rows + np.arange(class_count, dtype=np.intp) * self.window + (self.window - 1)


ROW = Layout(
    name="row",
    scheme=Scheme.BFV,
    packing=RowPacking,
    open_parameter_sets=parameter_sets("row", "2048-44", "2048-54", "4096-60", "4096-92"),
    private_parameter_sets=parameter_sets("row", "4096-92", "8192-120", "8192-180"),
    default_rows_per_item=1,
    seeding_seconds_a_byte=11e-9,  # it pays below 0.7 Gbit/s: see benchmarks/uploads.py
    packing_seconds_a_byte=6e-9,  # below 1.3 Gbit/s: more than benchmarks.replies shows with warm caches
    withstands_malicious_clients=True,
)
"""The least delay: one row, or a few."""
