#!/usr/bin/env bash
# Python's tarfile, and with it webdataset 1.0.2, gives members of GNU's old headers another name.
#
# Versions   CPython 3.11 tarfile, webdataset 1.0.2; a tar as GNU tar 1.34 writes it with --listed-incremental
#            or --incremental --format=gnu (bytes 345 to 368 of a header hold access and change time).
# Expected   members k.json and k.000.jpg, one sample with the key "k": what `tar -t` and libarchive list.
# Seen       tarfile takes the access time for a path prefix: "14473552512/k.json". Files of one sample that were
#            last read in different seconds lie in different folders: the picture loses its record, without an error.
# For users  licence, consent and the address of an opt-out were lost with the record. persona reads such headers
#            itself (shards/format/tar_reader.py).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3.11 -m venv venv
venv/bin/pip install -q webdataset==1.0.2 numpy==2.3.4
venv/bin/python - <<'PYTHON'
import importlib.metadata
import sys
import tarfile

import webdataset


def member(name, data, accessed):
    """A header of GNU's own format ("ustar" and two blanks), with both times, and the content."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = b"%011o\0" % len(data)
    block[136:148] = b"14473552512\0"
    block[156:157] = b"0"
    block[257:265] = b"ustar  \0"
    block[345:357], block[357:369] = accessed + b"\0", b"14473552512\0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512)


record = member(b"k.json", b'{"license": "CC0"}', accessed=b"14473552512")
with open("a.tar", "wb") as file:
    file.write(record + member(b"k.000.jpg", b"picture", accessed=b"14473552513") + bytes(1024))
print("python", sys.version.split()[0], "webdataset", importlib.metadata.version("webdataset"))
with tarfile.open("a.tar") as tar:
    names = tar.getnames()
print("tarfile lists", names)
samples = [(s["__key__"], sorted(k for k in s if not k.startswith("__"))) for s in
           webdataset.WebDataset("a.tar", shardshuffle=False)]
print("webdataset reads", samples)
if names != ["14473552512/k.json", "14473552513/k.000.jpg"] or len(samples) != 2:
    print("changed: the names are those of the tar")
    sys.exit(1)
print("stands: the access time is a folder, and the picture is parted from its record")
PYTHON
command -v tar > /dev/null && echo "tar lists: $(tar -tf a.tar | tr '\n' ' ')"
exit 0
