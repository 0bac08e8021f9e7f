"""Models: those that the agent serves, as the service lists them, with a client for each.

The service is asked only for models that it has listed itself. A caller may send any name, with
anything in it: names that are not in the list do not leave the machine.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from sealserve._rpc.cancellation import Cancellation
from sealserve.agent.coalescing import Coalescer
from sealserve.agent.rows import Rows
from sealserve.client import Client
from sealserve.errors import ModelNotFoundError, SealserveError
from sealserve.protocol.model import Model
from sealserve.protocol.output import Scored

LIST_SECONDS = 2.0
"""How long the service may take to list its models."""
FRESH_SECONDS = 1.0
"""How old a list may be that answers for a model's name, version or metadata."""


class ModelClient(Client):
    """A client of one model, whose calls end if their caller goes away.

    Attributes:
        coalescer: scores single rows.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.coalescer = Coalescer(self._score_each)

    def known_model(self, seconds: float, cancellation: Cancellation) -> Model:
        """Return the description of the model; only the first call asks for it."""
        return self._run(self._session.model(), seconds, cancellation)

    def score(self, rows: Rows, row_count: int, seconds: float, cancellation: Cancellation) -> Scored:
        """Score rows; a single one may share an item with those of other callers.

        Raises:
            SealserveError: what `Client.scored` raises, or that the caller has gone away.
        """
        if row_count == 1:
            deadline = time.monotonic() + seconds
            offer = self._run(self._session.codec_of_model(1), seconds, cancellation).offer
            if offer.rows_per_item > 1:
                return self.coalescer.score(rows, offer.rows_per_item, deadline, cancellation)
        scored: Any = self._run(self._session.scored(rows, "raise"), seconds, cancellation)
        return scored  # type: ignore[no-any-return]

    def _score_each(self, rows: Rows, seconds: float, cancellation: Cancellation) -> list[Any]:
        scored: Any = self._run(self._session.scored(rows, "return"), seconds, cancellation)
        return scored  # type: ignore[no-any-return]


class Models:
    """The models that the agent serves. Threads share it.

    Args:
        connect: makes the client of a model, by its name; "" is no model's, and only lists.
        wanted: the names of the models to serve; empty for all that the service lists.
    """

    def __init__(self, connect: Callable[[str], ModelClient], wanted: Iterable[str] = ()) -> None:
        self._connect = connect
        self._wanted = frozenset(wanted)
        self._lister = connect("")
        self._lock = threading.Lock()
        self._clients = dict[str, ModelClient]()
        self._listed: dict[str, Model] = {}
        self._list_error: SealserveError | None = None
        self._listed_at = float("-inf")

    def close(self) -> None:
        """Close the connections, and end the processes that encrypt."""
        for client in (self._lister, *self._clients.values()):
            client.close()

    def listed(self, *, max_age_seconds: float = 0.0) -> dict[str, Model]:
        """Return the descriptions of the models, without their steps, by name.

        Raises:
            SealserveError: the service refused, or did not answer within LIST_SECONDS.
        """
        came = time.monotonic()
        with self._lock:  # one thread asks; those that wait get its answer, or its error
            if self._listed_at < (came if self._list_error else came - max_age_seconds):
                self._ask()
            if self._list_error is not None:
                raise self._list_error
            return self._listed

    def _ask(self) -> None:
        try:
            models = {model.name: model for model in self._lister.models()}
        except SealserveError as error:
            self._list_error = error
        else:
            self._listed = {name: model for name, model in models.items() if self._serves(name)}
            self._list_error = None
        self._listed_at = time.monotonic()

    def find(self, name: str, version: str = "", *, max_age_seconds: float = FRESH_SECONDS) -> Model:
        """Return the description of a model, which is not older than that.

        Raises:
            ModelNotFoundError: the service does not list it, or not in this version.
            SealserveError: what `listed` raises.
        """
        listed = self.listed(max_age_seconds=max_age_seconds)
        model = listed.get(name)
        if model is None or version not in ("", model.version):
            raise _not_found(name, version, listed)
        return model

    def client(self, name: str) -> ModelClient:
        """Return the client of a model, which is made on first use.

        Raises:
            ModelNotFoundError: the service does not list it.
            SealserveError: what `listed` raises.
        """
        if (client := self._clients.get(name)) is not None:
            return client
        self.find(name)
        with self._lock:
            if name not in self._clients:
                self._clients[name] = self._connect(name)
            return self._clients[name]

    @property
    def are_ready(self) -> bool:
        """Whether the service lists all models that are to be served. The service is asked."""
        listed = self.listed()
        return self._wanted <= listed.keys() and bool(listed)

    def _serves(self, name: str) -> bool:
        return not self._wanted or name in self._wanted


def _not_found(name: str, version: str, listed: dict[str, Model]) -> ModelNotFoundError:
    error = ModelNotFoundError(f"{name}, version {version}" if name in listed else name)
    error.served = tuple(
        f"{each.name}, version {each.version}" if name in listed else each.name for each in listed.values()
    )
    return error


def version_of(client: Client, scored: Scored) -> str:
    """Return the version of the model that scores are of; "" if the client no longer knows."""
    return next((model.version for model in reversed(client.versions) if model.output is scored.output), "")
