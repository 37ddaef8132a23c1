#!/usr/bin/env bash
# Hugging Face datasets drops members of WebDataset samples that the first five have not.
#
# Versions   datasets 5.2.0
# Expected   a sample with a third photo has it, or there is an error: the other way round (a member that is missing
#            among the first five) is one.
# Seen       columns come from the first five samples. The third photo of every later sample is gone, and nothing
#            says so; the same happens where a folder is loaded whose README.md names the tars, or nothing.
# For users  the card of a dataset of persona names the index as its data file, which `load_dataset` reads whole;
#            `persona shards export --to parquet` is the form that has every photo there.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q datasets==5.2.0 pillow==12.0.0
HF_HUB_OFFLINE=1 HF_HOME="$work/hf" venv/bin/python - <<'PYTHON'
import io
import sys
import tarfile

import datasets

datasets.disable_progress_bars()
with tarfile.open("people.tar", "w") as tar:
    for person in range(8):
        for photo in range(2 if person < 6 else 3):
            data = f"photo {photo} of person {person}".encode()
            header = tarfile.TarInfo(f"person{person}.{photo:03d}.txt")
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))

found = datasets.load_dataset("webdataset", data_files="people.tar", split="train")
wrote = 6 * 2 + 2 * 3
read = sum(row[name] is not None for row in found for name in row if not name.startswith("__"))
print("datasets", datasets.__version__)
print(f"columns: {found.column_names}")
print(f"members written: {wrote}, read: {read}")
if read != 16:
    sys.exit("changed: members are no longer dropped without a word")
PYTHON
