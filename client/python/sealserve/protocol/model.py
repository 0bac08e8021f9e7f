"""Models as clients see them. Each class mirrors the message of its name in model.proto."""

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import InputError, ParameterError, RequirementError
from sealserve.he.layouts import Layout
from sealserve.he.parameters import EncryptionParameters, Scheme
from sealserve.he.quantization import InputGrid
from sealserve.he.reply_bits import ReplyBits
from sealserve.protocol.html_table import html_table
from sealserve.protocol.item import ReplyForm
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.output import Output
from sealserve.protocol.refusal import refusal
from sealserve.protocol.schema import Schema
from sealserve.protocol.step_constraints import step_constraints
from sealserve.protocol.step_refusal import step_refusal
from sealserve.protocol.text import counted, feature_in_words, printable, printable_list
from sealserve.steps.program import Program
from sealserve.steps.step import ValueKind

__all__ = ["CiphertextForm", "Cost", "Limits", "Model", "ObservedError", "Offer", "Verdict"]

STEPS = "steps"
"""The capability to apply published steps."""

CAPABILITIES: frozenset[str] = frozenset({STEPS})
"""The capabilities of this version that a model may require. See Model.requires in model.proto."""

# In an error text, as a service may publish any.
_NAMED_REQUIREMENTS = 3
_NAME_CHARACTERS = 40
_SHOWN_NAMES = 8
_SHOWN_SOURCES = 3  # columns that an error names of a feature
_SEAL_HEADER_BYTES = 256  # at most, with its members


class CiphertextForm(Enum):
    """A form of ciphertexts that not every service takes. See CiphertextForm in model.proto."""

    PACKED = "packed"
    """Seeded, without headers, and packed to the bit."""


class Verdict(Enum):
    """The operator's word on whether predictions are the plaintext model's: from best to worst."""

    OK = "OK"
    """Labels differ on 0.05 % of the operator's rows at most, as far as 200 rows or more show.

    Of a regression: errors are at most 1 % of the spread of the scores.
    """
    UNCHECKED = "UNCHECKED"
    """The operator gave no rows. Errors are small against the spread that scores could have."""
    WARN = "WARN"
    """Labels differ on up to 1 % of the rows, or there are too few rows for OK.

    Or more than 0.1 % of rows like them are expected to be out of range.
    Of a regression: errors are up to 30 % of the spread of the scores.
    """
    REFUSE = "REFUSE"
    """More labels differ, or errors are greater; the operator serves the model regardless."""

    @property
    def rank(self) -> int:
        """The place of the word: that of the best is 0."""
        return list(Verdict).index(self)


@dataclass(frozen=True, kw_only=True)
class ObservedError:
    """The errors that the operator's calibration rows showed.

    With private weights only row_count and label_disagreement are published; the others are 0.

    Attributes:
        row_count: the number of rows.
        score_error: the largest absolute difference from the model's own score.
        rms_score_error: the root mean square of the difference, the greatest of all scores.
        label_disagreement: the share of rows with another label than the model's own, 0 to 1; 0
            without labels. With private weights it is rounded up, to 3 / row_count at least.
        expected_label_disagreement: the share to expect of other rows like these.
    """

    row_count: int
    score_error: float = 0.0
    rms_score_error: float = 0.0
    label_disagreement: float = 0.0
    expected_label_disagreement: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of a full item.

    Attributes:
        request_bytes: the length of its ciphertexts.
        reply_bytes: the length of its encrypted scores.
        server_seconds: the time that one core of the server takes.
        held_bytes: the memory that the server holds until the item ends. The item counts as much in
            the stream's window.
        key_bytes: the length of the key that must be registered first; 0 if none is needed.
    """

    request_bytes: int
    reply_bytes: int
    server_seconds: float
    held_bytes: int
    key_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One way to encrypt for a model.

    Attributes:
        layout: how rows, features and scores lie in the ciphertexts.
        parameters: encryption parameters.
        parms_id: SEAL's digest of the parameters, 32 bytes, as a fresh ciphertext carries it.
        private_weights: whether replies hide the weights.
        rows_per_item: rows in a full item.
        classes_per_polynomial: classes that share a polynomial pair of the reply.
        ciphertexts_per_item: ciphertexts of an item, whatever its number of rows.
        score_scale: s; an integer score divided by it is a score.
        score_centers: one integer a score; empty for CKKS.
        score_radii: one integer a score: no integer score of a row within the range is further from
            its centre; empty for CKKS.
        score_error_bound: the largest error of a score, for every row within the range, in its
            units. With private weights it is rounded up to two binary digits, and the next three
            are not published: they are 0.
        weight_rounding_error_bound: the part of it that rounding weights adds, for rows on the
            grid.
        input_rounding_error_bound: the part of it that rounding onto the grid adds.
        expected_score_error: the expected root mean square of the error, the greatest of all
            scores.
        observed_error: on the operator's calibration rows; None without such rows.
        cost: of a full item.
        required_key: the kind of key that must be registered; None if none is needed.
        verdict: on the predictions; None for CKKS, which is not judged.
        reply_bits: how replies are packed; None if they are not.
        ciphertext_forms: the forms of ciphertexts that the service takes beside SEAL's own, as far
            as this version knows them.
    """

    layout: Layout
    parameters: EncryptionParameters
    parms_id: bytes
    private_weights: bool
    rows_per_item: int
    classes_per_polynomial: int
    ciphertexts_per_item: int
    score_scale: float
    score_centers: tuple[int, ...]
    score_radii: tuple[int, ...]
    score_error_bound: float
    input_rounding_error_bound: float
    observed_error: ObservedError | None
    cost: Cost
    required_key: KeyKind | None = None
    weight_rounding_error_bound: float = 0.0
    expected_score_error: float = 0.0
    verdict: Verdict | None = None
    reply_bits: ReplyBits | None = None
    ciphertext_forms: frozenset[CiphertextForm] = frozenset()

    def __repr__(self) -> str:
        weights = "private" if self.private_weights else "open"
        name = printable(self.parameters.parameter_set.name)
        return f"Offer({name}, {weights} weights, {counted(self.rows_per_item, 'rows')} an item)"

    def _repr_html_(self) -> str:
        cost = self.cost
        rows = (
            ("layout", self.layout.name),
            ("parameter set", self.parameters.parameter_set.name),
            ("weights", "private" if self.private_weights else "open"),
            ("rows an item", f"{self.rows_per_item:,}"),
            ("score error at most", f"{self.score_error_bound:.3g}"),
            ("verdict", self.verdict.value if self.verdict else "none"),
            ("bytes up, down", f"{cost.request_bytes:,}, {cost.reply_bytes:,}"),
            ("server milliseconds", f"{1e3 * cost.server_seconds:.2f}"),
        )
        return html_table(repr(self), rows)

    @cached_property
    def reply_forms(self) -> tuple[ReplyForm, ...]:
        """The forms that its replies can have, the shortest first.

        A private reply has one only: if it is packed, its rounding is part of what hides the
        weights.
        """
        if self.parameters.scheme is Scheme.CKKS:
            return (ReplyForm.SEAL_CIPHERTEXT,)
        if self.reply_bits is None:
            return (ReplyForm.RESIDUES,)
        return (ReplyForm.PACKED,) if self.private_weights else (ReplyForm.PACKED, ReplyForm.RESIDUES)

    @cached_property
    def reply_bytes(self) -> dict[ReplyForm, int]:
        """The bytes of a full item's reply in each of `reply_forms`, in their order."""
        shortest, *others = self.reply_forms
        pieces = -(-len(self.score_centers) // self.classes_per_polynomial)
        return {shortest: self.cost.reply_bytes} | {form: pieces * self.max_piece_bytes(form) for form in others}

    def max_piece_bytes(self, form: ReplyForm) -> int:
        """Return the most bytes of a piece of a reply: two polynomials, or a SEAL object of two."""
        parameter_set, N = self.parameters.parameter_set, self.parameters.parameter_set.poly_modulus_degree
        if form is ReplyForm.SEAL_CIPHERTEXT:
            return 2 * parameter_set.polynomial_bytes + _SEAL_HEADER_BYTES
        places = self.rows_per_item * self.classes_per_polynomial
        if form is ReplyForm.PACKED and self.reply_bits is not None:
            return self.reply_bits.pair_bytes(places, N)
        return 8 * len(parameter_set.data_primes) * (places + N)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of what the server accepts from one client.

    Attributes:
        max_message_bytes: the largest message, and the longest reply to a unary call.
        max_open_items: open items a stream.
        item_timeout_seconds: how long the chunks of an item may take to arrive.
        window_bytes: how many bytes a stream's open items may count, see Cost.held_bytes.
        max_key_bytes: the longest key; 0 if the server takes no keys.
        suggested_connections: how many connections use all processes of the server.
        idle_timeout_seconds: how long a stream without open items may be silent; 0 for no limit.
    """

    max_message_bytes: int
    max_open_items: int
    item_timeout_seconds: float
    window_bytes: int
    max_key_bytes: int = 0
    suggested_connections: int = 1
    idle_timeout_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Model:
    """The public face of a model: all that a client needs, and nothing of its weights.

    Attributes:
        name: unique among the models that a service serves.
        version: a digest of the weights, for people.
        config_id: a digest of all that a client's numbers depend on.
        schema: the columns of the rows that a user hands in.
        grid: the input grid, of the features that are quantized and encrypted.
        output: the meaning of the scores.
        offers: the ways to encrypt, in the service's order of preference.
        limits: what the server accepts from one client.
        requires: the capabilities that a client needs for items of this model.
        steps_id: the SHA-256 of the serialized steps; "" if the columns are the features.
        steps_bytes: how many bytes they have.
        steps: what computes the features from the columns; None if there is nothing to compute, or
            a client has not asked for it yet.
    """

    name: str
    version: str
    config_id: str
    schema: Schema
    grid: InputGrid
    output: Output
    offers: tuple[Offer, ...]
    limits: Limits = field(repr=False)
    requires: tuple[str, ...] = ()
    steps_id: str = ""
    steps_bytes: int = 0
    steps: Program | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Model({printable(self.name)!r}, {', '.join(self._counts())})"

    def _counts(self) -> tuple[str, str, str]:
        """Say how many columns, classes or targets, and offers there are."""
        columns = counted(self.schema.column_count, "columns")
        return columns, self.output.outcomes_in_words, counted(len(self.offers), "offers")

    def _repr_html_(self) -> str:
        columns, outcomes, _ = self._counts()
        names = printable_list(self.schema.column_names, _SHOWN_NAMES)
        classes = printable_list(self.output.classes, _SHOWN_NAMES)
        rows = [
            ("version", self.version),
            ("task", self.output.task.value),
            ("columns", f"{columns}: {names}" if names else columns),
            ("predicts", f"{outcomes}: {classes}" if classes else outcomes),
            ("probabilities", self.output.link.value),
        ]
        rows += [(f"offer {number}", repr(offer)) for number, offer in enumerate(self.offers[:_SHOWN_NAMES])]
        return html_table(repr(self), rows)

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict of the offers; None if no offer has one."""
        verdicts = [offer.verdict for offer in self.offers if offer.verdict is not None]
        return max(verdicts, key=lambda verdict: verdict.rank, default=None)

    @property
    def unknown_requirements(self) -> tuple[str, ...]:
        """The required capabilities that this version does not have."""
        return tuple(name for name in self.requires if name not in CAPABILITIES)

    def check_requirements(self) -> None:
        """Check that this version has every capability that the model requires.

        Raises:
            RequirementError: it does not.
        """
        if unknown := self.unknown_requirements:
            named = ", ".join(repr(name[:_NAME_CHARACTERS]) for name in unknown[:_NAMED_REQUIREMENTS])
            raise RequirementError(f"model {self.name!r} requires {named}, which this version lacks: update sealserve")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features' columns; empty if they have none.

        Without published steps the features are the columns. What steps compute has no names.
        """
        return () if self.steps_id else self.schema.column_names

    def with_steps(self, steps: Program) -> "Model":
        """Return the model with the steps that its steps_id names.

        Raises:
            ParameterError: they do not fit its columns or its grid.
        """
        kinds = tuple(ValueKind.TEXT if column.kind.is_text else ValueKind.NUMBER for column in self.schema.columns)
        if tuple(steps.columns) != kinds or steps.feature_count != self.grid.feature_count:
            raise ParameterError(f"model {self.name!r}: its steps are of other columns or features than it describes")
        return dataclasses.replace(self, steps=steps, grid=_grid_of_steps(self.grid, steps))

    def features(self, rows: NDArray[Any], *, clip: bool = False) -> NDArray[np.float64]:
        """Compute features (rows, grid.feature_count) from rows (rows, schema.column_count).

        Without published steps the features are the columns. Features of a row that a column or a
        step refuses are NaN. What happens depends on the description and on the number of rows: but
        text takes time by its length.

        Raises:
            RequirementError: the model has steps that have not been fetched.
        """
        if not self.schema.columns:
            return rows
        if self.steps_id and self.steps is None:
            raise RequirementError(f"model {self.name!r} has steps, which this client does not fetch: use Client")
        is_refused = self.schema.is_refused(rows, clip=clip)
        if clip:
            rows = self.schema.clipped(rows)
        features = rows.astype(np.float64) if self.steps is None else self.steps.features(rows).values
        np.copyto(features, np.nan, where=is_refused[:, None])
        return features

    def refusal(self, rows: NDArray[Any], *, clip: bool = False) -> InputError:
        """Compose the error of rows (rows, schema.column_count), at least one of them refused."""
        moved = self.schema.clipped(rows) if clip and self.schema.columns else rows
        found = step_refusal(self.schema, self.steps, moved, clip=clip) if self.schema.columns else None
        words = None if self.steps is None else self._feature_in_words
        return found or refusal(self.grid, self.features(rows, clip=clip), self.feature_names, clip=clip, words=words)

    def _feature_in_words(self, feature: int) -> str:
        """Return a feature that steps compute, with the columns that it is computed from."""
        text = feature_in_words(feature)
        if self.steps is None:
            return text
        columns = self.steps.sources_of_feature(feature)
        named = ", ".join(map(self.schema.words, columns[:_SHOWN_SOURCES]))
        more = f" and {len(columns) - _SHOWN_SOURCES} more" if len(columns) > _SHOWN_SOURCES else ""
        return f"{text}, of {named}{more}," if named else text


def _grid_of_steps(grid: InputGrid, steps: Program) -> InputGrid:
    """Return the grid with the groups of its features, if all are indicators that steps compute.

    A description does not have these groups. Features that are 0 or 1 by construction need not be
    compared with ranges and grids.
    """
    is_unit = (grid.minimum == 0) & (grid.maximum == 1) & grid.keeps
    if not (grid.constraints.is_none and is_unit.all()):
        return grid
    if (indicators := steps.indicators()) is None:
        return grid
    constraints = step_constraints(indicators)
    if not (len(constraints.group) and constraints.group.all()):
        return grid
    return dataclasses.replace(grid, constraints=constraints)
