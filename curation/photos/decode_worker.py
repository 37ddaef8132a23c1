"""The process that decodes: python -m curation.photos.decode_worker CPU_SECONDS BYTES DESCRIPTOR

Requests come on stdin until it ends: REQUEST and the encoded photo. Replies go to stdout: REPLY and a JSON
object; the pixels lie in the memory behind DESCRIPTOR, which both sides map. Over its time the kernel ends
the process (SIGPROF), in whatever code it is; over its memory an allocation fails.
"""

import json
import mmap
import os
import resource
import signal
import struct
import sys
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from curation.photos.decode import RIGHTS_WANTED, DecodeError, OpenPhoto, UnknownFormatError, open_photo

# Bytes of the photo, about_px, max_pixels (0 is none), told, which of RIGHTS_WANTED.
REQUEST = struct.Struct("<qqqqq")
REPLY = struct.Struct("<qq")  # bytes of the JSON object, bytes of the pixels


def main(open_photo: OpenPhoto = open_photo) -> int:
    """Replies until nobody asks any more."""
    cpu_seconds, memory, descriptor = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    requests, replies = os.fdopen(0, "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not look like a reply
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, allowed = resource.getrlimit(resource.RLIMIT_DATA)
    memory = memory if allowed == resource.RLIM_INFINITY else min(memory, allowed)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    pixels_place = SharedMemory(descriptor)
    while True:
        try:
            length, *wanted = REQUEST.unpack(exactly(requests, REQUEST.size))
            data = bytes(exactly(requests, length))
        except EOFError:
            return 0
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        answer, pixels = reply(open_photo, data, *wanted)
        signal.setitimer(signal.ITIMER_PROF, 0)
        count = 0
        if pixels is not None:
            count = pixels.nbytes
            pixels_place.of(count)[:] = pixels.reshape(-1)
        words = json.dumps(answer).encode()
        send(replies, REPLY.pack(len(words), count) + words)


class SharedMemory:
    """Memory that two processes map: its pages are asked of the kernel once, not with every photo."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map: mmap.mmap | None = None

    def __del__(self) -> None:
        os.close(self._descriptor)

    def of(self, count: int) -> np.ndarray:
        """uint8 [count], good until the next call; the memory grows to it."""
        if os.fstat(self._descriptor).st_size < count:
            os.truncate(self._descriptor, count)
        if self._map is None or len(self._map) < count:
            self._map = mmap.mmap(self._descriptor, count)
        return np.frombuffer(self._map, np.uint8, count)


def reply(
    open_photo: OpenPhoto, data: bytes, about_px: int, max_pixels: int, told: int, rights: int
) -> tuple[dict[str, Any], np.ndarray | None]:
    """What is said of a photo, and its pixels."""
    try:
        header, pixels = open_photo(data, about_px or None, max_pixels or None, told, RIGHTS_WANTED[rights])
        pixels = None if pixels is None else np.ascontiguousarray(pixels)
    except MemoryError:
        return {"error": "MemoryError", "header": None}, None
    except UnknownFormatError as error:
        return {"unknown": str(error)}, None
    except DecodeError as error:
        return {"error": str(error), "header": asdict(error.header) if error.header else None}, None
    return {"header": asdict(header), "shape": None if pixels is None else pixels.shape}, pixels


def send(pipe: IO[bytes], data: bytes) -> None:
    """Writes all of it."""
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


def exactly(pipe: Any, count: int) -> bytearray:
    """So many bytes. Raises EOFError where they end before."""
    found = bytearray(count)
    view = memoryview(found)
    while view:
        read = pipe.readinto(view)
        if not read:
            raise EOFError
        view = view[read:]
    return found


if __name__ == "__main__":
    sys.exit(main())
