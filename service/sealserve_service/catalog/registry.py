"""The models that are served: each made ready for its engines and described for its clients."""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sealserve.errors import ModelNotFoundError, PlanError
from sealserve.he.layouts import Layout
from sealserve.he.quantization import InputGrid
from sealserve.protocol import wire
from sealserve.protocol.model import Limits, Model, ObservedError
from sealserve.protocol.schema import Schema
from sealserve_service.engines.base import Engine
from sealserve_service.engines.linear.column import ColumnEngine
from sealserve_service.engines.linear.rerandomizer import ZeroEncryptorOf, no_keys
from sealserve_service.engines.linear.row import RowEngine
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.planning.planner import ColumnPlan, RowPlan, plan_column, plan_row
from sealserve_service.tenants.tenant import Tenant

_logger = logging.getLogger(__name__)

EngineFactory = Callable[[LinearModel, InputGrid], Engine]


class PrivateWeights(NamedTuple):
    """What mode private takes: lambda of `he.hiding`, and clients' public encryption keys."""

    hiding_bits: int
    keys: ZeroEncryptorOf


@dataclass(frozen=True)
class ServedModel:
    """A model with its public face and the engines behind its offers, in the order of the offers."""

    model: Model
    engines: tuple[Engine, ...]

    def engine(self, layout: Layout | None, parameter_set: str) -> Engine | None:
        """Return the engine of an offer, or None."""
        return self._engines.get((layout, parameter_set))

    @cached_property
    def _engines(self) -> dict[tuple[Layout | None, str], Engine]:
        return {(e.offer.layout, e.offer.parameters.parameter_set.name): e for e in self.engines}


class ModelRegistry:
    """Served models by name, which one thread may change while others look them up.

    A request looks its model up once and keeps what it has found; an old model is gone with its last request.
    """

    def __init__(self, models: Iterable[ServedModel]) -> None:
        # Never changed, only exchanged for another: who reads it takes it once.
        self._models = {served.model.name: served for served in sorted(models, key=lambda served: served.model.name)}

    def put(self, served: ServedModel) -> None:
        """Serve a model from now on, in place of the one of its name if there is one."""
        models = self._models | {served.model.name: served}
        self._models = dict(sorted(models.items()))

    def drop(self, name: str) -> None:
        """Serve the model of that name no longer."""
        self._models = {key: served for key, served in self._models.items() if key != name}

    def get(self, name: str, tenant: Tenant) -> ServedModel:
        """Return the model of that name; with an empty name the only model there is for the tenant.

        Raises:
            ModelNotFoundError: the tenant may use no such model.
        """
        if not name:
            of_tenant = list(itertools.islice(self.after("", tenant), 2))
            if len(of_tenant) == 1:
                return of_tenant[0]
        served = self._models.get(name)
        if served is None or not tenant.may_use(name):
            raise ModelNotFoundError(name)
        return served

    def engines(self) -> Iterator[Engine]:
        """Yield the engines of all models."""
        return itertools.chain.from_iterable(served.engines for served in self._models.values())

    def after(self, name: str, tenant: Tenant) -> Iterator[ServedModel]:
        """Yield the models that the tenant may use whose names come after the given one, in order."""
        return (served for key, served in self._models.items() if key > name and tenant.may_use(key))


def serve_model(
    name: str,
    model: LinearModel,
    grid: InputGrid,
    limits: Limits,
    *,
    max_score_error: float | None = None,
    calibration: NDArray[np.float64] | None = None,
    ei_engine: EngineFactory | None = None,
    private: PrivateWeights | None = None,
) -> ServedModel:
    """Plan a model, make it ready and describe it.

    `ei_engine` makes the engine for encrypted-inference clients; without it they are not served. Where the model is not
    fit for their layout, or for columns, the others are offered. With `private`, rows and columns are served in mode
    private; the EI layout is the same in either mode.

    Raises:
        PlanError: no parameter set serves it as asked.
    """
    hiding_bits, keys = private or (None, no_keys)
    planned = model.weights, model.intercept, grid
    plan = plan_row(*planned, max_score_error=max_score_error, hiding_bits=hiding_bits)

    def observed(plan: RowPlan | ColumnPlan) -> ObservedError | None:
        return None if calibration is None else observe(model, plan, grid, calibration)

    engines: list[Engine] = [RowEngine(plan, observed(plan), keys)]
    try:
        columns = plan_column(*planned, max_score_error=max_score_error, hiding_bits=hiding_bits)
        engines.append(ColumnEngine(columns, observed(columns), keys))
    except PlanError as error:
        _logger.warning("model %s is not served in columns: %s", name, error)
    if ei_engine is not None:
        try:
            engines.append(ei_engine(model, grid))
        except PlanError as error:
            _logger.warning("model %s is not served to encrypted-inference clients: %s", name, error)
    described = Model(
        name=name,
        version=_version(model),
        config_id="",
        schema=Schema(model.feature_count, model.feature_names),
        grid=grid,
        output=model.output,
        offers=tuple(engine.offer for engine in engines),
        limits=limits,
    )
    return ServedModel(dataclasses.replace(described, config_id=wire.config_digest(described)), tuple(engines))


def observe(
    model: LinearModel, plan: RowPlan | ColumnPlan, grid: InputGrid, rows: NDArray[np.float64]
) -> ObservedError:
    """Compare a plan's scores with the model's own on rows (rows, feature_count): what a client would see, exactly.

    Encryption changes nothing: the decrypted integers equal this plaintext arithmetic.
    """
    expected = model.decision(rows)
    scores = plan.model.scores(grid.quantize(rows))
    labels, expected_labels = model.output.predict(scores), model.output.predict(expected)
    agreement = float(np.mean(labels == expected_labels)) if model.output.classes else 0.0
    return ObservedError(float(np.abs(scores - expected).max()), len(rows), agreement)


def _version(model: LinearModel) -> str:
    digest = hashlib.sha256(model.weights.tobytes() + model.intercept.tobytes() + repr(model.output).encode())
    return digest.hexdigest()[:16]
