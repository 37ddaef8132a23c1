#!/usr/bin/env bash
# A download of huggingface_hub that was killed is not resumed, and what it had fetched stays in the cache for ever.
#
# Versions   huggingface_hub 2.4.0, over plain HTTP (no hf_xet)
# Expected   a second `hf_hub_download` asks for the rest by Range, as versions before did, or removes the part.
# Seen       each download writes to a name of its own, `blobs/ETAG.RANDOM.incomplete`: the second one asks for the
#            whole file again, and every kill leaves a part behind, up to the size of the file, that nothing removes.
# For users  `persona models pull` of hf:// keeps the files of a repository that are whole, and begins anew with those
#            that were on their way. After kills, delete `*.incomplete` in `blobs/` when no download runs.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q huggingface_hub==2.4.0
cat > fetch.py <<'PYTHON'
from huggingface_hub import hf_hub_download

print(hf_hub_download("makers/model", "model.bin"))
PYTHON
venv/bin/python - <<'PYTHON'
import http.server
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import threading
import time

DATA = os.urandom(48 << 20)
ranges: list[str | None] = []


class Hub(http.server.BaseHTTPRequestHandler):
    """One file of one repository, at about 16 MiB a second."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """Says nothing."""

    def head(self, start: int) -> None:
        """The headers of the hub."""
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        for name, value in {"X-Repo-Commit": "a" * 40, "ETag": '"abc"', "Accept-Ranges": "bytes"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()

    def do_HEAD(self) -> None:
        """Metadata."""
        self.head(0)

    def do_GET(self) -> None:
        """The file, or the rest of it; of nothing else has it to tell."""
        if "/resolve/" not in self.path:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.head(start)
        try:
            for at in range(start, len(DATA), 1 << 20):
                self.wfile.write(DATA[at : at + (1 << 20)])
                time.sleep(1 / 16)
        except OSError:
            pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
threading.Thread(target=server.serve_forever, daemon=True).start()
environment = {
    **os.environ,
    "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
    "HF_HOME": os.path.abspath("home"),
    "HF_HUB_DISABLE_XET": "1",
    "NO_PROXY": "127.0.0.1",
}
environment.pop("HF_HUB_OFFLINE", None)
blobs = pathlib.Path("home/hub/models--makers--model/blobs")
for _ in range(2):
    process = subprocess.Popen([sys.executable, "fetch.py"], env=environment, stderr=subprocess.DEVNULL)
    known, until = set(blobs.glob("*.incomplete")), time.monotonic() + 60
    while time.monotonic() < until:
        if any(file.stat().st_size for file in set(blobs.glob("*.incomplete")) - known):
            break  # it writes 10 MB at a time
        time.sleep(0.05)
    process.kill()
    process.wait()
subprocess.run([sys.executable, "fetch.py"], env=environment, check=True, stdout=subprocess.DEVNULL,
               stderr=subprocess.DEVNULL)
parts = sorted(file.stat().st_size for file in blobs.glob("*.incomplete"))
print("huggingface_hub", importlib.metadata.version("huggingface_hub"))
print(f"Range of each of {len(ranges)} downloads, two of which were killed on the way: {ranges}")
print(f"left in the cache beside the file of {len(DATA)} bytes: {parts}")
if any(ranges) or len(parts) != 2 or not all(parts):
    sys.exit("changed: a killed download is resumed, or its part is removed")
PYTHON
