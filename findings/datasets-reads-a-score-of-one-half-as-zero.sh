#!/usr/bin/env bash
# Hugging Face datasets reads a score of 0.5 as 0 where the first five samples of a WebDataset have whole numbers.
#
# Packages:  datasets 5.2.0
# Expected:  the number that the record of a sample states, or an error.
# Seen:      types come from the first five samples. Where those state `1`, the column is an integer, and every later
#            0.5 is cut to 0 without a word; written as `1.0` the same records keep it.
# For users: scores, cosines and shares in the JSON of shards must be written with a point. persona writes them as
#            floats; who adds records of their own should too.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q datasets==5.2.0
HF_HUB_OFFLINE=1 HF_HOME="$work/hf" venv/bin/python - <<'PYTHON'
import io
import sys
import tarfile

import datasets

datasets.disable_progress_bars()


def read(name, first):
    """The scores of six samples as `datasets` has them: five of `first`, and one of 0.5."""
    with tarfile.open(name, "w") as tar:
        for number in range(6):
            data = f'{{"score": {first if number < 5 else 0.5}}}'.encode()
            header = tarfile.TarInfo(f"person{number}.json")
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    found = datasets.load_dataset("webdataset", data_files=name, split="train", cache_dir=name + ".cache")
    return [row["json"]["score"] for row in found]


whole, pointed = read("whole.tar", "1"), read("pointed.tar", "1.0")
print("datasets", datasets.__version__)
print(f"1, 1, 1, 1, 1, 0.5 are read as {whole}; 1.0, … 0.5 as {pointed}")
if whole[5] != 0 or pointed[5] != 0.5:
    sys.exit("changed: the last score is no longer cut")
PYTHON
