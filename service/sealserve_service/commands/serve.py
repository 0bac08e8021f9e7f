"""`sealserve serve`: the service."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from sealserve.cli.command import Command
from sealserve.errors import InputError
from sealserve_service.commands.options import add_model_options, model_path, positive, source
from sealserve_service.models.loading import MODEL_SUFFIXES
from sealserve_service.settings import DEFAULT_ADDRESS, Settings, from_environment


def configure(parser: ArgumentParser) -> None:
    """Add the options; the environment gives some of their defaults."""
    parser.add_argument(
        "--model",
        type=model_path,
        action="append",
        default=[],
        metavar="[NAME=]PATH",
        help="a .skops, .npz or (with --trust-pickle) .pkl or .joblib file and the name to serve it under; repeatable. "
        "Without any, every model in the folder AZUREML_MODEL_DIR, where relative paths begin too if it is set",
    )
    add_model_options(parser, per_model=True)
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
        help="where registered keys are kept, for encrypted-inference clients: memory, none, a directory, "
        "https://ACCOUNT.blob.core.windows.net/CONTAINER with a managed identity, or azure:CONTAINER with "
        "SEALSERVE_KEY_STORE_CONNECTION_STRING (SEALSERVE_KEY_STORE; memory, with several processes none)",
    )
    parser.add_argument(
        "--key-days", type=positive, default=30.0, metavar="DAYS", help="how long a key is kept at most (%(default)g)"
    )
    parser.add_argument(
        "--ei-engine",
        choices=("seal", "eiserver"),
        default="seal",
        help="what scores for encrypted-inference clients: SEAL 4.4, or their own EIServer, hundreds of times slower "
        "(%(default)s)",
    )
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
    """Serve until SIGTERM or Ctrl-C."""
    from sealserve_service import supervisor

    if arguments.processes < 1:
        raise InputError("--processes is at least 1")
    models = tuple(source(name, path, arguments) for name, path in _files(arguments))
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
            key_store=arguments.key_store,
            key_store_connection_string=arguments.key_store_connection_string,
            identity_client_id=arguments.identity_client_id,
            max_key_ttl_seconds=arguments.key_days * 86_400,
            ei_engine=arguments.ei_engine,
        )
    )


def _with_host(address: str) -> str:
    """Return an address of metrics with the host that goes without saying."""
    return f"127.0.0.1:{address}" if address.isdecimal() else address


def _files(arguments: Namespace) -> list[tuple[str, Path]]:
    """Return the names and paths of the models: those that are given, or all in the model folder.

    Raises:
        InputError: there are none.
    """
    folder = Path(arguments.model_folder) if arguments.model_folder else None
    if arguments.model:
        return [(name, path if folder is None else folder / path) for name, path in arguments.model]
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in MODEL_SUFFIXES) if folder else []
    if not files:
        raise InputError(
            f"no model to serve: {folder} holds no {', '.join(MODEL_SUFFIXES)} file"
            if folder
            else "no model to serve: name one with --model PATH, or a folder of them with AZUREML_MODEL_DIR"
        )
    return [(path.stem, path) for path in files]


def _refuse_unknown_names(arguments: Namespace, names: list[str]) -> None:
    for option in ("input_range", "input_step", "calibration", "max_score_error"):
        for target, _ in getattr(arguments, option):
            if target is not None and target not in names:
                raise InputError(f"--{option.replace('_', '-')} names {target!r}, which no --model does")


COMMAND = Command(
    "serve",
    "serve models until stopped",
    "  sealserve serve --model mnist=mnist.pkl --trust-pickle --input-range 0,1 --processes 2\n"
    "  sealserve serve --model a=a.npz --model b=b.skops --input-range a=0,1 --calibration b=rows.npy",
    configure,
    run,
)
