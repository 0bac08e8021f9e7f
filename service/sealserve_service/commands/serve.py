"""`sealserve serve`: the service."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sealserve.cli.command import Command
from sealserve.errors import InputError
from sealserve_service.commands.options import (
    ModelFile,
    add_model_options,
    add_weights_options,
    hiding_bits,
    model_file,
    positive,
    source,
)
from sealserve_service.settings import DEFAULT_ADDRESS, ModelFolder, ModelSource, Settings, from_environment
from sealserve_service.tenants.quota import Quota

_PER_MODEL = ("input_range", "input_step", "calibration", "max_score_error")


def configure(parser: ArgumentParser) -> None:
    """Add the options; the environment gives some of their defaults."""
    parser.add_argument(
        "--model",
        type=model_file,
        action="append",
        default=[],
        metavar="[NAME=]PATH[@sha256:HEX]",
        help="a .skops, .npz or (with --trust-pickle) .pkl or .joblib file, the name to serve it under and the "
        "SHA-256 that it must have; repeatable. "
        "Without any, every model in the folder AZUREML_MODEL_DIR, where relative paths begin too if it is set",
    )
    add_model_options(parser, per_model=True)
    add_weights_options(parser)
    parser.add_argument(
        "--watch",
        action="store_true",
        help="follow the models' files as they change, not only on SIGHUP; one that cannot be loaded changes nothing",
    )
    parser.add_argument(
        "--address",
        default=DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help=f"where to listen; port 0 picks a free one (SEALSERVE_ADDRESS; {DEFAULT_ADDRESS})",
    )
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="serving processes on the port (SEALSERVE_PROCESSES; 1)"
    )
    parser.add_argument(
        "--tls-certificate",
        type=Path,
        metavar="FILE",
        help="PEM of the service's certificate and those between it and its authority; like the files below it may "
        "change while serving (SEALSERVE_TLS_CERTIFICATE)",
    )
    parser.add_argument(
        "--tls-private-key", type=Path, metavar="FILE", help="PEM of its private key (SEALSERVE_TLS_PRIVATE_KEY)"
    )
    parser.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="PEM of the authority of which every client has to have a certificate (SEALSERVE_TLS_CLIENT_CA)",
    )
    parser.add_argument(
        "--identities",
        type=Path,
        metavar="FILE",
        help="tenants, their tokens and what they may do: see `sealserve tokens` (SEALSERVE_IDENTITIES)",
    )
    parser.add_argument(
        "--insecure", action="store_true", help="serve plaintext, even where other machines can read it"
    )
    parser.add_argument(
        "--key-store",
        default="",
        metavar="PLACE",
        help="where registered keys are kept, for private weights and encrypted-inference clients: memory, none, a "
        "directory, https://ACCOUNT.blob.core.windows.net/CONTAINER with a managed identity, or azure:CONTAINER with "
        "SEALSERVE_KEY_STORE_CONNECTION_STRING (SEALSERVE_KEY_STORE; memory, with several processes none)",
    )
    parser.add_argument(
        "--key-days", type=positive, default=30.0, metavar="DAYS", help="how long a key is kept at most (%(default)g)"
    )
    parser.add_argument(
        "--ei-engine",
        choices=("seal", "eiserver", "none"),
        default="",
        help="what scores for encrypted-inference clients: SEAL 4.4, or their own EIServer, hundreds of times slower, "
        "or nothing. Replies to them hide no weights (seal; none with --weights private)",
    )
    quotas = parser.add_argument_group(
        "quotas of a tenant, in each process, unless the file of identities says otherwise"
    )
    quotas.add_argument("--rows-per-minute", type=positive, metavar="N", help="a minute's worth may come at once")
    quotas.add_argument("--requests-per-minute", type=positive, metavar="N", help="items of streams included")
    quotas.add_argument("--bytes-in-flight", type=positive, metavar="N", help="of ciphertexts that have no answer yet")
    quotas.add_argument("--key-bytes", type=positive, metavar="N", help="of registered keys, in all processes together")
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="how much to log on stderr (SEALSERVE_LOG_LEVEL; info)",
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="lines for people, or for programs: one JSON object each (SEALSERVE_LOG_FORMAT; text)",
    )
    parser.add_argument(
        "--metrics-address",
        default="",
        metavar="[HOST:]PORT",
        help="where to answer GET /metrics for Prometheus, in plain HTTP, on this machine unless another host is named "
        "(SEALSERVE_METRICS_ADDRESS; nowhere)",
    )
    parser.set_defaults(key_store_connection_string="", identity_client_id="", model_folder="")
    parser.set_defaults(**from_environment())


def run(arguments: Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C; load what has changed on SIGHUP."""
    from sealserve_service.catalog.sources import folder_sources
    from sealserve_service.process import supervisor

    if arguments.processes < 1:
        raise InputError("--processes is at least 1")
    folder = _folder(arguments)
    models = _named_models(arguments) if folder is None else folder_sources(folder)
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise InputError("two models have the same name: say --model NAME=PATH")
    _refuse_unknown_names(arguments, names)
    if (arguments.tls_certificate is None) != (arguments.tls_private_key is None):
        raise InputError("--tls-certificate and --tls-private-key go together")
    if arguments.tls_client_ca and not arguments.tls_certificate:
        raise InputError("--tls-client-ca needs --tls-certificate and --tls-private-key")
    if arguments.insecure and arguments.tls_certificate:
        raise InputError("--insecure means plaintext, --tls-certificate means TLS: choose one")
    return supervisor.run(
        Settings(
            address=arguments.address,
            tls_certificate=arguments.tls_certificate,
            tls_private_key=arguments.tls_private_key,
            tls_client_ca=arguments.tls_client_ca,
            identities=arguments.identities,
            insecure=arguments.insecure,
            processes=arguments.processes,
            log_level=arguments.log_level,
            log_format=arguments.log_format,
            metrics_address=_with_host(arguments.metrics_address),
            trust_pickle=arguments.trust_pickle,
            models=models,
            model_folder=folder,
            watch=arguments.watch,
            key_store=arguments.key_store,
            key_store_connection_string=arguments.key_store_connection_string,
            identity_client_id=arguments.identity_client_id,
            max_key_ttl_seconds=arguments.key_days * 86_400,
            hiding_bits=hiding_bits(arguments),
            ei_engine=arguments.ei_engine,
            quota=Quota(
                arguments.rows_per_minute, arguments.requests_per_minute, arguments.bytes_in_flight, arguments.key_bytes
            ),
        )
    )


def _with_host(address: str) -> str:
    """Return an address of metrics with the host that goes without saying."""
    return f"127.0.0.1:{address}" if address.isdecimal() else address


def _named_models(arguments: Namespace) -> tuple[ModelSource, ...]:
    """Return the models that are given.

    Raises:
        InputError: there are none.
    """
    if not arguments.model:
        raise InputError("no model to serve: name one with --model PATH, or a folder of them with AZUREML_MODEL_DIR")
    # An empty model_folder is the working directory.
    folder = Path(arguments.model_folder)
    return tuple(source(file._replace(path=folder / file.path), arguments) for file in arguments.model)


def _folder(arguments: Namespace) -> ModelFolder | None:
    """Return the folder whose models are served, unless models are given."""
    if arguments.model or not arguments.model_folder:
        return None
    path = Path(arguments.model_folder)
    named = {target for option in _PER_MODEL for target, _ in getattr(arguments, option) if target is not None}
    said = tuple(source(ModelFile(name, path), arguments) for name in named)
    return ModelFolder(path, said, source(ModelFile("", path), arguments))


def _refuse_unknown_names(arguments: Namespace, names: list[str]) -> None:
    for option in _PER_MODEL:
        for target, _ in getattr(arguments, option):
            if target is not None and target not in names:
                raise InputError(f"--{option.replace('_', '-')} names {target!r}, which no --model does")


COMMAND = Command(
    "serve",
    "serve models until stopped",
    "  sealserve serve --model mnist=mnist.pkl --trust-pickle --input-range 0,1\n"
    "  sealserve serve --model a=a.npz --model b=b.skops --input-range a=0,1 --calibration b=rows.npy",
    configure,
    run,
)
