"""ModelLibrary: the models that are to be served, and a registry that follows their files.

A file is known by its stat and, when that has changed, by its digest: a model whose files have the
same content as before is not loaded again. A model that cannot be loaded is reported once, and the
version that was served before stays.

The version that another one replaces may be served beside it for a while, for the sake of clients
that meet both while replicas change one after the other. No more than two versions of a model are
in memory: the previous one goes before another is loaded.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sealserve.errors import InputError, SealserveError
from sealserve.protocol.model import Verdict
from sealserve.protocol.output import Label
from sealserve.protocol.schema import Schema
from sealserve.protocol.text import difference
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.models.errors import ModelFileError
from sealserve_service.settings.model_source import ModelSource
from sealserve_service.telemetry.metrics import Telemetry

_logger = logging.getLogger(__name__)


class _Files(NamedTuple):
    """A source and the state of each of its files: what stat returns, or why it fails."""

    source: ModelSource
    states: tuple[tuple[int, ...] | str, ...]

    @classmethod
    def of(cls, source: ModelSource) -> "_Files":
        return cls(source, tuple(map(_state, _paths(source))))

    def digest(self) -> bytes | None:
        """Hash the content of the files; None if one cannot be read: loading says why."""
        digest = hashlib.sha256()
        try:
            for path in _paths(self.source):
                if not path.is_file():  # reading a pipe would wait for its writer
                    return None
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            return None
        return digest.digest()


class _ServedVersion(NamedTuple):
    """The version of a model that is served, and what it was made of.

    The model itself is referred to by the registry alone, so that it can be freed.
    """

    source: ModelSource
    digest: bytes | None
    version: str
    schema: Schema
    classes: tuple[Label, ...]
    verdict: Verdict | None


class ModelLibrary:
    """Models and the files they come from. One thread at a time may call its methods.

    Args:
        list_sources: returns the sources of the models to serve, each time the library looks;
            raises SealserveError.
        load: makes a model ready; raises SealserveError.
        telemetry: reports which versions are served; by default the library has its own.
        previous: the sources of versions to serve beside those of the same name from the start.
        keep_seconds: how long a previous version is served, after the start or after a change.

    Attributes:
        models: the models that are served now.

    Raises:
        SealserveError: list_sources or load raised it: at the start every model has to be good.
        InputError: a previous version is of a model that is not served.
    """

    def __init__(
        self,
        list_sources: Callable[[], Sequence[ModelSource]],
        load: Callable[[ModelSource], ServedModel],
        telemetry: Telemetry | None = None,
        *,
        previous: Sequence[ModelSource] = (),
        keep_seconds: float = 0.0,
    ) -> None:
        self._telemetry = telemetry or Telemetry()
        self._keep_seconds = keep_seconds
        self._list_sources = list_sources
        self._load = load
        self.models = ModelRegistry([])
        self._served: dict[str, _ServedVersion] = {}
        self._tried: dict[str, _Files] = {}
        for source in list_sources():
            files = self._tried[source.name] = _Files.of(source)
            self._serve(files, files.digest())
        for source in previous:
            if source.name not in self._served:
                raise InputError(f"{source.path} is to be the previous version of {source.name}, which is not served")
            self._put(self.models.versions(source.name).current, self._read(_Files.of(source)))
        self._seen: dict[str, _Files] | str = dict(self._tried)
        self._reported = ""

    def reload(self) -> None:
        """Follow all files as they are now, and log what became of each model."""
        self._seen = self._look()
        if isinstance(self._seen, str):
            self._report(self._seen)
        else:
            self._reported = ""
            for name in sorted(self._seen.keys() | self._tried.keys()):
                files = self._seen.get(name)
                self._renew(name, None if files is None else _Files.of(files.source))

    def follow(self) -> None:
        """Follow the files that have changed, and have not changed again since the last look.

        Files that change from look to look are still being written.
        """
        before, self._seen = self._seen, self._look()
        if isinstance(self._seen, str):
            if self._seen == before != self._reported:
                self._report(self._seen)
        elif not isinstance(before, str):
            self._reported = ""
            for name in sorted(self._seen.keys() | self._tried.keys()):
                files = self._seen.get(name)
                is_still = files == before.get(name) and (files is None or files == _Files.of(files.source))
                if is_still and files != self._tried.get(name):
                    self._renew(name, files)

    def end_previous(self) -> float | None:
        """Stop serving the previous versions whose time is over.

        Return in how many seconds the time of the next one is; None if there is none.
        """
        now, left = time.monotonic(), list[float]()
        for name in self._served:
            _, previous, until = self.models.versions(name)
            if previous is not None and until <= now:
                self._end_previous(name)
            elif previous is not None:
                left.append(until - now)
        return min(left, default=None)

    def _look(self) -> dict[str, _Files] | str:
        """Return the states of files by model name; the error's text if models cannot be listed."""
        try:
            return {source.name: _Files.of(source) for source in self._list_sources()}
        except SealserveError as error:
            return str(error)

    def _report(self, fault: str) -> None:
        self._reported = fault
        _logger.error("every model stays as it is: %s", fault)

    def _renew(self, name: str, files: _Files | None) -> None:
        """Serve the model in the files, unless it is served; drop it if there are no files."""
        old = self._served.get(name)
        if files is None:
            del self._tried[name]
            if old:
                self._drop(old)
            return
        self._tried[name] = files
        digest = files.digest()
        if old and digest and (old.source, old.digest) == (files.source, digest):
            _logger.info("model %s has not changed: version %s", name, old.version)
            return
        self._end_previous(name)
        try:
            new = self._serve(files, digest)
        except Exception as error:
            stays = f"stays at version {old.version}" if old else "is not served"
            self._telemetry.count_failed_load(name)
            foreseen = isinstance(error, SealserveError)
            text = str(error) if foreseen else f"{type(error).__name__}: {error}"
            _logger.error("model %s %s: %s", name, stays, text, exc_info=None if foreseen else error)
            return
        _logger.info("model %s is served: version %s", name, f"{old.version} -> {new.version}" if old else new.version)
        if old and (changes := list(_changes(old, new))):
            _logger.warning("model %s is another than before for its clients: %s", name, "; ".join(changes))
        if old and old.verdict and new.verdict and new.verdict.rank > old.verdict.rank:
            _logger.warning("model %s: the verdict was %s and is %s now", name, old.verdict.value, new.verdict.value)

    def _drop(self, version: _ServedVersion) -> None:
        name = version.source.name
        self.models.drop(name)
        self._telemetry.unpublish_model(name)
        del self._served[name]
        _logger.info("model %s is served no longer: %s is gone", name, version.source.path)

    def _serve(self, files: _Files, digest: bytes | None) -> _ServedVersion:
        """Load a model and serve it."""
        source, served = files.source, self._read(files)
        self._put(served, self.models.versions(source.name).current if source.name in self._served else None)
        model = served.model
        self._telemetry.publish_model(source.name, model.version, model.verdict.value if model.verdict else "none")
        version = _ServedVersion(source, digest, model.version, model.schema, model.output.classes, model.verdict)
        self._served[source.name] = version
        return version

    def _read(self, files: _Files) -> ServedModel:
        """Load a model.

        Raises:
            ModelFileError: a file has changed in the meantime: half of what was read may be old.
        """
        served = self._load(files.source)
        if _Files.of(files.source) != files:
            raise ModelFileError(f"{files.source.path} was written to while it was read")
        return served

    def _put(self, served: ServedModel, previous: ServedModel | None) -> None:
        """Serve a version of a model, and another one beside it if such are kept."""
        name, seconds = served.model.name, self._keep_seconds
        self.models.put(served, previous if seconds else None, seconds)
        if (kept := self.models.versions(name).previous) is not None:
            _logger.info("model %s: version %s is served too, for %g s", name, kept.model.version, seconds)

    def _end_previous(self, name: str) -> None:
        if name in self._served and (previous := self.models.versions(name).previous) is not None:
            self.models.put(self.models.versions(name).current)
            _logger.info("model %s: version %s is served no longer", name, previous.model.version)


def _changes(old: _ServedVersion, new: _ServedVersion) -> Iterator[str]:
    """Say how the columns and the classes of a model have changed."""
    before, now = old.schema, new.schema
    if now.column_count != before.column_count:
        yield f"its rows have {now.column_count} columns, not {before.column_count} as before"
    if now.column_names != before.column_names:
        yield f"its columns have other names: {difference(before.column_names, now.column_names)}"
    if new.classes != old.classes:
        yield f"its classes are others: {difference(old.classes, new.classes) or 'of another type'}"


def _paths(source: ModelSource) -> list[Path]:
    return [source.path, source.calibration] if source.calibration else [source.path]


def _state(path: Path) -> tuple[int, ...] | str:
    try:
        stat = path.stat()
    except OSError as error:
        return str(error.strerror)
    # The change time tells of a change that keeps the modification time, or repairs permissions
    # only.
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev
