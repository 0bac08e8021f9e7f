"""A key store in a directory, which the processes of one or several machines may share.

DIRECTORY/TENANT/KEY_ID.key holds the record as a first line of JSON, then the key's bytes. A file
is written under another name, made durable and renamed, so that a reader sees all of it or nothing.
The writers of a tenant's keys take turns.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sealserve.errors import KeyNotFoundError, KeyStoreUnavailableError
from sealserve.protocol.key_record import KeyRecord
from sealserve_service.keys.stores.base import (
    Clock,
    check_tenant_bytes,
    full_error,
    in_force,
    unavailable_error,
    utc_now,
)
from sealserve_service.keys.stores.record_format import (
    folder_name,
    is_key_id,
    record_from_json,
    record_to_json,
)
from sealserve_service.settings.errors import KeyStoreSettingsError

_logger = logging.getLogger(__name__)

_KEY_SUFFIX = ".key"
_PARTIAL_SUFFIX = ".tmp"
_LOCK_NAME = ".lock"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_MAX_RECORD_BYTES = 4096
# The writer of a partial file of this age is dead.
_ABANDONED_SECONDS = 3600.0
# A writer's turn lasts as long as it writes a key. A process that is stopped in its turn holds up
# the others.
_TURN_SECONDS = 10.0
_POLL_SECONDS = 0.01


class _DamagedFileError(Exception):
    """A file is not as the store wrote it."""


class FilesystemKeyStore:
    """Keys in a directory. A missing directory is made, with permissions for its owner only.

    Raises:
        KeyStoreSettingsError: the directory cannot be made, or this process may not write to it.
    """

    def __init__(self, directory: Path, *, clock: Clock = utc_now) -> None:
        self._directory = directory
        self._clock = clock
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KeyStoreSettingsError(
                f"{directory}: the directory for keys cannot be made: {error.strerror}"
            ) from error
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise KeyStoreSettingsError(f"{directory}: this process may not write to the directory for keys")

    def put(self, record: KeyRecord, data: bytes, max_tenant_bytes: float | None = None) -> KeyRecord:
        """Keep a key; see KeyStore.put."""
        path = self._path(record.tenant, record.key_id)
        with _typed_errors(path):
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                _make_durable(self._directory)
            with _turn(path.parent):
                if max_tenant_bytes is not None:
                    check_tenant_bytes(self._records(record.tenant), record, max_tenant_bytes)
                kept = _record(path, record.tenant)
                wanted = in_force(kept, record, self._clock())
                if wanted != kept:
                    _write_whole(path, record_to_json(wanted).encode() + b"\n", data)
                return wanted

    def get(self, tenant: str, key_id: str) -> KeyRecord:
        """Return a key's record; see KeyStore.get."""
        path = self._path(tenant, key_id)
        with _typed_errors(path):
            record = _record(path, tenant)
        if record is None or record.is_expired(self._clock()):
            raise KeyNotFoundError(key_id)
        return record

    def read(self, tenant: str, key_id: str) -> bytes:
        """Return a key's bytes, and delete a damaged key; see KeyStore.read."""
        path = self._path(tenant, key_id)
        with _typed_errors(path):
            try:
                record, data = _read_checked(path, tenant)
            except FileNotFoundError:
                raise KeyNotFoundError(key_id) from None
            except _DamagedFileError:
                _delete_damaged(path, tenant)
                raise KeyNotFoundError(key_id) from None
        if record.is_expired(self._clock()):
            raise KeyNotFoundError(key_id)
        return data

    def list(self, tenant: str) -> Iterator[KeyRecord]:
        """Yield a tenant's records; see KeyStore.list."""
        with _typed_errors(self._directory / folder_name(tenant)):
            return iter(self._records(tenant))

    def delete(self, tenant: str, key_id: str) -> None:
        """Delete a key; see KeyStore.delete."""
        self.get(tenant, key_id)
        path = self._path(tenant, key_id)
        with _typed_errors(path), _turn(path.parent):
            path.unlink(missing_ok=True)
            _make_durable(path.parent)

    def sweep(self) -> int:
        """Delete expired keys, damaged records, and old partial files; see KeyStore.sweep."""
        with _typed_errors(self._directory):
            folders = sorted(folder for folder in self._directory.iterdir() if folder.is_dir())
        count = 0
        for folder in folders:
            # A folder that fails is logged. It must not keep the next folders from being swept.
            with contextlib.suppress(KeyStoreUnavailableError), _typed_errors(folder), _turn(folder):
                count += self._sweep_folder(folder)
        return count

    def close(self) -> None:
        """Do nothing: there are no connections."""

    def _path(self, tenant: str, key_id: str) -> Path:
        if not is_key_id(key_id):
            raise KeyNotFoundError(key_id)
        return self._directory / folder_name(tenant) / (key_id + _KEY_SUFFIX)

    def _records(self, tenant: str) -> Sequence[KeyRecord]:
        """Return the records of a tenant's keys that are in force, in the order of their ids."""
        now = self._clock()
        records = [_record(path, tenant) for path in _key_paths(self._directory / folder_name(tenant))]
        return [record for record in records if record is not None and not record.is_expired(now)]

    def _sweep_folder(self, folder: Path) -> int:
        now = self._clock()
        count = 0
        for path in _key_paths(folder):
            record = _record(path, tenant=folder.name)  # the tenant does not matter here
            if record is None or record.is_expired(now):
                path.unlink()
                count += 1
        for path in folder.glob(f".*{_PARTIAL_SUFFIX}"):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
        _make_durable(folder)
        return count


def _key_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{_KEY_SUFFIX}") if is_key_id(path.stem))


def _record(path: Path, tenant: str) -> KeyRecord | None:
    """Return the record in a file; None if there is no file, or it is cut off or damaged."""
    try:
        with path.open("rb") as file:
            return _read_record(file, tenant, path.stem)
    except (FileNotFoundError, _DamagedFileError):
        return None


def _read_checked(path: Path, tenant: str) -> tuple[KeyRecord, bytes]:
    """Return a file's record and bytes.

    Raises:
        FileNotFoundError: there is no file.
        _DamagedFileError: the file is not as the store wrote it.
    """
    with path.open("rb") as file:
        record = _read_record(file, tenant, path.stem)
        data = file.read()
    if hashlib.sha256(data).hexdigest() != path.stem:
        raise _DamagedFileError
    return record, data


def _read_record(file: BinaryIO, tenant: str, key_id: str) -> KeyRecord:
    line = file.readline(_MAX_RECORD_BYTES)
    try:
        record = record_from_json(line, tenant, key_id)
    except ValueError:
        raise _DamagedFileError from None
    if os.fstat(file.fileno()).st_size != len(line) + record.byte_count:
        raise _DamagedFileError
    return record


def _delete_damaged(path: Path, tenant: str) -> None:
    with _turn(path.parent):
        try:
            _read_checked(path, tenant)  # a writer may have replaced it meanwhile
        except FileNotFoundError:
            return
        except _DamagedFileError:
            _logger.error("%s is damaged: deleted; its owner has to register the key again", path)
            path.unlink()


def _write_whole(path: Path, *parts: bytes) -> None:
    """Write a file completely and durably, or leave what there is at its path."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=_PARTIAL_SUFFIX, dir=path.parent)  # mode 0600
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _make_durable(path.parent)


def _make_durable(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Wait for this writer's turn in a folder, and have it in the context.

    Threads and processes take turns. The turn of a process ends with the process.

    Raises:
        KeyStoreUnavailableError: the turn did not come in time.
    """
    descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = time.monotonic() + _TURN_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    _logger.error("%s is held by another process", folder / _LOCK_NAME)
                    raise unavailable_error() from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _logger.error("%s: %s", path, error.strerror)
        raise (full_error() if error.errno in _NO_ROOM else unavailable_error()) from error
