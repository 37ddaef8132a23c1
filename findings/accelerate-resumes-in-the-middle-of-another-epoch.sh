#!/usr/bin/env bash
# Accelerate resumes in the middle of an epoch with another order: some photos come twice, as many never.
#
# Versions   accelerate 1.15.0, torch 2.13.0, torchdata 0.11.0
# Expected   load_state() and skip_first_batches(loader, n), the way of its guide "Checkpointing", read what the epoch has
#            left; DataLoaderConfiguration(use_stateful_dataloader=True) does so by itself.
# Seen       the generator is saved as it is behind the draw of this epoch's order. So a new process draws another order
#            and skips n batches of that: of 24 photos, 8 read before the stop, 3 came twice and 3 never. With a stateful
#            loader it is the same. A seedable sampler begins at its first epoch again and has the same order in the
#            next; only where set_epoch(epoch) is called on the loader before each epoch is the rest read (open there:
#            accelerate #2016, #2823, #4195).
# For users  a job that is stopped and started every few hours trains on part of its photos again and again. persona's
#            loader makes an order from seed and epoch, and its state is one number (docs/reading.md).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3.11 -m venv venv
install() { # uv where there is one: torch brings 3 GB
  if command -v uv > /dev/null; then uv pip install -q --python venv/bin/python "$@"; else venv/bin/pip install -q "$@"; fi
}
install accelerate==1.15.0 torch==2.13.0 torchdata==0.11.0 numpy==2.3.5
cat > train.py <<'PYTHON'
"""train.py WAY: 3 epochs of 24 photos, saved after 4 of 12 batches of the second; train.py WAY resume: from there."""
import json
import sys

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed

WAYS = {
    "default": DataLoaderConfiguration(),
    "stateful": DataLoaderConfiguration(use_stateful_dataloader=True),
    "seedable": DataLoaderConfiguration(use_seedable_sampler=True),
    "seedable, set_epoch": DataLoaderConfiguration(use_seedable_sampler=True),
}
way, resume = sys.argv[1], len(sys.argv) > 2
set_seed(3)
accelerator = Accelerator(cpu=True, dataloader_config=WAYS[way])
model = torch.nn.Linear(1, 1)
model, optimiser, loader = accelerator.prepare(
    model, torch.optim.SGD(model.parameters()), torch.utils.data.DataLoader(list(range(24)), batch_size=2, shuffle=True)
)
if resume:
    accelerator.load_state(way)
epochs = {}
for epoch in range(1 if resume else 0, 3):
    if "set_epoch" in way:
        loader.set_epoch(epoch)
    skip = resume and epoch == 1 and way != "stateful"
    epochs[epoch] = []
    for step, batch in enumerate(accelerator.skip_first_batches(loader, 4) if skip else loader):
        epochs[epoch].extend(batch.tolist())
        if not resume and (epoch, step) == (1, 3):
            accelerator.save_state(way)
print(json.dumps(epochs))
PYTHON
cat > compare.py <<'PYTHON'
import importlib.metadata
import json
import subprocess
import sys


def run(*words):
    """The photos of each epoch, as train.py read them in a process of its own."""
    done = subprocess.run([sys.executable, "-W", "ignore", "train.py", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return {int(epoch): photos for epoch, photos in json.loads(done.stdout.splitlines()[-1]).items()}


print(*(f"{name} {importlib.metadata.version(name)}" for name in ("accelerate", "torch", "torchdata")))
seen = {}
for way in ("default", "stateful", "seedable", "seedable, set_epoch"):
    straight, resumed = run(way), run(way, "resume")
    again = len(set(straight[1][:8]) & set(resumed[1]))
    never = 24 - len(set(straight[1][:8]) | set(resumed[1]))
    seen[way] = (again > 0, straight[2] == resumed[2])
    repeated = ", its order is the one before" if resumed[2][8:] == resumed[1] else ""
    print(f"{way:20} of 24 photos of the epoch {again} twice, {never} never; next epoch as without a stop: "
          f"{straight[2] == resumed[2]}{repeated}")
wanted = {  # whether photos come twice, whether the next epoch is the same
    "default": (True, False),
    "stateful": (True, False),
    "seedable": (True, False),
    "seedable, set_epoch": (False, True),
}
if seen != wanted:
    sys.exit(f"changed: {seen}")
PYTHON
venv/bin/python compare.py
