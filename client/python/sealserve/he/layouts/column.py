"""The column layout: which coefficient holds which row's feature and score. Pure NumPy.

Ciphertext j holds feature j of up to N rows: row r in coefficient r. The scores of class k are the
sum over j of W[k, j] * ciphertext j. These are scalars times polynomials, so that no coefficient
meets another: the score of row r comes out in coefficient r. Nothing is encoded or
transformed, and t need not be prime. For each class, the reply to a batch has as many coefficients
of c0 as the batch has rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts.base import Layout, parameter_sets
from sealserve.he.parameters import Scheme


@dataclass(frozen=True)
class ColumnPacking:
    """The coefficients that hold features, rows and scores.

    Attributes:
        poly_modulus_degree: N.
        feature_count, score_count: the model's shape.
        classes: classes that share a polynomial of the reply: 1.
    """

    poly_modulus_degree: int
    feature_count: int
    score_count: int
    classes: int = 1

    def __post_init__(self) -> None:
        if self.classes != 1:
            raise ValueError(f"in columns a polynomial holds one class, not {self.classes}")

    @cached_property
    def rows(self) -> int:
        """Rows in a full item: N."""
        return self.poly_modulus_degree

    @cached_property
    def ciphertexts(self) -> int:
        """Ciphertexts of an item, whatever its number of rows."""
        return self.feature_count

    @cached_property
    def polynomials(self) -> int:
        """Polynomial pairs of a reply."""
        return self.score_count

    def pack_rows(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint64]]:
        """Yield a plaintext (N,) for each feature of rows (1..N, feature_count), integers >= 0."""
        for values in rows.T:
            plaintext = np.zeros(self.poly_modulus_degree, np.uint64)
            plaintext[: len(rows)] = values
            yield plaintext

    def classes_in(self, polynomial: int) -> range:
        """Return the one class of a polynomial pair."""
        return range(polynomial, polynomial + 1)

    def places(self, row_count: int, class_count: int) -> NDArray[np.intp]:
        """Return the coefficients that hold scores, (row_count, 1), ascending; class_count is 1."""
        return np.arange(row_count, dtype=np.intp)[:, None]


COLUMN = Layout(
    name="column",
    scheme=Scheme.BFV,
    packing=ColumnPacking,
    open_parameter_sets=parameter_sets("column", "2048-44", "2048-54", "4096-60", "4096-92"),
    private_parameter_sets=parameter_sets("column", "4096-92", "8192-120", "8192-180"),
    default_rows_per_item=None,
    seeding_seconds_a_byte=16e-9,  # below 0.5 Gbit/s: a batch is encrypted while it is sent
    packing_seconds_a_byte=4e-9,  # below 2 Gbit/s: more than benchmarks.replies shows with warm caches
)
"""The most rows a second: batches."""
