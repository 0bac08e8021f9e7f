"""Layout: how the features, rows and scores of an item lie in its ciphertexts.

A layout is one object that holds what the client, the planner and the wire need to know of it. Its
packing says which coefficient holds what; its engine, in the service, scores the items.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sealserve.he.packed_polynomial import COEFFICIENTS_A_CALL
from sealserve.he.parameters import RINGS, ParameterSet, Scheme


class Packing(Protocol):
    """The coefficients of an item's polynomials that hold features, rows and scores."""

    @property
    def poly_modulus_degree(self) -> int:
        """N, the number of coefficients of a polynomial."""

    @property
    def feature_count(self) -> int:
        """Features of a row."""

    @property
    def score_count(self) -> int:
        """Scores of a row."""

    @property
    def classes(self) -> int:
        """Classes that share a polynomial of the reply."""

    @property
    def rows(self) -> int:
        """Rows in a full item."""

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of an item, whatever its number of rows."""

    @property
    def polynomials(self) -> int:
        """Polynomial pairs of a reply."""

    def pack_rows(self, rows: NDArray[np.int64]) -> Iterable[NDArray[np.uint64]]:
        """Lay rows (1..rows, feature_count) of non-negative integers into plaintexts, each (N,)."""

    def classes_in(self, polynomial: int) -> range:
        """Return the classes that share a polynomial pair of the reply."""

    def places(self, row_count: int, class_count: int) -> NDArray[np.intp]:
        """Return the coefficients that hold scores, (row_count, class_count), ascending."""


def polynomial_groups(packing: Packing) -> list[range]:
    """Return the polynomials of a reply in groups of consecutive ones, to pack or unpack at once.

    Those of a group have equally many classes. Only the last polynomial of a reply can have fewer.
    """
    most = max(1, COEFFICIENTS_A_CALL // packing.poly_modulus_degree)
    full = packing.score_count // packing.classes
    groups = [range(first, min(first + most, full)) for first in range(0, full, most)]
    return groups if full == packing.polynomials else [*groups, range(full, packing.polynomials)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Layout:
    """A way to lay out an item. Layouts are compared by identity: each is one entry of `LAYOUTS`.

    Attributes:
        name: on the command line, in labels of metrics and, as LAYOUT_NAME, in parameters.proto.
        scheme: the encryption scheme of its ciphertexts.
        packing: makes a packing of (N, feature_count, score_count, classes a polynomial), or raises
            ValueError if they do not fit. None if `Client` does not encrypt for the layout.
        open_parameter_sets: the sets for open weights, in ascending order of cost.
        private_parameter_sets: the sets for private weights, which have room for the noise that
            hides them, in ascending order of cost.
        default_rows_per_item: how many rows a stream puts into an item, unless its caller says;
            None for as many as the offer takes.
        seeding_seconds_a_byte: the time that seeding takes at both ends for each byte that it
            saves. Uploads are seeded where a byte takes longer on its way, unless the caller says.
        packing_seconds_a_byte: the same of replies, which are packed where a byte takes longer.
        withstands_malicious_clients: whether private weights stay hidden from clients that do not
            keep to the protocol, too. To that end an item may hold fewer rows than fit.
    """

    name: str
    scheme: Scheme
    packing: Callable[[int, int, int, int], Packing] | None = None
    open_parameter_sets: tuple[ParameterSet, ...] = ()
    private_parameter_sets: tuple[ParameterSet, ...] = ()
    default_rows_per_item: int | None = 1
    seeding_seconds_a_byte: float = math.inf
    packing_seconds_a_byte: float = math.inf
    withstands_malicious_clients: bool = False

    def __repr__(self) -> str:
        return f"<Layout {self.name}>"


def parameter_sets(layout_name: str, *ring_names: str) -> tuple[ParameterSet, ...]:
    """Return the parameter sets of a layout, on rings of `RINGS`.

    One secret key serves all layouts that share a ring.
    """
    return tuple(ParameterSet(f"{layout_name}-{name}", *RINGS[name]) for name in ring_names)
