#!/usr/bin/env bash
# fsspec 2026.9.0: `rm` takes the name of a file that exists for a pattern, also where the name came from `find`.
#
# Versions   fsspec 2026.9.0 (memory file system; s3fs 2026.9.0 does the same against an S3 server).
# Expected   fs.rm("/run [1]/a") removes the file of that name, as it does on the local file system.
# Seen       the file stays, and "/run 1/a" of another folder is removed, without an error; the same with
#            recursive=True on the folder. LocalFileSystem.rm, rm_file and cat_file take the same name literally.
# For users  a run in a store in a folder with brackets in its name removed stale fragments of another run, and
#            kept its own. persona removes such names one by one with rm_file (curation/storage.py, `remove`).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3.11 -m venv venv
venv/bin/pip install -q fsspec==2026.9.0
venv/bin/python - <<'PYTHON'
import sys
import fsspec

fs = fsspec.filesystem("memory")
print("fsspec", fsspec.__version__)
stands = True
for what, options in (("/run [1]/a", {}), ("/run [1]", {"recursive": True})):
    for name in ("/run [1]/a", "/run 1/a"):
        fs.pipe_file(name, b"x")
    fs.rm(what, **options)
    left = fs.find("/")
    print(f"rm({what!r}, {options}) leaves {left}")
    stands &= left == ["/run [1]/a"]
if not stands:
    print("changed: rm no longer removes what a name would match as a pattern")
    sys.exit(1)
print("stands: the file that was named is there, the other one is gone")
PYTHON
