"""The declarations of options: each once, with its type, default, help, variable and own check.

To add an option, declare it in its group. What it contradicts is checked in `Settings`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from sealserve_service.models.loading import SUFFIXES_IN_WORDS
from sealserve_service.planning.hiding import DEFAULT_HIDING_BITS
from sealserve_service.settings.values import (
    MAX_MESSAGE_BYTES,
    MAX_SECONDS,
    Bytes,
    Count,
    File,
    InputRange,
    Margin,
    ModelFile,
    Networks,
    PerModel,
    Pinned,
    Positive,
    ProcessCount,
    Publish,
    Seconds,
    lower_case,
    model_file,
    with_host,
)

AUTO: Literal["auto"] = "auto"
MODELS = "models"
SERVED = "how models are served"
CALLERS = "the address, and who may call"
KEYS = "registered keys, and encrypted-inference clients"
QUOTAS = "quotas of a tenant, in each process, unless the file of identities says otherwise"
LOG = "log, metrics and traces"
LIMITS = "limits, sizes and timeouts"


def _option(
    group: str, default: Any, text: str, metavar: str = "", *, unset: str = "", variable: str = "", **checks: Any
) -> Any:
    """Declare an option.

    Args:
        group: the heading that it belongs under.
        default: its value if it is not given.
        text: what it is for.
        metavar: the form of its value; "" for a choice or a switch.
        unset: what holds if it is not given, where the default does not tell.
        variable: its environment variable, if that is not SEALSERVE_ and the field's name.
        checks: pydantic's constraints of its value.
    """
    extra: dict[str, Any] = {"group": group, "metavar": metavar, "unset": unset, "variable": variable}
    return Field(default, description=text, json_schema_extra=extra, **checks)


class Declarations(BaseModel):
    """The options of the service, in the order of their groups."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    model: tuple[Annotated[ModelFile, BeforeValidator(model_file)], ...] = _option(
        MODELS,
        (),
        f"the file of a model ({SUFFIXES_IN_WORDS}), the name to serve it under and the SHA-256 that it must have; "
        "repeatable",
        "[NAME=]PATH[@sha256:HEX]",
        unset="every model in the model folder",
    )
    model_folder: File | None = _option(
        MODELS,
        None,
        "where relative paths of --model begin; without --model, every model in it is served",
        "DIRECTORY",
        variable="AZUREML_MODEL_DIR",
    )
    previous: tuple[Annotated[ModelFile, BeforeValidator(model_file)], ...] = _option(
        MODELS,
        (),
        "the file of the version of a model that other replicas still serve, while they are replaced one after the "
        "other; this service answers clients of either version. The previous one is served with the same options and "
        "in the same mode, and ends with its model; repeatable",
        "NAME=PATH[@sha256:HEX]",
    )
    keep_previous: float | None = _option(
        MODELS,
        None,
        "how long a previous version is served beside the new one: that of --previous after the start, and the one "
        "that is replaced after a reload. It takes the memory of a second model",
        "SECONDS",
        unset="3600 with --previous, otherwise 0",
        ge=0,
        le=MAX_SECONDS,
    )
    watch: bool = _option(
        MODELS,
        False,
        "follow the models' files as they change, not only on SIGHUP; one that cannot be loaded changes nothing",
    )

    trust_pickle: bool = _option(SERVED, False, "load pickles; loading a pickle runs code of its author")
    input_range: PerModel[InputRange] = _option(
        SERVED,
        (),
        "least and greatest value of every feature, or of every column of numbers from which clients compute features; "
        "for one model or for all",
        "[NAME=]LO,HI",
        unset="that of the calibration rows, or of the model's own scaler",
    )
    input_ranges: PerModel[File] = _option(
        SERVED,
        (),
        "CSV of ranges and grids of single features, with the heading name,min,max,step, and of groups of features "
        "that exclude each other, as the columns of a category do: their names under at_most_one or exactly_one; a "
        "value off a grid, and a row that breaks a group, is refused. Of a model with published steps it names columns "
        "of numbers, and a step is 1, for integers; for one model or for all",
        "[NAME=]FILE",
    )
    input_step: PerModel[Positive] = _option(
        SERVED,
        (),
        "distance between neighbours on the grid that all features are on; a value off it is refused; for one model "
        "or for all",
        "[NAME=]STEP",
        unset="steps that the planner chooses, and features may have any value",
    )
    input_margin: PerModel[Margin] = _option(
        SERVED,
        (),
        "how far ranges from calibration rows or a scaler are widened at each end, as a share of their width; for one "
        "model or for all",
        "[NAME=]SHARE",
        unset="0.5, except for features of 0 and 1, booleans and bytes",
    )
    calibration: PerModel[Pinned] = _option(
        SERVED,
        (),
        "rows that give each feature's range, and on which errors are observed: npy, npz, csv, tsv, jsonl or, with "
        "pyarrow, parquet or arrow; and the SHA-256 that their file must have; for one model or for all",
        "[NAME=]FILE[@sha256:HEX]",
    )
    max_score_error: PerModel[Positive] = _option(
        SERVED,
        (),
        "the largest proven score error that is acceptable, rounding of features included; a smaller one costs more; "
        "for one model or for all",
        "[NAME=]E",
        unset="the planner's choice",
    )
    publish: PerModel[Publish] = _option(
        SERVED,
        (),
        "publish the part of a model that clients compute. steps: what transformers have learnt, such as categories "
        "and means. structure: which features trees and additive models compare with which thresholds. Without it "
        "such a model is refused, with a list of what would be published; for one model or for all",
        "[NAME=]steps|structure,...",
    )
    accept_training_values: bool = _option(
        SERVED, False, "publish thresholds, quantiles and curves even if they tell of single training rows"
    )
    accept_disagreement: bool = _option(
        SERVED, False, "serve a model even if the verdict on its predictions is REFUSE: they are often not its own"
    )
    weights: Annotated[Literal["private", "open"], BeforeValidator(lower_case)] = _option(
        SERVED,
        "private",
        "what replies tell about the weights. private: nothing but the scores, to clients that keep to the protocol. "
        "open: all weights, to anyone who sees a request with its reply; faster, for models that are public",
    )
    hiding_bits: int = _option(
        SERVED,
        DEFAULT_HIDING_BITS,
        "a private reply is within 2^-N of one that depends on its scores only; costs N bits of the ciphertext "
        "modulus, half of them from the weights",
        "N",
        ge=1,
        le=128,
    )

    address: str = _option(
        CALLERS,
        "127.0.0.1:50051",
        "where to listen; port 0 picks a free one; a Unix socket is for this user only (mode 0600)",
        "HOST:PORT|unix:PATH",
    )
    processes: Annotated[ProcessCount | Literal["auto"], BeforeValidator(lower_case)] = _option(
        CALLERS,
        AUTO,
        "serving processes on the port; auto: one for each core that the container has, by CPU affinity and quota, if "
        "they share a key store or need none, and otherwise 1",
        "N|auto",
    )
    tls_certificate: File | None = _option(
        CALLERS,
        None,
        "PEM of the service's certificate and those between it and its authority; this file and those below may "
        "change while the service runs",
        "FILE",
    )
    tls_private_key: File | None = _option(CALLERS, None, "PEM of its private key", "FILE")
    tls_client_ca: File | None = _option(
        CALLERS, None, "PEM of an authority; every client must have a certificate that it signed", "FILE"
    )
    identities: File | None = _option(
        CALLERS,
        None,
        "tenants, their tokens and what they may do: see `sealserve tokens`",
        "FILE",
        unset="all callers are one tenant",
    )
    trusted_proxies: Networks = _option(
        CALLERS,
        (),
        "proxies in front of the service, which name the client in x-forwarded-for; callers who are no tenant are told "
        "apart by address; repeatable",
        "NETWORK,...",
        unset="none: the header is ignored",
    )
    insecure: bool = _option(CALLERS, False, "serve plaintext, even where other machines can read it")
    public_health: bool = _option(
        CALLERS,
        False,
        "answer gRPC's health check of the whole service (Check of the empty name) to anyone, without a token; probes "
        "of orchestrators and proxies have none",
    )
    replicas: Count = _option(
        CALLERS,
        1,
        "how many services like this one, each with keys of its own unless they share a key store, answer behind one "
        "name; with more than 1, keys in memory are refused where clients register keys",
        "N",
    )
    max_connection_age: float = _option(
        CALLERS,
        0.0,
        "how long a connection carries new calls, give or take a tenth, so that clients find new replicas; its streams "
        "end by then too, once their items are answered. What goes on may take as long again. 0 for no limit",
        "SECONDS",
        ge=0,
        le=MAX_SECONDS,
    )

    key_store: str = _option(
        KEYS,
        "",
        "where registered keys are kept, for private weights and encrypted-inference clients: memory, none, a "
        "directory such as ./keys, https://ACCOUNT.blob.core.windows.net/CONTAINER with a managed identity, or "
        "azure:CONTAINER with SEALSERVE_KEY_STORE_CONNECTION_STRING",
        "LOCATION",
        unset="memory, or none with several processes",
    )
    key_store_connection_string: SecretStr = _option(
        KEYS,
        SecretStr(""),
        "connection string of the Azure storage account, for a key store azure:CONTAINER; it has no flag, since every "
        "user of a machine can read the flags",
        "STRING",
    )
    identity_client_id: str = _option(
        KEYS,
        "",
        "client id of a user-assigned managed identity, for a key store that is a URL",
        "ID",
        unset="the system-assigned one",
        variable="AZURE_CLIENT_ID",
    )
    key_days: float = _option(KEYS, 30.0, "how long a key is kept at most", "DAYS", gt=0, le=36_500)
    ei_engine: Annotated[Literal["seal", "eiserver", "none"], BeforeValidator(lower_case)] | None = _option(
        KEYS,
        None,
        "what scores for encrypted-inference clients: seal, SEAL 4.4; eiserver, their own EIServer, hundreds of times "
        "slower; none, nothing. Replies to them hide no weights",
        unset="seal, or none with private weights",
    )

    rows_per_minute: Positive | None = _option(
        QUOTAS, None, "rows a minute; a minute's worth may come at once", "N", unset="no bound"
    )
    requests_per_minute: Positive | None = _option(
        QUOTAS,
        None,
        "requests a minute, items of streams included; a minute's worth may come at once",
        "N",
        unset="no bound",
    )
    bytes_in_flight: Positive | None = _option(
        QUOTAS, None, "bytes of ciphertexts that have no answer yet", "N", unset="no bound"
    )
    key_bytes: Positive | None = _option(
        QUOTAS, None, "bytes of registered keys, in all processes together", "N", unset="no bound"
    )

    waiting_calls: Count | None = _option(
        QUOTAS,
        None,
        "calls whose request has not arrived; where all callers are one tenant, of one address; also the next three",
        "N",
        unset="a quarter of --max-concurrent-calls",
    )
    open_streams: Count | None = _option(
        QUOTAS, None, "streams open at once", "N", unset="a quarter of --max-concurrent-calls"
    )
    concurrent_uploads: Count | None = _option(
        QUOTAS, None, "uploads of keys at once; all callers together have 8", "N", unset="2"
    )
    empty_calls_per_minute: Positive = _option(
        QUOTAS,
        120.0,
        "calls a minute that bring nothing: they end before their request has come, or as a stream without an item; a "
        "minute's worth may come at once. A caller that makes more is refused for up to a minute, and one that still "
        "goes on gets no answers",
        "N",
    )

    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower_case)] = _option(
        LOG, "info", "how much to log on stderr"
    )
    log_format: Annotated[Literal["text", "json"], BeforeValidator(lower_case)] = _option(
        LOG, "text", "lines for people, or for programs: one JSON object each"
    )
    metrics_address: Annotated[str, BeforeValidator(with_host)] = _option(
        LOG,
        "",
        "where to answer GET /metrics for Prometheus, in plain HTTP, on this machine unless another host is named",
        "[HOST:]PORT",
        unset="nowhere",
    )
    traces_exporter: Annotated[Literal["none", "otlp", "console"], BeforeValidator(lower_case)] = _option(
        LOG,
        "none",
        "where traces of calls go: otlp, to an OpenTelemetry collector; console, to stdout. OpenTelemetry's own "
        "variables (OTEL_...) say the rest; needs sealserve[tracing]",
        variable="OTEL_TRACES_EXPORTER",
    )

    max_message_bytes: int = _option(LIMITS, 2 << 20, "bytes of one message", "N", gt=0, le=MAX_MESSAGE_BYTES)
    max_open_items: int = _option(
        LIMITS, 256, "items that one stream has begun and not ended", "N", gt=0, le=(1 << 32) - 1
    )
    window_bytes: Bytes = _option(LIMITS, 8 << 20, "bytes of ciphertexts in flight on one stream", "N")
    max_key_bytes: Bytes = _option(LIMITS, 16 << 20, "bytes of one registered key", "N")
    key_memory_bytes: Bytes = _option(LIMITS, 200 << 20, "bytes of all keys, where they are kept in memory", "N")
    key_cache_bytes: Bytes = _option(
        LIMITS,
        200 << 20,
        "bytes of memory for keys that are ready for use, in each process; without keys it takes some 100 MB",
        "N",
    )
    ready_zeros: int = _option(
        LIMITS,
        64,
        "encryptions of zero that each process makes before private replies need them, while nothing is computed, for "
        "keys in use; a tenant has a quarter of them. They take at most 16 MiB. 0 for none: necessary where a process "
        "may be restored from a snapshot of its memory, since two replies with the same one tell the weights",
        "N",
        ge=0,
        le=10_000,
    )
    max_concurrent_calls: int = _option(
        LIMITS,
        256,
        "calls that one process serves at once, if its memory and the container's limit of threads (pids) allow it; "
        "more are refused. A process starts two threads for each, and up to 256 others: 720 by default",
        "N",
        gt=0,
        le=10_000,
    )
    max_wait: float = _option(
        LIMITS,
        0.1,
        "how long a row may wait for its turn; what would wait for longer is refused at once. The items of streams "
        "wait on, and hold back what comes after them",
        "SECONDS",
        ge=0,
        le=MAX_SECONDS,
    )
    item_timeout_seconds: Seconds = _option(
        LIMITS,
        60.0,
        "time from an item's header to its last chunk, or longer if the item is large",
        "SECONDS",
    )
    idle_timeout_seconds: float = _option(
        LIMITS,
        300.0,
        "how long a stream without open items may be silent; 0 for no limit",
        "SECONDS",
        ge=0,
        le=MAX_SECONDS,
    )
    handshake_timeout_seconds: Seconds = _option(
        LIMITS, 20.0, "how long a new connection may take until it can carry calls", "SECONDS"
    )
    lame_duck: float = _option(
        LIMITS,
        0.0,
        "how long calls are still served after SIGTERM, while health says NOT_SERVING: as long as balancers take to "
        "send no more calls",
        "SECONDS",
        ge=0,
        le=MAX_SECONDS,
    )
    grace_seconds: float = _option(
        LIMITS,
        20.0,
        "how long calls in flight may go on after that, while new ones are refused",
        "SECONDS",
        ge=0,
        le=MAX_SECONDS,
    )
    heartbeat_seconds: float = _option(
        LIMITS,
        30.0,
        "a serving process that has answered none of its own calls for so long ends, and another one replaces it, with "
        "--processes 1 whatever restarts the service; 0 for never",
        "SECONDS",
        ge=0,
        le=MAX_SECONDS,
    )
