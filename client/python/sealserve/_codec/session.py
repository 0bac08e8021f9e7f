"""What a client knows between its calls: the model, its keys, and what encrypts for them. No I/O."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sealserve._codec.batches import Batch, Gatherer, Result, Scored
from sealserve._codec.codec import Exchange
from sealserve._codec.encryptor_pool import EncryptorPool
from sealserve._codec.offers import choose
from sealserve.errors import InputError, SealserveError, StaleConfigError
from sealserve.he.layouts import LAYOUTS, Layout
from sealserve.protocol.model import Model
from sealserve.secret_key import SecretKey

Method = Literal["predict", "decision_function", "predict_proba"]

AUTO = "auto"
LAYOUT_CHOICES = (AUTO, *(name for name, layout in LAYOUTS.items() if layout.packing is not None))
"""What `Client` takes as its layout."""


class Session:
    """A model and what encrypts for it.

    Args:
        layout: which to use.
        secret_key: the key to use; by default one is made for each ring on first use.
        clip: move features outside the model's range to its nearest end instead of refusing them.
        seeded: upload ciphertexts of half the size; None for those of single rows only.
        encrypt_processes: encrypt batches in so many processes beside this one.

    Threads may share a session; `model` is None until somebody has asked the service.

    Raises:
        InputError: there is no such layout, or number of processes.
    """

    def __init__(
        self,
        layout: str,
        secret_key: SecretKey | None,
        *,
        clip: bool,
        seeded: bool | None,
        encrypt_processes: int,
    ) -> None:
        if layout not in LAYOUT_CHOICES:
            raise InputError(f"layout {layout!r} is not one of {', '.join(LAYOUT_CHOICES)}")
        if encrypt_processes < 0:
            raise InputError("encrypt_processes is at least 0")
        self._seeded = seeded
        self._encryptors = EncryptorPool(encrypt_processes) if encrypt_processes else None
        self.clip = clip
        self._layout = LAYOUTS.get(layout)
        self._given_key = secret_key
        self._secret_keys = [] if secret_key is None else [secret_key]  # one a ring
        self._lock = threading.RLock()
        self._model: Model | None = None
        self._exchanges: dict[Layout, Exchange] = {}
        self._registered = set[bytes]()  # public encryption keys

    def close(self) -> None:
        """End the processes that encrypt."""
        if self._encryptors:
            self._encryptors.close()

    @property
    def known_model(self) -> Model | None:
        """What the service has said of the model, if it has been asked."""
        return self._model

    @property
    def model(self) -> Model:
        """What the service has said of the model, which somebody has asked by now."""
        if self._model is None:
            raise AssertionError("the model is not known yet")
        return self._model

    def learn(self, model: Model) -> None:
        """Take to heart what the service says; secret keys stay as long as an offer can use them."""
        with self._lock:
            self._model = model
            self._exchanges.clear()

    def exchange(self, row_count: int) -> Exchange:
        """Return what encrypts and decrypts so many rows.

        Raises:
            ParameterError, SecretKeyError: the model has no offer for them.
        """
        with self._lock:
            offer = choose(self.model, row_count, self._layout, secret_key=self._given_key)
            if (exchange := self._exchanges.get(offer.layout)) is None:
                key = next((key for key in self._secret_keys if key.fits(offer.parameters.parameter_set)), None)
                seeded = offer.layout.seeded_by_default if self._seeded is None else self._seeded
                exchange = Exchange(self.model, key, offer=offer, seeded=seeded, encryptors=self._encryptors)
                self._exchanges[offer.layout] = exchange
                if key is None:
                    self._secret_keys.append(exchange.secret_key)
            return exchange

    def lacks_key(self, exchange: Exchange) -> bool:
        """Whether an exchange needs a public encryption key registered that has not been yet."""
        return bool(exchange.public_key) and exchange.public_key not in self._registered

    def key_is_registered(self, exchange: Exchange) -> None:
        """Take to heart that the key of an exchange has been registered."""
        self._registered.add(exchange.public_key)

    def gatherer(self, rows_per_item: int | None = None, *, first_index: int = 0) -> Gatherer:
        """Return what makes batches of rows: as many in each as the offer for them takes, or fewer if so asked."""
        return Gatherer(self.exchange, rows_per_item, clip=self.clip, first_index=first_index)

    def stream_gatherer(self, method: Method, rows_per_item: int | None) -> Gatherer:
        """Return what makes batches of a stream's rows.

        Raises:
            InputError: there is no such method, or too few rows an item.
            NoSuchMethodError: the model's estimator has no probabilities.
        """
        if rows_per_item is not None and rows_per_item < 1:
            raise InputError("rows_per_item is at least 1")
        if method not in get_args(Method):
            raise InputError(f"{method!r} is not predict, decision_function or predict_proba")
        if method == "predict_proba":
            self.model.output.check_probabilities()
        if rows_per_item is None:
            rows_per_item = self._layout.default_rows_per_item if self._layout else 1
        return self.gatherer(rows_per_item)

    def batches(self, rows: NDArray[np.float64]) -> list[Batch]:
        """Make the batches of all rows (rows, column_count), or of none.

        Raises:
            InputError: a row is refused.
        """
        exchange = self.exchange(len(rows))
        quantized, per_item = exchange.quantize(rows, clip=self.clip), exchange.offer.rows_per_item
        parts = (slice(start, start + per_item) for start in range(0, len(rows), per_item))
        return [Batch(part.start, rows[part], exchange, quantized[part]) for part in parts]

    def renewed(self, batch: Batch) -> Sequence[Batch]:
        """Quantize a batch anew for the model as it is now; rows may be refused by now, or take more items."""
        exchange = self.exchange(len(batch.rows))
        gatherer = Gatherer(lambda _: exchange, None, clip=self.clip, first_index=batch.first_index)
        return list(gatherer.batches(batch.rows))

    def joined(self, results: Iterable[Result]) -> Scored:
        """Put the scores of batches in order, once all have come.

        Raises:
            SealserveError: that of a batch.
            StaleConfigError: the model has changed half-way through.
        """
        scored = dict[int, Scored]()
        for batch, result in results:
            scored[batch.first_index] = whole(result)
        in_order = [scored[first] for first in sorted(scored)]
        output = in_order[0].output
        if any(result.output != output for result in in_order):
            raise StaleConfigError(self.model.config_id)
        return Scored(output, np.concatenate([result.scores for result in in_order]))


def whole(result: Scored | SealserveError) -> Scored:
    """Return scores, or raise the error that there is instead."""
    if isinstance(result, SealserveError):
        raise result
    return result


def predictions(method: Method, result: Result) -> Iterator[tuple[int, Any]]:
    """Yield (index, prediction or error) for each row of a batch."""
    batch, scored = result
    if isinstance(scored, SealserveError):
        yield from ((batch.first_index + place, scored) for place in range(len(batch.rows)))
    else:
        yield from enumerate(getattr(scored.output, method)(scored.scores), batch.first_index)
