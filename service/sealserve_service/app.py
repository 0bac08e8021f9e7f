"""The composition root: it makes models, keys, engines and a server from settings."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from sealserve.errors import InputError
from sealserve_service.allocator import return_free_memory
from sealserve_service.catalog.library import ModelLibrary
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.catalog.reloader import Reloader
from sealserve_service.catalog.sources import folder_sources, load_source
from sealserve_service.engines.ei.factory import ei_engine_factory
from sealserve_service.engines.offering import PrivateWeights
from sealserve_service.keys.registered_keys import RegisteredKeys
from sealserve_service.keys.stores.location import open_key_store
from sealserve_service.rpc.server import Server
from sealserve_service.settings import Settings
from sealserve_service.settings.model_source import ModelSource
from sealserve_service.telemetry.metrics import MetricsFiles, Telemetry
from sealserve_service.tenants.authenticator import Authenticator

if TYPE_CHECKING:
    from sealserve_service.telemetry.spans import Spans

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


def model_sources(settings: Settings) -> tuple[ModelSource, ...]:
    """List the models to serve: those that are named, or else those in the model folder now.

    Raises:
        InputError: there are none, or the folder cannot be read.
    """
    if settings.served_folder is not None:
        return folder_sources(settings.served_folder)
    if not settings.models:
        raise InputError(
            "no model to serve: name one with --model PATH, or a folder of them with "
            "--model-folder or AZUREML_MODEL_DIR"
        )
    return settings.models


@contextlib.contextmanager
def service(settings: Settings, metrics_files: MetricsFiles | None = None) -> Iterator[tuple[Server, Reloader]]:
    """Load the models, build the server, and follow the models' files; at the end free all of that.

    Args:
        settings: the service's.
        metrics_files: where to keep metrics; in memory without it.

    Raises:
        ModelError, PlanError: a model cannot be served.
        InputError: there is no model now, or the exporter of traces is not installed.
        KeyStoreSettingsError: the key store cannot be opened.
        UnusableFileError: the file of identities cannot be used.
    """
    if metrics_files is not None:
        metrics_files.use()
    telemetry = Telemetry(metrics_files.number if metrics_files else 0)
    with contextlib.ExitStack() as closing:
        spans = closing.enter_context(_spans(settings.traces_exporter))
        # A matrix product runs on one core. The others work on other batches meanwhile, and
        # BLAS's own threads would only spin.
        closing.enter_context(threadpool_limits(1, user_api="blas"))
        keys, limits, ei_engine, private = _keys(settings, telemetry), settings.limits, None, None
        if keys is None:
            limits = dataclasses.replace(limits, max_key_bytes=0)
        else:
            closing.callback(keys.close)
            ei_engine = closing.enter_context(ei_engine_factory(settings.served_ei_engine, keys))
            if settings.weights == "private":
                private = PrivateWeights(settings.hiding_bits, keys.zero_encryptor)
                if ei_engine is not None:
                    _logger.warning("replies to encrypted-inference clients hide no weights: see --ei-engine none")

        def load(source: ModelSource) -> ServedModel:
            loaded = load_source(
                source,
                trust_pickle=settings.trust_pickle,
                limits=limits,
                ei_engine=ei_engine,
                private=private,
                accept_disagreement=settings.accept_disagreement,
            )
            return_free_memory()  # planning a model takes several times the model's own memory
            return loaded

        if settings.previous and settings.weights == "open":
            _logger.warning(
                "%s: the weights of previous versions are open too, whatever they were before",
                settings.name_of("previous"),
            )
        library = ModelLibrary(
            lambda: model_sources(settings),
            load,
            telemetry,
            previous=settings.previous_models,
            keep_seconds=settings.keep_previous_seconds,
        )
        reloader = Reloader(library, _LOOK_SECONDS if settings.watch else None)
        closing.callback(reloader.close)
        yield build_server(settings, library.models, keys, telemetry, spans), reloader


def _spans(exporter: str) -> contextlib.AbstractContextManager["Spans | None"]:
    if exporter == "none":
        return contextlib.nullcontext()
    try:  # here, since a service without traces loads no OpenTelemetry, and need not have it
        from sealserve_service.telemetry.trace_export import exported_spans
    except ImportError as error:
        raise InputError("--traces-exporter: OpenTelemetry is not installed; the extra `tracing` brings it") from error
    return exported_spans(exporter)


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
        ready_zeros=settings.ready_zeros if settings.weights == "private" else 0,
    )


def build_server(
    settings: Settings,
    models: ModelRegistry,
    keys: RegisteredKeys | None = None,
    telemetry: Telemetry | None = None,
    spans: "Spans | None" = None,
) -> Server:
    """Build a server that does not listen yet.

    Args:
        settings: the service's.
        models: those that it serves.
        keys: the registered keys; without them it has no KeyService.
        telemetry: its metrics; without them it has its own.
        spans: makes the spans of its calls; without them it makes none.

    Raises:
        UnusableFileError: the file of identities cannot be used.
    """
    return Server(settings, models, keys, Authenticator(settings.identities), telemetry or Telemetry(), spans)
