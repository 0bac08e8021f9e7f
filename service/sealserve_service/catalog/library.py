"""The library: what is to be served, and the registry kept as its files are.

A file is known by its stat and, when that has changed, by its digest: a model whose files say what they said is not
loaded again. One that cannot be loaded is reported once, and what was served before stays.
"""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from sealserve.errors import SealserveError
from sealserve_service.catalog.registry import ModelRegistry, ServedModel
from sealserve_service.models.errors import ModelFileError
from sealserve_service.settings import ModelSource
from sealserve_service.telemetry.metrics import Telemetry

_logger = logging.getLogger(__name__)


class _Files(NamedTuple):
    """A source and the state of each of its files: what stat says, or why it says nothing."""

    source: ModelSource
    states: tuple[tuple[int, ...] | str, ...]

    @classmethod
    def of(cls, source: ModelSource) -> "_Files":
        return cls(source, tuple(map(_state, _paths(source))))

    def digest(self) -> bytes | None:
        """Hash what the files hold; None if one cannot be read, of which loading says why."""
        digest = hashlib.sha256()
        try:
            for path in _paths(self.source):
                if not path.is_file():  # a pipe would have to be written first
                    return None
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            return None
        return digest.digest()


class _Edition(NamedTuple):
    """What a model that is served was made of. The model itself is the registry's alone, so that it can be freed."""

    source: ModelSource
    digest: bytes | None
    version: str


class ModelLibrary:
    """Models and the files they come from. One thread at a time may call its methods.

    Args:
        list_sources: says what is to be served, at every look anew; raises SealserveError.
        load: makes one ready; raises SealserveError.
        telemetry: says which versions are served; its own without it.

    Attributes:
        models: what is served.

    Raises:
        SealserveError: that of list_sources or load, for at the start every model has to be good.
    """

    def __init__(
        self,
        list_sources: Callable[[], Sequence[ModelSource]],
        load: Callable[[ModelSource], ServedModel],
        telemetry: Telemetry | None = None,
    ) -> None:
        self._telemetry = telemetry or Telemetry()
        self._list_sources = list_sources
        self._load = load
        self.models = ModelRegistry([])
        self._editions: dict[str, _Edition] = {}
        self._tried: dict[str, _Files] = {}
        for source in list_sources():
            files = self._tried[source.name] = _Files.of(source)
            self._serve(files, files.digest())
        self._seen: dict[str, _Files] | str = dict(self._tried)
        self._reported = ""

    def reload(self) -> None:
        """Follow all files as they are now, and say of each model what has become of it."""
        self._seen = self._look()
        if isinstance(self._seen, str):
            self._report(self._seen)
        else:
            self._reported = ""
            for name in sorted(self._seen.keys() | self._tried.keys()):
                files = self._seen.get(name)
                self._renew(name, None if files is None else _Files.of(files.source))

    def follow(self) -> None:
        """Follow the files that have changed and are as the last look saw them: others are still being written."""
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

    def _look(self) -> dict[str, _Files] | str:
        """Return the states of all files by the models' names; a text if it cannot be said which models there are."""
        try:
            return {source.name: _Files.of(source) for source in self._list_sources()}
        except SealserveError as error:
            return str(error)

    def _report(self, fault: str) -> None:
        self._reported = fault
        _logger.error("every model stays as it is: %s", fault)

    def _renew(self, name: str, files: _Files | None) -> None:
        """Serve what the files hold, unless that is what is served; serve it no longer if there are none."""
        old = self._editions.get(name)
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
        try:
            new = self._serve(files, digest)
        except Exception as error:
            stays = f"stays at version {old.version}" if old else "is not served"
            foreseen = isinstance(error, SealserveError)
            text = str(error) if foreseen else f"{type(error).__name__}: {error}"
            _logger.error("model %s %s: %s", name, stays, text, exc_info=None if foreseen else error)
            return
        _logger.info("model %s is served: version %s", name, f"{old.version} -> {new.version}" if old else new.version)

    def _drop(self, edition: _Edition) -> None:
        name = edition.source.name
        self.models.drop(name)
        self._telemetry.model_dropped(name)
        del self._editions[name]
        _logger.info("model %s is served no longer: %s is gone", name, edition.source.path)

    def _serve(self, files: _Files, digest: bytes | None) -> _Edition:
        """Load a model and serve it.

        Raises:
            ModelFileError: a file has changed meanwhile: half of it may be old.
        """
        source = files.source
        served = self._load(source)
        if _Files.of(source) != files:
            raise ModelFileError(f"{source.path} was written to while it was read")
        self.models.put(served)
        self._telemetry.model_served(source.name, served.model.version)
        edition = self._editions[source.name] = _Edition(source, digest, served.model.version)
        return edition


def _paths(source: ModelSource) -> list[Path]:
    return [source.path, source.calibration] if source.calibration else [source.path]


def _state(path: Path) -> tuple[int, ...] | str:
    try:
        stat = path.stat()
    except OSError as error:
        return str(error.strerror)
    # The change time tells when the time of modification was kept, or only the permissions were repaired.
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev
