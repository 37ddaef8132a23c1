#!/usr/bin/env bash
# webdataset's cache_dir reads the training part for the held-out one.
#
# Versions   webdataset 1.0.2
# Expected   with `cache_dir`, `…/held-out/000000.tar` is read as what it is, whatever was cached before.
# Seen       copies are kept under the last part of the URL, across datasets and programs: the second dataset
#            with a `000000.tar` is the first one again, its samples with the first one's keys, without a word.
# For users  `persona shards split`, `merge`, `reshard` and `export` begin their shards' names with a hash of what
#            was done, so that no two have a name in common. Datasets of two runs do: one cache folder each.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q webdataset==1.0.2
venv/bin/python - <<'PYTHON'
import functools
import http.server
import importlib.metadata
import io
import os
import sys
import tarfile
import threading

import webdataset

for part in ("train", "held-out"):
    os.mkdir(part)
    with tarfile.open(f"{part}/000000.tar", "w") as tar:
        header = tarfile.TarInfo(f"{part}-photo.txt")
        header.size = len(part)
        tar.addfile(header, io.BytesIO(part.encode()))
os.mkdir("cache")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the two parts."""

    def log_message(self, *words: object) -> None:
        """Says nothing."""


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=os.getcwd()))
threading.Thread(target=server.serve_forever, daemon=True).start()


def keys(part: str) -> list[str]:
    """What a program reads of a part that lies behind a URL (webdataset fetches it by `curl`)."""
    urls = [f"http://127.0.0.1:{server.server_port}/{part}/000000.tar"]
    read = webdataset.WebDataset(urls, shardshuffle=False, cache_dir="cache")
    return [sample["__key__"] for sample in read]


train, held_out = keys("train"), keys("held-out")
print("webdataset", importlib.metadata.version("webdataset"))
print(f"train/000000.tar    holds train-photo,    read: {train}")
print(f"held-out/000000.tar holds held-out-photo, read: {held_out}")
print(f"the cache: {os.listdir('cache')}")
if held_out != ["train-photo"]:
    sys.exit("changed: the held-out part is no longer read as the training part")
PYTHON
