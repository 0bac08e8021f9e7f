"""The directory of keys: what is on the disk, with several processes and after faults.

Faults are death in the middle, a full disk, and a damaged file.
"""

import contextlib
import fcntl
import logging
import os
import resource
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sealserve.errors import KeyNotFoundError, KeyStoreUnavailableError, QuotaExceededError
from sealserve_service.keys.stores import filesystem
from sealserve_service.keys.stores.filesystem import FilesystemKeyStore
from sealserve_service.settings.errors import KeyStoreSettingsError
from tests.support.registered_keys import HOUR, let_put, putting_process, record_of
from tests.support.serving import HANG_SECONDS

DATA = bytes(range(256)) * 40


RECORD = record_of(DATA)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "a" / "keys"


@pytest.fixture
def store(directory: Path) -> FilesystemKeyStore:
    return FilesystemKeyStore(directory)


@pytest.fixture
def key_path(store: FilesystemKeyStore, directory: Path) -> Path:
    store.put(RECORD, DATA)
    return directory / "alice" / f"{RECORD.key_id}.key"


def files(directory: Path) -> set[str]:
    """The names of all files in the tenants' folders, without their locks."""
    return {path.name for path in directory.glob("*/*") if path.name != ".lock"}


def store_in(directory: Path) -> str:
    """A program that makes a store in another process."""
    return f"""
from pathlib import Path
from sealserve_service.keys.stores.filesystem import FilesystemKeyStore
store = FilesystemKeyStore(Path({str(directory)!r}))
"""


def test_a_restart_finds_the_keys(key_path: Path, directory: Path) -> None:
    store = FilesystemKeyStore(directory)
    assert store.get("alice", RECORD.key_id) == RECORD
    assert store.read("alice", RECORD.key_id) == DATA


def test_only_the_owner_may_look(key_path: Path, directory: Path) -> None:
    assert {stat.S_IMODE(path.stat().st_mode) for path in (directory, directory / "alice")} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in key_path.parent.iterdir()} == {0o600}
    assert files(directory) == {key_path.name}


def test_no_directory_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "keys"):
        with pytest.raises(KeyStoreSettingsError, match=r"file.*: the directory for keys cannot be made: "):
            FilesystemKeyStore(place)


# Several processes


def test_processes_that_put_one_key_agree(directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(putting_process(store_in(directory), DATA)) for _ in range(4)]
        said = let_put(processes, HANG_SECONDS)
    store = FilesystemKeyStore(directory)
    assert set(said) == {store.get("alice", RECORD.key_id).create_time.isoformat()}
    assert store.read("alice", RECORD.key_id) == DATA
    assert files(directory) == {f"{RECORD.key_id}.key"}


DEATHS = {
    "before the file is durable": "import os, signal; os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)",
    "before the rename": "import os, signal; Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_a_writer_that_is_killed_leaves_no_key(death: str, store: FilesystemKeyStore, directory: Path) -> None:
    (directory / "alice").mkdir()
    with putting_process(store_in(directory) + death, DATA) as process:
        let_put([process], HANG_SECONDS)
    assert process.returncode == -9
    [partial] = files(directory)
    assert partial.endswith(".tmp")
    assert list(store.list("alice")) == []
    with pytest.raises(KeyNotFoundError):
        store.read("alice", RECORD.key_id)

    store.sweep()
    assert files(directory) == {partial}, "its writer may still be alive"
    store.put(RECORD, DATA)
    assert store.read("alice", RECORD.key_id) == DATA
    an_hour_ago = time.time() - 3601
    os.utime(directory / "alice" / partial, (an_hour_ago, an_hour_ago))
    assert store.sweep() == 0
    assert files(directory) == {f"{RECORD.key_id}.key"}


def test_a_writer_that_is_killed_leaves_the_key_that_was_there(key_path: Path, store: FilesystemKeyStore) -> None:
    preparation = store_in(key_path.parents[1]) + DEATHS["before the rename"]
    with putting_process(preparation, DATA, hours=2) as process:
        let_put([process], HANG_SECONDS)
    assert process.returncode == -9
    assert store.get("alice", RECORD.key_id) == RECORD
    assert store.read("alice", RECORD.key_id) == DATA


def test_a_writer_that_is_stopped_does_not_stop_the_others_for_good(
    key_path: Path, store: FilesystemKeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_TURN_SECONDS", 0.1)
    with (key_path.parent / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(KeyStoreUnavailableError) as refusal:
            store.put(record_of(b"other"), b"other")
        assert refusal.value.retry_delay_seconds == 1.0
        assert store.read("alice", RECORD.key_id) == DATA, "readers wait for nobody"
        assert store.sweep() == 0
    store.put(record_of(b"other"), b"other")


# Failures of the disk


DISKS = ["a file system of 1 MB", "a limit on the size of files"]


@dataclass(frozen=True)
class SmallDisk:
    """A directory without room for a megabyte; `fill` leaves it without room for anything."""

    directory: Path
    fill: Callable[[], object]


@contextlib.contextmanager
def small_disk(kind: str, directory: Path) -> Iterator[SmallDisk]:
    """This is no fixture: pytest writes its progress before it takes fixtures down.

    It may write it into a file.
    """
    directory.mkdir(parents=True)
    if "limit" in kind:
        before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, most))
        try:
            yield SmallDisk(directory, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, most)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system; the limit on the size of files is tested all the same")
    try:
        yield SmallDisk(directory, lambda: fill(directory / "filler"))
    finally:
        unmount = ["umount", str(directory)]
        subprocess.run(unmount, check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("kind", DISKS)
def test_a_full_disk_is_a_quota_and_keeps_what_it_has(directory: Path, kind: str) -> None:
    with small_disk(kind, directory) as disk:
        store = FilesystemKeyStore(disk.directory)
        store.put(RECORD, DATA)
        large = bytes(1_100_000)
        for _ in range(2):
            with pytest.raises(QuotaExceededError) as refusal:
                store.put(record_of(large), large)
            assert (refusal.value.quota, refusal.value.retry_delay_seconds) == ("key_store_bytes", 60.0)
        assert files(disk.directory) == {f"{RECORD.key_id}.key"}
        assert list(store.list("alice")) == [RECORD]
        assert store.read("alice", RECORD.key_id) == DATA
        store.put(record_of(b"small"), b"small")


@pytest.mark.parametrize("kind", DISKS)
def test_a_full_disk_keeps_a_key_whose_expiry_should_move(directory: Path, kind: str) -> None:
    with small_disk(kind, directory) as disk:
        store = FilesystemKeyStore(disk.directory)
        store.put(RECORD, DATA)
        disk.fill()
        with pytest.raises(QuotaExceededError):
            store.put(record_of(DATA, lives=2 * HOUR), DATA)
        assert store.put(RECORD, DATA) == RECORD
        assert store.read("alice", RECORD.key_id) == DATA
        assert files(disk.directory) == {f"{RECORD.key_id}.key"}
        store.delete("alice", RECORD.key_id)


@pytest.mark.parametrize("target", ["os.fsync", "tempfile.mkstemp", "pathlib.Path.replace"])
def test_a_failing_disk_is_unavailable(
    target: str,
    store: FilesystemKeyStore,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(target, fail)
        with pytest.raises(KeyStoreUnavailableError) as refusal:
            store.put(RECORD, DATA)
    assert refusal.value.retry_delay_seconds == 1.0
    assert files(directory) == set()
    assert "Input/output error" in caplog.text
    store.put(RECORD, DATA)
    assert store.read("alice", RECORD.key_id) == DATA


def test_what_cannot_be_read_is_unavailable_not_unknown(key_path: Path, store: FilesystemKeyStore) -> None:
    key_path.unlink()
    key_path.mkdir()
    calls: list[Callable[[str, str], object]] = [store.get, store.read, store.delete]
    for call in calls:
        with pytest.raises(KeyStoreUnavailableError):
            call("alice", RECORD.key_id)
    with pytest.raises(KeyStoreUnavailableError):
        store.list("alice")


# Damage


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off in the record": lambda data: data[:40],
    "cut off after the record": lambda data: data[: data.index(b"\n") + 1],
    "cut off by a byte": lambda data: data[:-1],
    "a byte too many": lambda data: data + b"\0",
    "a bit of the key flipped": lambda data: flip(data, len(data) - 1),
    "a bit of the record flipped": lambda data: flip(data, 0),
    "no line ends": lambda data: data.replace(b"\n", b" "),
    "not of this store": lambda _: os.urandom(5000),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_never_read_as_a_key(
    damage: Callable[[bytes], bytes], key_path: Path, store: FilesystemKeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    key_path.write_bytes(damage(key_path.read_bytes()))
    with caplog.at_level(logging.ERROR), pytest.raises(KeyNotFoundError):
        store.read("alice", RECORD.key_id)
    assert f"{key_path} is damaged" in caplog.text
    assert not key_path.exists()
    store.put(RECORD, DATA)
    assert store.read("alice", RECORD.key_id) == DATA


@pytest.mark.parametrize("damage", ["empty", "cut off by a byte", "a bit of the record flipped"])
def test_a_damaged_file_is_in_nobodys_way(damage: str, key_path: Path, store: FilesystemKeyStore) -> None:
    damaged = DAMAGES[damage](key_path.read_bytes())
    key_path.write_bytes(damaged)
    assert list(store.list("alice")) == []
    assert store.put(RECORD, DATA) == RECORD
    assert store.read("alice", RECORD.key_id) == DATA
    key_path.write_bytes(damaged)
    assert store.sweep() == 1
    assert not key_path.exists()


def test_other_files_are_left_alone(key_path: Path, store: FilesystemKeyStore, directory: Path) -> None:
    others = [directory / "README", key_path.parent / "notes.key", key_path.parent / "notes"]
    for other in others:
        other.write_text("hello")
    assert store.sweep() == 0
    assert list(store.list("alice")) == [RECORD]
    assert [other.read_text() for other in others] == ["hello"] * 3
