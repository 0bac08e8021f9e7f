"""Registry of the served models, each with its engines and its description for clients."""

import dataclasses
import hashlib
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import ModelNotFoundError, ParameterError, PlanError, RequirementError
from sealserve.he.layouts import Layout
from sealserve.he.quantization import InputGrid
from sealserve.protocol import wire
from sealserve.protocol.column import Column
from sealserve.protocol.model import STEPS, Limits, Model, Verdict
from sealserve.protocol.schema import Schema
from sealserve.protocol.text import counted
from sealserve.steps.program import Program
from sealserve_service.engines import offering
from sealserve_service.engines.base import Engine
from sealserve_service.engines.ei.factory import EngineFactory
from sealserve_service.engines.linear.zero_encryptor import find_no_key
from sealserve_service.engines.offering import PlannedLayout, PrivateWeights
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.ranges import InputRanges
from sealserve_service.planning.verdict import Judge, Judgement, judge
from sealserve_service.tenants.tenant import Tenant

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedModel:
    """A model as clients see it, and the engines behind its offers, in the order of the offers.

    Attributes:
        model: the description.
        engines: one for each offer.
        steps: the serialized steps that the description names; b"" if it names none.
    """

    model: Model
    engines: tuple[Engine, ...]
    steps: bytes = field(default=b"", repr=False)

    def engine(self, layout: Layout | None, parameter_set: str) -> Engine | None:
        """Return the engine of an offer, or None."""
        return self._engines.get((layout, parameter_set))

    @property
    def is_private(self) -> bool:
        """Whether it is served in mode private."""
        return any(engine.offer.private_weights for engine in self.engines)

    def for_tenant(self, tenant: Tenant) -> "ServedModel":
        """What a tenant finds of the model."""
        return self if tenant.may_use_private_columns else self.without_private_columns

    @cached_property
    def without_private_columns(self) -> "ServedModel":
        """What a tenant finds of the model that may not use private columns.

        It has a config_id of its own. An item for a withdrawn offer is of a stale configuration;
        its client gets the model again and finds what is left.
        """
        offers = [engine.offer for engine in self.engines]
        stays = [not offer.private_weights or offer.layout.withstands_malicious_clients for offer in offers]
        if all(stays):
            return self
        engines = tuple(itertools.compress(self.engines, stays))
        described = dataclasses.replace(self.model, offers=tuple(itertools.compress(offers, stays)))
        return _identified(described, engines, self.steps)

    @cached_property
    def _engines(self) -> dict[tuple[Layout | None, str], Engine]:
        return {(e.offer.layout, e.offer.parameters.parameter_set.name): e for e in self.engines}


class Versions(NamedTuple):
    """The versions of a model that are served: the current one and, until a time, the previous one.

    The time is one of time.monotonic(). It means nothing if there is no previous version.
    """

    current: ServedModel
    previous: ServedModel | None = None
    previous_until: float = 0.0


class ModelRegistry:
    """Served models by name. One thread may change them while others look them up.

    A request looks its model up once and keeps what it has found: an old model is freed with its
    last request.

    Beside the current version of a model its previous version may be served for a while. It is
    found by its config_id only, by those who may use the model, and as long as the model is served.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        # The dictionary is never changed, only replaced: a reader takes it once.
        self._models = {
            served.model.name: Versions(served) for served in sorted(models, key=lambda served: served.model.name)
        }

    def put(self, served: ServedModel, previous: ServedModel | None = None, previous_seconds: float = 0.0) -> None:
        """Serve a model from now on, in place of the versions of the same name that there are.

        Args:
            served: the current version.
            previous: another version to serve too, unless clients see no difference. It is not
                served if its mode is another: a change of mode holds for all that is served.
            previous_seconds: how long to serve it.
        """
        name, versions = served.model.name, Versions(served)
        is_other = previous is not None and previous.model.config_id != served.model.config_id
        if previous is not None and is_other and previous.is_private == served.is_private:
            versions = Versions(served, previous, time.monotonic() + previous_seconds)
        self._models = dict(sorted((self._models | {name: versions}).items()))

    def drop(self, name: str) -> None:
        """Stop serving the model of that name, its previous version too."""
        self._models = {key: versions for key, versions in self._models.items() if key != name}

    def versions(self, name: str) -> Versions:
        """Return the versions of a model that is served."""
        return self._models[name]

    def get(self, name: str, tenant: Tenant, config_id: str = "") -> ServedModel:
        """Return the model of that name; for an empty name, the only model that the tenant may use.

        That is the previous version if config_id is its own, and otherwise the current version.

        Raises:
            ModelNotFoundError: there is no such model that the tenant may use.
        """
        models = self._models
        if not name and len(usable := list(itertools.islice(filter(tenant.may_use, models), 2))) == 1:
            (name,) = usable
        versions = models.get(name)
        if versions is None or not tenant.may_use(name):
            raise ModelNotFoundError(name)
        current = versions.current if tenant.may_use_private_columns else versions.current.without_private_columns
        if versions.previous is None or current.model.config_id == config_id:
            return current
        previous = versions.previous.for_tenant(tenant)
        is_asked_for = previous.model.config_id == config_id and time.monotonic() < versions.previous_until
        return previous if is_asked_for else current

    def engines(self) -> Iterator[Engine]:
        """Yield the engines of all models, those of previous versions too."""
        for current, previous, _ in self._models.values():
            yield from current.engines
            yield from previous.engines if previous else ()

    def after(self, name: str, tenant: Tenant) -> Iterator[ServedModel]:
        """Yield the models that the tenant may use, in order of names, after the given name."""
        return (
            versions.current.for_tenant(tenant)
            for key, versions in self._models.items()
            if key > name and tenant.may_use(key)
        )


def prepare_model(
    name: str,
    model: LinearModel,
    inputs: InputRanges | InputGrid,
    limits: Limits,
    *,
    max_score_error: float | None = None,
    calibration: NDArray[np.float64] | None = None,
    ei_engine: EngineFactory | None = None,
    private: PrivateWeights | None = None,
    accept_disagreement: bool = False,
    judged: Judge = judge,
) -> ServedModel:
    """Plan a model, make its engines and describe it. The log has the verdict and its reason.

    `inputs` are the ranges of its features; or its grid, where the steps are given.
    `ei_engine` makes the engine for encrypted-inference clients; without it they are not served. A
    layout that cannot take the model is left out, except the first of `LINEAR_ENGINES`. With
    `private`, the planned layouts are served in mode private; the EI layout is the same in either
    mode. `calibration` is typical rows, (rows, feature_count), by which the predictions are judged,
    and `judged` judges them.

    Raises:
        PlanError: no parameter set serves the model as asked, or clients would refuse its
            description, or the verdict is REFUSE and `accept_disagreement` is false.
        InputRangeError: a calibration row is out of range.
    """
    hiding_bits, keys = private or (None, find_no_key)
    judgements = dict[Layout, Judgement]()
    layouts = _noted(
        offering.plan_layouts(
            model,
            inputs,
            modes=(hiding_bits,),
            max_score_error=max_score_error,
            calibration=calibration,
            accept_disagreement=accept_disagreement,
            judged=judged,
        ),
        judgements,
    )
    first = next(layouts)
    if isinstance(first.chosen, PlanError):
        raise first.chosen
    grid, offered = first.chosen.grid, itertools.chain([first], layouts)
    del first  # as large as the model: it goes before the next layout is planned
    if model.published is not None:
        ei_engine = None  # its clients compute no steps
    engines = offering.engines(name, model, grid, offered, keys=keys, ei_engine=ei_engine)
    served = describe_model(name, model, grid, limits, engines)
    _log_model(served, judgements)
    return served


def _noted(offered: Iterable[PlannedLayout], judgements: dict[Layout, Judgement]) -> Iterator[PlannedLayout]:
    """Yield what is offered, and note each judgement: plans are freed one by one."""
    for planned in offered:
        if planned.judgement is not None:
            judgements[planned.engine_type.rules.layout] = planned.judgement
        yield planned
        del planned


def _log_model(served: ServedModel, judgements: dict[Layout, Judgement]) -> None:
    """Log a line: the model's size, its offers, and the worst verdict of their layouts."""
    model = served.model
    offers = ", ".join(f"{offer.layout.name} ({offer.parameters.parameter_set.name})" for offer in model.offers)
    layouts = {offer.layout for offer in model.offers}
    of_offers = [(layout, judgement) for layout, judgement in judgements.items() if layout in layouts]
    layout, worst = max(of_offers, key=lambda judged: judged[1].verdict.rank)
    _logger.log(
        logging.INFO if worst.verdict is Verdict.OK else logging.WARNING,
        "model %s: %s, %s; offers %s; in layout %s the verdict is %s",
        model.name,
        counted(model.schema.column_count, "columns"),
        model.output.outcomes_in_words,
        offers,
        layout.name,
        worst,
    )


def describe_model(
    name: str, model: LinearModel, grid: InputGrid, limits: Limits, engines: Iterable[Engine]
) -> ServedModel:
    """Describe a model with the engines that serve it, in the order of its offers.

    Raises:
        PlanError: clients would refuse the description, such as one with two columns of one name.
    """
    engines = tuple(engines)
    described = Model(
        name=name,
        version=_version(model),
        config_id="",
        schema=Schema(model.feature_count, model.feature_names if model.published is None else ()),
        grid=grid,
        output=model.output,
        offers=tuple(engine.offer for engine in engines),
        limits=limits,
    )
    _check_as_client(described)
    served = _identified(described, engines)
    if model.published is None:
        return served
    return publish_steps(served, model.published.columns, model.published.program)


def publish_steps(served: ServedModel, columns: Sequence[Column], steps: Program) -> ServedModel:
    """Serve a model of features with the steps that compute them from columns.

    Raises:
        PlanError: the steps do not fit the columns or the features, or clients would refuse them.
    """
    try:
        data, steps_id = wire.steps_to_bytes(steps)
        described = dataclasses.replace(
            served.model,
            schema=Schema.of(columns),
            requires=(*served.model.requires, STEPS),
            steps_id=steps_id,
            steps_bytes=len(data),
        ).with_steps(wire.steps_from_bytes(data))
    except (ParameterError, RequirementError) as error:
        raise PlanError(f"clients would refuse the steps: {error}") from error
    _check_as_client(described)
    return _identified(described, served.engines, data)


def _identified(described: Model, engines: tuple[Engine, ...], steps: bytes = b"") -> ServedModel:
    """Give a description its config_id."""
    return ServedModel(dataclasses.replace(described, config_id=wire.config_digest(described)), engines, steps)


def _check_as_client(model: Model) -> None:
    """Read a description as clients do, so that the operator learns what they would refuse."""
    try:
        wire.model_from_proto(wire.model_to_proto(model))
    except ParameterError as error:
        raise PlanError(f"clients would refuse its description: {error}") from error


def _version(model: LinearModel) -> str:
    digest = hashlib.sha256(model.weights.tobytes() + model.intercept.tobytes() + repr(model.output).encode())
    return digest.hexdigest()[:16]
