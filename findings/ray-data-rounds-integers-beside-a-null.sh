#!/usr/bin/env bash
# Ray Data changes 64-bit integers of a batch that holds a null.
#
# Packages:  ray 2.60.0 (data), pandas 2.3.3, numpy 2.3.5
# Expected:  a function over batches that returns what it was given leaves a column of hashes as it was, or fails.
# Seen:      the default batch format is numpy. A column of int64 becomes float64 where one value of the batch is null, and
#            whole numbers above 2^53 lose their last bits; without the null they are kept. Nothing is said.
# For users: perceptual hashes and other 64-bit keys no longer match, from the first photo that has none.
#            persona's stages take and give pyarrow tables and never such batches; hashes travel as strings elsewhere.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
venv/bin/pip install -q 'ray[data]==2.60.0' pandas==2.3.3 numpy==2.3.5
RAY_USAGE_STATS_ENABLED=0 venv/bin/python - 2>ray.log <<'PYTHON'
import sys

import pyarrow as pa
import ray

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
hashes = [2**62 + 1, 2**53 + 1, 7]


def through(values):
    table = pa.table({"phash": pa.array(values, pa.int64())})
    found = ray.data.from_arrow(table).map_batches(lambda batch: batch)
    return [row["phash"] for row in found.take_all()]


whole, with_null = through(hashes), through([*hashes, None])
print("ray", ray.__version__)
print(f"without a null: {whole}")
print(f"with a null:    {with_null}")
if [int(value) for value in whole] != hashes or int(with_null[0]) == hashes[0]:
    sys.exit("changed: integers beside a null are kept")
PYTHON
