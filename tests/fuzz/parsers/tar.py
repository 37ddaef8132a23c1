"""The reader of shards' tars: `walk` to the end, and what must follow."""

import io
import tarfile

from shards.format.tar_reader import TarError, check_end, walk

MODULES = ("shards.format.tar_reader",)


def seeds() -> list[bytes]:
    """Tars of each format, with long names, folders and links."""
    return [_tar(tarfile.USTAR_FORMAT), _tar(tarfile.GNU_FORMAT), _tar(tarfile.PAX_FORMAT)]


def _tar(kind: int) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=kind) as tar:
        for name in ("a-a.json", "a-a.000.jpg", f"{'d' * 90}/{'n' * 90}.txt", "ä.json"):
            member = tarfile.TarInfo(name)
            member.size = 5
            tar.addfile(member, io.BytesIO(b"12345"))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "../outside"
        tar.addfile(link)
    return sink.getvalue()[:8192]


def parse(data: bytes) -> None:
    """A member lies in the tar, or there is an error that says where."""

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    end = 0
    try:
        for entry in walk(read, len(data)):
            assert end <= entry.start < entry.offset <= len(data)
            assert entry.offset + entry.length <= len(data)
            assert not entry.name.startswith("/")
            end = entry.end
        check_end(read, len(data), end)
    except TarError as error:
        assert "\n" not in str(error)  # noqa: PT017
