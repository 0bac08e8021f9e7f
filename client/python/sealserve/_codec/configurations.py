"""Configurations: the descriptions of one model that a client knows, with the codecs for each.

While a service is updated, some of its replicas serve the old version of a model and some the new
one. A client that knows both needs no call to go from one to the other.
"""

from dataclasses import dataclass, field

from sealserve._codec.codec import RowCodec
from sealserve.he.layouts import Layout
from sealserve.protocol.item import ItemHeader, ReplyForm
from sealserve.protocol.model import Model

MAX_CONFIGURATIONS = 8
"""How many descriptions are known. A hostile service could name new ones without end."""
MAX_WITH_STEPS = 2
"""How many of them may have published steps, each of which may take hundreds of megabytes."""


@dataclass(frozen=True, eq=False)
class Configuration:
    """A description of the model, and the codecs that have been made for it.

    Attributes:
        model: the description.
        codecs: by their layouts, whether they are seeded, and the form of replies that they read.
        codecs_by_rows: by numbers of rows, and the time of a byte that they were chosen for.
    """

    model: Model
    codecs: dict[tuple[Layout, bool, ReplyForm], RowCodec] = field(default_factory=dict)
    codecs_by_rows: dict[tuple[int, float], RowCodec] = field(default_factory=dict)

    def reader_of(self, header: ItemHeader) -> RowCodec | None:
        """Return a codec that reads the reply to an item; None without one."""
        codecs = self.codecs.items()
        found = (codec for (layout, _, form), codec in codecs if layout is header.layout and form in header.reply_forms)
        return next(found, None)


class Configurations:
    """The configurations that a client knows, by their ids. One thread at a time may change them.

    Attributes:
        current: the one to encrypt for; None until the service has described the model.
    """

    def __init__(self) -> None:
        self.current: Configuration | None = None
        self._known: dict[str, Configuration] = {}  # in the order of their last use

    @property
    def models(self) -> tuple[Model, ...]:
        """The descriptions, in the order of their last use."""
        return tuple(known.model for known in self._known.values())

    def find(self, config_id: str) -> Configuration | None:
        """Return the configuration of an id; None if it is not known."""
        return self._known.get(config_id)

    def use(self, config_id: str) -> Configuration | None:
        """Make the configuration of an id the current one, and return it.

        Return None if it is not known; the current one stays then.
        """
        if (known := self._known.pop(config_id, None)) is not None:
            self.current = self._known[config_id] = known
        return known

    def add(self, model: Model) -> Configuration:
        """Make a description the current one, in place of the one that was used least recently.

        What is known of an id stays, with its codecs: an id names one description.
        """
        if (known := self.use(model.config_id)) is not None:
            return known
        with_steps = [config_id for config_id, known in self._known.items() if known.model.steps is not None]
        if model.steps is not None and len(with_steps) >= MAX_WITH_STEPS:
            del self._known[with_steps[0]]
        elif len(self._known) >= MAX_CONFIGURATIONS:
            del self._known[next(iter(self._known))]
        self.current = self._known[model.config_id] = Configuration(model)
        return self.current
