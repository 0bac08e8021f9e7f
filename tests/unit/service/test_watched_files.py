"""Watched files: their content follows what is good, and errors are said once."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from sealserve_service.watched_files import UnusableFileError, WatchedFiles


def parse(contents: list[bytes]) -> bytes:
    joined = b"+".join(contents)
    if b"bad" in joined:
        raise UnusableFileError("it is bad")
    return joined


def errors(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno >= logging.ERROR for record in caplog.records)


def test_watched_files_follow_what_is_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    files = WatchedFiles([one, two], parse, interval_seconds=0)
    assert files.read() == b"1+2"
    two.write_bytes(b"3")  # as long as before, and maybe in the same tick of the clock
    assert files.read() == b"1+3"
    changes: list[Callable[[], object]] = [
        lambda: one.write_bytes(b"bad"),
        lambda: one.write_bytes(b"bad, too"),
        lambda: two.unlink(),
    ]
    for number, change in enumerate(changes, 1):
        change()
        assert [files.read() for _ in range(3)] == [b"1+3"] * 3
        assert errors(caplog) == number, "an error for every change, however often somebody asks"
    two.write_bytes(b"3")
    one.write_bytes(b"1")
    assert files.read() == b"1+3"
    assert errors(caplog) == 3
    one.unlink()
    one.symlink_to(two)
    assert files.read() == b"3+3"


def test_watched_files_are_not_read_for_every_question(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    files = WatchedFiles([path], parse, interval_seconds=3600)
    path.write_bytes(b"2")
    assert files.read() == b"1"


def test_watched_files_must_be_good_at_first(tmp_path: Path) -> None:
    with pytest.raises(UnusableFileError, match=r"missing.*No such file"):
        WatchedFiles([tmp_path / "missing"], parse)
    (tmp_path / "file").write_bytes(b"bad")
    with pytest.raises(UnusableFileError, match="it is bad"):
        WatchedFiles([tmp_path / "file"], parse)


def test_files_that_time_makes_good_are_used_then(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    is_time = True

    def parse_in_time(contents: list[bytes]) -> bytes:
        if not is_time:
            raise UnusableFileError("it is not time yet")
        return contents[0]

    path = tmp_path / "file"
    path.write_bytes(b"1")
    files = WatchedFiles([path], parse_in_time, interval_seconds=0)
    is_time = False
    path.write_bytes(b"2")
    assert [files.read() for _ in range(3)] == [b"1"] * 3
    assert errors(caplog) == 1
    is_time = True
    assert files.read() == b"2"
