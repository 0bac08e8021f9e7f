"""Archives are read no further than their directory and the limits say."""

import io
import struct
import zipfile

import pytest

from sealserve_service.models.archives import open_archive, read_member
from sealserve_service.models.errors import ModelTooLargeError
from sealserve_service.models.limits import MAX_MEMBERS, MAX_MODEL_BYTES

SIZE_IN_ENTRY, METHOD_IN_ENTRY = 24, 10


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, data in members:
            written.writestr(name, data)
    return file.getvalue()


def said(content: bytes, size: int) -> bytes:
    """Return an archive of one member whose directory says another size."""
    changed = bytearray(content)
    struct.pack_into("<I", changed, content.rindex(b"PK\x01\x02") + SIZE_IN_ENTRY, size)
    return bytes(changed)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_come_out_as_they_went_in(compression: int) -> None:
    content = archive(("a", b"abc"), ("b", bytes(100_000)), ("c", b""), compression=compression)
    with open_archive(content) as opened:
        assert [read_member(opened, name) for name in "abc"] == [b"abc", bytes(100_000), b""]
        with pytest.raises(KeyError):
            read_member(opened, "d")


def test_a_member_may_be_no_larger_than_the_directory_says() -> None:
    with open_archive(said(archive(("a", bytes(1000))), 10)) as opened, pytest.raises(zipfile.BadZipFile):
        read_member(opened, "a")


def test_a_member_may_be_no_smaller_than_the_directory_says() -> None:
    with (
        open_archive(said(archive(("a", b"0123456789")), 11)) as opened,
        pytest.raises((ValueError, zipfile.BadZipFile)),
    ):
        read_member(opened, "a")


def test_sizes_are_those_of_all_members() -> None:
    content = archive(("a", bytes(60)), ("b", bytes(60)))
    with pytest.raises(ModelTooLargeError, match="may have 119 bytes and has 120") as caught:
        open_archive(content, 119)
    assert (caught.value.limit, caught.value.maximum, caught.value.found) == ("bytes", 119, 120)
    open_archive(content, 120).close()
    with pytest.raises(ModelTooLargeError):
        open_archive(said(archive(("a", b"")), MAX_MODEL_BYTES + 1))


def test_members_are_counted_before_the_directory_is_read() -> None:
    with pytest.raises(ModelTooLargeError) as caught:
        open_archive(b"PK\x01\x02" * (MAX_MEMBERS + 1))
    assert (caught.value.limit, caught.value.found) == ("members", MAX_MEMBERS + 1)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_may_occur_once() -> None:
    with pytest.raises(ValueError, match="occurs twice"):
        open_archive(archive(("a", b"1"), ("a", b"2")))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(compression: int) -> None:
    """What zipfile inflates of them has no limit."""
    with pytest.raises(ValueError, match="another way than by deflate"):
        open_archive(archive(("a", bytes(1000)), compression=compression))
