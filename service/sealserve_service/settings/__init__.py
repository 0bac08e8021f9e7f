"""The settings of a service: each option once, with its type, default, help, variable and check.

`options` lists them as flags and variables, and reads those; `values` parses what they say.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from sealserve.errors import InputError
from sealserve.protocol.address import host_of, is_loopback
from sealserve.protocol.model import Limits
from sealserve_service.models.loading import SUFFIXES_IN_WORDS
from sealserve_service.planning.hiding import DEFAULT_HIDING_BITS
from sealserve_service.settings.values import (
    AZURE_CONTAINER,
    MAX_MESSAGE_BYTES,
    MAX_SECONDS,
    AddressError,
    Bytes,
    File,
    InputRange,
    KeyStoreSettingsError,
    ModelFile,
    PerModel,
    Positive,
    Seconds,
    fault_of_key_store,
    input_error,
    lower_case,
    model_file,
    split_address,
    with_host,
)
from sealserve_service.tenants.quota import Quota

MODELS = "models"
SERVED = "how models are served"
CALLERS = "the address, and who may call"
KEYS = "registered keys, and encrypted-inference clients"
QUOTAS = "quotas of a tenant, in each process, unless the file of identities says otherwise"
LOG = "log and metrics"
LIMITS = "limits, sizes and timeouts"


@dataclass(frozen=True)
class ModelSource:
    """The file of a model, and what the operator says of the model.

    Attributes:
        sha256: of the file, as lower-case hexadecimal digits; "" where nobody has said.
        input_range, input_step, calibration: None leaves them to the model's own scaler.
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
        others: what the operator says of all others; name and path mean nothing.
    """

    path: Path
    named: tuple[ModelSource, ...]
    others: ModelSource

    def source(self, path: Path) -> ModelSource:
        """Say how to serve a file of the folder."""
        said = next((source for source in self.named if source.name == path.stem), self.others)
        return dataclasses.replace(said, name=path.stem, path=path)


def _option(
    group: str, default: Any, text: str, metavar: str = "", *, unset: str = "", variable: str = "", **checks: Any
) -> Any:
    """Declare an option.

    Args:
        group: the heading that it stands under.
        default: its value where nothing is said.
        text: what it is for.
        metavar: what its value is; "" for a choice or a switch.
        unset: what holds without it, where the default does not say that.
        variable: its environment variable, where that is not SEALSERVE_ and the field's name.
        checks: constraints of pydantic's.
    """
    extra: dict[str, Any] = {"group": group, "metavar": metavar, "unset": unset, "variable": variable}
    return Field(default, description=text, json_schema_extra=extra, **checks)


class Settings(BaseModel):
    """Everything that a serving process is told: checked, frozen, and picklable.

    Raises:
        OptionError: a value is malformed.
        InputError: values contradict each other.
        AddressError: an address is malformed, or would be served in plaintext where others can
            listen.
        KeyStoreSettingsError: the key store is misspelt, cannot be used by these processes, or is
            missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    PER_MODEL: ClassVar = ("input_range", "input_step", "calibration", "max_score_error")

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
    watch: bool = _option(
        MODELS,
        False,
        "follow the models' files as they change, not only on SIGHUP; one that cannot be loaded changes nothing",
    )

    trust_pickle: bool = _option(SERVED, False, "load pickles, which run code of whoever wrote them")
    input_range: PerModel[InputRange] = _option(
        SERVED,
        (),
        "least and greatest value of every feature; for one model or for all",
        "[NAME=]LO,HI",
        unset="that of the calibration rows, or of the model's own scaler",
    )
    input_step: PerModel[Positive] = _option(
        SERVED,
        (),
        "distance between neighbours on the features' grid; for one model or for all",
        "[NAME=]STEP",
        unset="1/255 of the range",
    )
    calibration: PerModel[File] = _option(
        SERVED,
        (),
        "rows that give each feature's range, and on which errors are observed; for one model or for all",
        "[NAME=]X.npy",
    )
    max_score_error: PerModel[Positive] = _option(
        SERVED,
        (),
        "the largest proven score error that will do; less costs more; for one model or for all",
        "[NAME=]E",
        unset="the planner's choice",
    )
    weights: Annotated[Literal["private", "open"], BeforeValidator(lower_case)] = _option(
        SERVED,
        "private",
        "what replies tell of the weights. private: nothing but the scores, to clients that keep to the protocol. "
        "open: all of them, to whoever sees a request with its reply; for public models and the last millisecond",
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

    address: str = _option(CALLERS, "127.0.0.1:50051", "where to listen; port 0 picks a free one", "HOST:PORT")
    processes: int = _option(CALLERS, 1, "serving processes on the port", "N", ge=1, le=1024)
    tls_certificate: File | None = _option(
        CALLERS,
        None,
        "PEM of the service's certificate and those between it and its authority; like the files below it may change "
        "while serving",
        "FILE",
    )
    tls_private_key: File | None = _option(CALLERS, None, "PEM of its private key", "FILE")
    tls_client_ca: File | None = _option(
        CALLERS, None, "PEM of the authority that every client must have a certificate of", "FILE"
    )
    identities: File | None = _option(
        CALLERS,
        None,
        "tenants, their tokens and what they may do: see `sealserve tokens`",
        "FILE",
        unset="all callers are one tenant",
    )
    insecure: bool = _option(CALLERS, False, "serve plaintext, even where other machines can read it")

    key_store: str = _option(
        KEYS,
        "",
        "where registered keys are kept, for private weights and encrypted-inference clients: memory, none, a "
        "directory such as ./keys, https://ACCOUNT.blob.core.windows.net/CONTAINER with a managed identity, or "
        "azure:CONTAINER with SEALSERVE_KEY_STORE_CONNECTION_STRING",
        "PLACE",
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
        "what scores for encrypted-inference clients: SEAL 4.4, or their own EIServer, hundreds of times slower, or "
        "nothing. Replies to them hide no weights",
        unset="seal, or none with private weights",
    )

    rows_per_minute: Positive | None = _option(
        QUOTAS, None, "rows a minute; a minute's worth may come at once", "N", unset="no bound"
    )
    requests_per_minute: Positive | None = _option(
        QUOTAS, None, "requests a minute, items of streams included; as with rows", "N", unset="no bound"
    )
    bytes_in_flight: Positive | None = _option(
        QUOTAS, None, "bytes of ciphertexts that have no answer yet", "N", unset="no bound"
    )
    key_bytes: Positive | None = _option(
        QUOTAS, None, "bytes of registered keys, in all processes together", "N", unset="no bound"
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

    max_message_bytes: int = _option(LIMITS, 2 << 20, "bytes of one message", "N", gt=0, le=MAX_MESSAGE_BYTES)
    max_open_items: int = _option(
        LIMITS, 256, "items that one stream has begun and not ended", "N", gt=0, le=(1 << 32) - 1
    )
    window_bytes: Bytes = _option(LIMITS, 8 << 20, "bytes of ciphertexts in flight on one stream", "N")
    max_key_bytes: Bytes = _option(LIMITS, 16 << 20, "bytes of one registered key", "N")
    key_memory_bytes: Bytes = _option(LIMITS, 200 << 20, "bytes of all keys, where they are kept in memory", "N")
    key_cache_bytes: Bytes = _option(LIMITS, 200 << 20, "bytes of memory for keys that are ready for use", "N")
    max_concurrent_calls: int = _option(
        LIMITS,
        256,
        "calls that one process serves at once, if its memory allows; more are refused",
        "N",
        gt=0,
        le=10_000,
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
        "how long a stream without open items may be silent; 0 for ever",
        "SECONDS",
        ge=0,
        le=MAX_SECONDS,
    )
    handshake_timeout_seconds: Seconds = _option(
        LIMITS, 20.0, "how long a new connection may take until it can carry calls", "SECONDS"
    )
    grace_seconds: float = _option(
        LIMITS, 20.0, "how long calls in flight may go on after SIGTERM", "SECONDS", ge=0, le=MAX_SECONDS
    )

    given_by: Mapping[str, str] = Field(default={}, repr=False)
    """Not an option: the flag or variable that gave an option, by the option's name."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            given_by = values.get("given_by", {})
            raise input_error(error, lambda option: _name_of(option, given_by)) from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_addresses()
        self._check_tls()
        self._check_models()
        self._check_key_store()
        return self

    def with_changes(self, **changes: Any) -> Self:
        """Return a copy with some options changed, checked again."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | changes)

    def name_of(self, option: str) -> str:
        """Return what an error calls an option: the variable that gave it, or else its flag."""
        return _name_of(option, self.given_by)

    @property
    def models(self) -> tuple[ModelSource, ...]:
        """The models that are named; where there are none, those of `served_folder` are served."""
        folder = self.model_folder or Path()
        return tuple(self.source(file.name, folder / file.path, file.sha256) for file in self.model)

    @property
    def served_folder(self) -> ModelFolder | None:
        """The folder whose models are served; None where models are named, or no folder is."""
        if self.model or self.model_folder is None:
            return None
        named = {name for option in self.PER_MODEL for name, _ in getattr(self, option) if name is not None}
        sources = tuple(self.source(name, self.model_folder) for name in sorted(named))
        return ModelFolder(self.model_folder, sources, self.source("", self.model_folder))

    def source(self, name: str, path: Path, sha256: str = "") -> ModelSource:
        """Gather what the options say of one model.

        A value for the model goes before one for all models; of several, the last counts.
        """
        said = {option: _chosen(getattr(self, option), name) for option in self.PER_MODEL}
        return ModelSource(name, path, sha256=sha256, **said)

    def check_names(self, names: Iterable[str]) -> None:
        """Check that options for single models name only models that there are.

        Raises:
            InputError: one does not.
        """
        known = set(names)
        for option in self.PER_MODEL:
            for name, _ in getattr(self, option):
                if name is not None and name not in known:
                    raise InputError(f"{self.name_of(option)} names {name!r}, but no model is served under that name")

    @property
    def max_key_ttl_seconds(self) -> float:
        """How long a key is kept at most."""
        return self.key_days * 86_400

    @property
    def quota(self) -> Quota:
        """The quota of tenants that have none of their own."""
        return Quota(self.rows_per_minute, self.requests_per_minute, self.bytes_in_flight, self.key_bytes)

    @property
    def limits(self) -> Limits:
        """What the service accepts of one client."""
        return Limits(
            max_message_bytes=self.max_message_bytes,
            max_open_items=self.max_open_items,
            item_timeout_seconds=self.item_timeout_seconds,
            window_bytes=self.window_bytes,
            max_key_bytes=self.max_key_bytes,
            suggested_connections=self.processes,
            idle_timeout_seconds=self.idle_timeout_seconds,
        )

    def _check_addresses(self) -> None:
        for option in ("address", "metrics_address"):
            if option == "address" or self.metrics_address:
                try:
                    split_address(getattr(self, option))
                except AddressError as error:
                    raise AddressError(f"{self.name_of(option)}: {error}") from None
        if not (self.tls_certificate or self.insecure or is_loopback(host_of(self.address))):
            raise AddressError(
                f"{self.name_of('address')}: {self.address} can be reached from other machines: serve it with "
                "--tls-certificate and --tls-private-key, or behind something that terminates TLS, and then say "
                "--insecure"
            )

    def _check_tls(self) -> None:
        certificate, key, client_ca = map(self.name_of, ("tls_certificate", "tls_private_key", "tls_client_ca"))
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise InputError(f"{certificate} and {key} go together")
        if self.tls_client_ca and not self.tls_certificate:
            raise InputError(f"{client_ca} needs {certificate} and {key}")
        if self.insecure and self.tls_certificate:
            raise InputError(f"{self.name_of('insecure')} means plaintext, {certificate} means TLS: choose one")

    def _check_models(self) -> None:
        if not self.model:
            return  # those of a folder are known when it is read
        names = [file.name for file in self.model]
        if len(set(names)) < len(names):
            raise InputError(f"{self.name_of('model')}: two models have the same name: say --model NAME=PATH")
        self.check_names(names)

    def _check_key_store(self) -> None:
        name, place = self.name_of("key_store"), self.key_store
        if fault := fault_of_key_store(place):
            raise KeyStoreSettingsError(f"{name}: {fault}")
        if place == "memory" and self.processes > 1:
            raise KeyStoreSettingsError(
                f"{name}: in memory each of several processes would have keys of its own; name a directory, an Azure "
                "Blob container, or none"
            )
        if AZURE_CONTAINER.fullmatch(place) and not self.key_store_connection_string.get_secret_value():
            raise KeyStoreSettingsError(
                f"{name}: {place} needs SEALSERVE_KEY_STORE_CONNECTION_STRING, which is not set; with a managed "
                "identity, name https://ACCOUNT.blob.core.windows.net/CONTAINER instead"
            )
        if self.weights == "private" and (place == "none" or (not place and self.processes > 1)):
            giver = name if place else self.name_of("processes")
            raise KeyStoreSettingsError(
                f"{giver}: private weights need clients' public encryption keys, and a store for them: name a "
                "directory or an Azure Blob container that all processes share with --key-store; or let clients see "
                "the weights, with --weights open"
            )


def _chosen(values: Sequence[tuple[str | None, Any]], name: str) -> Any:
    of_all = [value for model, value in values if model is None]
    own = [value for model, value in values if model == name]
    return (of_all + own or [None])[-1]


def _name_of(option: str, given_by: Mapping[str, str]) -> str:
    return given_by.get(option) or f"--{option.replace('_', '-')}"
