"""Attack: a caller uses the previous version of a model to keep what was taken from it.

A permission is withdrawn, a model is withdrawn, the mode of the weights is replaced, or the time of
the previous version is over. Its description, or its scores, would still be found under its
configuration id. Each attack succeeds against a registry that finds previous versions by their ids
alone (`CarelessRegistry`), and fails against the one of the product.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from sealserve._codec.codec import RowCodec
from sealserve._codec.offers import choose
from sealserve.credentials import Credentials
from sealserve.errors import ModelNotFoundError, ServiceError, StaleConfigError
from sealserve.he.layouts import LAYOUTS, Layout
from sealserve.v1 import model_pb2
from sealserve_service.catalog.library import ModelLibrary
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.sources import folder_sources, load_source
from sealserve_service.settings.model_source import ModelFolder, ModelSource
from sealserve_service.tenants.tenant import Tenant
from tests.support.identities import ALL, IdentitiesFile
from tests.support.raw import RawClient, as_message
from tests.support.serving import HANG_SECONDS, LIMITS, linear, registered_keys, running_server, served, with_limits
from tests.support.waiting import wait_until

SECONDS = 3600.0
ROW = np.array([[0.5, 0.25]])
KEYS = registered_keys()
OLD_WEIGHTS, NEW_WEIGHTS = [[1.0, 2.0]], [[2.0, 1.0]]
OPEN_OLD, OPEN_NEW = (served("line", linear(weights)) for weights in (OLD_WEIGHTS, NEW_WEIGHTS))
PRIVATE_OLD, PRIVATE_NEW = (
    served("line", linear(weights), keys=KEYS, hiding_bits=20) for weights in (OLD_WEIGHTS, NEW_WEIGHTS)
)


class CarelessRegistry(ModelRegistry):
    """Serves each version under its configuration id, to anyone, for ever."""

    def __init__(self) -> None:
        super().__init__([])
        self._all: dict[str, ServedModel] = {}

    def put(self, served: ServedModel, previous: ServedModel | None = None, previous_seconds: float = 0.0) -> None:
        super().put(served, previous, previous_seconds)
        self._all |= {each.model.config_id: each for each in (served, previous) if each is not None}

    def get(self, name: str, tenant: Tenant, config_id: str = "") -> ServedModel:
        return self._all.get(config_id) or super().get(name, tenant)


both_registries = pytest.mark.parametrize(
    ("make", "is_careless"),
    [(lambda: ModelRegistry([]), False), (CarelessRegistry, True)],
    ids=["the product", "careless"],
)
Make = Callable[[], ModelRegistry]


class Attacker:
    """Asks for one configuration in every way: for its description, by a call and on a stream."""

    def __init__(self, raw: RawClient, model: ServedModel, layout: Layout | None = None) -> None:
        self.raw = raw
        self.model = model.model
        raw.codec = RowCodec(self.model, offer=choose(self.model, 1, layout))
        self.request = raw.request(ROW)

    def finds_description(self) -> bool:
        """Whether the service describes the configuration."""
        asked = model_pb2.GetModelRequest(model=self.model.name, config_id=self.model.config_id)
        try:
            described = self.raw.models.GetModel(asked, timeout=HANG_SECONDS).model
        except grpc.RpcError as error:
            is_not_found: bool = error.code() is grpc.StatusCode.NOT_FOUND
            if not is_not_found:
                raise
            return False
        return bool(described.config_id == self.model.config_id)

    def refusals(self) -> list[ServiceError | None]:
        """What becomes of an item of a call, and of one of a stream; None: it was scored."""
        found: list[ServiceError | None] = []
        try:
            self.raw.predict(self.request)
        except ServiceError as error:
            found.append(error)
        else:
            found.append(None)
        answer = self.raw.stream([as_message(1, self.request)])[1]
        return [*found, answer if isinstance(answer, ServiceError) else None]


def check(attacker: Attacker, *, succeeds: bool, error: type[ServiceError]) -> None:
    """Check that the attacker finds the version or, in each way, gets the error."""
    assert attacker.finds_description() == succeeds
    refusals = attacker.refusals()
    if succeeds:
        assert refusals == [None, None]
    else:
        assert [type(refusal) for refusal in refusals] == [error, error]


@both_registries
def test_a_previous_version_is_served_until_its_time_is_over(make: Make, is_careless: bool) -> None:
    """Also where nothing has ended it yet: the thread that does so may be loading a model."""
    registry = make()
    registry.put(OPEN_NEW, OPEN_OLD, SECONDS)
    with running_server(registry) as address, RawClient(address) as raw:
        attacker = Attacker(raw, OPEN_OLD)
        check(attacker, succeeds=True, error=StaleConfigError)
        registry.put(OPEN_NEW, OPEN_OLD, 0.05)
        time.sleep(0.1)
        check(attacker, succeeds=is_careless, error=StaleConfigError)


@both_registries
def test_a_model_that_is_withdrawn_ends_in_both_versions(make: Make, is_careless: bool) -> None:
    registry = make()
    registry.put(OPEN_NEW, OPEN_OLD, SECONDS)
    with running_server(registry) as address, RawClient(address) as raw:
        attacker = Attacker(raw, OPEN_OLD)
        check(attacker, succeeds=True, error=ModelNotFoundError)
        with raw.conversation() as conversation:
            conversation.send(as_message(1, attacker.request))
            assert not isinstance(next(conversation.answers)[1], ServiceError)
            registry.drop("line")
            conversation.send(as_message(2, attacker.request))
            assert isinstance(next(conversation.answers)[1], ServiceError) != is_careless
        check(attacker, succeeds=is_careless, error=ModelNotFoundError)
        registry.put(OPEN_NEW)
        check(attacker, succeeds=is_careless, error=StaleConfigError)


@both_registries
def test_a_tenant_that_loses_a_model_loses_both_versions(make: Make, is_careless: bool, tmp_path: Path) -> None:
    registry = make()
    registry.put(OPEN_NEW, OPEN_OLD, SECONDS)
    file = IdentitiesFile(tmp_path / "identities.toml", clinic=ALL)
    credentials = Credentials(token=file.token("clinic"))
    with (
        running_server(registry, with_limits(identities=file.path)) as address,
        RawClient(address, credentials=credentials) as raw,
    ):
        attacker = Attacker(raw, OPEN_OLD)
        check(attacker, succeeds=True, error=ModelNotFoundError)
        with raw.conversation() as conversation:
            conversation.send(as_message(1, attacker.request))
            assert not isinstance(next(conversation.answers)[1], ServiceError)
            file._tenants["clinic"] = ALL.replace('"*"', '"another"')
            file.write()
            time.sleep(1.5)  # what is revoked ends within a second
            conversation.send(as_message(2, attacker.request))
            assert isinstance(next(conversation.answers)[1], ServiceError) != is_careless
        check(attacker, succeeds=is_careless, error=ModelNotFoundError)


@both_registries
def test_private_columns_that_are_withdrawn_end_in_both_versions(make: Make, is_careless: bool) -> None:
    """The version is another one for such a tenant, without the offer."""
    registry = make()
    registry.put(PRIVATE_NEW, PRIVATE_OLD, SECONDS)
    column, stranger = LAYOUTS["column"], Tenant("stranger", may_use_private_columns=False)
    offer = choose(PRIVATE_OLD.model, 1, column)
    name = offer.parameters.parameter_set.name
    trusted = registry.get("line", Tenant("trusted"), PRIVATE_OLD.model.config_id)
    assert trusted.engine(column, name) is not None
    found = registry.get("line", stranger, PRIVATE_OLD.model.config_id)
    assert (found.engine(column, name) is not None) == is_careless
    if not is_careless:
        rest = PRIVATE_OLD.without_private_columns
        assert registry.get("line", stranger, rest.model.config_id) is rest, "its rows are served still"
        assert registry.get("line", Tenant("trusted"), rest.model.config_id).model.config_id != rest.model.config_id


@both_registries
@pytest.mark.parametrize(
    ("new", "old"),
    [(OPEN_NEW, PRIVATE_OLD), (PRIVATE_NEW, OPEN_OLD)],
    ids=["private, then open", "open, then private"],
)
def test_a_mode_that_is_replaced_is_not_served_on(
    make: Make, is_careless: bool, new: ServedModel, old: ServedModel
) -> None:
    registry = make()
    registry.put(old)
    registry.put(new, old, SECONDS)
    with running_server(registry, keys=KEYS) as address, RawClient(address) as raw:
        attacker = Attacker(raw, old)
        assert attacker.finds_description() == is_careless
        found = registry.get("line", Tenant("anyone"), old.model.config_id)
        assert (found is old) == is_careless
        if not is_careless:
            assert [type(refusal) for refusal in attacker.refusals()] == [StaleConfigError, StaleConfigError]
        assert registry.versions("line")[:2] == (new, None)


def test_only_who_knows_a_previous_version_finds_it() -> None:
    """No answer names it: a service that opens its weights does not show those of a version before.

    Its id is a digest of all that its description says, bounds and errors of its scores included.
    """
    registry = ModelRegistry([])
    registry.put(OPEN_NEW, OPEN_OLD, SECONDS)
    with running_server(registry) as address, RawClient(address) as raw:
        hidden = OPEN_OLD.model.config_id.encode()
        attacker = Attacker(raw, OPEN_NEW)
        for config_id in ("", "0", OPEN_NEW.model.config_id, PRIVATE_OLD.model.config_id):
            asked = model_pb2.GetModelRequest(model="line", config_id=config_id)
            assert hidden not in raw.models.GetModel(asked, timeout=HANG_SECONDS).SerializeToString()
            attacker.request.header.config_id = config_id
            for refusal in attacker.refusals():
                assert hidden.decode() not in f"{vars(refusal) if refusal else ''}"
        listed = raw.models.ListModels(model_pb2.ListModelsRequest(), timeout=HANG_SECONDS)
        assert hidden not in listed.SerializeToString()


# Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("line", "other"):
        write(tmp_path / f"{name}.npz", 1.0)
    return tmp_path


def write(path: Path, slope: float) -> None:
    np.savez(path, coef=np.array([slope, 1.0]), intercept=np.array(0.5))


def library_of(folder: Path, **options: Any) -> ModelLibrary:
    source = ModelFolder(folder, (), ModelSource("", Path(), input_range=(0.0, 1.0)))
    return ModelLibrary(
        lambda: folder_sources(source),
        lambda each: load_source(each, trust_pickle=False, limits=LIMITS),
        **options,
    )


@pytest.fixture
def library(folder: Path) -> Iterator[ModelLibrary]:
    return library_of(folder, keep_seconds=SECONDS)  # type: ignore[return-value]


def test_a_file_that_is_removed_ends_both_versions(library: ModelLibrary, folder: Path) -> None:
    old = library.models.versions("line")[0]
    write(folder / "line.npz", 2.0)
    library.reload()
    with running_server(library.models) as address, RawClient(address, "line") as raw:
        attacker = Attacker(raw, old)
        check(attacker, succeeds=True, error=ModelNotFoundError)
        (folder / "line.npz").unlink()
        library.reload()
        check(attacker, succeeds=False, error=ModelNotFoundError)
        write(folder / "line.npz", 3.0)
        library.reload()
        check(attacker, succeeds=False, error=StaleConfigError)
        assert library.models.versions("line")[1] is None, "it comes back without its past"


def test_a_revoked_token_ends_the_previous_version_too(tmp_path: Path) -> None:
    registry = ModelRegistry([])
    registry.put(OPEN_NEW, OPEN_OLD, SECONDS)
    file = IdentitiesFile(tmp_path / "identities.toml", clinic=ALL)
    credentials = Credentials(token=file.token("clinic"))
    with (
        running_server(registry, with_limits(identities=file.path)) as address,
        RawClient(address, credentials=credentials) as raw,
    ):
        attacker = Attacker(raw, OPEN_OLD)
        assert attacker.refusals() == [None, None]
        file.revoke_all()

        def is_refused() -> bool:
            try:
                raw.predict(attacker.request)
            except ServiceError:
                return True
            return False

        wait_until(is_refused)
