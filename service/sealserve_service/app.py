"""The composition root: settings in; models, keys, engines and a server out."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator

from threadpoolctl import threadpool_limits

from sealserve.he.quantization import InputGrid
from sealserve_service.allocator import give_back_what_is_free
from sealserve_service.catalog.library import ModelLibrary
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.sources import folder_sources, serve_source
from sealserve_service.catalog.watch import Watch
from sealserve_service.engines.ei.slots import EiSlotsEngine
from sealserve_service.engines.offering import EngineFactory, PrivateWeights
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.places import open_key_store
from sealserve_service.models.linear_model import LinearModel
from sealserve_service.rpc.server import Server
from sealserve_service.settings import ModelSource, Settings
from sealserve_service.telemetry.metrics import SharedPlace, Telemetry
from sealserve_service.tenants.authenticator import Authenticator

_logger = logging.getLogger(__name__)

_EISERVER_SECONDS_A_CLASS = 1.5
_LOOK_SECONDS = 1.0


@contextlib.contextmanager
def service(settings: Settings, place: SharedPlace | None = None) -> Iterator[tuple[Server, Watch]]:
    """Load what the settings name, build its server, keep its models; at the end give back what they have used.

    With a place, it leaves there what it counts.

    Raises:
        ModelError, PlanError: a model cannot be served.
        InputError: the folder of models holds none now.
        KeyStoreSettingsError: the keys' place cannot be used, or there is none and the weights are to be private.
        UnusableFileError: the file of identities cannot be used.
    """
    if place is not None:
        place.occupy()
    telemetry = Telemetry(place.number if place else 0)
    with contextlib.ExitStack() as closing:
        # A matrix product on one core: others work on other batches, and BLAS's own threads would spin meanwhile.
        closing.enter_context(threadpool_limits(1, user_api="blas"))
        keys, limits, ei_engine, private = _keys(settings, telemetry), settings.limits, None, None
        if keys is None:
            limits = dataclasses.replace(limits, max_key_bytes=0)
        else:
            closing.callback(keys.close)
            ei_engine = _ei_engine(settings, keys, closing)
            if settings.hiding_bits is not None:
                private = PrivateWeights(settings.hiding_bits, keys.zero_encryptor)
                if ei_engine is not None:
                    _logger.warning("replies to encrypted-inference clients hide no weights: see --ei-engine none")

        def served(source: ModelSource) -> ServedModel:
            trust = settings.trust_pickle
            loaded = serve_source(source, trust_pickle=trust, limits=limits, ei_engine=ei_engine, private=private)
            give_back_what_is_free()  # to plan a model takes several times what it is
            return loaded

        library = ModelLibrary(
            lambda: settings.models if settings.model_folder is None else folder_sources(settings.model_folder),
            served,
            telemetry,
        )
        watch = Watch(library, _LOOK_SECONDS if settings.watch else None)
        closing.callback(watch.close)
        yield build_server(settings, library.models, keys, telemetry), watch


def _keys(settings: Settings, telemetry: Telemetry) -> RegisteredKeys | None:
    store, uploads = open_key_store(settings)
    if store is None:
        return None
    return RegisteredKeys(
        store,
        uploads,
        max_key_bytes=settings.limits.max_key_bytes,
        max_ttl_seconds=settings.max_key_ttl_seconds,
        cache_bytes=settings.key_cache_bytes,
        quota=settings.quota,
        telemetry=telemetry,
    )


def _ei_engine(settings: Settings, keys: RegisteredKeys, closing: contextlib.ExitStack) -> EngineFactory | None:
    """Return what makes the EI engine of a model, if there is to be one."""

    def seal_engine(model: LinearModel, grid: InputGrid) -> EiSlotsEngine:
        return EiSlotsEngine(model.weights, model.intercept, grid, keys.galois_keys)

    chosen = settings.ei_engine or ("seal" if settings.hiding_bits is None else "none")
    if chosen == "none":
        return None
    if chosen == "seal":
        return seal_engine
    # Imported here: only who asks for it has encrypted-inference installed.
    from sealserve_service.engines.ei.eiserver import EIServerEngine
    from sealserve_service.engines.ei.eiserver_processes import EIServerProcesses

    processes = EIServerProcesses()
    closing.callback(processes.close)

    def reference_engine(model: LinearModel, grid: InputGrid) -> EIServerEngine:
        offer = seal_engine(model, grid).offer
        cost = dataclasses.replace(offer.cost, server_seconds=_EISERVER_SECONDS_A_CLASS * model.score_count)
        return EIServerEngine(
            model.weights, model.intercept, dataclasses.replace(offer, cost=cost), keys.read, processes
        )

    return reference_engine


def build_server(
    settings: Settings,
    models: ModelRegistry,
    keys: RegisteredKeys | None = None,
    telemetry: Telemetry | None = None,
) -> Server:
    """Build a server that listens nowhere yet; without keys it has no KeyService, without telemetry its own.

    Raises:
        UnusableFileError: the file of identities cannot be used.
        AddressError: it would serve plaintext where others can listen.
    """
    return Server(settings, models, keys, Authenticator(settings.identities), telemetry or Telemetry())
