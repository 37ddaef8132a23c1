"""Decodes photos in a process of its own: what crashes, hangs or swells there fails one photo.

Decoders are C code that reads bytes of strangers. In a worker's own process a crash would take the models
and the fragment along, and the photo would strike again at the next try.
"""

import atexit
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from curation.errors import PersonaError
from curation.photos.decode import (
    RIGHTS_WANTED,
    DecodeError,
    Header,
    Opened,
    OpenPhoto,
    RightsWanted,
    UnknownFormatError,
    open_photo,
)
from curation.photos.decode_worker import REPLY, REQUEST, SharedMemory, exactly, send
from curation.settings.photos import DecoderSettings
from shards.format.stated_rights import StatedRights

WORKER = "curation.photos.decode_worker"
_ROOT = Path(__file__).resolve().parents[2]
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "TMPDIR")  # credentials stay away from decoders
_TRIES = 2  # the kernel and operators kill processes too: a photo is to blame the second time
_END_S = 2.0
_PIPE_BYTES = 2**20
_KEPT_BYTES = 2**28  # of pixels, for the next photo


def decoder_of(settings: DecoderSettings) -> OpenPhoto:
    """What opens photos: a process that all chains of this process share, or this process itself."""
    if not settings.apart:
        return open_photo
    return _process(settings.max_cpu_s, int(settings.max_gib * 2**30), WORKER)


@cache
def _process(cpu_seconds: float, memory: int, worker: str) -> "DecoderProcess":
    decoder = DecoderProcess(cpu_seconds, memory, worker)
    atexit.register(decoder.close)
    return decoder


class DecoderProcess:
    """`open_photo` elsewhere. The process starts with the first photo, and anew where it has died.

    cpu_seconds   of one photo
    memory        bytes of data that the process may hold in all (RLIMIT_DATA)
    """

    def __init__(self, cpu_seconds: float, memory: int, worker: str = WORKER) -> None:
        self._cpu_seconds, self._memory, self._worker = cpu_seconds, memory, worker
        self._process: subprocess.Popen[bytes] | None = None
        self._pixels: SharedMemory | None = None
        self._lock = threading.Lock()

    def __call__(
        self,
        data: bytes,
        about_px: int | None = None,
        max_pixels: int | None = None,
        told: int = 1,
        rights: RightsWanted = "none",
    ) -> Opened:
        """See `open_photo`. Raises DecodeError also where the process died of the photo."""
        wanted = (about_px or 0, max_pixels or 0, told, RIGHTS_WANTED.index(rights))
        with self._lock:
            answer, pixels = self._ask(data, wanted)
        if "unknown" in answer:
            raise UnknownFormatError(answer["unknown"])
        header = _header_of(answer["header"])
        if "error" in answer:
            raise DecodeError(answer["error"], header)
        assert header is not None
        return header, None if pixels is None else pixels.reshape(answer["shape"])

    def close(self) -> None:
        """Ends the process."""
        process, self._process, self._pixels = self._process, None, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ask(
        self, data: bytes, wanted: tuple[int, int, int, int]
    ) -> tuple[dict[str, Any], np.ndarray | None]:
        why = ""
        for _ in range(_TRIES):
            process, pixels = self._running()
            assert process.stdin is not None
            try:
                send(process.stdin, REQUEST.pack(len(data), *wanted))
                send(process.stdin, data)
                words, count = REPLY.unpack(exactly(process.stdout, REPLY.size))
                answer = json.loads(exactly(process.stdout, words))
                found = pixels.of(count).copy() if count else None
                if count > _KEPT_BYTES:
                    self.close()
                return answer, found
            except (ConnectionError, EOFError):
                code = process.wait()
            except BaseException as error:
                self.close()  # what is left of the reply must not be taken for that of the next photo
                if isinstance(error, MemoryError):
                    raise DecodeError("MemoryError") from None
                raise
            self.close()
            if code == -signal.SIGPROF:
                raise DecodeError(f"decoding takes more than {self._cpu_seconds:g} s")
            why = _death(code)
        raise DecodeError(f"the decoder died of it twice ({why})")

    def _running(self) -> tuple[subprocess.Popen[bytes], SharedMemory]:
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died of nothing that was asked
        if self._process is None or self._pixels is None:
            memory = os.memfd_create("pixels")
            self._pixels = SharedMemory(memory)
            # -S: nothing of what site-packages run at a start, which takes longer than the imports do.
            options = ["-S", "-P", "-m", self._worker, str(self._cpu_seconds), str(self._memory), str(memory)]
            self._process = subprocess.Popen(
                [sys.executable, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[memory],
                env=_environment(),
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for the command, which ends it
            )
            assert self._process.stdin is not None
            with suppress(OSError):  # a photo in few pieces; some systems allow less
                fcntl.fcntl(self._process.stdin, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        return self._process, self._pixels


def _header_of(said: dict[str, Any] | None) -> Header | None:
    if said is None:
        return None
    rights = said.pop("rights")
    return Header(**said, rights=None if rights is None else StatedRights(**rights))


def _death(code: int) -> str:
    """How a process ended. Raises PersonaError where it ended by itself: no photo does that."""
    if code >= 0:
        raise PersonaError(
            f"the process that decodes photos ended with exit code {code}; its stderr says why"
        )
    return signal.Signals(-code).name


def _environment() -> dict[str, str]:
    paths = [str(_ROOT), *(os.path.abspath(path) for path in sys.path)]
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
