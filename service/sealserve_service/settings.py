"""The settings of a service: frozen, from flags and environment. Nothing else reads the environment."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sealserve.protocol.model import Limits
from sealserve_service.planning.hiding import DEFAULT_HIDING_BITS
from sealserve_service.tenants.quota import Quota

DEFAULT_ADDRESS = "127.0.0.1:50051"


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from and what the operator says of it.

    Attributes:
        sha256: of the file, as lower-case hexadecimal digits; "" where nobody has said.
        input_range, input_step, calibration: at most what the model's own scaler does not tell.
        max_score_error: the wanted error bound; None leaves it to the planner.
    """

    name: str
    path: Path
    input_range: tuple[float, float] | None = None
    input_step: float | None = None
    calibration: Path | None = None
    max_score_error: float | None = None
    sha256: str = ""


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose model files, at any depth, are served under their names without the extension.

    Attributes:
        named: what the operator says of single models; the paths mean nothing.
        others: what he says of all others; name and path mean nothing.
    """

    path: Path
    named: tuple[ModelSource, ...]
    others: ModelSource

    def source(self, path: Path) -> ModelSource:
        """Say how to serve a file of the folder."""
        said = next((source for source in self.named if source.name == path.stem), self.others)
        return dataclasses.replace(said, name=path.stem, path=path)


@dataclass(frozen=True)
class Settings:
    """Everything that a serving process is told.

    Attributes:
        models: what to serve; of a model_folder, what was in it at the start.
        model_folder: serve what is in it, whatever was at the start.
        watch: load models when their files change, not only on SIGHUP.
        tls_certificate, tls_private_key: PEM files; both or neither.
        tls_client_ca: PEM; with it, a client has to have a certificate of this authority.
        identities: the file that says who may do what (`identities`); without it, all callers are one tenant.
        insecure: serve plaintext even where other machines can listen.
        log_format: of the lines on stderr: "text" or "json".
        metrics_address: where to answer GET /metrics, HOST:PORT; "" for nowhere.
        share_port: several processes listen on one port (SO_REUSEPORT).
        key_store: where registered keys are kept (`key_store.places`); "" for memory, or, with several
            processes, nowhere.
        key_store_connection_string: of the Azure storage account, for key stores named azure:CONTAINER.
        identity_client_id: of a user-assigned managed identity, for key stores named by a URL.
        key_memory_bytes: of all keys, where they are kept in memory.
        key_cache_bytes: of memory for keys that are ready for use.
        max_key_ttl_seconds: how long a key is kept at most.
        hiding_bits: of mode private, in which replies hide the weights (`planning.hiding`); None for mode open.
        ei_engine: what scores for encrypted-inference clients: "seal", "eiserver", the reference, or "none"; "" for
            seal in mode open, and none in mode private, for their replies hide no weights.
        handshake_timeout_seconds: how long a new connection may take until it can carry calls.
        grace_seconds: how long work in flight may go on after SIGTERM.
        max_concurrent_calls: calls that one process serves at once, if its memory allows; more are refused.
        quota: of tenants that have none of their own.
    """

    address: str = DEFAULT_ADDRESS
    processes: int = 1
    log_level: str = "info"
    log_format: str = "text"
    metrics_address: str = ""
    trust_pickle: bool = False
    models: tuple[ModelSource, ...] = ()
    model_folder: ModelFolder | None = None
    watch: bool = False
    tls_certificate: Path | None = None
    tls_private_key: Path | None = None
    tls_client_ca: Path | None = None
    identities: Path | None = None
    insecure: bool = False
    share_port: bool = False
    key_store: str = ""
    key_store_connection_string: str = field(default="", repr=False)
    identity_client_id: str = ""
    key_memory_bytes: int = 200 << 20
    key_cache_bytes: int = 200 << 20
    max_key_ttl_seconds: float = 30 * 86_400.0
    hiding_bits: int | None = DEFAULT_HIDING_BITS
    ei_engine: str = ""
    handshake_timeout_seconds: float = 20.0
    grace_seconds: float = 20.0
    max_concurrent_calls: int = 256
    quota: Quota = field(default_factory=Quota)
    limits: Limits = field(
        default_factory=lambda: Limits(
            max_message_bytes=2 << 20,
            max_open_items=256,
            item_timeout_seconds=60.0,
            window_bytes=8 << 20,
            max_key_bytes=16 << 20,
            idle_timeout_seconds=300.0,
        )
    )


# Variable -> the field of Settings; no flag has secrets, which every user of a machine can read there.
_VARIABLES = {
    "SEALSERVE_ADDRESS": "address",
    "SEALSERVE_PROCESSES": "processes",
    "SEALSERVE_LOG_LEVEL": "log_level",
    "SEALSERVE_LOG_FORMAT": "log_format",
    "SEALSERVE_METRICS_ADDRESS": "metrics_address",
    "SEALSERVE_TLS_CERTIFICATE": "tls_certificate",
    "SEALSERVE_TLS_PRIVATE_KEY": "tls_private_key",
    "SEALSERVE_TLS_CLIENT_CA": "tls_client_ca",
    "SEALSERVE_IDENTITIES": "identities",
    "SEALSERVE_KEY_STORE": "key_store",
    "SEALSERVE_KEY_STORE_CONNECTION_STRING": "key_store_connection_string",
    "AZURE_CLIENT_ID": "identity_client_id",
    "AZUREML_MODEL_DIR": "model_folder",
}


def from_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the values of fields that the environment sets, as texts, keyed by field."""
    return {field: environment[variable] for variable, field in _VARIABLES.items() if variable in environment}
