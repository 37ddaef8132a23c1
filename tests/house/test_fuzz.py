"""Our own parsers on damaged input: what `python -m tests.fuzz` does at length, for a moment."""

import importlib
import pkgutil
import random
import struct
import zlib
from pathlib import Path

import pytest

from shards.format.label_maps import decode_labels
from tests.fuzz import parsers

PARSERS = [module.name for module in pkgutil.iter_modules(parsers.__path__)]


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_input_is_a_result_or_an_error_that_the_parser_documents(name: str) -> None:
    parser = importlib.import_module(f"tests.fuzz.parsers.{name}")
    drawn = random.Random(name)
    for seed in parser.seeds():
        parser.parse(seed)
        for _ in range(25):
            data = bytearray(seed)
            for _ in range(drawn.randrange(1, 4)):
                place = drawn.randrange(len(data))
                data[place : place + drawn.randrange(2)] = drawn.randbytes(drawn.randrange(3))
            parser.parse(bytes(data))


def _png(width: int, height: int, colour: int, content: bytes, interlaced: int = 0) -> bytes:
    found = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlaced)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(content)), (b"IEND", b"")):
        found += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return found


def test_a_label_map_without_pixels_is_refused_before_anything_is_inflated() -> None:
    with pytest.raises(ValueError, match="8 × 0 px"):
        decode_labels(_png(8, 0, 3, bytes(1000)))


@pytest.mark.parametrize(("side", "interlaced"), [(30_000, 0), (30_000, 1), (2**32 - 1, 0), (2**32 - 1, 1)])
def test_a_label_map_of_absurd_size_is_an_error_that_readers_expect(side: int, interlaced: int) -> None:
    with pytest.raises((ValueError, OSError)):
        decode_labels(_png(side, side, 0, bytes(1000), interlaced))


@pytest.mark.parametrize(
    "record",
    [
        b'{"step": 1, "files": {"adapter.safetensors": {"bytes": 3}}}',
        b'{"step": [], "files": {}}',
        b'{"step": 1, "files": []}',
        b'{"step": 1, "files": {"../step-00000001/adapter.safetensors": {"bytes": 3, "xxh3": ""}}}',
        b"[]",
        b'{"step": 1, "files": {"%s.safetensors": {"bytes": 3, "xxh3": ""}}}' % (b"a" * 300),
    ],
)
def test_a_checkpoint_whose_record_is_none_is_refused(record: bytes, tmp_path: Path) -> None:
    from training.checkpoint import CheckpointError, load_checkpoint

    (tmp_path / "checkpoint.json").write_bytes(record)
    with pytest.raises(CheckpointError, match=r"checkpoint\.json: |File name too long") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_label_map_with_a_broken_chunk_is_an_error_that_readers_expect() -> None:
    whole = _png(4, 4, 2, bytes(4 * 13))
    with pytest.raises((ValueError, OSError)):
        decode_labels(whole.replace(b"IDAT", b"\x06\x00\x00B"))
