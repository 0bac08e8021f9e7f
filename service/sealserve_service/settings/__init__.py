"""The settings of a service: the values of its options, checked against each other.

`declarations` has each option once, `values` parses what a flag or a variable says, and `options`
lists the options as flags and variables, and reads those.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from sealserve.errors import InputError
from sealserve.protocol.address import UNIX, is_local, parse_address
from sealserve.protocol.model import Limits
from sealserve_service.container import PROCESS_BYTES, core_count, memory_limit_bytes
from sealserve_service.settings.declarations import AUTO, Declarations
from sealserve_service.settings.errors import AddressError, KeyStoreSettingsError
from sealserve_service.settings.model_source import ModelFolder, ModelSource
from sealserve_service.settings.values import (
    AZURE_CONTAINER,
    fault_of_key_store,
    input_error,
    split_address,
)
from sealserve_service.tenants.quota import Quota

_KEPT_SECONDS = 3600.0


class Settings(Declarations):
    """Everything that a serving process is told: checked, frozen, and picklable.

    Raises:
        OptionError: a value is malformed.
        InputError: values contradict each other.
        AddressError: an address is malformed, or would be served in plaintext where others can
            listen.
        KeyStoreSettingsError: the key store is misspelt, missing, or of a kind that several
            processes cannot share.
    """

    PER_MODEL: ClassVar = (
        "input_range",
        "input_ranges",
        "input_step",
        "input_margin",
        "calibration",
        "max_score_error",
        "publish",
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
    def previous_models(self) -> tuple[ModelSource, ...]:
        """The previous versions that are named."""
        folder = self.model_folder or Path()
        return tuple(self.source(file.name, folder / file.path, file.sha256) for file in self.previous)

    @property
    def keep_previous_seconds(self) -> float:
        """How long a previous version is served beside the new one."""
        unset = _KEPT_SECONDS if self.previous else 0.0
        return unset if self.keep_previous is None else self.keep_previous

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
        if rows := said.pop("calibration"):
            said |= {"calibration": rows.path, "calibration_sha256": rows.sha256}
        said["publish"] = tuple(
            sorted({word for named, words in self.publish if named in (name, None) for word in words})
        )
        said["accept_training_values"] = self.accept_training_values
        return ModelSource(name, path, sha256=sha256, **said)

    def check_names(self, names: Iterable[str]) -> None:
        """Check that options for single models name only models that there are.

        Raises:
            InputError: one does not.
        """
        known = set(names)
        for option in (*self.PER_MODEL, "previous"):
            for name, *_ in getattr(self, option):
                if name is not None and name not in known:
                    raise InputError(f"{self.name_of(option)} names {name!r}, but no model is served under that name")

    @property
    def process_count(self) -> int:
        """The number of serving processes; with "auto", one for each core if they may be several.

        The memory of the container may have room for fewer.
        """
        if self.processes != AUTO:
            return self.processes
        if self.needs_one_process:
            return 1
        limit = memory_limit_bytes()
        return core_count() if limit is None else max(1, min(core_count(), limit // PROCESS_BYTES))

    @property
    def needs_one_process(self) -> str:
        """Why several processes could not serve what one can; "" if they could."""
        if self.address.startswith(UNIX):
            return "several processes cannot share a Unix socket"
        needs_keys = self.weights == "private" or self.served_ei_engine != "none"
        if self.key_store == "memory" or (not self.key_store and needs_keys):
            return "keys in memory cannot be shared: name a directory or an Azure Blob container with --key-store"
        return ""

    @property
    def max_key_ttl_seconds(self) -> float:
        """How long a key is kept at most."""
        return self.key_days * 86_400

    @property
    def served_ei_engine(self) -> str:
        """The engine that scores for encrypted-inference clients, or "none"."""
        return self.ei_engine or ("seal" if self.weights == "open" else "none")

    @property
    def quota(self) -> Quota:
        """The quota of tenants that have none of their own."""
        return Quota(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Quota)})

    @property
    def limits(self) -> Limits:
        """What the service accepts of one client."""
        return Limits(
            max_message_bytes=self.max_message_bytes,
            max_open_items=self.max_open_items,
            item_timeout_seconds=self.item_timeout_seconds,
            window_bytes=self.window_bytes,
            max_key_bytes=self.max_key_bytes,
            suggested_connections=self.process_count,
            idle_timeout_seconds=self.idle_timeout_seconds,
        )

    def _check_addresses(self) -> None:
        for option in ("address", "metrics_address"):
            if option == "address" or self.metrics_address:
                try:
                    if option == "address" and self.address.startswith(UNIX):
                        self._check_socket()
                    else:
                        split_address(getattr(self, option))
                except AddressError as error:
                    raise AddressError(f"{self.name_of(option)}: {error}") from None
        if not (self.tls_certificate or self.insecure or is_local(self.address)):
            raise AddressError(
                f"{self.name_of('address')}: {self.address} can be reached from other machines: serve it with "
                "--tls-certificate and --tls-private-key, or behind a proxy that terminates TLS, with "
                "--insecure"
            )

    def _check_socket(self) -> None:
        try:
            parse_address(self.address)
        except InputError as error:
            raise AddressError(str(error)) from None
        if self.process_count > 1:
            raise AddressError("several processes cannot share a Unix socket: serve from one, or on HOST:PORT")

    def _check_tls(self) -> None:
        certificate, key, client_ca = map(self.name_of, ("tls_certificate", "tls_private_key", "tls_client_ca"))
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise InputError(f"{certificate} and {key} go together: give both, or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise InputError(f"{client_ca} needs {certificate} and {key}")
        if self.insecure and self.tls_certificate:
            raise InputError(f"{self.name_of('insecure')} means plaintext, {certificate} means TLS: choose one")

    def _check_models(self) -> None:
        self._check_previous()
        if not self.model:
            return  # those of a folder are known when it is read
        names = [file.name for file in self.model]
        if len(set(names)) < len(names):
            raise InputError(
                f"{self.name_of('model')}: two models have the same name: give one another, with --model NAME=PATH"
            )
        self.check_names(names)

    def _check_previous(self) -> None:
        option, names = self.name_of("previous"), [file.name for file in self.previous]
        if len(set(names)) < len(names):
            raise InputError(f"{option}: a model has one previous version: name one file for each model")
        if names and not self.keep_previous_seconds:
            raise InputError(f"{self.name_of('keep_previous')}: 0 seconds leave {option} without effect: leave out one")

    def _check_key_store(self) -> None:
        name, location = self.name_of("key_store"), self.key_store
        if fault := fault_of_key_store(location):
            raise KeyStoreSettingsError(f"{name}: {fault}")
        is_in_memory = location == "memory" or (not location and self.process_count == 1)
        if self.replicas > 1 and is_in_memory and (self.weights == "private" or self.served_ei_engine != "none"):
            why = "private weights need" if self.weights == "private" else "encrypted-inference clients register"
            raise KeyStoreSettingsError(
                f"{self.name_of('replicas')}: {why} keys, and in memory each of {self.replicas} replicas would have "
                "keys of its own: name an Azure Blob container, or a directory that all of them share, with "
                "--key-store; or let clients see the weights, with --weights open --ei-engine none"
            )
        if location == "memory" and self.process_count > 1:
            raise KeyStoreSettingsError(
                f"{name}: in memory each of several processes would have keys of its own; name a directory, an Azure "
                "Blob container, or none"
            )
        if AZURE_CONTAINER.fullmatch(location) and not self.key_store_connection_string.get_secret_value():
            raise KeyStoreSettingsError(
                f"{name}: {location} needs SEALSERVE_KEY_STORE_CONNECTION_STRING, which is not set; with a managed "
                "identity, name https://ACCOUNT.blob.core.windows.net/CONTAINER instead"
            )
        if self.weights == "private" and (location == "none" or (not location and self.process_count > 1)):
            giver = name if location else self.name_of("processes")
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
