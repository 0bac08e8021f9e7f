"""A served model as clients see it; each class mirrors the message of the same name in model.proto."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sealserve.he.layouts import Layout
from sealserve.he.parameters import EncryptionParameters
from sealserve.he.quantization import InputGrid
from sealserve.protocol.key_record import KeyKind
from sealserve.protocol.output import Output
from sealserve.protocol.schema import Schema

__all__ = ["Cost", "Limits", "Model", "ObservedError", "Offer"]


@dataclass(frozen=True)
class ObservedError:
    """What was seen on the operator's rows."""

    score_error: float
    row_count: int
    label_agreement: float


@dataclass(frozen=True)
class Cost:
    """What a full item costs.

    Attributes:
        request_bytes, reply_bytes: of its ciphertexts, of its scores.
        server_seconds: of one core of the server.
        held_bytes: what the server holds of it until its end; what it counts as in the stream's window.
        key_bytes: of the key that the first item needs registered; 0 where none is needed.
    """

    request_bytes: int
    reply_bytes: int
    server_seconds: float
    held_bytes: int
    key_bytes: int = 0


@dataclass(frozen=True)
class Offer:
    """One way to encrypt for a model."""

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


@dataclass(frozen=True)
class Limits:
    """What the server accepts of one client.

    Attributes:
        max_key_bytes: 0 when it takes no keys.
        idle_timeout_seconds: how long a stream without open items may be silent; 0 for ever.
    """

    max_message_bytes: int
    max_open_items: int
    item_timeout_seconds: float
    window_bytes: int
    max_key_bytes: int = 0
    suggested_connections: int = 1
    idle_timeout_seconds: float = 0.0


@dataclass(frozen=True)
class Model:
    """The public face of a model: everything a client needs, nothing of its weights.

    Attributes:
        schema: the columns of the rows that a user hands in.
        grid: of the features that are quantized and encrypted.
    """

    name: str
    version: str
    config_id: str
    schema: Schema
    grid: InputGrid
    output: Output
    offers: tuple[Offer, ...]
    limits: Limits = field(repr=False)

    def features(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the features on the input grid, (rows, grid.feature_count), of rows (rows, schema.column_count).

        Without published steps the features are the columns.
        """
        return rows
